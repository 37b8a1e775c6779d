"""What was marked as deleted leaves for good, and a tombstone stays, so that lineage can still say what it was.

Marking is undone by restoring; this is not. A run goes with its points and the records of its files, a logged model
with its points, an experiment when no run, logged model or trace of it is left. Edges of lineage and events of the
journal stay: they name the thing, and the tombstone tells what it was. Bytes are the sweep's
(`flyball.tracking.sweeping`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

__all__ = ["Marked", "Removal", "RemovableKind", "Tombstone"]

RemovableKind = Literal["run", "logged-model", "experiment"]


class Marked(NamedTuple):
    """Something that was marked as deleted, with the files it has."""

    kind: RemovableKind
    id: str
    name: str
    experiment: str
    deleted_at: datetime
    files: int
    size_bytes: int

    @property
    def ref(self) -> str:
        """The reference as text."""
        return f"{self.kind}/{self.id}"


class Tombstone(NamedTuple):
    """What is left of a thing that was removed: what it was, and the journal's event."""

    ref: str
    name: str
    experiment: str | None
    at: datetime
    event: int
    files: int
    size_bytes: int


class Removal(Protocol):
    """Removes for good."""

    def marked(self, kind: RemovableKind) -> Iterator[Marked]:
        """Yield everything of a kind that is marked as deleted, by id; a logged model also by its experiment."""
        ...

    def contents(self, experiment: str) -> Iterator[str]:
        """Yield the ids of all runs and logged models of an experiment, deleted or not."""
        ...

    def remove(self, given: Sequence[Marked]) -> list[Tombstone]:
        """Remove things, each with its event; return what is left of them, in their order.

        Those stay that were restored, marked anew or removed meanwhile, and experiments that are not empty.
        """
        ...

    def tombstone(self, ref: str) -> Tombstone | None:
        """Return what is left of a thing; None: it was not removed."""
        ...
