"""The index of words: FTS5 in SQLite, tsvector in PostgreSQL, written in the transaction of the change it is about.

Both hold the same words, cut by `flyball.ledger.words`, so they find the same. An entry that changes gets a new
number, so the order of numbers is the order of change, and a page of hits is read off the index from the newest
entry down, without looking at those behind it. Ranking is by buckets (`_buckets`), each in that order: a score for
every match (BM25, ts_rank) would visit all hundred thousand entries that have a common word. It also makes paging
exact: what is written meanwhile moves nothing but itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, Row, func, insert, select, text

from flyball.clock import format_instant, parse_instant
from flyball.errors import InvalidInput
from flyball.ledger.notes import NO_NOTE, Note
from flyball.ledger.refs import Ref
from flyball.ledger.refs import ref as parse_ref
from flyball.ledger.resources import Resource
from flyball.ledger.runs import Run
from flyball.ledger.search import FORMS, Filter, Found, Hit, Query, Term, match, parse_query, snippet
from flyball.ledger.sql import entries as of
from flyball.ledger.sql.entries import Entry
from flyball.ledger.sql.resources import find_resource
from flyball.ledger.sql.session import Session, raw
from flyball.ledger.sql.tables import search_entries, versions
from flyball.ledger.versions import Version
from flyball.ledger.words import LONGEST, cut

__all__ = ["SqlSearch", "forget_replaced", "insert_entries"]

forget_replaced = "INSERT INTO search_text (search_text) VALUES ('optimize')"
"""SQLite: make FTS5 rewrite its segments, in which the words of what was replaced or removed still stand."""

_HOW: tuple[Literal["name", "in name", "partly in name", "in text"], ...]
_HOW = ("name", "in name", "partly in name", "in text")
_LETTERS = {"kind": "k", "is": "c", "tag": "t", "owner": "o", "domain": "d", "column": "f"}
_TOP = 2**62  # above every number

_MATCHES = {"sqlite": "search_text MATCH :query", "postgresql": "words @@ CAST(:query AS tsquery)"}
_INSERT = {
    "sqlite": text("INSERT INTO search_text (rowid, words) VALUES (:id, :words)"),
    "postgresql": text("INSERT INTO search_text (rowid, words) VALUES (:id, CAST(:words AS tsvector))"),
}
_INSERT_WORDS = {
    "sqlite": "INSERT INTO search_text (rowid, words) VALUES (?, ?)",
    "postgresql": "INSERT INTO search_text (rowid, words) VALUES (?, CAST(? AS tsvector))",
}
_FIELDS = ", ".join(f'"{name}"' for name in Entry.__dataclass_fields__)
_INSERT_ONE = (
    f"INSERT INTO search_entries ({_FIELDS}) VALUES ({', '.join('?' for _ in Entry.__dataclass_fields__)}) RETURNING id"
)
_NAMES = tuple(Entry.__dataclass_fields__)
_FEW = 16  # entries; as many statements are quicker than to have SQLAlchemy make one
_DROPPED = 500  # entries dropped by one statement
# Asked at every change, and made once: making a statement takes longer than the database takes to answer it.
_ENTRY = f"SELECT {_FIELDS} FROM search_entries WHERE ref = ?"
_SAID = "SELECT description FROM notes WHERE kind = ? AND name = ? AND number = ?"
_TAGS = "SELECT key, value FROM note_tags WHERE kind = ? AND name = ? AND number = ? ORDER BY key"
_INSERT_ENTRY = insert(search_entries).returning(search_entries.c.id, sort_by_parameter_order=True)
# As a value, not by EXISTS, which PostgreSQL joins with all entries before it takes the first fifty.
_IN_TIME = " AND (SELECT e.at FROM search_entries AS e WHERE e.id = search_text.rowid) BETWEEN :after AND :before"


class SqlSearch:
    """`Search` within one transaction, and the writing of what is found."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._dialect = session.dialect
        self._pending: dict[str, tuple[Run, bool]] = {}

    # -- finding

    def find(self, query: str | Query, *, limit: int = 50, after: str | None = None) -> Found:
        self.flush()
        if not 1 <= limit <= 1000:
            raise InvalidInput(f"limit is {limit}; expected 1 to 1000 hits on a page")
        asked = self._read(query)
        first, below = _cursor(after)
        if asked.is_hopeless:
            return Found((), None, asked.notes)
        hits: list[Hit] = []
        last = ""
        lowest, highest = self._bounds(asked)
        for bucket, wanted in _buckets(asked):
            if bucket < first or lowest > highest:
                continue
            missing = limit + 1 - len(hits)
            top = min(below if bucket == first else _TOP, highest + 1)
            numbers = self._numbers(asked, wanted, lowest, top, missing)
            for row in self._rows(numbers[: limit - len(hits)]):
                hits.append(_hit(row, asked, _HOW[bucket // len(FORMS)]))
                last = f"{bucket}.{row.id}"
            if len(numbers) == missing:
                return Found(tuple(hits), last, asked.notes)
        return Found(tuple(hits), None, asked.notes)

    def counts(self, query: str | Query) -> Mapping[str, int]:
        self.flush()
        asked = self._read(query)
        if asked.is_hopeless:
            return {}
        found: dict[str, int] = {}
        for kind in self._session.connection.execute(select(search_entries.c.kind).distinct()).scalars().all():
            wanted = _All((_matching(asked), _Phrase((f"k:{_whole(kind)}",))))
            statement = f"SELECT count(*) FROM search_text WHERE {_MATCHES[self._dialect]}"
            found[kind] = self._ask(statement, asked, wanted).scalar_one()
        return dict(sorted(((k, n) for k, n in found.items() if n), key=lambda pair: (-pair[1], pair[0])))

    def _read(self, query: str | Query) -> Query:
        return parse_query(query, self._session.clock.now()) if isinstance(query, str) else query

    def _bounds(self, asked: Query) -> tuple[int, int]:
        """Return the lowest and the highest number of the entries in the query's time; the first above when none is."""
        if not (asked.after or asked.before):
            return 0, _TOP
        within = search_entries.c.at.between(*_times(asked))
        query = select(func.min(search_entries.c.id), func.max(search_entries.c.id)).where(within)
        lowest, highest = self._session.connection.execute(query).one()
        return (lowest, highest) if lowest is not None else (1, 0)

    def _numbers(self, asked: Query, wanted: _Expression, lowest: int, below: int, limit: int) -> list[int]:
        statement = (
            f"SELECT rowid FROM search_text WHERE {_MATCHES[self._dialect]} AND rowid >= :lowest AND rowid < :below"
        )
        order = " ORDER BY rowid DESC LIMIT :limit"
        return list(self._ask(statement, asked, wanted, order, lowest=lowest, below=below, limit=limit).scalars())

    def _ask(self, statement: str, asked: Query, wanted: _Expression, order: str = "", **values: Any) -> Any:
        values["query"] = _render(wanted, self._dialect)
        if asked.after or asked.before:
            statement += _IN_TIME
            values["after"], values["before"] = _times(asked)
        return self._session.connection.execute(text(statement + order), values)

    def _rows(self, numbers: Sequence[int]) -> Iterable[Row[Any]]:
        if not numbers:
            return []
        query = select(search_entries).where(search_entries.c.id.in_(numbers)).order_by(search_entries.c.id.desc())
        return self._session.connection.execute(query)

    # -- keeping

    def keep_resource(self, resource: Resource) -> None:
        """Index a resource, with the columns of its newest version."""
        newest = (
            select(versions.c.metadata)
            .where(versions.c.kind == resource.kind, versions.c.name == resource.name)
            .order_by(versions.c.number.desc())
            .limit(1)
        )
        metadata = self._session.connection.execute(newest).scalar_one_or_none()
        self._replace(of.of_resource(resource, metadata, self._note(resource.kind, resource.name)))

    def keep_version(self, version: Version, *, is_new: bool) -> None:
        """Index a version, and its columns with the resource that it is a version of."""
        if not is_new:
            self._replace(of.of_version(version, self._note(version.kind, version.name, version.number)))
            return
        _insert_few(self._session.raw, self._dialect, [of.of_version(version)])
        resource = find_resource(self._session, version.kind, version.name)
        if resource is not None:
            self._replace(of.of_resource(resource, version.metadata, self._note(version.kind, version.name)))

    def keep_run(self, run: Run, *, is_new: bool) -> None:
        """Index a run, or index it anew: once a transaction, however often it changes there."""
        before = self._pending.get(run.id)
        self._pending[run.id] = run, is_new or (before is not None and before[1])

    def flush(self) -> None:
        """Write the entries of the runs that changed."""
        pending, self._pending = self._pending, {}
        fresh = [of.of_run(run) for run, is_new in pending.values() if is_new]
        if len(fresh) > _FEW:
            insert_entries(self._session.connection, fresh)
        else:
            _insert_few(self._session.raw, self._dialect, fresh)
        for run, is_new in pending.values():
            if not is_new:
                self._replace(of.of_run(run))

    def forget(self) -> None:
        """Forget the changes that were not written yet, because they were undone."""
        self._pending.clear()

    def drop(self, *targets: Ref) -> None:
        """Take what was deleted out of the index."""
        for target in targets:
            if target.kind == "run":
                self._pending.pop(target.name, None)
        for start in range(0, len(targets), _DROPPED):
            some = [str(target) for target in targets[start : start + _DROPPED]]
            marks = ", ".join("?" for _ in some)
            found = self._session.raw(
                f"DELETE FROM search_entries WHERE ref IN ({marks}) RETURNING id", some
            ).fetchall()
            if found:
                marks = ", ".join("?" for _ in found)
                self._session.raw(f"DELETE FROM search_text WHERE rowid IN ({marks})", [row[0] for row in found])

    def _note(self, kind: str, name: str, number: int = 0) -> Note:
        """Return what is said of a thing, as far as a search looks at it."""
        this = (kind, name, number)
        row = self._session.raw(_SAID, this).fetchone()
        return Note(row[0], dict(self._session.raw(_TAGS, this).fetchall())) if row is not None else NO_NOTE

    def _replace(self, entry: Entry) -> None:
        row = self._session.raw(_ENTRY, (entry.ref,)).fetchone()
        if row is not None:
            there: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
            before = Entry(**{**there, "columns": _tuple(there["columns"]), "tags": _tuple(there["tags"])})
            if replace(entry, at=before.at) == before:
                return
            self.drop(parse_ref(entry.ref))
        _insert_few(self._session.raw, self._dialect, [entry])


def insert_entries(connection: Connection, given: Sequence[Entry]) -> None:
    """Add entries and their words; the caller has made sure that none of them is there."""
    dialect = connection.dialect.name
    if len(given) <= _FEW:
        _insert_few(partial(raw, connection), dialect, given)
        return
    rows = [{**entry.__dict__, "columns": list(entry.columns), "tags": list(entry.tags)} for entry in given]
    numbers = connection.execute(_INSERT_ENTRY, rows).scalars().all()
    kept = [{"id": n, "words": _text(of.tokens(e), dialect)} for n, e in zip(numbers, given, strict=True)]
    connection.execute(_INSERT[dialect], kept)


def _insert_few(execute: Callable[..., Any], dialect: str, given: Sequence[Entry]) -> None:
    for entry in given:
        values = [_dumped(value) if type(value) is tuple else value for value in entry.__dict__.values()]
        (number,) = execute(_INSERT_ONE, values).fetchone()
        execute(_INSERT_WORDS[dialect], (number, _text(of.tokens(entry), dialect)))


@dataclass(frozen=True)
class _Phrase:
    """Tokens one after the other; with `is_prefix` the last may go on."""

    tokens: tuple[str, ...]
    is_prefix: bool = False


@dataclass(frozen=True)
class _All:
    parts: tuple[_Expression, ...]


@dataclass(frozen=True)
class _Any:
    parts: tuple[_Expression, ...]


@dataclass(frozen=True)
class _But:
    """The first, without what matches the second."""

    wanted: _Expression
    unwanted: _Expression


_Expression = _Phrase | _All | _Any | _But


def _buckets(query: Query) -> Iterator[tuple[int, _Expression]]:
    """Yield (number, expression), best first and disjoint: how well the name matches, then the form.

    The name is what was asked for; has all the terms; has some; other fields have them.
    """
    terms = [t for t in query.terms if not t.is_excluded]
    names = tuple(_Phrase(tuple(f"n:{w}" for w in t.words), t.is_prefix) for t in terms)
    whole = _Phrase((f"e:{'_'.join(w for t in terms for w in t.words)}",))
    wanted_forms = {f.value for f in query.filters if f.key == "is" and not f.is_excluded and not f.is_prefix}
    matching = _matching(query)
    for tier in range(len(_HOW)):
        for place, form in enumerate(FORMS):
            if wanted_forms and form not in wanted_forms:
                continue
            base: _Expression = _All((matching, _Phrase((f"c:{form}",))))
            if not terms:
                found = base if tier == 0 else None
            elif tier == 0:
                found = _All((base, whole)) if not any(t.is_prefix for t in terms) else None
            elif tier == 1:
                found = _But(_All((base, *names)), whole)
            elif tier == 2:
                found = _But(_All((base, _Any(names))), _All(names)) if len(names) > 1 else None
            else:
                found = _But(base, _Any(names))
            if found is not None:
                yield (tier if terms else len(_HOW) - 1) * len(FORMS) + place, found


def _times(query: Query) -> tuple[str, str]:
    """Return the first and the last instant that a query asks for, as they are kept."""
    last = query.before - timedelta(microseconds=1) if query.before else None
    return format_instant(query.after) if query.after else "", format_instant(last) if last else "~"


def _matching(query: Query) -> _Expression:
    """Return what every hit must be like."""
    wanted: list[_Expression] = [_Phrase(t.words, t.is_prefix) for t in query.terms if not t.is_excluded]
    unwanted: list[_Expression] = [_Phrase(t.words, t.is_prefix) for t in query.terms if t.is_excluded]
    alternatives: dict[str, list[_Expression]] = defaultdict(list)
    for condition in query.filters:
        sought = _sought(condition)
        unwanted.append(sought) if condition.is_excluded else alternatives[condition.key].append(sought)
    wanted += [_Any(tuple(found)) for found in alternatives.values()]
    every: _Expression = _Any(tuple(_Phrase((f"c:{form}",)) for form in FORMS))
    matching: _Expression = _All(tuple(wanted)) if wanted else every
    return _But(matching, _Any(tuple(unwanted))) if unwanted else matching


def _sought(condition: Filter) -> _Phrase:
    return _Phrase((f"{_LETTERS[condition.key]}:{condition.value}"[: 2 * LONGEST + 2],), condition.is_prefix)


def _whole(value: str) -> str:
    return "_".join(cut(value))


def _render(expression: _Expression, dialect: str) -> str:
    """Write an expression in the database's language; tokens hold no quotes, so nothing typed can leave them."""
    is_sqlite = dialect == "sqlite"
    if isinstance(expression, _Phrase):
        if is_sqlite:
            return f'"{" ".join(expression.tokens)}"' + ("*" if expression.is_prefix else "")
        quoted = [f"'{token}'" for token in expression.tokens]
        return "(" + " <-> ".join(quoted) + (":*" if expression.is_prefix else "") + ")"
    if isinstance(expression, _But):
        without = " NOT " if is_sqlite else " & !"
        return f"({_render(expression.wanted, dialect)}{without}{_render(expression.unwanted, dialect)})"
    if isinstance(expression, _All):
        joined = " AND " if is_sqlite else " & "
    else:
        joined = " OR " if is_sqlite else " | "
    return "(" + joined.join(_render(part, dialect) for part in expression.parts) + ")"


def _text(tokens: Sequence[str | None], dialect: str) -> str:
    """Write an entry's words as the database takes them; a gap between fields is a token that nobody can type."""
    if dialect == "sqlite":
        return " ".join(token or ":" for token in tokens)
    places: dict[str, list[int]] = defaultdict(list)
    for place, token in enumerate(tokens, start=1):
        if token is not None and len(places[token]) < 255:  # more places of one word PostgreSQL does not keep
            places[token].append(place)
    return " ".join(f"'{token}':{','.join(map(str, found))}" for token, found in places.items())


def _dumped(values: tuple[str, ...]) -> str:
    return orjson.dumps(values).decode()


def _tuple(kept: Any) -> tuple[str, ...]:
    return tuple(orjson.loads(kept) if isinstance(kept, str) else kept)


def _cursor(after: str | None) -> tuple[int, int]:
    if after is None:
        return 0, _TOP
    parts = re.fullmatch(r"(\d{1,2})\.(\d{1,18})", after)
    if parts is None:
        raise InvalidInput(f"{after[:40]!r} does not continue a search; give the `next` of the page before")
    return int(parts[1]), int(parts[2])


def _entry(row: Row[Any]) -> Entry:
    found: dict[str, Any] = {name: row._mapping[name] for name in Entry.__dataclass_fields__}
    return Entry(**{**found, "columns": tuple(found["columns"]), "tags": tuple(found["tags"])})


def _hit(row: Row[Any], query: Query, how: Literal["name", "in name", "partly in name", "in text"]) -> Hit:
    entry = _entry(row)
    sought = [t for t in query.terms if not t.is_excluded]
    texts = entry.texts
    if not sought:  # what the filters go by, then, is what one wants to see
        fields = {"tag": "tags", "column": "columns"}
        filters = [f for f in query.filters if f.key in fields and not f.is_excluded]
        texts = [t for f in filters for t in texts if t[0] == fields[f.key]] + texts
        sought = [Term(tuple(f.value.split("_")), f.is_prefix) for f in filters]
    field, extract, marks = snippet(texts, sought)
    return Hit(
        parse_ref(entry.ref),
        entry.kind,
        entry.form,
        entry.name,
        entry.owner,
        entry.domain,
        entry.tags,
        parse_instant(entry.at),
        how,
        field,
        extract,
        marks,
        tuple(match(entry.name, sought)),
    )
