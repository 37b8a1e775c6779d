"""Deliveries to webhooks in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, delete, func, select, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import NotFound
from flyball.ledger.deliveries import Attempt, Delivery, State
from flyball.ledger.sql.deliveries_tables import deliveries, delivery_position
from flyball.ledger.sql.session import Session

__all__ = ["SqlDeliveries"]

_LOGGED = 20  # attempts that are kept of a delivery


class SqlDeliveries:
    """`Deliveries` within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def position(self) -> int | None:
        found = self._session.connection.execute(select(delivery_position.c.seq)).scalar_one_or_none()
        return None if found is None else int(found)

    def move(self, seq: int) -> None:
        insert = self._session.insert(delivery_position).values(only=1, seq=seq)
        moved = insert.on_conflict_do_update(index_elements=["only"], set_={"seq": seq})
        self._session.connection.execute(moved)

    def put(self, those: Sequence[Delivery]) -> None:
        rows = [
            {
                "webhook": one.webhook,
                "event": one.event,
                "id": one.id,
                "name": one.name,
                "body": one.body,
                "state": one.state,
                "made_at": format_instant(one.made_at),
                "due_at": format_instant(one.due_at),
                "attempts": one.attempts,
                "log": [_logged(attempt) for attempt in one.log],
            }
            for one in those
        ]
        if rows:
            self._session.connection.execute(self._session.insert(deliveries).on_conflict_do_nothing(), rows)

    def due(self, busy: Collection[str], at: datetime, limit: int) -> list[Delivery]:
        first = _first_of_each(busy)
        query = (
            select(deliveries)
            .join(first, and_(deliveries.c.webhook == first.c.webhook, deliveries.c.event == first.c.event))
            .where(deliveries.c.due_at <= format_instant(at))
            .order_by(deliveries.c.due_at, deliveries.c.webhook)
            .limit(limit)
        )
        return [_delivery(row) for row in self._session.connection.execute(query)]

    def tried(self, delivery: Delivery, attempt: Attempt, state: State, due_at: datetime) -> None:
        assert self._session.actor
        kept = [_logged(one) for one in (*delivery.log, attempt)][-_LOGGED:]
        values = {"state": state, "due_at": format_instant(due_at), "attempts": delivery.attempts + 1, "log": kept}
        self._session.connection.execute(
            update(deliveries).where(*_this(delivery.webhook, delivery.event)).values(values)
        )

    def again(self, webhook: str, event: int) -> Delivery:
        assert self._session.actor
        self.get(webhook, event)
        values = {"state": "waiting", "due_at": format_instant(self._session.clock.now()), "attempts": 0}
        self._session.connection.execute(update(deliveries).where(*_this(webhook, event)).values(values))
        return self.get(webhook, event)

    def get(self, webhook: str, event: int) -> Delivery:
        query = select(deliveries).where(*_this(webhook, event))
        row = self._session.connection.execute(query).one_or_none() if 0 <= event < 1 << 62 else None
        if row is None:
            raise NotFound(
                f"webhook/{webhook} has no delivery of event {event}; flyball webhooks deliveries lists them"
            )
        return _delivery(row)

    def find(
        self, webhook: str | None = None, state: State | None = None, limit: int = 100, before: int | None = None
    ) -> list[Delivery]:
        query = select(deliveries).order_by(deliveries.c.event.desc(), deliveries.c.webhook).limit(limit)
        if webhook is not None:
            query = query.where(deliveries.c.webhook == webhook)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        if before is not None:
            query = query.where(deliveries.c.event < before)
        return [_delivery(row) for row in self._session.connection.execute(query)]

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        columns = deliveries.c.webhook, deliveries.c.state
        found: dict[str, dict[str, int]] = {}
        for row in self._session.connection.execute(select(*columns, func.count()).group_by(*columns)):
            found.setdefault(row[0], {})[row[1]] = row[2]
        return found

    def forget(self, *, webhooks_but: Collection[str] | None = None, done_before: datetime | None = None) -> int:
        assert self._session.actor
        gone = 0
        if webhooks_but is not None:
            other = delete(deliveries).where(deliveries.c.webhook.not_in(list(webhooks_but)))
            gone += self._session.connection.execute(other).rowcount
        if done_before is not None:
            ended = (deliveries.c.state != "waiting", deliveries.c.due_at < format_instant(done_before))
            gone += self._session.connection.execute(delete(deliveries).where(*ended)).rowcount
        return gone


def _this(webhook: str, event: int) -> tuple[Any, ...]:
    return deliveries.c.webhook == webhook, deliveries.c.event == event


def _first_of_each(busy: Collection[str]) -> Any:
    waiting = select(deliveries.c.webhook, func.min(deliveries.c.event).label("event"))
    waiting = waiting.where(deliveries.c.state == "waiting")
    if busy:
        waiting = waiting.where(deliveries.c.webhook.not_in(list(busy)))
    return waiting.group_by(deliveries.c.webhook).subquery()


def _logged(attempt: Attempt) -> dict[str, Any]:
    told = {"at": format_instant(attempt.at), "took_ms": attempt.took_ms}
    told |= {"status": attempt.status} if attempt.status is not None else {}
    return told | ({"error": attempt.error} if attempt.error is not None else {})


def _delivery(row: Row[Any]) -> Delivery:
    log = tuple(Attempt(parse_instant(a["at"]), a["took_ms"], a.get("status"), a.get("error")) for a in row.log)
    made_at, due_at = parse_instant(row.made_at), parse_instant(row.due_at)
    told = row.webhook, row.event, row.id, row.name, row.body, row.state
    return Delivery(*told, made_at, due_at, row.attempts, log)
