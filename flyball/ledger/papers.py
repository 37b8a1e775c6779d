"""Papers: what people write about a version at length, a model card or a risk assessment; every edit is kept.

A paper's content is plain JSON whose meaning is its room's (`models.card`, `models.risk`). Each edit is an event of
the version: "card written", "risk assessed".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from flyball.ledger.refs import Ref

__all__ = ["Paper", "Papers", "Sort"]

Sort = Literal["card", "risk"]


@dataclass(frozen=True)
class Paper:
    """One edit of a paper; `revision` counts from 1."""

    sort: Sort
    ref: Ref
    revision: int
    content: Mapping[str, Any]
    note: str
    actor: str
    at: datetime
    event: int


class Papers(Protocol):
    """Keeps papers on versions."""

    def write(
        self, sort: Sort, version: Ref, content: Mapping[str, Any], note: str = "", after: int | None = None
    ) -> Paper:
        """Keep a new edit; an equal content writes nothing and returns the newest.

        Raises:
            Conflict: with `after`, the newest edit is no longer that one (0: there was none).
        """
        ...

    def get(self, sort: Sort, version: Ref, revision: int | None = None) -> Paper | None:
        """Return the newest edit, or a certain one; None where there is none."""
        ...

    def all(self, sort: Sort, version: Ref) -> list[Paper]:
        """Return every edit, newest first."""
        ...
