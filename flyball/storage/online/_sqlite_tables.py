"""The tables of one view in `sqlite.py`: where its rows lie, how they are written and asked for.

`numbered` holds keys that are numbers by themselves (`places`). The others lie in `hashed` under their hash, with the
key beside it; one whose hash another key has taken lies in `clashing`, and a key is only ever in one of the two. So a
look-up of any key descends one tree of numbers. All are rowid tables: in a table without rowid every inner page holds
whole rows, which makes it deeper.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain, compress, islice
from operator import itemgetter, le
from typing import Any

import orjson

from flyball.storage.online import Encoded, Together
from flyball.storage.online.places import hash_of, hashes_of, place_of, places_of

__all__ = ["Rows", "ViewTables"]

Rows = tuple[list[Sequence[Any]], list[Sequence[Any]]]
"""Columns, of equal lengths: place, event, arrival, shape, value of numbered keys; hash, key, event, … of others."""

_COLUMNS = "event INTEGER NOT NULL, arrival INTEGER, shape INTEGER NOT NULL, value BLOB NOT NULL"
# Ties of the event go to the later arrival; a row that tells none counts as the earliest.
_UPSERT = """
INSERT INTO {table} ({columns}) VALUES {rows}
ON CONFLICT (key) DO UPDATE SET event = excluded.event, arrival = excluded.arrival, shape = excluded.shape,
  value = excluded.value
WHERE {same} (excluded.event > event OR (excluded.event = event
  AND ifnull(excluded.arrival, -0x7fffffffffffffff) >= ifnull(arrival, -0x7fffffffffffffff)))
