"""Runs happen: they start, record what they used and found, and finish once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from flyball.ledger.refs import Ref

__all__ = ["FINISHED", "Artifact", "MetricPoint", "Run", "RunStatus", "Runs"]

RunStatus = Literal["pending", "running", "succeeded", "failed", "cancelled", "lost"]
FINISHED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "lost"})


class MetricPoint(NamedTuple):
    """One value of one metric. `at` is the wall time, `step` counts as the caller likes."""

    key: str
    value: float
    step: int
    at: datetime


class Artifact(NamedTuple):
    """A file that a run left: its path within the run, and its blob."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class Run:
    """One run as it stands. `of` is the resource it belongs to, `parent` the run that contains it."""

    id: str
    kind: str
    name: str
    status: RunStatus
    actor: str
    started_at: datetime
    finished_at: datetime | None = None
    heartbeat_at: datetime | None = None
    of: str | None = None
    parent: str | None = None
    event: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    cache_key: str | None = None

    @property
    def ref(self) -> Ref:
        return Ref("run", self.id)

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED


class Runs(Protocol):
    """Keeps runs with their metrics and artifacts."""

    def start(
        self,
        kind: str,
        name: str,
        *,
        id: str | None = None,
        of: str | None = None,
        parent: str | None = None,
        status: RunStatus = "running",
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        cache_key: str | None = None,
        cause: int | None = None,
    ) -> Run:
        """Start a run, or put it in the queue with `status="pending"`. Raises Conflict when `id` is taken.

        `cache_key` says what the run computes: runs with the same key would come to the same result.
        """
        ...

    def get(self, id: str) -> Run:
        """Return a run by its id or by an unambiguous beginning of it (4 characters or more). Raises NotFound."""
        ...

    def find(
        self,
        *,
        kind: str | None = None,
        name: str | None = None,
        of: str | None = None,
        parent: str | None = None,
        status: Iterable[str] | None = None,
        cache_key: str | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> list[Run]:
        """Return runs, newest first; `before` is the (started_at, id) of the last run of the previous page."""
        ...

    def update(
        self,
        id: str,
        *,
        status: RunStatus | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
        heartbeat: bool = False,
    ) -> Run:
        """Merge the given parts into an unfinished run. A parameter keeps its first value.

        Raises:
            Conflict: the run is finished, or a parameter would change.
        """
        ...

    def finish(
        self, id: str, status: RunStatus, *, error: str | None = None, result: Mapping[str, Any] | None = None
    ) -> Run:
        """End a run; ending it the same way again changes nothing. Raises Conflict when it ended otherwise."""
        ...

    def log(self, id: str, points: Iterable[MetricPoint]) -> None:
        """Append metric points; the latest by (step, at) becomes the run's value of that metric."""
        ...

    def history(self, id: str, key: str) -> list[MetricPoint]:
        """Return all points of one metric, by step and time."""
        ...

    def add_artifact(self, id: str, artifact: Artifact) -> None:
        """Record a file that the run left; the same path again replaces it."""
        ...

    def artifacts(self, id: str) -> list[Artifact]:
        """Return the run's files by path."""
        ...

    def rewrite(
        self,
        id: str,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
        artifacts: Iterable[Artifact] = (),
    ) -> Run:
        """Replace what a run keeps, finished or not, because a person's data must leave it; notes nothing.

        What is None stays. Artifacts replace those of the same path; an empty digest removes the record.
        """
        ...

    def delete(self, id: str) -> None:
        """Remove a finished run with its metrics and artifact records. Raises Conflict while it runs."""
        ...
