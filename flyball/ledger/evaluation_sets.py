"""Data sets that language models are evaluated on, and the scorers that judge them.

A set belongs to any number of experiments; its records are known by their inputs: the same inputs again change the
record. A scorer is a document of a client's, kept in versions and never executed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

__all__ = ["EvaluationRecord", "EvaluationSet", "EvaluationSets", "Scorer", "Scorers"]


@dataclass(frozen=True)
class EvaluationSet:
    """One set; times are milliseconds since 1970. `schema` is JSON: which fields records have, and of which type."""

    id: str
    name: str
    digest: str
    created_ms: int
    updated_ms: int
    tags: Mapping[str, str] = field(default_factory=dict)
    created_by: str | None = None
    updated_by: str | None = None
    schema: str | None = None
    count: int | None = None  # of its records; None: it never had one


class EvaluationRecord(NamedTuple):
    """One record: inputs, outputs, expectations, tags, source, created_by, updated_by in `document`."""

    id: str
    set: str
    inputs_hash: str
    created_ms: int
    updated_ms: int
    document: Mapping[str, Any]


class EvaluationSets(Protocol):
    """Keeps sets with their records."""

    def create(self, made: EvaluationSet, experiments: Iterable[str]) -> EvaluationSet:
        """Keep a new set, in experiments of which it does not matter whether they are there, as in MLflow."""
        ...

    def get(self, id: str) -> EvaluationSet:
        """Return a set. Raises NotFound."""
        ...

    def all(self, experiments: Iterable[str] | None = None) -> list[EvaluationSet]:
        """Return all sets, or those of experiments, the newest first."""
        ...

    def change(self, id: str, change: Callable[[EvaluationSet], EvaluationSet]) -> EvaluationSet:
        """Replace a set by what `change` makes of it. Raises NotFound."""
        ...

    def delete(self, id: str) -> None:
        """Remove a set with its records, if it is there."""
        ...

    def experiments(self, id: str) -> list[str]:
        """Return the experiments of a set."""
        ...

    def join(self, id: str, experiments: Iterable[str]) -> None:
        """Add a set to experiments. Raises NotFound: of an experiment."""
        ...

    def leave(self, id: str, experiments: Iterable[str]) -> bool:
        """Take a set out of experiments; whether it was in one."""
        ...

    def by_inputs(self, id: str, hashes: Iterable[str]) -> dict[str, EvaluationRecord]:
        """Return the records with these hashes of their inputs."""
        ...

    def keep(self, records: Sequence[EvaluationRecord]) -> None:
        """Add records; those with the id of one that is there replace it."""
        ...

    def records(self, id: str, limit: int, after: tuple[int, str] | None = None) -> tuple[list[EvaluationRecord], bool]:
        """Return records by (created, id) behind a place, and whether there are more."""
        ...

    def drop(self, id: str, records: Iterable[str]) -> int:
        """Remove records by id; return how many there were."""
        ...

    def size(self, id: str) -> int:
        """Return how many records a set has."""
        ...


@dataclass(frozen=True)
class Scorer:
    """One version of a scorer; `document` is its client's JSON."""

    id: str
    experiment: str
    name: str
    version: int
    document: str
    created_ms: int


class Scorers(Protocol):
    """Keeps scorers by experiment and name, in versions from 1 on."""

    def register(self, experiment: str, name: str, document: str) -> Scorer:
        """Add a version. Raises NotFound, Conflict (the experiment is deleted)."""
        ...

    def versions(self, experiment: str, name: str) -> list[Scorer]:
        """Return all versions of a scorer, the oldest first. Raises NotFound."""
        ...

    def newest(self, experiments: Iterable[str] | None = None) -> list[Scorer]:
        """Return the newest version of each scorer of experiments, by name; None: of all that are not deleted."""
        ...

    def delete(self, experiment: str, name: str, version: int | None = None) -> None:
        """Remove a version, or all. Raises NotFound."""
        ...
