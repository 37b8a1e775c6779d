"""Resources are wanted: a spec that people apply, a status that controllers write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref

__all__ = ["Applied", "Resource", "Resources"]


@dataclass(frozen=True)
class Resource:
    """One resource as it stands. `generation` counts changes of the spec, `revision` every change."""

    kind: str
    name: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None
    generation: int = 1
    revision: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def ref(self) -> Ref:
        return Ref(self.kind, self.name)


@dataclass(frozen=True)
class Applied:
    """The outcome of a write: the resource, and the event that was noted, or None when nothing changed."""

    resource: Resource
    event: Event | None


class Resources(Protocol):
    """Keeps resources and the index of who refers to whom."""

    def get(self, kind: str, name: str) -> Resource:
        """Return a resource. Raises NotFound."""
        ...

    def find(self, kind: str, name: str) -> Resource | None:
        """Return a resource, or None."""
        ...

    def all(self, kind: str | None = None, labels: Mapping[str, str] | None = None) -> list[Resource]:
        """Return resources by kind and name."""
        ...

    def page(self, kind: str, offset: int, limit: int) -> tuple[list[Resource], int]:
        """Return some resources of a kind, by name, and how many there are in all; the others are not read."""
        ...

    def likely(self, kind: str, words: Sequence[str] = ()) -> Iterator[Resource]:
        """Yield the resources of a kind, by name, a few in memory at a time, for a caller that looks at each again.

        Those are passed over whose name and spec together lack a word, in whatever case. Words that may be written
        otherwise in JSON (not ASCII, marks) are not looked for.
        """
        ...

    def spec_values(self, kind: str, *fields: str) -> list[tuple[Any, ...]]:
        """Return which values fields of a kind's specs have together, each once, None where a spec has none.

        Fields are those at the top of a spec; it is what a list may be narrowed by.
        """
        ...

    def apply(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        owner: str | None = None,
        revision: int | None = None,
    ) -> Applied:
        """Create the resource or change its spec; an equal spec writes nothing.

        Raises:
            InvalidInput: the kind is unknown or the spec breaks its rules.
            Conflict: `revision` is given and the resource has another by now.
        """
        ...

    def set_status(
        self,
        kind: str,
        name: str,
        status: Mapping[str, Any],
        *,
        action: str,
        detail: Mapping[str, Any] | None = None,
        cause: int | None = None,
        revision: int | None = None,
    ) -> Applied:
        """Replace the status and note `action`; an equal status writes and notes nothing.

        Raises:
            NotFound: it was deleted meanwhile.
            Conflict: `revision` is given and the resource has another by now.
        """
        ...

    def delete(self, kind: str, name: str, *, revision: int | None = None) -> list[Ref]:
        """Delete a resource and, with it, those it owns; return what went.

        Raises:
            NotFound: no such resource.
            Conflict: another resource, not owned by it, refers to it, or the revision is stale.
        """
        ...

    def referrers(self, target: Ref) -> list[Ref]:
        """Return the resources whose spec refers to `target` (its version is ignored)."""
        ...

    def owned_by(self, owner: Ref) -> list[Ref]:
        """Return the resources that `owner` owns."""
        ...
