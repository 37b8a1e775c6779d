"""Rules for the names and texts that clients log, in MLflow's own sentences, which clients and their users match on.

A key of a metric, parameter or tag may be treated as a path somewhere, so it has few signs and must be its own
normalised path. Source: PROTOCOLS.md §2.3; `MLFLOW_TRUNCATE_LONG_VALUES` as MLflow's server reads it.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from flyball.wire.mlflow.refusals import Refused, invalid

__all__ = [
    "KEY", "PARAM_VALUE", "TAG_VALUE", "at_most", "check_key", "check_run_id", "cut", "invalid_value", "is_fine",
    "repeated", "truncates",
]  # fmt: skip

KEY = 250
"""Characters of a key at most."""
PARAM_VALUE = 6000
"""Characters of a parameter's value that are kept."""
TAG_VALUE = 8000
"""Characters of a tag's value that are kept, of a run."""

_SIGNS = re.compile(r"[/\w.\- :]*")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_BAD_SIGNS = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and "
    "slashes (/)."
)
_BAD_PATH = (
    "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. "
    "This name would resolve to {!r}"
)


def check_key(key: str, path: str, long_name: str) -> None:
    """Raise Refused when a key may not be one.

    Args:
        key: the key.
        path: where it stands in the request: `metrics[0].name`.
        long_name: what a refusal calls it when it is too long.
    """
    if not is_fine(key):
        fault = _fault(key)
        if fault is not None:
            raise invalid_value(path, key, fault)
        raise at_most(long_name, KEY)


@lru_cache(8192)
def is_fine(key: str) -> bool:
    """Return whether a key may be one; cheap for those that come again and again."""
    return len(key) <= KEY and _fault(key) is None


def check_run_id(run: str) -> None:
    """Raise Refused for an id that no run can have."""
    if _RUN_ID.fullmatch(run) is None:
        raise invalid_value("run_id", run)


def cut(text: str, limit: int, name: str) -> str:
    """Return a text cut to a limit. Raises Refused instead where the server was told not to cut."""
    if len(text) <= limit:
        return text
    if not truncates():
        raise at_most(name, limit)
    return text[:limit]


def truncates() -> bool:
    """Return whether values that are too long are cut; else they are refused."""
    return os.environ.get("MLFLOW_TRUNCATE_LONG_VALUES", "true").strip().lower() not in ("false", "0")


def at_most(name: str, limit: int) -> Refused:
    """Return the refusal of what is too long."""
    return invalid(f"'{name}' exceeds the maximum length of {limit} characters")


def invalid_value(path: str, given: Any, why: str | None = None) -> Refused:
    """Return the refusal of a value, which its message repeats."""
    shown = json.dumps(given, sort_keys=True, separators=(",", ":"))
    told = f"Invalid value {shown} for parameter '{path}' supplied"
    return invalid(f"{told}: {why}" if why else f"{told}.")


def repeated(keys: Sequence[str]) -> list[str]:
    """Return the keys that came before, each as often as it comes again."""
    seen: set[str] = set()
    return [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def _fault(key: str) -> str | None:
    if _SIGNS.fullmatch(key) is None:
        return _BAD_SIGNS
    normal = posixpath.normpath(key)
    if normal != key or normal == "." or normal.startswith(("..", "/")):
        return _BAD_PATH.format(normal)
    return None
