"""Access keys in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, select, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict, NotFound
from flyball.ledger.access_keys import AccessKey, AccessSession
from flyball.ledger.sql.access_keys_tables import access_keys, access_sessions
from flyball.ledger.sql.journal import SqlJournal
from flyball.ledger.sql.session import Session

__all__ = ["SqlAccessKeys"]


class SqlAccessKeys:
    """`AccessKeys` within one transaction."""

    def __init__(self, session: Session, journal: SqlJournal) -> None:
        self._session = session
        self._journal = journal

    def add(self, key: AccessKey) -> AccessKey:
        made = replace(key, made_by=self._session.actor, made_at=self._session.clock.now(), last_used_at=None)
        values = {
            "name": made.name,
            "role": made.role,
            "digest": made.digest,
            "deployments": list(made.deployments),
            "made_by": made.made_by,
            "made_at": _text(made.made_at),
            "expires_at": _text(made.expires_at),
        }
        insert = self._session.insert(access_keys).values(values).on_conflict_do_nothing()
        fresh = insert.returning(access_keys.c.name)
        if self._session.connection.execute(fresh).one_or_none() is None:
            raise Conflict(f'there is an access key "{key.name}" already; choose another name, or revoke it first')
        detail = {"role": made.role, "deployments": list(made.deployments), "expires_at": _text(made.expires_at)}
        self._journal.note("access given", f"key/{made.name}", {k: v for k, v in detail.items() if v})
        return made

    def all(self) -> list[AccessKey]:
        found = self._session.connection.execute(select(access_keys).order_by(access_keys.c.name))
        return [_key(row) for row in found]

    def revoke(self, name: str) -> AccessKey:
        assert self._session.actor
        row = self._session.connection.execute(select(access_keys).where(access_keys.c.name == name)).one_or_none()
        if row is None:
            raise NotFound(f"there is no access key {name[:80]!r}; flyball key list shows which there are")
        self._session.connection.execute(delete(access_sessions).where(access_sessions.c.key == name))
        self._session.connection.execute(delete(access_keys).where(access_keys.c.name == name))
        self._journal.note("access revoked", f"key/{name}", {"role": row.role})
        return _key(row)

    def used(self, at_by_name: Mapping[str, datetime]) -> None:
        assert self._session.actor
        for name, at in at_by_name.items():
            change = update(access_keys).where(access_keys.c.name == name)
            self._session.connection.execute(change.values(last_used_at=format_instant(at)))

    def begin(self, session: AccessSession) -> None:
        now = format_instant(self._session.clock.now())
        connection = self._session.connection
        connection.execute(delete(access_sessions).where(access_sessions.c.expires_at <= now))
        known = select(access_keys.c.name).where(access_keys.c.name == session.key)
        if connection.execute(known).one_or_none() is None:
            raise NotFound(f"there is no access key {session.key[:80]!r} any more")
        kept = {"digest": session.digest, "key": session.key, "expires_at": format_instant(session.expires_at)}
        connection.execute(self._session.insert(access_sessions).values(kept))
        self._journal.note("logged in", f"key/{session.key}")

    def sessions(self) -> list[AccessSession]:
        found = self._session.connection.execute(select(access_sessions))
        return [AccessSession(row.digest, row.key, parse_instant(row.expires_at)) for row in found]

    def end(self, digest: str) -> None:
        assert self._session.actor
        self._session.connection.execute(delete(access_sessions).where(access_sessions.c.digest == digest))


def _text(at: datetime | None) -> str | None:
    return None if at is None else format_instant(at)


def _at(text: str | None) -> datetime | None:
    return None if text is None else parse_instant(text)


def _key(row: Row[Any]) -> AccessKey:
    told = row.name, row.role, row.digest, tuple(row.deployments), row.made_by
    return AccessKey(*told, parse_instant(row.made_at), _at(row.expires_at), _at(row.last_used_at))
