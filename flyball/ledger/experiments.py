"""Experiments: named groups of runs. Experiment 0, "Default", is there from the start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from flyball.ledger.refs import Ref

__all__ = ["DEFAULT", "Experiment", "Experiments", "InputDataset", "InputSummary"]

DEFAULT = "0"
"""The id of the experiment that runs belong to when nobody said otherwise."""


@dataclass(frozen=True)
class Experiment:
    """One experiment as it stands. `id` is a decimal number; `deleted_at` is None while it is in use."""

    id: str
    name: str
    artifact_location: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref("experiment", self.id)

    @property
    def is_deleted(self) -> bool:
        return self.deleted_at is not None


@dataclass(frozen=True)
class InputDataset:
    """A data set that runs of an experiment used, as the one who logged it described it. Unique by name and digest."""

    name: str
    digest: str
    source_type: str = ""
    source: str = ""
    schema: str | None = None
    profile: str | None = None


class InputSummary(NamedTuple):
    """A data set that an experiment's runs used, once for each context (`training`, `eval`; None: none was told)."""

    experiment: str
    name: str
    digest: str
    context: str | None


class Experiments(Protocol):
    """Keeps experiments, and the data sets that their runs named."""

    def create(
        self, name: str, *, artifact_location: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Experiment:
        """Make an experiment. Raises Conflict when the name is taken, also by a deleted one."""
        ...

    def get(self, id: str) -> Experiment:
        """Return an experiment by its id, deleted or not. Raises InvalidInput (no number), NotFound."""
        ...

    def by_name(self, name: str) -> Experiment:
        """Return an experiment by its name, deleted or not. Raises NotFound."""
        ...

    def all(self, ids: Iterable[str] | None = None) -> list[Experiment]:
        """Return all experiments, or those of `ids` that exist, deleted or not, by id."""
        ...

    def rename(self, id: str, name: str) -> Experiment:
        """Give another name. Raises NotFound, and Conflict when the name is taken or the experiment deleted."""
        ...

    def tag(self, id: str, tags: Mapping[str, str]) -> Experiment:
        """Set tags; the last value of each stays. Raises NotFound, Conflict (deleted)."""
        ...

    def untag(self, id: str, key: str) -> Experiment:
        """Remove a tag. Raises NotFound, Conflict (deleted)."""
        ...

    def discard(self, id: str) -> Experiment:
        """Mark an experiment and its runs deleted. Raises NotFound, also when it is already."""
        ...

    def restore(self, id: str) -> Experiment:
        """Bring back a deleted experiment and the runs that were deleted with it. Raises NotFound."""
        ...

    def datasets(self, experiment: str, named: Iterable[tuple[str, str]]) -> dict[tuple[str, str], InputDataset]:
        """Return the data sets of these names and digests that runs of an experiment used."""
        ...

    def used(self, experiments: Iterable[str], limit: int = 1000) -> list[InputSummary]:
        """Return which data sets the runs of experiments used, once for each context."""
        ...
