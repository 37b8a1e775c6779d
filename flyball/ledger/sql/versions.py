"""Versions and the history of their aliases, in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Row, select, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import InvalidInput, NotFound, did_you_mean, listed
from flyball.ledger.journal import Journal
from flyball.ledger.lineage import Lineage
from flyball.ledger.refs import Ref, check_name
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import alias_changes, journal_head, versions
from flyball.ledger.versions import AliasChange, Version

__all__ = ["SqlVersions"]


class SqlVersions:
    """`Versions` within one transaction."""

    def __init__(self, session: Session, journal: Journal, lineage: Lineage) -> None:
        self._session = session
        self._journal = journal
        self._lineage = lineage

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
    ) -> Version:
        check_name(name)
        self._lock()
        newest = next(iter(self.all(kind, name, limit=1)), None)
        if newest is not None and newest.digest == digest:
            return newest
        number = newest.number + 1 if newest else 1
        made = Ref(kind, name, str(number))
        kept = orjson.loads(
            orjson.dumps(dict(metadata or {}), option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
        )
        sources = [(source, role) for source, role in made_from]
        if run is not None:
            sources.append((Ref("run", run), "made by"))
        detail = {"digest": digest, "from": [str(source) for source, _ in sources]}
        event = self._journal.note("published", str(made), detail, cause)
        version = Version(kind, name, number, digest, event.at, event.actor, run, event.seq, kept)
        self._session.connection.execute(
            versions.insert().values(
                kind=kind,
                name=name,
                number=number,
                digest=digest,
                created_at=format_instant(event.at),
                actor=event.actor,
                run=run,
                event=event.seq,
                metadata=kept,
            )
        )
        for source, role in sources:
            self._lineage.link(source, made, role)
        return version

    def get(self, kind: str, name: str, version: str | int = "latest") -> Version:
        wanted = str(version)
        query = select(versions).where(versions.c.kind == kind, versions.c.name == name)
        if wanted == "latest":
            query = query.order_by(versions.c.number.desc()).limit(1)
        elif wanted.isdecimal():
            query = query.where(versions.c.number == int(wanted))
        else:
            aliases = self.aliases(kind, name)
            if wanted not in aliases:
                raise NotFound(
                    f'{kind}/{name} has no alias "{wanted}"{did_you_mean(wanted, aliases)} (it has: {listed(aliases)})'
                )
            query = query.where(versions.c.number == aliases[wanted])
        row = self._session.connection.execute(query).one_or_none()
        if row is None:
            known = [str(v.number) for v in self.all(kind, name, limit=100)]
            there = f"it has: {listed(known)}" if known else "it has no version yet"
            raise NotFound(f"there is no version {wanted} of {kind}/{name} ({there})")
        return _version(row)

    def all(self, kind: str, name: str | None = None, limit: int = 1000) -> list[Version]:
        query = select(versions).where(versions.c.kind == kind)
        if name is not None:
            query = query.where(versions.c.name == name).order_by(versions.c.number.desc())
        else:
            query = query.order_by(versions.c.created_at.desc(), versions.c.name, versions.c.number.desc())
        return [_version(row) for row in self._session.connection.execute(query.limit(limit))]

    def set_alias(
        self, kind: str, name: str, alias: str, number: int | None, *, cause: int | None = None
    ) -> int | None:
        check_name(alias)
        if alias == "latest" or alias.isdecimal():
            raise InvalidInput(f'"{alias}" cannot be an alias: it already means a version')
        if number is not None:
            self.get(kind, name, number)
        self._lock()
        before = self.aliases(kind, name).get(alias)
        if before == number:
            return None
        made = Ref(kind, name, str(number) if number is not None else None)
        event = self._journal.note("aliased", str(made), {"alias": alias, "from": before, "to": number}, cause)
        self._session.connection.execute(
            alias_changes.insert().values(
                event=event.seq,
                kind=kind,
                name=name,
                alias=alias,
                number=number,
                at=format_instant(event.at),
                actor=event.actor,
            )
        )
        return event.seq

    def aliases(self, kind: str, name: str, at: datetime | None = None) -> dict[str, int]:
        current: dict[str, int] = {}
        for change in self.alias_history(kind, name):
            if at is not None and change.at > at:
                break
            if change.number is None:
                current.pop(change.alias, None)
            else:
                current[change.alias] = change.number
        return current

    def alias_history(self, kind: str, name: str, alias: str | None = None) -> list[AliasChange]:
        query = select(alias_changes).where(alias_changes.c.kind == kind, alias_changes.c.name == name)
        if alias is not None:
            query = query.where(alias_changes.c.alias == alias)
        rows = self._session.connection.execute(query.order_by(alias_changes.c.event))
        return [AliasChange(r.alias, r.number, parse_instant(r.at), r.actor, r.event) for r in rows]

    def _lock(self) -> None:
        """Put publishers in order: on PostgreSQL two of them must not find the same newest number."""
        connection = self._session.connection
        assert self._session.actor
        connection.execute(update(journal_head).values(seq=journal_head.c.seq))


def _version(row: Row[Any]) -> Version:
    return Version(
        row.kind,
        row.name,
        row.number,
        row.digest,
        parse_instant(row.created_at),
        row.actor,
        row.run,
        row.event,
        row._mapping["metadata"],
    )