"""
_WHOLE, _HEAD = "event, arrival, shape, value", "event, arrival"
# Each key's row or nulls, in the order asked: the left side of a left join is its outer loop.
_ASKED = "WITH asked (place) AS (VALUES {marks}) SELECT {wanted} FROM asked LEFT JOIN {table} ON key = place"
_ASKED_HASHED = (
    "WITH asked (place, text) AS (VALUES {marks}) SELECT {wanted} FROM asked "
    "LEFT JOIN {table} ON key = place AND name = text"
)
_TOGETHER = (
    "group_concat(ifnull(event, 'null')), count(event), count(arrival), max(arrival), min(shape), max(shape), "
    "group_concat(ifnull(value, 'null'))"
)
_TOGETHER_NAMED = f"{_TOGETHER}, group_concat(ifnull(name, ''), '\n')"
_INSERTED_AT_ONCE = 200  # rows of a statement: a third faster than one by one
_READ_AT_ONCE = 1_024  # keys of a query
_event_of = itemgetter(0)


class ViewTables:
    """The tables of one view and what is asked of them. Their texts are made once, being asked for every request."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.numbered, self.hashed, self.clashing = f"numbered_{number}", f"hashed_{number}", f"named_{number}"
        self.tables = (self.numbered, self.hashed, self.clashing)
        self._one_numbered = f"SELECT {_WHOLE} FROM {self.numbered} WHERE key = ?"
        self._one_hashed = f"SELECT {_WHOLE} FROM {self.hashed} WHERE key = ? AND name = ?"
        self._one_clashing = f"SELECT {_WHOLE} FROM {self.clashing} WHERE key = ?"
        self._any_clashing = f"SELECT 1 FROM {self.clashing} LIMIT 1"
        self._asked: dict[tuple[str, str, int], str] = {}

    def create(self, connection: sqlite3.Connection) -> None:
        """Make the tables, if they are not there."""
        for table, key in (
            (self.numbered, "key INTEGER PRIMARY KEY"),
            (self.hashed, "key INTEGER PRIMARY KEY, name TEXT NOT NULL"),
            (self.clashing, "id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE"),
        ):
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({key}, {_COLUMNS})")

    # writing

    def upsert(self, connection: sqlite3.Connection, rows: Rows) -> int:
        """Write rows, of a key the newest wins; return how many were newer. Inside one transaction."""
        numbered, hashed = rows
        changed = _upsert(connection, self.numbered, numbered) if numbered[0] else 0
        return changed + (self._upsert_hashed(connection, hashed) if hashed[0] else 0)

    def _upsert_hashed(self, connection: sqlite3.Connection, rows: list[Sequence[Any]]) -> int:
        clashing: list[Sequence[Any]] = [[] for _ in rows]
        if connection.execute(self._any_clashing).fetchone():
            there = [row[0] is not None for row in self._read_in(connection, self.clashing, "key", rows[1])]
            clashing = _chosen(rows, there)
            rows = _chosen(rows, [not is_there for is_there in there])
        changed = _upsert(connection, self.hashed, rows)
        if changed < len(rows[0]):  # some were not newer, or found another key in their place
            owners = self._read_in(connection, self.hashed, "name", rows[0], by_hash=True)
            others = _chosen(rows, [owner[0] != key for owner, key in zip(owners, rows[1], strict=True)])
            clashing = [[*one, *other] for one, other in zip(clashing, others, strict=True)]
        return changed + (_upsert(connection, self.clashing, clashing[1:]) if clashing[0] else 0)

    def delete(self, connection: sqlite3.Connection, key: str) -> None:
        """Remove a key's row."""
        place = place_of(key)
        if isinstance(place, int):
            connection.execute(f"DELETE FROM {self.numbered} WHERE key = ?", (place,))
        else:
            connection.execute(f"DELETE FROM {self.hashed} WHERE key = ? AND name = ?", (hash_of(key), key))
            connection.execute(f"DELETE FROM {self.clashing} WHERE key = ?", (key,))

    # reading

    def one(self, connection: sqlite3.Connection, key: str) -> Encoded | None:
        """Return the row of a key: event, arrival, shape, value."""
        place = place_of(key)
        found: Encoded | None
        if place.__class__ is int:
            found = connection.execute(self._one_numbered, (place,)).fetchone()
            return found
        found = connection.execute(self._one_hashed, (hash_of(key), key)).fetchone()
        return found or connection.execute(self._one_clashing, (key,)).fetchone()

    def many(self, connection: sqlite3.Connection, keys: Sequence[str], *, heads: bool = False) -> list[Encoded | None]:
        """Return the rows in the order of the keys; of `heads` only event and arrival."""
        wanted, places = _HEAD if heads else _WHOLE, places_of(keys)
        if str not in set(map(type, places)):
            return _none_where_missing(self._read_in(connection, self.numbered, wanted, places))
        is_number = [place.__class__ is int for place in places]
        numbers = self._read_in(connection, self.numbered, wanted, list(compress(places, is_number)))
        others = self._named(
            connection, wanted, [key for key, number in zip(keys, is_number, strict=True) if not number]
        )
        if len(others) == len(keys):
            return others
        from_numbers, from_others = iter(_none_where_missing(numbers)), iter(others)
        return [next(from_numbers) if number else next(from_others) for number in is_number]

    def together(self, connection: sqlite3.Connection, keys: Sequence[str]) -> Together | None:
        """Return the rows of keys as one document, None where that cannot be said of them; see `OnlineStore`."""
        count = len(keys)
        places = places_of(keys)
        kinds = set(map(type, places))
        if count > _READ_AT_ONCE or len(kinds) > 1 or _padded(count) > count:
            return None
        if int in kinds:
            row = connection.execute(self._query(self.numbered, _TOGETHER, count), places).fetchone()
        else:  # by hash alone, and the names looked at here: to hand every key over takes SQLite longer
            query = self._query(self.hashed, _TOGETHER_NAMED, count, by_hash=True)
            *row, names = connection.execute(query, hashes_of(keys)).fetchone()
            if not self._are_own(connection, names, keys):
                return None
        events, found, told, latest, shape, last_shape, values = row
        if not found or shape != last_shape or not shape:
            return None
        return Together(orjson.loads(f"[{events}]"), found, told, latest, shape, f"[{values}]")

    def _are_own(self, connection: sqlite3.Connection, names: str, keys: Sequence[str]) -> bool:
        """Whether the rows found by the hashes of keys are theirs and no row lies elsewhere; names are one a line."""
        wanted = "\n".join(keys)
        if wanted.count("\n") >= len(keys):  # a key of several lines
            return False
        if names == wanted:
            return True
        found = names.split("\n")
        if len(found) != len(keys) or any(name not in ("", key) for name, key in zip(found, keys, strict=True)):
            return False
        return connection.execute(self._any_clashing).fetchone() is None

    def _named(self, connection: sqlite3.Connection, wanted: str, keys: list[str]) -> list[Encoded | None]:
        asked = list(zip(hashes_of(keys), keys, strict=True))
        rows = _none_where_missing(self._read_in(connection, self.hashed, wanted, asked))
        if None in rows and connection.execute(self._any_clashing).fetchone():
            places = [place for place, row in enumerate(rows) if row is None]
            there = self._read_in(connection, self.clashing, wanted, [keys[place] for place in places])
            for place, row in zip(places, _none_where_missing(there), strict=True):
                rows[place] = row
        return rows

    def _read_in(
        self, connection: sqlite3.Connection, table: str, wanted: str, asked: Sequence[Any], *, by_hash: bool = False
    ) -> list[Any]:
        """Return a row for each of what is asked, of nulls where there is none; what is asked of `hashed` are pairs."""
        rows: list[Any] = []
        is_pairs = table == self.hashed and not by_hash
        for start in range(0, len(asked), _READ_AT_ONCE):
            part = asked[start : start + _READ_AT_ONCE] if len(asked) > _READ_AT_ONCE else asked
            count, size = len(part), _padded(len(part))
            if size > count:  # few query texts, so that SQLite need not compile them anew
                part = [*part, *[part[-1]] * (size - count)]
            query = self._query(table, wanted, size, by_hash=by_hash)
            found = connection.execute(query, list(chain.from_iterable(part)) if is_pairs else part).fetchall()
            rows += found[:count] if size > count else found
        return rows

    def _query(self, table: str, wanted: str, size: int, *, by_hash: bool = False) -> str:
        query = self._asked.get((table, wanted, size))
        if query is None:
            is_pairs = table == self.hashed and not by_hash
            marks = ",".join(["(?,?)" if is_pairs else "(?)"] * size)
            text = _ASKED_HASHED if is_pairs else _ASKED
            query = self._asked[table, wanted, size] = text.format(marks=marks, wanted=wanted, table=table)
        return query


