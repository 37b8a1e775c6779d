"""Papers on versions in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Row, select

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict
from flyball.ledger.journal import Journal
from flyball.ledger.papers import Paper, Sort
from flyball.ledger.refs import Ref
from flyball.ledger.sql.lifecycle_tables import papers
from flyball.ledger.sql.session import Session
from flyball.ledger.versions import Versions

__all__ = ["SqlPapers"]

_ACTIONS: Mapping[Sort, str] = {"card": "card written", "risk": "risk assessed"}


class SqlPapers:
    """`Papers` within one transaction."""

    def __init__(self, session: Session, journal: Journal, versions: Versions) -> None:
        self._session = session
        self._journal = journal
        self._versions = versions

    def write(
        self, sort: Sort, version: Ref, content: Mapping[str, Any], note: str = "", after: int | None = None
    ) -> Paper:
        self._versions.hold()  # two that write at once must not find the same newest edit
        newest = self.get(sort, version)
        revision = newest.revision if newest is not None else 0
        if after is not None and after != revision:
            by = f" by {newest.actor}" if newest is not None else ""
            raise Conflict(f"the {sort} of {version.short} has edit {revision}{by} by now, not {after}; read it again")
        kept = orjson.loads(orjson.dumps(dict(content), option=orjson.OPT_NON_STR_KEYS))
        if newest is not None and newest.content == kept:
            return newest
        detail = {"revision": revision + 1, **({"note": note} if note else {})}
        event = self._journal.note(_ACTIONS[sort], str(version), detail)
        row = {"sort": sort, "kind": version.kind, "name": version.name, "number": int(version.version or 0)}
        row |= {"revision": revision + 1, "content": kept, "note": note, "actor": event.actor}
        row |= {"at": format_instant(event.at), "event": event.seq}
        self._session.connection.execute(papers.insert().values(row))
        return Paper(sort, version, revision + 1, kept, note, event.actor, event.at, event.seq)

    def get(self, sort: Sort, version: Ref, revision: int | None = None) -> Paper | None:
        found = self._find(sort, version, revision, 1)
        return found[0] if found else None

    def all(self, sort: Sort, version: Ref) -> list[Paper]:
        return self._find(sort, version, None, None)

    def _find(self, sort: Sort, version: Ref, revision: int | None, limit: int | None) -> list[Paper]:
        this = (papers.c.kind == version.kind, papers.c.name == version.name)
        query = select(papers).where(papers.c.sort == sort, *this, papers.c.number == int(version.version or 0))
        if revision is not None:
            query = query.where(papers.c.revision == revision)
        rows = self._session.connection.execute(query.order_by(papers.c.revision.desc()).limit(limit))
        return [_paper(row) for row in rows]


def _paper(row: Row[Any]) -> Paper:
    about = Ref(row.kind, row.name, str(row.number))
    return Paper(row.sort, about, row.revision, row.content, row.note, row.actor, parse_instant(row.at), row.event)
