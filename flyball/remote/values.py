"""The ledger's values, made again from what `wire.native` says of them. What is missing or of another form raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from flyball.clock import parse_instant
from flyball.errors import FlyballError, Incompatible
from flyball.ledger.experiments import Experiment
from flyball.ledger.points import Point
from flyball.ledger.refs import ref
from flyball.ledger.resources import Resource
from flyball.ledger.runs import Artifact, Run
from flyball.ledger.search import Hit
from flyball.ledger.versions import Version

__all__ = ["artifacts_of", "experiment_of", "hit_of", "made", "point_of", "resource_of", "run_of", "version_of"]

T = TypeVar("T")


def made(url: str, make: Callable[[], T]) -> T:
    """Return what is made of an answer. Raises Incompatible: it does not have the form that is expected."""
    try:
        return make()
    except FlyballError as error:
        raise Incompatible(f"the answer of {url} cannot be read: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Incompatible(
            f"the answer of {url} cannot be read ({type(error).__name__}); is it a Flyball of this release?"
        ) from error


def run_of(told: Mapping[str, Any]) -> Run:
    """Return a run."""
    same = ("id", "kind", "name", "status", "actor", "of", "parent", "event", "error", "experiment", "user", "revision")
    maps: dict[str, Any] = {name: dict(told[name]) for name in ("params", "tags", "source", "environment", "result")}
    return Run(
        **{name: told[name] for name in same},
        **maps,
        started_at=_time(told["started_at"]),
        finished_at=_perhaps(told["finished_at"]),
        heartbeat_at=_perhaps(told["heartbeat_at"]),
        deleted_at=_perhaps(told["deleted_at"]),
        inputs=tuple(told["inputs"]),
        outputs=tuple(told["outputs"]),
        latest={str(key): point_of(str(key), point) for key, point in told["latest"].items()},
    )


def point_of(key: str, told: Any) -> Point:
    """Return a point of `[value, step, ms]`; NaN and infinities stand as texts."""
    value, step, at = told
    return Point(key, float(value), int(step), int(at))


def artifacts_of(told: Mapping[str, Any]) -> list[Artifact]:
    """Return the files of a run."""
    return [Artifact(str(path), str(digest), int(size)) for path, digest, size in told["artifacts"]]


def experiment_of(told: Mapping[str, Any]) -> Experiment:
    """Return an experiment."""
    same = {name: told[name] for name in ("id", "name", "artifact_location", "tags")}
    times: dict[str, Any] = {name: _time(told[name]) for name in ("created_at", "updated_at")}
    return Experiment(**same, **times, deleted_at=_perhaps(told["deleted_at"]))


def version_of(told: Mapping[str, Any]) -> Version:
    """Return a version."""
    same = ("kind", "name", "number", "digest", "actor", "run", "event", "metadata")
    return Version(**{name: told[name] for name in same}, created_at=_time(told["created_at"]))


def resource_of(told: Mapping[str, Any]) -> Resource:
    """Return a resource."""
    same = ("kind", "name", "spec", "status", "labels", "owner", "generation", "revision")
    times: dict[str, Any] = {name: _perhaps(told[name]) for name in ("created_at", "updated_at")}
    return Resource(**{name: told[name] for name in same}, **times)


def hit_of(told: Mapping[str, Any]) -> Hit:
    """Return one thing that was found."""
    same = ("kind", "form", "name", "owner", "domain", "how", "field", "snippet")
    return Hit(
        ref=ref(told["ref"]),
        **{name: told[name] for name in same},
        tags=tuple(told["tags"]),
        at=_time(told["at"]),
        marks=tuple((int(a), int(b)) for a, b in told["marks"]),
        name_marks=tuple((int(a), int(b)) for a, b in told["name_marks"]),
    )


def _time(text: str) -> datetime:
    return parse_instant(text)


def _perhaps(text: str | None) -> datetime | None:
    return None if text is None else parse_instant(text)
