"""The error tree.

    FlyballError
    ├── InvalidInput          the value is wrong: unknown field, wrong type, out of range, one class only
    ├── NotFound              nothing has this name
    ├── Conflict              the world has moved on: stale revision, name taken, still referred to
    ├── Forbidden             the actor may not do this
    │   └── Unauthenticated   it is not known who asks: no key, or one that does not hold
    ├── Corrupt               bytes are not what their digest says, or cannot be read back
    ├── Unavailable           cannot be done now, may be later: queue full, port in use, disk full, lease lost
    ├── Incompatible          made by another version: home of a newer release, bundle of an unknown format
    ├── MissingExtra          an optional library is not installed
    └── StepFailed            a user's own code raised or returned what cannot be stored

Inside Flyball only these are raised; edges translate (`wire` to status codes, `cli` to exit codes).
Every message is one sentence or two: what was wrong with which value, what was expected, what to do.
It never holds a secret or personal data.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "Conflict",
    "Corrupt",
    "FlyballError",
    "Forbidden",
    "Incompatible",
    "InvalidInput",
    "MissingExtra",
    "NotFound",
    "StepFailed",
    "Unauthenticated",
    "Unavailable",
    "did_you_mean",
    "listed",
]


class FlyballError(Exception):
    """Base of all errors that Flyball raises on purpose; `str(error)` is fit to show to a user."""


class InvalidInput(FlyballError, ValueError):
    """A value that a user gave is wrong; nothing was changed."""


class NotFound(FlyballError, LookupError):
    """Nothing has the name that was asked for."""


class Conflict(FlyballError):
    """The write was refused because of what is already there; read again and decide anew."""


class Forbidden(FlyballError):
    """The actor lacks the permission."""


class Unauthenticated(Forbidden):
    """It is not known who asks: there is no key with the request, or one that does not hold."""


class Corrupt(FlyballError):
    """Stored bytes do not match their digest or cannot be read back."""


class Unavailable(FlyballError):
    """It cannot be done at this moment, though it may be later."""


class Incompatible(FlyballError):
    """What was found was written by a version of Flyball that this one does not understand."""


class MissingExtra(FlyballError, ImportError):
    """An optional library is needed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}, which is not installed; run: pip install 'flyball[{extra}]'")


class StepFailed(FlyballError):
    """A user's own function failed; the original error is the `__cause__` or stands in the run's log."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `'; did you mean "x"?'` for the known name nearest to `name`, or `''` when none is near.

    >>> did_you_mean("distanse", ["distance", "carrier"])
    '; did you mean "distance"?'
    """
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Return names as `a, b, c`, cut after `limit` of them with how many more there are."""
    all_names = [str(n) for n in names]
    more = f" and {len(all_names) - limit} more" if len(all_names) > limit else ""
    return (", ".join(all_names[:limit]) or "none") + more