def rows_of(
    keys: Sequence[str],
    events: Sequence[int],
    arrivals: Sequence[int | None],
    shapes: Sequence[int],
    values: Sequence[bytes],
) -> Rows:
    """Return rows by table, in the order of their places; those of one key stay in the order given."""
    places, rest = places_of(keys), (events, arrivals, shapes, values)
    nothing: list[Sequence[Any]] = [[]] * 6
    if str not in set(map(type, places)):
        return _in_order([places, *rest]), nothing
    is_number = [place.__class__ is int for place in places]
    named = _chosen([keys, *rest], [not number for number in is_number])
    return _in_order(_chosen([places, *rest], is_number)), _in_order([hashes_of(named[0]), *named])


def parts_of(rows: Rows, most: int) -> Iterator[Rows]:
    """Yield rows in parts of at most `most`: neighbours share pages, each of which is then logged once."""
    numbered, hashed = rows
    for start in range(0, len(numbered[0]), most):
        yield [column[start : start + most] for column in numbered], [[]] * 6
    for start in range(0, len(hashed[0]), most):
        yield [[]] * 5, [column[start : start + most] for column in hashed]


def _in_order(columns: list[Sequence[Any]]) -> list[Sequence[Any]]:
    places = columns[0]
    if all(map(le, places, islice(places, 1, None))):  # as materialisation gives them
        return columns
    order = sorted(range(len(places)), key=places.__getitem__)
    return [list(map(column.__getitem__, order)) for column in columns]


def _chosen(columns: list[Sequence[Any]], choice: list[bool]) -> list[Sequence[Any]]:
    return [list(compress(column, choice)) for column in columns]


def _upsert(connection: sqlite3.Connection, table: str, columns: list[Sequence[Any]]) -> int:
    before, width, count = connection.total_changes, len(columns), len(columns[0])
    names = "key, name, event, arrival, shape, value" if width == 6 else "key, event, arrival, shape, value"
    same = "name = excluded.name AND" if width == 6 else ""
    marks = f"({','.join('?' * width)})"
    many = ",".join([marks] * _INSERTED_AT_ONCE)
    query = _UPSERT.format(table=table, columns=names, rows=many, same=same)
    whole = count - count % _INSERTED_AT_ONCE
    for start in range(0, whole, _INSERTED_AT_ONCE):
        rows = zip(*(column[start : start + _INSERTED_AT_ONCE] for column in columns), strict=True)
        connection.execute(query, list(chain.from_iterable(rows)))
    if whole < count:
        query = _UPSERT.format(table=table, columns=names, rows=marks, same=same)
        connection.executemany(query, zip(*(column[whole:] for column in columns), strict=True))
    return connection.total_changes - before


def _none_where_missing(rows: list[Any]) -> list[Encoded | None]:
    return rows if None not in map(_event_of, rows) else [None if row[0] is None else row for row in rows]


def _padded(count: int) -> int:
    """Return the number of variables for so many keys: exact up to 128, then in steps of 128."""
    return count if count <= 128 else -(-count // 128) * 128
