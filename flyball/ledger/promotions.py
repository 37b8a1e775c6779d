"""Promotion requests: somebody asks that a version enters a stage, people who may agree or refuse, and it is decided.

A request stays for ever, with the evidence as it was when it was asked and every review: the history of who let what
into production, and why. Each step is an event of the version: "asked", "approved", "refused", "withdrawn", "expired".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from flyball.ledger.refs import Ref

__all__ = ["STATES", "Promotions", "Request", "Review", "State", "Verdict"]

State = Literal["open", "approved", "refused", "withdrawn", "expired"]
Verdict = Literal["approved", "refused"]
STATES: tuple[State, ...] = ("open", "approved", "refused", "withdrawn", "expired")


@dataclass(frozen=True)
class Review:
    """What one person said of a request, and when; of several by the same person the last counts."""

    actor: str
    verdict: Verdict
    comment: str
    at: datetime
    event: int


@dataclass(frozen=True)
class Request:
    """A request that the version `ref` goes from the stage `before` to the stage `to`.

    `decided_event` is the event that decided it; `evidence` is what was known when it was asked.
    """

    id: int
    ref: Ref
    before: str
    to: str
    state: State
    asked_by: str
    asked_at: datetime
    reason: str
    expires_at: datetime | None
    evidence: Mapping[str, Any]
    event: int
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_event: int | None = None
    reviews: tuple[Review, ...] = field(default_factory=tuple)

    def standing(self, now: datetime) -> State:
        """Return the state as of an instant: an open request has expired when its time is over, noted or not."""
        is_over = self.state == "open" and self.expires_at is not None and self.expires_at <= now
        return "expired" if is_over else self.state

    def approvals(self) -> tuple[str, ...]:
        """Return who agrees: those whose last review says so."""
        last = {review.actor: review.verdict for review in self.reviews}
        return tuple(actor for actor, verdict in last.items() if verdict == "approved")


class Promotions(Protocol):
    """Keeps requests and their reviews."""

    def ask(
        self,
        version: Ref,
        before: str,
        to: str,
        reason: str,
        evidence: Mapping[str, Any],
        expires_at: datetime | None = None,
        cause: int | None = None,
    ) -> Request:
        """Note "asked" and keep the request, open."""
        ...

    def get(self, id: int, *, hold: bool = False) -> Request:
        """Return a request; with `hold` nobody else may change it until this transaction ends. Raises NotFound."""
        ...

    def find(
        self,
        *,
        kind: str | None = None,
        name: str | None = None,
        number: int | None = None,
        to: str | None = None,
        states: Iterable[State] | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[Request]:
        """Return requests, newest first; `before` goes on below an id."""
        ...

    def review(self, id: int, verdict: Verdict, comment: str) -> Request:
        """Note the verdict of whoever writes and keep it beside the others; the request stays open. Raises NotFound."""
        ...

    def decide(self, id: int, state: State, event: int | None = None, comment: str = "") -> Request:
        """Close a request because of an event; without one, the state itself is noted as an event. Raises NotFound."""
        ...
