"""Versions are made: numbered, immutable, known by digest; aliases (champion, staging…) move between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from flyball.ledger.refs import Ref

__all__ = ["AliasChange", "Version", "Versions"]


@dataclass(frozen=True)
class Version:
    """One version: `flights@12`. `digest` names its bytes in storage; `metadata` is what its room keeps of it."""

    kind: str
    name: str
    number: int
    digest: str
    created_at: datetime
    actor: str
    run: str | None = None
    event: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(self.kind, self.name, str(self.number))


class AliasChange(NamedTuple):
    """An alias came to point at a version (None: it was removed), by whom, at which event."""

    alias: str
    number: int | None
    at: datetime
    actor: str
    event: int


class Versions(Protocol):
    """Keeps versions and the append-only history of their aliases."""

    def publish(
        self,
        kind: str,
        name: str,
        digest: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        run: str | None = None,
        made_from: Iterable[tuple[Ref, str]] = (),
        cause: int | None = None,
        after: Version | int | None = None,
    ) -> Version:
        """Make the next version; the digest of the newest version again returns that version unchanged.

        Args:
            made_from: lineage, as (reference, role) pairs such as `(ref("dataset/flights@12"), "trained on")`.
            after: the newest version that this one was made behind, as it was read; 0 when there was none.

        Raises:
            Conflict: with `after`, another is the newest by now or that one was rewritten; nothing was written.
        """
        ...

    def hold(self) -> None:
        """Let nobody else publish until this transaction ends, so that the newest version stays the newest."""
        ...

    def get(self, kind: str, name: str, version: str | int = "latest", at: datetime | None = None) -> Version:
        """Return a version by number, alias or `latest`; with `at`, what `latest` or the alias meant at that time.

        Raises:
            NotFound: there is no such version, or there was none yet.
            InvalidInput: `at` has no zone, or is given beside a number.
        """
        ...

    def all(self, kind: str, name: str | None = None, limit: int = 1000) -> list[Version]:
        """Return versions, newest first."""
        ...

    def digests(self, kind: str | None = None) -> list[tuple[str, str, int, str]]:
        """Return (kind, name, number, digest) of every version of one kind, or of all, by name and number."""
        ...

    def rewrite(
        self,
        kind: str,
        name: str,
        number: int,
        digest: str,
        metadata: Mapping[str, Any],
        *,
        action: str = "erased",
        detail: Mapping[str, Any] | None = None,
        cause: int | None = None,
    ) -> Version:
        """Replace what a version consists of, because rows must leave it; number, maker and lineage stay.

        The one exception to "versions never change": the law and retention ask for it. Notes the event `action` with
        the digests before and after. Equal contents write and note nothing. Raises NotFound.
        """
        ...

    def set_alias(
        self, kind: str, name: str, alias: str, number: int | None, *, cause: int | None = None
    ) -> int | None:
        """Point an alias at a version (None removes it); return the event, or None when it pointed there already."""
        ...

    def aliases(self, kind: str, name: str, at: datetime | None = None) -> dict[str, int]:
        """Return where each alias points now, or pointed at an instant."""
        ...

    def aliases_of(self, kind: str, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """Return where the aliases of many names point now."""
        ...

    def alias_history(self, kind: str, name: str, alias: str | None = None) -> list[AliasChange]:
        """Return every change of the aliases, oldest first."""
        ...
