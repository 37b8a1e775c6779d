"""Logged models: what a run (or nobody's run) left as a model in an experiment, before anybody registers it.

It has files (`Artifacts`, with its id as their owner), parameters, tags, and points of metrics that were measured on
it, each by a run and perhaps on a named data set. MLflow's `log_model` makes one; ids are `m-` and 32 hex digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from flyball.ledger.refs import Ref

__all__ = ["LoggedModel", "LoggedModels", "ModelCondition", "ModelOrder", "ModelPoint", "ModelStatus"]

ModelStatus = Literal["unspecified", "pending", "ready", "failed"]


class ModelPoint(NamedTuple):
    """One value of one metric of a logged model; all of it together is its identity. `at_ms` since 1970, in UTC."""

    model: str
    key: str
    value: float
    step: int
    at_ms: int
    run: str = ""
    dataset: str = ""
    digest: str = ""


@dataclass(frozen=True)
class LoggedModel:
    """One logged model as it stands; times are milliseconds since 1970, in UTC. `run` is the run that left it."""

    id: str
    experiment: str
    name: str
    status: ModelStatus
    created_ms: int
    updated_ms: int
    location: str  # the address of its files
    type: str | None = None
    run: str | None = None
    status_message: str | None = None
    deleted_at: datetime | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    points: tuple[ModelPoint, ...] = ()

    @property
    def ref(self) -> Ref:
        return Ref("logged-model", self.id)


class ModelCondition(NamedTuple):
    """What a search asks: `kind` is attribute, param, tag or metric; `holds` tests a value that is there.

    `operator` and `value` say the same to a database: = != < <= > >= on numbers.
    """

    kind: str
    key: str
    operator: str
    value: Any
    holds: Callable[[Any], bool]


class ModelOrder(NamedTuple):
    """What a search sorts by: an attribute, or a metric (its newest by time, step), perhaps of one data set."""

    kind: str
    key: str
    ascending: bool = True
    dataset: str | None = None
    digest: str | None = None


class LoggedModels(Protocol):
    """Keeps logged models. Those marked as deleted are found by `get` only when asked for."""

    def create(
        self,
        experiment: str,
        name: str,
        *,
        id: str | None = None,
        type: str | None = None,
        run: str | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        status: ModelStatus = "pending",
        status_message: str | None = None,
        created_ms: int | None = None,
    ) -> LoggedModel:
        """Make a model, which waits for its files.

        Raises:
            NotFound: there is no such experiment.
            Conflict: it is deleted, or the id is taken.
        """
        ...

    def get(self, id: str, *, deleted: bool = False) -> LoggedModel:
        """Return a model; with `deleted` also one that is marked so. Raises NotFound."""
        ...

    def update(
        self,
        id: str,
        *,
        status: ModelStatus | None = None,
        status_message: str | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        without_tag: str | None = None,
    ) -> LoggedModel:
        """Merge the given parts; a parameter keeps its first value.

        Raises:
            NotFound: there is no such model, or it has no such tag to remove.
            Conflict: a parameter would change.
        """
        ...

    def discard(self, id: str) -> None:
        """Mark a model as deleted; doing it again changes nothing. Raises NotFound."""
        ...

    def every(self, after: str = "", limit: int = 200) -> list[LoggedModel]:
        """Return models by id, behind one of them, deleted or not, without their points."""
        ...

    def rewrite(
        self, id: str, *, params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Replace what is told of a model, because a person's data must leave it; what is None stays; notes nothing."""
        ...

    def log(self, points: Iterable[ModelPoint]) -> None:
        """Keep points; repeats are dropped. Raises NotFound: a model does not exist."""
        ...

    def search(
        self,
        experiments: Iterable[str],
        conditions: Sequence[ModelCondition] = (),
        datasets: Sequence[tuple[str, str | None]] = (),
        order: Sequence[ModelOrder] = (),
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[LoggedModel], bool]:
        """Return models that are not deleted, and whether there are more.

        Args:
            conditions: all of them must hold. A model has a metric that holds when one of its points does.
            datasets: (name, digest or None) of data sets: a metric counts only on one of them, and a search without a
                condition on metrics finds the models that were measured on one of them.
            order: missing values last, either way; then the newest first, then by id.
        """
        ...
