"""Versions and the history of their aliases, in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Row, bindparam, select, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict, InvalidInput, NotFound, did_you_mean, listed
from flyball.ledger.journal import Journal
from flyball.ledger.lineage import Lineage
from flyball.ledger.refs import Ref, check_alias, check_name
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import alias_changes, versions
from flyball.ledger.versions import AliasChange, Version

if TYPE_CHECKING:
    from flyball.ledger.sql.search import SqlSearch

__all__ = ["SqlVersions", "as_version"]

# Asked at every publication, so they go to the driver as they are.
_COLUMNS = "kind, name, number, digest, created_at, actor, run, event, metadata"
_OF_NAME = (
    f"SELECT {_COLUMNS} FROM versions WHERE kind = ? AND name = ? AND deleted_at IS NULL ORDER BY number DESC LIMIT ?"
)
_INSERT = f"INSERT INTO versions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_HIGHEST = "SELECT max(number) FROM versions WHERE kind = ? AND name = ?"
_HOLD = "UPDATE journal_head SET seq = seq"
# Made once: making a statement takes longer than the database takes to answer it.
_OF_KIND = (
    select(versions)
    .where(versions.c.kind == bindparam("kind"), versions.c.deleted_at.is_(None))
    .order_by(versions.c.created_at.desc(), versions.c.name, versions.c.number.desc())
    .limit(bindparam("limit"))
)
_AT_ONCE = 400  # names of one statement


class SqlVersions:
    """`Versions` within one transaction."""

    def __init__(self, session: Session, journal: Journal, lineage: Lineage, search: SqlSearch) -> None:
        self._session = session
        self._journal = journal
        self._lineage = lineage
        self._search = search

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
        after: Version | int | None = None,
    ) -> Version:
        check_name(name, kind)
        self.hold()
        newest = next(iter(self.all(kind, name, limit=1)), None)
        if after is not None:
            _check_newest(f"{kind}/{name}", newest, after)
        if newest is not None and newest.digest == digest:
            return newest
        (highest,) = self._session.raw(_HIGHEST, (kind, name)).fetchone()  # also of those that were forgotten
        number = (highest or 0) + 1
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
        told = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()
        at = format_instant(event.at)
        self._session.raw(_INSERT, (kind, name, number, digest, at, event.actor, run, event.seq, told))
        for source, role in sources:
            self._lineage.link(source, made, role)
        self._search.keep_version(version, is_new=True)
        return version

    def hold(self) -> None:
        # On PostgreSQL two publishers must not find the same newest number.
        assert self._session.actor
        self._session.raw(_HOLD)

    def get(self, kind: str, name: str, version: str | int = "latest", at: datetime | None = None) -> Version:
        wanted = str(version)
        query = select(versions).where(
            versions.c.kind == kind, versions.c.name == name, versions.c.deleted_at.is_(None)
        )
        if at is not None:
            if wanted.isdecimal():
                raise InvalidInput(f"{kind}/{name}@{wanted} is asked for as of a time; give a number or a time")
            query = query.where(versions.c.created_at <= format_instant(at))
        if wanted == "latest":
            query = query.order_by(versions.c.number.desc()).limit(1)
        elif wanted.isdecimal():
            query = query.where(versions.c.number == (int(wanted) if len(wanted) <= 9 else -1))
        else:
            aliases = self.aliases(kind, name, at)
            if wanted not in aliases:
                has = f"it had at {format_instant(at)}" if at is not None else "it has"
                raise NotFound(
                    f'{kind}/{name} has no alias "{wanted}"{did_you_mean(wanted, aliases)} ({has}: {listed(aliases)})'
                )
            query = query.where(versions.c.number == aliases[wanted])
        row = self._session.connection.execute(query).one_or_none()
        if row is None and at is not None:
            raise NotFound(f"{kind}/{name} had no version yet at {format_instant(at)}")
        if row is None:
            known = [str(v.number) for v in self.all(kind, name, limit=100)]
            there = f"it has: {listed(known)}" if known else "it has no version yet"
            raise NotFound(f"there is no version {wanted} of {kind}/{name} ({there})")
        return as_version(row)

    def all(self, kind: str, name: str | None = None, limit: int = 1000) -> list[Version]:
        if name is not None:
            return [_version(row) for row in self._session.raw(_OF_NAME, (kind, name, limit)).fetchall()]
        rows = self._session.connection.execute(_OF_KIND, {"kind": kind, "limit": limit})
        return [as_version(row) for row in rows]

    def digests(self, kind: str | None = None) -> list[tuple[str, str, int, str]]:
        columns = versions.c.kind, versions.c.name, versions.c.number, versions.c.digest
        query = select(*columns).where(versions.c.deleted_at.is_(None)).order_by(*columns[:3])
        if kind is not None:
            query = query.where(versions.c.kind == kind)
        return [(row.kind, row.name, row.number, row.digest) for row in self._session.connection.execute(query)]

    def rewrite(
        self,
        kind: str,
        name: str,
        number: int,
        digest: str,
        metadata: Mapping[str, Any],
        *,
        action: str = "erased",
        detail: Mapping[str, Any] | None = None,
        cause: int | None = None,
    ) -> Version:
        self.hold()
        before = self.get(kind, name, number)
        kept = orjson.loads(orjson.dumps(dict(metadata), option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY))
        if (before.digest, before.metadata) == (digest, kept):
            return before
        noted = {"from": before.digest, "to": digest, **(detail or {})}
        self._journal.note(action, str(before.ref), noted, cause)
        this = (versions.c.kind == kind, versions.c.name == name, versions.c.number == number)
        self._session.connection.execute(update(versions).where(*this).values(digest=digest, metadata=kept))
        version = self.get(kind, name, number)
        self._search.keep_version(version, is_new=False)
        return version

    def set_alias(
        self, kind: str, name: str, alias: str, number: int | None, *, cause: int | None = None
    ) -> int | None:
        check_alias(alias)
        if number is not None:
            self.get(kind, name, number)
        self.hold()
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
            _follow(current, change.alias, change.number)
        return current

    def aliases_of(self, kind: str, names: Iterable[str]) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        wanted = list(names)
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            query = select(alias_changes).where(alias_changes.c.kind == kind, alias_changes.c.name.in_(some))
            for row in self._session.connection.execute(query.order_by(alias_changes.c.event)):
                _follow(found.setdefault(row.name, {}), row.alias, row.number)
        return found

    def alias_history(self, kind: str, name: str, alias: str | None = None) -> list[AliasChange]:
        query = select(alias_changes).where(alias_changes.c.kind == kind, alias_changes.c.name == name)
        if alias is not None:
            query = query.where(alias_changes.c.alias == alias)
        rows = self._session.connection.execute(query.order_by(alias_changes.c.event))
        return [AliasChange(r.alias, r.number, parse_instant(r.at), r.actor, r.event) for r in rows]


def _follow(current: dict[str, int], alias: str, number: int | None) -> None:
    if number is None:
        current.pop(alias, None)
    else:
        current[alias] = number


def _check_newest(what: str, newest: Version | None, after: Version | int) -> None:
    """Refuse to publish behind a version that is not the newest, or not as it was read."""
    number = after if isinstance(after, int) else after.number
    if number != (newest.number if newest else 0):
        there = f"{newest.ref} is the newest version" if newest else f"{what} has no version"
        raise Conflict(f"{there}, and this one was made behind number {number}; read it and make it again")
    if isinstance(after, Version) and newest is not None and after.digest != newest.digest:
        raise Conflict(f"{newest.ref} was rewritten while this version was made behind it; read it and make it again")


def _version(row: Sequence[Any]) -> Version:
    """Return the version that the driver's row of `_COLUMNS` holds; PostgreSQL's reads JSON by itself."""
    kind, name, number, digest, created_at, actor, run, event, told = row
    metadata = orjson.loads(told) if isinstance(told, str) else told
    return Version(kind, name, number, digest, parse_instant(created_at), actor, run, event, metadata)


def as_version(row: Row[Any]) -> Version:
    """Return the version that a row of `versions` holds."""
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
