"""Runs happen: they start, record what they used and found, and finish once.

`update`, `log` and `finish` are for who carries the run out: a finished run takes no more. `record` and `revise` are
for who only tells of it, as MLflow's clients do: a run of an experiment may be written after it finished and opened
again, only a deleted one may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

from flyball.ledger.experiments import InputDataset
from flyball.ledger.points import Point
from flyball.ledger.refs import Ref

__all__ = [
    "FINISHED",
    "IN_EXPERIMENTS",
    "NAME_TAG",
    "Artifact",
    "Run",
    "RunFacts",
    "RunStatus",
    "Runs",
    "as_text",
]

RunStatus = Literal["pending", "running", "succeeded", "failed", "cancelled", "lost"]
FINISHED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "lost"})

IN_EXPERIMENTS: frozenset[str] = frozenset({"training", "evaluation"})
"""The kinds of runs that belong to experiment 0 when nobody names another; other kinds belong to none."""

NAME_TAG = "mlflow.runName"
"""The tag that is the run's name: setting either sets both, in runs of experiments that have the tag."""


class Artifact(NamedTuple):
    """A file that a run left: its path within the run, and its blob."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class Run:
    """One run as it stands. `of` is the resource it belongs to, `parent` the run that contains it.

    `inputs` are `{"name", "digest", "tags"}` of a data set (`Experiments.datasets` has the rest) or `{"model"}`, the
    id of a logged model, with "tags"; `outputs` are `{"model", "step"}`. `revision` grows with every change but points.
    """

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
    latest: Mapping[str, Point] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    cache_key: str | None = None
    experiment: str | None = None
    user: str = ""
    deleted_at: datetime | None = None
    inputs: tuple[Mapping[str, Any], ...] = ()
    outputs: tuple[Mapping[str, Any], ...] = ()
    revision: int = 0

    @property
    def ref(self) -> Ref:
        return Ref("run", self.id)

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def is_deleted(self) -> bool:
        return self.deleted_at is not None

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The newest value of each metric."""
        return {key: point.value for key, point in self.latest.items()}


class RunFacts(NamedTuple):
    """What a search asks of a run. `latest` has (value, step, at_ms) of each metric, None for a value that is NaN."""

    id: str
    revision: int
    experiment: str | None
    kind: str
    name: str
    status: str
    user: str
    started_ms: int
    finished_ms: int | None
    is_deleted: bool
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    latest: Mapping[str, tuple[float | None, int, int]]
    inputs: tuple[Mapping[str, Any], ...]


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
        experiment: str | None = None,
        user: str | None = None,
        started_at: datetime | None = None,
    ) -> Run:
        """Start a run, or put it in the queue with `status="pending"`.

        `cache_key` says what the run computes: runs with the same key would come to the same result. `user` is who
        ran it, where that is not the actor; `started_at` is when, where it is only told of now.

        Raises:
            Conflict: `id` is taken, or the experiment is deleted.
            NotFound: there is no such experiment.
        """
        ...

    def get(self, id: str) -> Run:
        """Return a run by its id or by an unambiguous beginning of it (4 characters or more). Raises NotFound."""
        ...

    def named(self, ids: Iterable[str]) -> list[Run]:
        """Return the runs of these whole ids, in this order; those that are not there are left out."""
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
        experiment: str | None = None,
        deleted: bool | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> list[Run]:
        """Return runs, newest first; `before` is the (started_at, id) of the last run of the previous page.

        `deleted` false leaves out the runs that are marked deleted, true returns only those.
        """
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

    def log(self, id: str, points: Iterable[Point]) -> None:
        """Append points to an unfinished run. Raises NotFound, Conflict (finished)."""
        ...

    def record(
        self,
        id: str,
        *,
        points: Iterable[Point] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add points, parameters and tags that are told of a run, all or none; checked before anything is written.

        Raises:
            NotFound: there is no run of exactly this id.
            Conflict: it is deleted, it is finished and of no experiment, or a parameter would change.
        """
        ...

    def revise(
        self, id: str, *, status: RunStatus | None = None, ended_at: datetime | None = None, name: str | None = None
    ) -> Run:
        """Set what is told of a run; a finished run of an experiment may run again. Raises as `record`."""
        ...

    def untag(self, id: str, key: str) -> None:
        """Remove a tag. Raises NotFound (run or tag), Conflict (deleted)."""
        ...

    def add_inputs(
        self,
        id: str,
        datasets: Iterable[tuple[InputDataset, Mapping[str, str]]] = (),
        models: Iterable[str] = (),
    ) -> Run:
        """Record data sets, each with its tags, and logged models that the run used; what is there stays as it is.

        Raises as `record`.
        """
        ...

    def add_outputs(self, id: str, models: Iterable[tuple[str, int]]) -> Run:
        """Record logged models that the run made, each with its step; a model that is there keeps its step."""
        ...

    def discard(self, id: str) -> Run:
        """Mark a run deleted; again changes nothing. Raises NotFound."""
        ...

    def restore(self, id: str) -> Run:
        """Take the mark away. Raises NotFound, and Conflict when the run's experiment is deleted."""
        ...

    def add_artifact(self, id: str, artifact: Artifact) -> None:
        """Record a file that the run left; the same path again replaces it."""
        ...

    def artifacts(self, id: str) -> list[Artifact]:
        """Return the run's files by path."""
        ...

    def outputs(self) -> Iterator[tuple[str, list[Any]]]:
        """Yield each run whose result has `outputs` (what a step of a pipeline came to), with them."""
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


def as_text(value: Any) -> str:
    """Return a parameter as MLflow's client would have sent it.

    >>> as_text(True), as_text(0.5), as_text("x"), as_text({"depth": [1, 2]})
    ('True', '0.5', 'x', '{"depth": [1, 2]}')
    """
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
