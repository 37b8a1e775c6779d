"""Online values: the newest value of a feature view for a key, read inside a request.

Keys and values are plain JSON values. Each value carries its event time; an older one never overwrites a newer one,
so a late or repeated push changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

__all__ = ["OnlineStore", "OnlineValue"]


class OnlineValue(NamedTuple):
    """One entity's newest value: when it was true, and its features by name."""

    event_time: datetime
    values: Mapping[str, Any]


class OnlineStore(Protocol):
    """Keeps the newest value for each (view, key)."""

    def put(self, view: str, rows: Iterable[tuple[str, OnlineValue]]) -> int:
        """Write rows of (key, value); visible on return; return how many were newer than what was there."""
        ...

    def get(self, view: str, keys: Sequence[str]) -> list[OnlineValue | None]:
        """Return the values in the order of `keys`, None where there is none."""
        ...

    def delete(self, view: str, keys: Sequence[str] | None = None) -> int:
        """Remove the given keys of a view, or all of it; return how many rows went."""
        ...

    def count(self, view: str) -> int:
        """Return how many keys a view has."""
        ...
