"""The journal: who changed what, when, because of which earlier event; chained by hashes so that tampering shows.

Sequence numbers have no gaps and follow the order of commits, so a reader that remembers the last number it saw
misses nothing. The hash of an event covers its own content and the hash of the event before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from flyball.clock import format_instant

__all__ = ["GENESIS", "REDACTED", "Event", "Journal", "event_hash"]

GENESIS = "0" * 64
REDACTED = "redacted"  # the action of an event that says of another that its detail was replaced


@dataclass(frozen=True)
class Event:
    """One entry. `action` is a verb such as `applied` or `promoted`, `ref` what it was done to."""

    seq: int
    at: datetime
    actor: str
    action: str
    ref: str
    detail: Mapping[str, Any]
    cause: int | None
    hash: str


class Journal(Protocol):
    """Keeps events."""

    def note(self, action: str, ref: str, detail: Mapping[str, Any] | None = None, cause: int | None = None) -> Event:
        """Append an event within the transaction; `cause` defaults to the transaction's."""
        ...

    def get(self, seq: int) -> Event:
        """Return one event. Raises NotFound."""
        ...

    def since(self, seq: int, limit: int = 1000) -> list[Event]:
        """Return the events after `seq`, oldest first."""
        ...

    def find(
        self,
        *,
        ref: str | None = None,
        kind: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[Event]:
        """Return events, newest first. `ref` matches the reference and, without a version, its versions too."""
        ...

    def last(self) -> int:
        """Return the number of the newest event, 0 when there is none."""
        ...

    def chain(self, seq: int) -> list[Event]:
        """Return the event and its causes, back to the one that has none."""
        ...

    def redact(self, seq: int, detail: Mapping[str, Any], cause: int | None = None) -> Event:
        """Replace an event's detail, because a person's data stands in it, and note `redacted`; return that event.

        The event keeps its hash, which chains it as before; what its detail was can no longer be proved, but that it
        was replaced, by whom and when, can. Raises NotFound.
        """
        ...

    def verify(self) -> int:
        """Check every hash; return how many events there are. A redacted event has the hash that was noted of it.

        Raises:
            Corrupt: an event was changed, removed or put in; says which.
        """
        ...


def event_hash(
    previous: str,
    seq: int,
    at: datetime,
    actor: str,
    action: str,
    ref: str,
    detail: Mapping[str, Any],
    cause: int | None,
) -> str:
    """Return the SHA-256 that chains an event to the one before it."""
    content: Iterable[Any] = [previous, seq, format_instant(at), actor, action, ref, dict(detail), cause]
    text = json.dumps(list(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
