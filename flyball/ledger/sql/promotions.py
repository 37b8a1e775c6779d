"""Promotion requests in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import NotFound
from flyball.ledger.journal import Journal
from flyball.ledger.promotions import Request, Review, State, Verdict
from flyball.ledger.refs import Ref
from flyball.ledger.sql.lifecycle_tables import promotion_requests, promotion_reviews
from flyball.ledger.sql.session import Session

__all__ = ["SqlPromotions"]


class SqlPromotions:
    """`Promotions` within one transaction."""

    def __init__(self, session: Session, journal: Journal) -> None:
        self._session = session
        self._journal = journal

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
        assert version.version is not None, "a request is of a version"
        at = self._session.clock.now()
        row = {
            "kind": version.kind,
            "name": version.name,
            "number": int(version.version),
            "before": before,
            "to": to,
            "state": "open",
            "asked_by": self._session.actor,
            "asked_at": format_instant(at),
            "reason": reason,
            "expires_at": format_instant(expires_at) if expires_at else None,
            "evidence": dict(evidence),
            "event": 0,
        }
        table = promotion_requests
        id = self._session.connection.execute(
            self._session.insert(table).values(row).returning(table.c.id)
        ).scalar_one()
        detail = {"request": id, "from": before, "to": to, "reason": reason, "expires_at": row["expires_at"]}
        event = self._journal.note("asked", str(version), detail, cause)
        change = update(table).where(table.c.id == id).values(event=event.seq, asked_at=format_instant(event.at))
        self._session.connection.execute(change)
        return self.get(id)

    def get(self, id: int, *, hold: bool = False) -> Request:
        query = select(promotion_requests).where(promotion_requests.c.id == id)
        row = self._session.connection.execute(query.with_for_update() if hold else query).one_or_none()
        if row is None:
            raise NotFound(f"there is no promotion request {id}")
        return self._requests([row])[0]

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
        columns = promotion_requests.c
        query = select(promotion_requests).order_by(columns.id.desc()).limit(limit)
        for column, value in ((columns.kind, kind), (columns.name, name), (columns.number, number), (columns.to, to)):
            if value is not None:
                query = query.where(column == value)
        if states is not None:
            query = query.where(columns.state.in_(list(states)))
        if before is not None:
            query = query.where(columns.id < before)
        return self._requests(list(self._session.connection.execute(query)))

    def review(self, id: int, verdict: Verdict, comment: str) -> Request:
        found = self.get(id, hold=True)
        detail = {"request": id, "to": found.to, "comment": comment}
        event = self._journal.note(verdict, str(found.ref), detail, found.event)
        row = {"event": event.seq, "request": id, "actor": event.actor, "verdict": verdict, "comment": comment}
        row["at"] = format_instant(event.at)
        self._session.connection.execute(promotion_reviews.insert().values(row))
        return self.get(id)

    def decide(self, id: int, state: State, event: int | None = None, comment: str = "") -> Request:
        found = self.get(id, hold=True)
        if event is None:
            detail = {"request": id, "to": found.to, **({"comment": comment} if comment else {})}
            event = self._journal.note(state, str(found.ref), detail, found.event).seq
        decided = self._journal.get(event)
        values = {"state": state, "decided_by": decided.actor, "decided_event": event}
        values["decided_at"] = format_instant(decided.at)
        this = update(promotion_requests).where(promotion_requests.c.id == id)
        self._session.connection.execute(this.values(values))
        return self.get(id)

    def _requests(self, rows: list[Row[Any]]) -> list[Request]:
        reviews: dict[int, list[Review]] = {}
        query = select(promotion_reviews).where(promotion_reviews.c.request.in_([row.id for row in rows]))
        for row in self._session.connection.execute(query.order_by(promotion_reviews.c.event)) if rows else ():
            review = Review(row.actor, row.verdict, row.comment, parse_instant(row.at), row.event)
            reviews.setdefault(row.request, []).append(review)
        return [_request(row, tuple(reviews.get(row.id, ()))) for row in rows]


def _request(row: Row[Any], reviews: tuple[Review, ...]) -> Request:
    return Request(
        id=row.id,
        ref=Ref(row.kind, row.name, str(row.number)),
        before=row.before,
        to=row.to,
        state=row.state,
        asked_by=row.asked_by,
        asked_at=parse_instant(row.asked_at),
        reason=row.reason,
        expires_at=parse_instant(row.expires_at) if row.expires_at else None,
        evidence=row.evidence,
        event=row.event,
        decided_by=row.decided_by,
        decided_at=parse_instant(row.decided_at) if row.decided_at else None,
        decided_event=row.decided_event,
        reviews=reviews,
    )
