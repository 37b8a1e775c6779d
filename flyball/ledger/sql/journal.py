"""The journal in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Row, delete, or_, select, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import Corrupt, NotFound
from flyball.ledger.journal import GENESIS, REDACTED, Event, event_hash
from flyball.ledger.sql.deliveries_tables import deliveries
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import events, journal_head

__all__ = ["SqlJournal"]

_PAGE = 5000
# Every change of the ledger asks these, and whoever waits for changes, so they go to the driver as they are.
_HEAD = {
    "sqlite": "SELECT seq, hash FROM journal_head",
    "postgresql": "SELECT seq, hash FROM journal_head FOR UPDATE",
}
_INSERT = "INSERT INTO events (seq, at, actor, action, ref, detail, cause, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_MOVE = "UPDATE journal_head SET seq = ?, hash = ?"
_LAST = "SELECT seq FROM journal_head"
_SINCE = "SELECT seq, at, actor, action, ref, detail, cause, hash FROM events WHERE seq > ? ORDER BY seq LIMIT ?"


class SqlJournal:
    """`Journal` within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def note(self, action: str, ref: str, detail: Mapping[str, Any] | None = None, cause: int | None = None) -> Event:
        session = self._session
        actor, at = session.actor, session.clock.now()
        # What is hashed is what will be read back, so the detail goes through JSON first.
        kept = orjson.loads(orjson.dumps(dict(detail or {}), option=orjson.OPT_NON_STR_KEYS))
        cause = cause if cause is not None else session.cause
        last, previous = session.raw(_HEAD[session.dialect]).fetchone()
        seq = last + 1
        digest = event_hash(previous, seq, at, actor, action, ref, kept, cause)
        told = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()
        session.raw(_INSERT, (seq, format_instant(at), actor, action, ref, told, cause, digest))
        session.raw(_MOVE, (seq, digest))
        return Event(seq, at, actor, action, ref, kept, cause, digest)

    def get(self, seq: int) -> Event:
        row = self._session.connection.execute(select(events).where(events.c.seq == seq)).one_or_none()
        if row is None:
            raise NotFound(f"the journal has no event {seq}; the newest is {self.last()}")
        return _event(row)

    def since(self, seq: int, limit: int = 1000) -> list[Event]:
        return [_told(row) for row in self._session.raw(_SINCE, (seq, limit)).fetchall()]

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
        query = select(events).order_by(events.c.seq.desc()).limit(limit)
        if ref is not None:
            versions = events.c.ref.startswith(ref + "@", autoescape=True)
            query = query.where(or_(events.c.ref == ref, versions) if "@" not in ref else events.c.ref == ref)
        if kind is not None:
            query = query.where(events.c.ref.startswith(kind + "/", autoescape=True))
        if actor is not None:
            query = query.where(events.c.actor == actor)
        if action is not None:
            query = query.where(events.c.action == action)
        if before is not None:
            query = query.where(events.c.seq < before)
        return [_event(row) for row in self._session.connection.execute(query)]

    def last(self) -> int:
        (seq,) = self._session.raw(_LAST).fetchone()
        return int(seq)

    def chain(self, seq: int) -> list[Event]:
        found: list[Event] = []
        next_seq: int | None = seq
        while next_seq is not None:
            found.append(self.get(next_seq))
            cause = found[-1].cause
            # A cause always comes before its effect; anything else would loop.
            next_seq = cause if cause is not None and cause < found[-1].seq else None
        return found

    def redact(self, seq: int, detail: Mapping[str, Any], cause: int | None = None) -> Event:
        there = self.get(seq)
        kept = orjson.loads(orjson.dumps(dict(detail), option=orjson.OPT_NON_STR_KEYS))
        change = update(events).where(events.c.seq == seq).values(detail=kept)
        noted = self.note(REDACTED, f"event/{seq}", {"event": seq, "hash": there.hash}, cause)
        self._session.connection.execute(change)
        # What was to be told of it, or was, repeats its detail.
        self._session.connection.execute(delete(deliveries).where(deliveries.c.event == seq))
        return noted

    def verify(self) -> int:
        query = select(events.c.detail).where(events.c.action == REDACTED)
        redacted = {row.detail["event"]: row.detail["hash"] for row in self._session.connection.execute(query)}
        previous, seq = GENESIS, 0
        while page := self.since(seq, _PAGE):
            for event in page:
                if event.seq != seq + 1:
                    raise Corrupt(f"the journal lacks event {seq + 1}: it was removed or renumbered")
                expected = event_hash(
                    previous,
                    event.seq,
                    event.at,
                    event.actor,
                    event.action,
                    event.ref,
                    event.detail,
                    event.cause,
                )
                if event.hash != expected and redacted.get(event.seq) != event.hash:
                    raise Corrupt(
                        f"event {event.seq} of the journal is not what was written: it or its hash was changed"
                    )
                previous, seq = event.hash, event.seq
        head = self._session.connection.execute(select(journal_head)).one()
        if (head.seq, head.hash) != (seq, previous):
            raise Corrupt(f"the journal should end at event {head.seq} but ends at {seq}: later events were removed")
        return seq


def _told(row: Sequence[Any]) -> Event:
    """Return the event that the driver's row holds; PostgreSQL's reads JSON by itself."""
    seq, at, actor, action, ref, detail, cause, digest = row
    kept = orjson.loads(detail) if isinstance(detail, str) else detail
    return Event(seq, parse_instant(at), actor, action, ref, kept, cause, digest)


def _event(row: Row[Any]) -> Event:
    return Event(row.seq, parse_instant(row.at), row.actor, row.action, row.ref, row.detail, row.cause, row.hash)
