"""Deliveries: what is to be sent to a webhook because of an event, and how each attempt ended.

An outbox: a delivery is kept in the same transaction as the number of the journal event up to which the journal was
read, and is noted as delivered only after the receiver took it. So none is lost and none is made twice; one whose
sender died between the two is sent again, under the same id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

__all__ = ["Attempt", "Deliveries", "Delivery", "State"]

State = Literal["waiting", "delivered", "failed"]


@dataclass(frozen=True)
class Attempt:
    """One time that a delivery was sent: how the receiver answered, or why it did not."""

    at: datetime
    took_ms: int
    status: int | None = None  # of HTTP
    error: str | None = None


@dataclass(frozen=True)
class Delivery:
    """What a webhook is told of one event.

    Attributes:
        id: the receiver knows repetitions by it.
        event: the number of the journal event.
        name: what happened, in the webhook's words: `model_version.created`.
        body: what is sent.
        due_at: when it is sent next; of one that waits.
        attempts: how often it was sent since it was last put in line.
        log: the newest attempts, oldest first.
    """

    webhook: str
    event: int
    id: str
    name: str
    body: str
    state: State
    made_at: datetime
    due_at: datetime
    attempts: int = 0
    log: tuple[Attempt, ...] = ()


class Deliveries(Protocol):
    """Keeps deliveries."""

    def position(self) -> int | None:
        """Return the number of the event up to which deliveries were made; None before the first."""
        ...

    def move(self, seq: int) -> None:
        """Keep the number of the event up to which deliveries were made."""
        ...

    def put(self, those: Sequence[Delivery]) -> None:
        """Keep deliveries; those of the same webhook and event that are there already stay as they are."""
        ...

    def due(self, busy: Collection[str], at: datetime, limit: int) -> list[Delivery]:
        """Return the oldest that waits of each webhook, where it is due and the webhook not busy; the soonest first."""
        ...

    def tried(self, delivery: Delivery, attempt: Attempt, state: State, due_at: datetime) -> None:
        """Note an attempt, unless the delivery is gone."""
        ...

    def again(self, webhook: str, event: int) -> Delivery:
        """Put a delivery in line again, as if it had never been sent. Raises NotFound."""
        ...

    def get(self, webhook: str, event: int) -> Delivery:
        """Return a delivery. Raises NotFound."""
        ...

    def find(
        self, webhook: str | None = None, state: State | None = None, limit: int = 100, before: int | None = None
    ) -> list[Delivery]:
        """Return deliveries, those of the newest events first; `before` an event's number."""
        ...

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return of each webhook how many deliveries are in each state."""
        ...

    def forget(self, *, webhooks_but: Collection[str] | None = None, done_before: datetime | None = None) -> int:
        """Remove deliveries of other webhooks than these, or those that ended before a time; return how many went."""
        ...
