"""Notes on resources and versions in SQL: what is said, and the search over it.

A search reads the few columns that it compares and sorts by, of all candidates, and only then the rest of one page.
Tags are compared first: an index leads from a key to who has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, and_, delete, func, select, tuple_, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict, NotFound, listed
from flyball.ledger.journal import Event, Journal
from flyball.ledger.notes import NO_NOTE, Note, NoteCondition, NoteOrder, StageChange, place
from flyball.ledger.refs import check_name, ledger_name, shown_name
from flyball.ledger.resources import Resource
from flyball.ledger.sql.moving import drop_everything, move_everything
from flyball.ledger.sql.registry_tables import note_tags, notes, stage_changes
from flyball.ledger.sql.resources import SqlResources, as_resource
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import resources, versions
from flyball.ledger.sql.versions import SqlVersions, as_version
from flyball.ledger.versions import Version

if TYPE_CHECKING:
    from flyball.ledger.sql.search import SqlSearch

__all__ = ["SqlNotes"]

_SHOWN = 8000  # characters of a text that an event repeats
_AT_ONCE = 400  # names of one statement
_FEW = 200  # values that are put into a statement
_NOTE = "SELECT description, stage, source, run, updated_at FROM notes WHERE kind = ? AND name = ? AND number = ?"
_TAGS = "SELECT key, value FROM note_tags WHERE kind = ? AND name = ? AND number = ? ORDER BY key"
_THERE = "SELECT 1 FROM versions WHERE kind = ? AND name = ? AND number = ? AND deleted_at IS NULL"
_RESOURCES = (
    "SELECT r.name, r.created_at, COALESCE(n.updated_at, r.updated_at) FROM resources AS r "
    "LEFT JOIN notes AS n ON n.kind = r.kind AND n.name = r.name AND n.number = 0 WHERE r.kind = ?"
)
_VERSIONS = (
    "SELECT v.name, v.created_at, COALESCE(n.updated_at, v.created_at), v.number, COALESCE(n.run, v.run), n.source "
    "FROM versions AS v LEFT JOIN notes AS n ON n.kind = v.kind AND n.name = v.name AND n.number = v.number "
    "WHERE v.kind = ? AND v.deleted_at IS NULL"
)
_COLUMNS = {"name": 0, "created_at": 1, "updated_at": 2, "number": 3, "run": 4, "source": 5}
_PUSHED = {
    "resources": {"name": "r.name"},
    "versions": {"name": "v.name", "run": "COALESCE(n.run, v.run)", "number": "v.number"},
}
_JOINED = and_(notes.c.kind == versions.c.kind, notes.c.name == versions.c.name, notes.c.number == versions.c.number)
_VERSION_AND_NOTE = select(
    versions,
    notes.c.description,
    notes.c.stage,
    notes.c.source,
    notes.c.run.label("note_run"),
    notes.c.updated_at,
).select_from(versions.outerjoin(notes, _JOINED))


class SqlNotes:
    """`Notes` within one transaction."""

    def __init__(
        self, session: Session, journal: Journal, search: SqlSearch, resources: SqlResources, versions: SqlVersions
    ) -> None:
        self._session = session
        self._journal = journal
        self._search = search
        self._resources = resources
        self._versions = versions

    def get(self, kind: str, name: str, number: int | None = None) -> Note:
        this = (kind, name, number or 0)
        row = self._session.raw(_NOTE, this).fetchone()
        if row is None:
            return NO_NOTE
        description, stage, source, run, updated_at = row
        tags = dict(self._session.raw(_TAGS, this).fetchall())
        return Note(description, tags, stage, source, run, parse_instant(updated_at))

    def change(
        self,
        kind: str,
        name: str,
        number: int | None = None,
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
        stage: str | None = None,
        source: str | None = None,
        run: str | None = None,
        is_new: bool = False,
        cause: int | None = None,
    ) -> Note:
        self._versions.hold()
        self._check_there(kind, name, number)
        before = self.get(kind, name, number)
        at_once = {"source": source, "run": run} | ({"description": description, "stage": stage} if is_new else {})
        values = {column: value or None for column, value in at_once.items() if value is not None}
        events: list[Event] = []

        def note(action: str, detail: Mapping[str, Any]) -> Event:
            event = self._journal.note(action, str(place(kind, name, number)), detail, cause)
            events.append(event)
            return event

        changed = {key: value for key, value in (tags or {}).items() if before.tags.get(key) != value}
        removed = [key for key in dict.fromkeys(remove_tags) if key in before.tags and key not in changed]
        if is_new:
            told = {**values, "tags": {key: _cut(value) for key, value in changed.items()}}
            event = note("noted", {key: _cut(value) for key, value in told.items() if value})
            if stage:
                self._keep_stage(kind, name, number, stage, event)
        else:
            if description is not None and description != (before.description or ""):
                values["description"] = description or None
                note("described", {"description": _cut(description)})
            for key, value in changed.items():
                note("tagged", {"key": key, "value": _cut(value)})
            for key in removed:
                note("untagged", {"key": key})
            if stage is not None and (stage or None) != before.stage:
                values["stage"] = stage or None
                event = note("staged", {"from": before.stage, "to": stage or None})
                self._keep_stage(kind, name, number, stage or None, event)
            if not events and values:
                note("noted", values)
        if not events:
            return before
        self._store_tags(kind, name, number, changed, removed)
        self._touch(kind, name, number, events[-1], values)
        self._reindex(kind, name, number)
        return self.get(kind, name, number)

    def forget(self, kind: str, name: str, number: int, *, cause: int | None = None) -> None:
        self._versions.hold()
        self._check_there(kind, name, number)
        event = self._journal.note("forgotten", str(place(kind, name, number)), {}, cause)
        for alias, target in self._versions.aliases(kind, name).items():
            if target == number:
                self._versions.set_alias(kind, name, alias, None, cause=event.seq)
        this = (versions.c.kind == kind, versions.c.name == name, versions.c.number == number)
        gone: dict[str, Any] = {"deleted_at": format_instant(event.at), "run": None, "metadata": {}}
        self._session.connection.execute(update(versions).where(*this).values(gone))
        self._touch(kind, name, number, event, {"description": None, "source": None, "run": None})
        self._search.drop(place(kind, name, number))

    def drop(self, kind: str, name: str, *, cause: int | None = None) -> None:
        self._versions.hold()
        self._resources.delete(kind, name)
        event = self._journal.note("dropped", str(place(kind, name, None)), {}, cause)
        for alias in self._versions.aliases(kind, name):
            self._versions.set_alias(kind, name, alias, None, cause=event.seq)
        for gone in drop_everything(self._session.connection, kind, name):
            self._search.drop(gone)

    def rename(self, kind: str, name: str, new: str, *, cause: int | None = None) -> Resource:
        check_name(new, kind)
        self._versions.hold()
        before = self._resources.get(kind, name)
        if new == name:
            return before
        if self._resources.find(kind, new) is not None or self._versions.all(kind, new, limit=1):
            raise Conflict(f"there is already a {kind} named {shown_name(new)}")
        holders = [str(r) for r in self._resources.referrers(before.ref)]
        if holders:
            raise Conflict(
                f"{before.ref} cannot be renamed: {listed(holders)} refer to it; change or delete that first"
            )
        made = [version.ref for version in self._versions.all(kind, name, limit=1_000_000)]
        move_everything(self._session.connection, kind, name, new)
        event = self._journal.note("renamed", f"{kind}/{new}", {"from": name, "to": new}, cause)
        self._touch(kind, new, None, event, {})
        for old in [before.ref, *made]:
            self._search.drop(old)
        for version in self._versions.all(kind, new, limit=1_000_000):
            self._search.keep_version(version, is_new=False)
        after = self._resources.get(kind, new)
        self._search.keep_resource(after)
        return after

    def stage_history(self, kind: str, name: str, number: int | None = None) -> list[StageChange]:
        query = select(stage_changes).where(stage_changes.c.kind == kind, stage_changes.c.name == name)
        if number is not None:
            query = query.where(stage_changes.c.number == number)
        rows = self._session.connection.execute(query.order_by(stage_changes.c.event))
        return [StageChange(r.number, r.stage, parse_instant(r.at), r.actor, r.event) for r in rows]

    def newest_by_stage(self, kind: str, names: Iterable[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for some in _chunks(list(names)):
            query = (
                select(versions.c.name, func.max(versions.c.number))
                .select_from(versions.outerjoin(notes, _JOINED))
                .where(versions.c.kind == kind, versions.c.name.in_(some), versions.c.deleted_at.is_(None))
                .group_by(versions.c.name, notes.c.stage)
            )
            for name, number in self._session.connection.execute(query):
                found.setdefault(name, []).append(number)
        return {name: sorted(numbers) for name, numbers in found.items()}

    def resources(
        self,
        kind: str,
        conditions: Sequence[NoteCondition] = (),
        without_tag: tuple[str, str] | None = None,
        order: Sequence[NoteOrder] = (),
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[tuple[Resource, Note]], bool]:
        places, more = self._find("resources", kind, conditions, without_tag, order, limit, offset)
        names = [name for name, _ in places]
        found: dict[str, Resource] = {}
        for some in _chunks(names):
            query = select(resources).where(resources.c.kind == kind, resources.c.name.in_(some))
            found |= {row.name: as_resource(row) for row in self._session.connection.execute(query)}
        said = self._notes_on_names(kind, names)
        return [(found[name], said.get(name, NO_NOTE)) for name in names if name in found], more

    def versions(
        self,
        kind: str,
        conditions: Sequence[NoteCondition] = (),
        without_tag: tuple[str, str] | None = None,
        order: Sequence[NoteOrder] = (),
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[tuple[Version, Note]], bool]:
        places, more = self._find("versions", kind, conditions, without_tag, order, limit, offset)
        return self.of_versions(kind, places), more

    def of_versions(self, kind: str, places: Iterable[tuple[str, int]]) -> list[tuple[Version, Note]]:
        wanted = list(places)
        found: dict[tuple[str, int], Row[Any]] = {}
        tags: dict[tuple[str, int], dict[str, str]] = {}
        for some in _chunks(wanted):
            at = _at(versions, some)
            query = _VERSION_AND_NOTE.where(versions.c.kind == kind, at, versions.c.deleted_at.is_(None))
            found |= {(row.name, row.number): row for row in self._session.connection.execute(query)}
            tagged = select(note_tags).where(note_tags.c.kind == kind, _at(note_tags, some)).order_by(note_tags.c.key)
            for row in self._session.connection.execute(tagged):
                tags.setdefault((row.name, row.number), {})[row.key] = row.value
        return [(as_version(found[at]), _note(found[at], tags.get(at, {}))) for at in wanted if at in found]

    def _find(
        self,
        what: str,
        kind: str,
        conditions: Sequence[NoteCondition],
        without_tag: tuple[str, str] | None,
        order: Sequence[NoteOrder],
        limit: int,
        offset: int,
    ) -> tuple[list[tuple[str, int]], bool]:
        """Return the places of a page: names with numbers, of resources with 0."""
        is_version = what == "versions"
        statement, values = _VERSIONS if is_version else _RESOURCES, [kind]
        tests = []
        among: set[tuple[str, int]] | None = None
        for one in conditions:
            if one.kind == "tag":
                having = self._tagged(kind, one, is_version)
                among = having if among is None else among & having
                continue
            wanted = one.value if one.operator == "IN" else (one.value,)
            if one.operator in ("=", "IN") and one.key in _PUSHED[what] and 0 < len(wanted) <= _FEW:
                statement += f" AND {_PUSHED[what][one.key]} IN ({', '.join('?' * len(wanted))})"
                values += [ledger_name(value) if one.key == "name" else value for value in wanted]
            else:
                tests.append((_COLUMNS[one.key], one))
        if among is not None and not among:
            return [], False
        names = {name for name, _ in among or ()}
        if 0 < len(names) <= _FEW:
            statement += f" AND {_PUSHED[what]['name']} IN ({', '.join('?' * len(names))})"
            values += sorted(names)
        rows: list[tuple[Any, ...]] = self._session.raw(statement, values).fetchall()
        if among is not None:
            rows = [row for row in rows if (row[0], row[3] if is_version else 0) in among]
        if without_tag is not None:
            hidden = self._names_with_tag(kind, *without_tag, is_version=is_version)
            rows = [row for row in rows if row[0] not in hidden] if hidden else rows
        for column, test in tests:
            rows = [row for row in rows if _holds(test, row[column])]
        _sort(rows, order, is_version)
        page = rows[offset : offset + limit]
        return [(row[0], row[3] if is_version else 0) for row in page], len(rows) > offset + limit

    def _tagged(self, kind: str, condition: NoteCondition, is_version: bool) -> set[tuple[str, int]]:
        statement = "SELECT name, number, value FROM note_tags WHERE kind = ? AND key = ? AND number "
        statement += "> 0" if is_version else "= 0"
        values = [kind, condition.key]
        if condition.operator == "=":
            statement += " AND value = ?"
            values.append(condition.value)
        rows = self._session.raw(statement, values)
        return {(name, number) for name, number, value in rows if condition.holds(value)}

    def _names_with_tag(self, kind: str, key: str, value: str, *, is_version: bool) -> set[str]:
        statement = "SELECT DISTINCT name FROM note_tags WHERE kind = ? AND key = ? AND value = ? AND number "
        statement += ">= 0" if is_version else "= 0"
        return {name for (name,) in self._session.raw(statement, (kind, key, value))}

    def _notes_on_names(self, kind: str, names: list[str]) -> dict[str, Note]:
        found: dict[str, Note] = {}
        for some in _chunks(names):
            tags: dict[str, dict[str, str]] = {}
            of_these = (note_tags.c.kind == kind, note_tags.c.name.in_(some), note_tags.c.number == 0)
            for tag in self._session.connection.execute(select(note_tags).where(*of_these).order_by(note_tags.c.key)):
                tags.setdefault(tag.name, {})[tag.key] = tag.value
            query = select(notes).where(notes.c.kind == kind, notes.c.name.in_(some), notes.c.number == 0)
            for row in self._session.connection.execute(query):
                told = row.description, tags.get(row.name, {}), row.stage, row.source, row.run
                found[row.name] = Note(*told, parse_instant(row.updated_at))
        return found

    def _check_there(self, kind: str, name: str, number: int | None) -> None:
        if number is None:
            self._resources.get(kind, name)
        elif self._session.raw(_THERE, (kind, name, number)).fetchone() is None:
            raise NotFound(f"there is no version {number} of {kind}/{shown_name(name)}")

    def _keep_stage(self, kind: str, name: str, number: int | None, stage: str | None, event: Event) -> None:
        row = {"event": event.seq, "kind": kind, "name": name, "number": number or 0, "stage": stage}
        row |= {"at": format_instant(event.at), "actor": event.actor}
        self._session.connection.execute(stage_changes.insert().values(row))

    def _store_tags(
        self, kind: str, name: str, number: int | None, changed: Mapping[str, str], removed: Sequence[str]
    ) -> None:
        connection = self._session.connection
        for key, value in changed.items():
            row = {"kind": kind, "name": name, "number": number or 0, "key": key, "value": value}
            insert = self._session.insert(note_tags).values(row)
            at = ["kind", "name", "number", "key"]
            connection.execute(insert.on_conflict_do_update(index_elements=at, set_={"value": value}))
        if removed:
            this = (note_tags.c.kind == kind, note_tags.c.name == name, note_tags.c.number == (number or 0))
            connection.execute(delete(note_tags).where(*this, note_tags.c.key.in_(removed)))

    def _touch(self, kind: str, name: str, number: int | None, event: Event, values: Mapping[str, Any]) -> None:
        """Keep values, and that the thing changed now; with a version its resource did."""
        for one, kept in [(number or 0, values), *([(0, {})] if number else [])]:
            row = {**kept, "updated_at": format_instant(event.at)}
            insert = self._session.insert(notes).values(kind=kind, name=name, number=one, **row)
            at = ["kind", "name", "number"]
            self._session.connection.execute(insert.on_conflict_do_update(index_elements=at, set_=row))

    def _reindex(self, kind: str, name: str, number: int | None) -> None:
        if number is not None:
            self._search.keep_version(self._versions.get(kind, name, number), is_new=False)
            return
        self._search.keep_resource(self._resources.get(kind, name))


def _at(table: Any, places: Sequence[tuple[str, int]]) -> Any:
    if len(places) == 1:  # the most frequent; a comparison of pairs takes longer to make
        return and_(table.c.name == places[0][0], table.c.number == places[0][1])
    return tuple_(table.c.name, table.c.number).in_(places)


def _holds(condition: NoteCondition, value: Any) -> bool:
    if value is None:
        return False
    return condition.holds(shown_name(value) if condition.key == "name" else value)


def _sort(rows: list[tuple[Any, ...]], order: Sequence[NoteOrder], is_version: bool) -> None:
    """Sort in place, by names as people read them; what comes first in `order` decides."""
    given = {one.key for one in order}
    last = [NoteOrder("name"), *([NoteOrder("number", False)] if is_version else [])]
    for one in reversed([*order, *(by for by in last if by.key not in given)]):
        column = _COLUMNS[one.key]
        if one.key == "name":
            rows.sort(key=lambda row: shown_name(row[0]), reverse=not one.ascending)
        else:
            rows.sort(key=lambda row, column=column: row[column], reverse=not one.ascending)  # type: ignore[misc]


def _note(row: Row[Any], tags: Mapping[str, str]) -> Note:
    updated = parse_instant(row.updated_at) if row.updated_at else None
    return Note(row.description, tags, row.stage, row.source, row.note_run, updated)


def _cut(value: Any) -> Any:
    return f"{value[:_SHOWN]}…" if isinstance(value, str) and len(value) > _SHOWN else value


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
