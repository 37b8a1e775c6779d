"""What a store of runs yields, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from flyball.ledger.experiments import InputDataset
from flyball.ledger.points import Point
from flyball.ledger.runs import RunStatus

__all__ = ["Refused", "Store", "StoredExperiment", "StoredFile", "StoredModel", "StoredRun", "StoredVersion"]


class Refused(NamedTuple):
    """Something of a store that cannot be taken, and why."""

    what: str
    reason: str


class StoredFile(NamedTuple):
    """A file of a run: its path within the run, and where it is. `digest` is what the store says it must be."""

    path: str
    file: Path
    size_bytes: int
    digest: str | None = None


@dataclass(frozen=True)
class StoredExperiment:
    """An experiment. Its name tells it from others; ids of other stores mean nothing here."""

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    is_deleted: bool = False


@dataclass
class StoredRun:
    """A run with all that is small; `points` and `files` are read when they are wanted. Times are ms since 1970."""

    id: str
    name: str
    status: RunStatus
    started_ms: int
    ended_ms: int | None = None
    experiment: StoredExperiment | None = None
    user: str = ""
    is_deleted: bool = False
    kind: str = "training"
    error: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    uses: list[tuple[str, str]] = field(default_factory=list)
    datasets: list[tuple[InputDataset, dict[str, str]]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    files: list[StoredFile] = field(default_factory=list)
    problems: list[Refused] = field(default_factory=list)


@dataclass(frozen=True)
class StoredVersion:
    """A version of a registered model; `source` is where its files are, as the store wrote it."""

    number: int
    source: str
    run: str | None = None
    description: str | None = None
    stage: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredModel:
    """A registered model with its versions, oldest first."""

    name: str
    created_ms: int
    description: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    versions: tuple[StoredVersion, ...] = ()


class Store(Protocol):
    """A store that is open."""

    def runs(self) -> Iterator[StoredRun | Refused]:
        """Yield the runs, and what cannot be read."""
        ...

    def models(self) -> Iterator[StoredModel | Refused]:
        """Yield the registered models, and what cannot be read."""
        ...

    def experiments(self) -> Iterator[StoredExperiment | Refused]:
        """Yield the experiments, those without runs too."""
        ...
