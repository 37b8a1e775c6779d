"""Notes: what people say of a model or a version and may change; the thing itself stays as it was made.

A description, tags, the stage that somebody put a version in, and where it came from as its maker told (an address and
a run). Each change is an event of the journal: "noted" when a thing is made with notes, then "described", "tagged",
"untagged", "staged", "forgotten", "dropped", "renamed". A version that was forgotten is no longer found, its number is
never given again; a name that was dropped begins at 1 again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from flyball.ledger.refs import Ref
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version

__all__ = ["NO_NOTE", "Note", "NoteCondition", "NoteOrder", "Notes", "StageChange"]


@dataclass(frozen=True)
class Note:
    """What is said of a resource or of one of its versions. `updated_at` is None where nothing ever was."""

    description: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    stage: str | None = None
    source: str | None = None
    run: str | None = None
    updated_at: datetime | None = None


NO_NOTE = Note()


class StageChange(NamedTuple):
    """A version came to a stage (None: out of all), by whom, at which event."""

    number: int
    stage: str | None
    at: datetime
    actor: str
    event: int


class NoteCondition(NamedTuple):
    """What a search asks: `kind` is attribute or tag; `holds` tests a value that is there.

    `operator` and `value` say the same to a database, which takes = and IN on names, runs and tags by itself.
    """

    kind: str
    key: str
    operator: str
    value: Any
    holds: Callable[[Any], bool]


class NoteOrder(NamedTuple):
    """What a search sorts by: name, number, created_at or updated_at."""

    key: str
    ascending: bool = True


class Notes(Protocol):
    """Keeps notes on resources (`number` None) and on versions."""

    def get(self, kind: str, name: str, number: int | None = None) -> Note:
        """Return what is said of a thing; an empty note where nothing is."""
        ...

    def change(
        self,
        kind: str,
        name: str,
        number: int | None = None,
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
        stage: str | None = None,
        source: str | None = None,
        run: str | None = None,
        is_new: bool = False,
        cause: int | None = None,
    ) -> Note:
        """Merge the given parts, and move the time at which the thing, and whose version it is, last changed.

        Args:
            description: the empty text removes it.
            stage: the empty text takes the version out of all stages.
            source, run: where a version came from, as its maker told it.
            is_new: it is made just now, and all of it is one event.

        Raises:
            NotFound: there is no such version, or of a name that has no resource either.
        """
        ...

    def forget(self, kind: str, name: str, number: int, *, cause: int | None = None) -> None:
        """Let a version be found no more: its source and run are taken out, its aliases dropped. Raises NotFound."""
        ...

    def drop(self, kind: str, name: str, *, cause: int | None = None) -> None:
        """Remove a resource with its versions, aliases, notes and edges.

        Raises:
            NotFound: there is no such resource.
            Conflict: another resource refers to it.
        """
        ...

    def rename(self, kind: str, name: str, new: str, *, cause: int | None = None) -> Resource:
        """Give a resource another name, with everything that is kept of it; events stay as they were written.

        Raises:
            NotFound: there is no such resource.
            Conflict: the new name is taken, or another resource refers to the old one.
        """
        ...

    def stage_history(self, kind: str, name: str, number: int | None = None) -> list[StageChange]:
        """Return every change of stages of a version or of all versions, oldest first."""
        ...

    def newest_by_stage(self, kind: str, names: Iterable[str]) -> dict[str, list[int]]:
        """Return, by name, the highest number of each stage, "in none" being one; lowest first."""
        ...

    def resources(
        self,
        kind: str,
        conditions: Sequence[NoteCondition] = (),
        without_tag: tuple[str, str] | None = None,
        order: Sequence[NoteOrder] = (),
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[tuple[Resource, Note]], bool]:
        """Return resources with their notes, and whether there are more.

        Args:
            conditions: all of them must hold; a tag that is missing holds none.
            without_tag: leave out those with this tag and value.
            order: then by name.
        """
        ...

    def versions(
        self,
        kind: str,
        conditions: Sequence[NoteCondition] = (),
        without_tag: tuple[str, str] | None = None,
        order: Sequence[NoteOrder] = (),
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[tuple[Version, Note]], bool]:
        """Return versions with their notes, and whether there are more; as `resources`, then by number, newest first.

        Names of which any version has the tag `without_tag` are left out.
        """
        ...

    def of_versions(self, kind: str, places: Iterable[tuple[str, int]]) -> list[tuple[Version, Note]]:
        """Return these versions with their notes, those that are there, in the order given."""
        ...


def place(kind: str, name: str, number: int | None) -> Ref:
    """Return the reference of a resource or of a version."""
    return Ref(kind, name, str(number) if number is not None else None)
