"""Resources and the index of their references, in SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Row, Text, bindparam, cast, delete, func, select, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict, NotFound, did_you_mean, listed
from flyball.ledger import kinds
from flyball.ledger.journal import Journal
from flyball.ledger.refs import Ref, check_name
from flyball.ledger.refs import ref as parse_ref
from flyball.ledger.resources import Applied, Resource
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import references, resources

if TYPE_CHECKING:
    from flyball.ledger.sql.search import SqlSearch

__all__ = ["SqlResources", "as_resource", "find_resource"]

_COLUMNS = "kind, name, spec, status, labels, owner, generation, revision, created_at, updated_at"
# Asked at every publication, so they go to the driver as they are.
_ONE = f"SELECT {_COLUMNS} FROM resources WHERE kind = ? AND name = ?"
_EACH = f"SELECT {_COLUMNS} FROM resources WHERE kind = ? ORDER BY name"
_OF_KIND = select(resources).where(resources.c.kind == bindparam("kind")).order_by(resources.c.name)
_PAGE = _OF_KIND.limit(bindparam("limit")).offset(bindparam("offset"))
_COUNT = select(func.count()).select_from(resources).where(resources.c.kind == bindparam("kind"))
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")  # words that JSON writes as they are
_AT_ONCE = 200  # resources read together where all may have to be looked at
_ALL = select(resources).order_by(resources.c.kind, resources.c.name)


class SqlResources:
    """`Resources` within one transaction."""

    def __init__(self, session: Session, journal: Journal, search: SqlSearch) -> None:
        self._session = session
        self._journal = journal
        self._search = search

    def get(self, kind: str, name: str) -> Resource:
        found = self.find(kind, name)
        if found is None:
            known = [r.name for r in self.all(kind)]
            raise NotFound(f'there is no {kind} "{name}"{did_you_mean(name, known)} (there are: {listed(known)})')
        return found

    def find(self, kind: str, name: str) -> Resource | None:
        return find_resource(self._session, kind, name)

    def all(self, kind: str | None = None, labels: Mapping[str, str] | None = None) -> list[Resource]:
        if kind is None:
            found = [as_resource(row) for row in self._session.connection.execute(_ALL)]
        else:
            found = [_resource(row) for row in self._session.raw(_EACH, (kind,)).fetchall()]
        return [r for r in found if all(r.labels.get(k) == v for k, v in (labels or {}).items())]

    def page(self, kind: str, offset: int, limit: int) -> tuple[list[Resource], int]:
        execute = self._session.connection.execute
        found = [as_resource(row) for row in execute(_PAGE, {"kind": kind, "offset": offset, "limit": limit})]
        return found, int(execute(_COUNT, {"kind": kind}).scalar_one())

    def likely(self, kind: str, words: Sequence[str] = ()) -> Iterator[Resource]:
        text = func.lower(resources.c.name + " " + cast(resources.c.spec, Text))
        plain = [word.lower() for word in words if _PLAIN.fullmatch(word)]
        query = _OF_KIND.where(*(text.contains(word, autoescape=True) for word in plain)).limit(_AT_ONCE)
        after = ""
        while True:
            rows = self._session.connection.execute(query.where(resources.c.name > after), {"kind": kind}).all()
            yield from map(as_resource, rows)
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1].name

    def spec_values(self, kind: str, *fields: str) -> list[tuple[Any, ...]]:
        texts = [cast(resources.c.spec[field], Text).label(field) for field in fields]
        rows = self._session.connection.execute(select(*texts).where(resources.c.kind == kind).distinct())
        return [tuple(None if text is None else orjson.loads(text) for text in row) for row in rows]

    def apply(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        owner: str | None = None,
        revision: int | None = None,
    ) -> Applied:
        check_name(name, kind)
        typed = kinds.validate(kind, name, spec)
        kept = orjson.loads(orjson.dumps(typed.model_dump(mode="json", exclude_defaults=True)))
        before = self.find(kind, name)
        _check_revision(Ref(kind, name), before, revision)
        wanted_labels = dict(labels) if labels is not None else dict(before.labels if before else {})
        wanted_owner = owner if owner is not None else (before.owner if before else None)
        if before is not None and (before.spec, before.labels, before.owner) == (
            kept,
            wanted_labels,
            wanted_owner,
        ):
            return Applied(before, None)
        now = self._session.clock.now()
        if before is None:
            after = Resource(kind, name, kept, {}, wanted_labels, wanted_owner, 1, 1, now, now)
        else:
            after = replace(
                before,
                spec=kept,
                labels=wanted_labels,
                owner=wanted_owner,
                generation=before.generation + (before.spec != kept),
                revision=before.revision + 1,
                updated_at=now,
            )
        self._store(after, is_new=before is None)
        self._index(after.ref, typed.references())
        detail = {"generation": after.generation, **_changes(before.spec if before else {}, kept)}
        action = "created" if before is None else "changed"
        event = self._journal.note(action, str(after.ref), detail)
        self._search.keep_resource(after)  # behind the event, whose lock puts writers of the index in order
        return Applied(after, event)

    def set_status(
        self,
        kind: str,
        name: str,
        status: Mapping[str, Any],
        *,
        action: str,
        detail: Mapping[str, Any] | None = None,
        cause: int | None = None,
        revision: int | None = None,
    ) -> Applied:
        before = self.get(kind, name)
        _check_revision(before.ref, before, revision)
        kept = orjson.loads(orjson.dumps(dict(status), option=orjson.OPT_NON_STR_KEYS))
        if before.status == kept:
            return Applied(before, None)
        now = self._session.clock.now()
        after = replace(before, status=kept, revision=before.revision + 1, updated_at=now)
        self._store(after, is_new=False)
        return Applied(after, self._journal.note(action, str(after.ref), detail, cause))

    def delete(self, kind: str, name: str, *, revision: int | None = None) -> list[Ref]:
        found = self.get(kind, name)
        _check_revision(found.ref, found, revision)
        going = [found.ref]
        for going_ref in going:  # grows while it is walked: owned, and owned by those
            going += [r for r in self.owned_by(going_ref) if r not in going]
        for going_ref in going:
            holders = [str(r) for r in self.referrers(going_ref) if r not in going]
            if holders:
                raise Conflict(
                    f"{going_ref} cannot be deleted: {listed(holders)} refer{'s' if len(holders) == 1 else ''} to it; "
                    "change or delete that first"
                )
        for gone in reversed(going):
            where = (resources.c.kind == gone.kind, resources.c.name == gone.name)
            self._session.connection.execute(delete(resources).where(*where))
            self._index(gone, set())
            self._journal.note("deleted", str(gone), {} if gone == found.ref else {"with": str(found.ref)})
            self._search.drop(gone)
        return going

    def referrers(self, target: Ref) -> list[Ref]:
        query = select(references.c.source_kind, references.c.source_name).where(
            references.c.target_kind == target.kind, references.c.target_name == target.name
        )
        return sorted(Ref(row.source_kind, row.source_name) for row in self._session.connection.execute(query))

    def owned_by(self, owner: Ref) -> list[Ref]:
        query = select(resources.c.kind, resources.c.name).where(resources.c.owner == str(owner.resource))
        return sorted(Ref(row.kind, row.name) for row in self._session.connection.execute(query))

    def _store(self, resource: Resource, *, is_new: bool) -> None:
        assert resource.created_at is not None
        assert resource.updated_at is not None
        columns = {
            "kind": resource.kind,
            "name": resource.name,
            "spec": resource.spec,
            "status": resource.status,
            "labels": resource.labels,
            "owner": resource.owner,
            "generation": resource.generation,
            "revision": resource.revision,
            "created_at": format_instant(resource.created_at),
            "updated_at": format_instant(resource.updated_at),
        }
        connection = self._session.connection
        assert self._session.actor
        if is_new:
            # Two writers may create it at once: on PostgreSQL the loser is told so here.
            insert = self._session.insert(resources).values(columns).on_conflict_do_nothing()
            if connection.execute(insert.returning(resources.c.name)).one_or_none() is None:
                raise Conflict(f"{resource.ref} was created by another writer at this moment; read it and decide anew")
            return
        where = (
            resources.c.kind == resource.kind,
            resources.c.name == resource.name,
            resources.c.revision == resource.revision - 1,
        )
        if connection.execute(update(resources).where(*where).values(columns)).rowcount != 1:
            raise Conflict(f"{resource.ref} was changed by another writer at this moment; read it and decide anew")

    def _index(self, source: Ref, targets: set[Ref]) -> None:
        connection = self._session.connection
        where = (references.c.source_kind == source.kind, references.c.source_name == source.name)
        connection.execute(delete(references).where(*where))
        rows = sorted({(t.kind, t.name) for t in targets})
        if rows:
            connection.execute(
                references.insert(),
                [
                    {
                        "source_kind": source.kind,
                        "source_name": source.name,
                        "target_kind": k,
                        "target_name": n,
                    }
                    for k, n in rows
                ],
            )


def _check_revision(ref: Ref, before: Resource | None, revision: int | None) -> None:
    if revision is None:
        return
    found = before.revision if before else 0
    if found != revision:
        raise Conflict(
            f"{ref} is at revision {found}, not {revision}: somebody changed it; read it again and decide anew"
        )


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the top-level fields that differ, as {field: [old, new]}, for the journal."""
    fields = {k: [before.get(k), after.get(k)] for k in {*before, *after} if before.get(k) != after.get(k)}
    return {"fields": fields} if fields else {}


def find_resource(session: Session, kind: str, name: str) -> Resource | None:
    """Return a resource, None where there is none."""
    row = session.raw(_ONE, (kind, name)).fetchone()
    return _resource(row) if row is not None else None


def _resource(row: Sequence[Any]) -> Resource:
    """Return the resource that the driver's row of `_COLUMNS` holds; PostgreSQL's reads JSON by itself."""
    kind, name, *told, owner, generation, revision, created_at, updated_at = row
    if owner is not None:
        parse_ref(owner)
    spec, status, labels = (orjson.loads(text) if isinstance(text, str) else text for text in told)
    made, changed = parse_instant(created_at), parse_instant(updated_at)
    return Resource(kind, name, spec, status, labels, owner, generation, revision, made, changed)


def as_resource(row: Row[Any]) -> Resource:
    """Return the resource that a row of `resources` holds."""
    if row.owner is not None:
        parse_ref(row.owner)
    return Resource(
        row.kind,
        row.name,
        row.spec,
        row.status,
        row.labels,
        row.owner,
        row.generation,
        row.revision,
        parse_instant(row.created_at),
        parse_instant(row.updated_at),
    )
