"""The tables of `sqlite.py`: where a key lies, the queries of a view, and the file of the release before."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from flyball.errors import Incompatible, InvalidInput
from flyball.storage.online import Encoded

__all__ = ["Place", "ViewTables", "place_of", "places_of", "prepare"]

Place = int | str  # the rowid of a key, or the key itself

_FORMAT = 2  # kept as `user_version`; a file of the first format has 0 there
_COLUMNS = "event INTEGER NOT NULL, arrival INTEGER, shape INTEGER NOT NULL, value BLOB NOT NULL"
# Ties of the event go to the later arrival; a row that tells none counts as the earliest.
_UPSERT = """
INSERT INTO {table} (key, event, arrival, shape, value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET event = excluded.event, arrival = excluded.arrival, shape = excluded.shape,
  value = excluded.value
WHERE excluded.event > event OR (excluded.event = event
  AND ifnull(excluded.arrival, -0x7fffffffffffffff) >= ifnull(arrival, -0x7fffffffffffffff))
"""
_SHORT_BYTES = 7
_SHORT_BASE = tuple((1 << 62) + (length << 56) for length in range(_SHORT_BYTES + 1))
_MOST_DIGITS = 18
_READ_AT_ONCE = 1_024  # variables of a query
_MIGRATED_AT_ONCE = 10_000  # rows
_MIGRATION_LIMIT_MS = 600_000
_place, _place_in_row = itemgetter(0), itemgetter(4)


def place_of(key: str) -> Place:
    """Return where a key lies: a number for texts of up to 7 bytes and for whole numbers, else the key itself.

    No two keys have the same place: a short text is its bytes and their count, above 2**62; a whole number of 8 to 18
    digits is itself, below 2**60.
    """
    length = len(key)
    if length <= _SHORT_BYTES:
        try:
            raw = key.encode()
        except UnicodeEncodeError:
            raise InvalidInput("a key of online values has half a surrogate pair in it; send valid Unicode") from None
        if len(raw) <= _SHORT_BYTES:
            return int.from_bytes(raw, "big") + _SHORT_BASE[len(raw)]
    if length <= _MOST_DIGITS and key.isdecimal() and key.isascii() and key[0] != "0":
        return int(key)
    return key


class ViewTables:
    """The two tables of one view and what is asked of them. Their texts are made once, being asked for every request.

    `numbered` holds keys that are numbers, `named` the others. Both are rowid tables: in a table without rowid every
    inner page holds whole rows, which makes it deeper, and writes in random order four times slower.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.numbered, self.named = f"numbered_{number}", f"named_{number}"
        self.tables = (self.numbered, self.named)
        self._one = {t: f"SELECT event, arrival, shape, value FROM {t} WHERE key = ?" for t in self.tables}
        self._one_numbered, self._one_named = self._one[self.numbered], self._one[self.named]
        self._many: dict[tuple[str, int], str] = {}

    def create(self, connection: sqlite3.Connection) -> None:
        """Make the tables, if they are not there."""
        connection.execute(f"CREATE TABLE IF NOT EXISTS {self.numbered} (key INTEGER PRIMARY KEY, {_COLUMNS})")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self.named} (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, {_COLUMNS})"
        )

    def table(self, place: Place) -> str:
        """Return the table that a place is in."""
        return self.numbered if place.__class__ is int else self.named

    def upsert(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Write (place, event, arrival, shape, value), newest wins; return how many were newer."""
        before = connection.total_changes
        numbered = [row for row in rows if row[0].__class__ is int]
        connection.executemany(_UPSERT.format(table=self.numbered), numbered)
        if len(numbered) < len(rows):
            named = [row for row in rows if row[0].__class__ is not int]
            connection.executemany(_UPSERT.format(table=self.named), named)
        return connection.total_changes - before

    def one(self, connection: sqlite3.Connection, key: str) -> Encoded | None:
        """Return the row of a key: event, arrival, shape, value."""
        place = place_of(key)
        query = self._one_numbered if place.__class__ is int else self._one_named
        found: Encoded | None = connection.execute(query, (place,)).fetchone()
        return found

    def many(self, connection: sqlite3.Connection, keys: Sequence[str]) -> list[Encoded | None]:
        """Return the rows in the order of the keys; a query a table and thousand keys."""
        places = places_of(keys)
        named = [place for place in places if place.__class__ is not int]
        rows: list[Encoded] = []
        if named:
            self._collect(connection, self.named, named, rows)
        if len(named) < len(places):
            wanted = [place for place in places if place.__class__ is int] if named else places
            self._collect(connection, self.numbered, wanted, rows)
        by_place = dict(zip(map(_place_in_row, rows), rows, strict=True))
        return list(map(by_place.get, places))

    def _collect(
        self, connection: sqlite3.Connection, table: str, places: Sequence[Place], rows: list[Encoded]
    ) -> None:
        for start in range(0, len(places), _READ_AT_ONCE):
            part = places[start : start + _READ_AT_ONCE] if len(places) > _READ_AT_ONCE else places
            size = _padded(len(part))
            # The last key again as often as needed: few query texts, so that SQLite need not compile them anew.
            if size > len(part):
                part = [*part, *[part[-1]] * (size - len(part))]
            query = self._many.get((table, size))
            if query is None:
                marks = ",".join("?" * size)
                query = f"SELECT event, arrival, shape, value, key FROM {table} WHERE key IN ({marks})"
                self._many[table, size] = query
            rows += connection.execute(query, part).fetchall()


def _padded(count: int) -> int:
    """Return the number of variables for so many keys: exact up to 128, then in steps of 128."""
    return count if count <= 128 else -(-count // 128) * 128


def places_of(keys: Sequence[str]) -> Sequence[Place]:
    """Return `place_of` each key; in half the time where all are short and ASCII, as they mostly are."""
    if "".join(keys).isascii() and len(max(keys, key=len, default="")) <= _SHORT_BYTES:
        to_number, bases = int.from_bytes, _SHORT_BASE
        return [to_number(key.encode(), "big") + bases[len(key)] for key in keys]
    return [place_of(key) for key in keys]


def in_order(rows: list[tuple[Any, ...]], most: int) -> Iterator[list[tuple[Any, ...]]]:
    """Yield rows of (place, …) in parts of at most `most`, sorted by place: neighbours then share pages.

    The sort is stable, so of a key that comes twice the last stays last. Written in random order, a page would be
    logged for each row, which takes three times as long.
    """
    numbered = [row for row in rows if row[0].__class__ is int]
    named = [row for row in rows if row[0].__class__ is not int] if len(numbered) < len(rows) else []
    for part in (numbered, named):
        part.sort(key=_place)
        for start in range(0, len(part), most):
            yield part[start : start + most]


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; rewrite a file of the first format, which had all views in one table.

    Raises:
        Incompatible: the file is of a later release.
    """
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == _FORMAT:
        return
    if found > _FORMAT:
        raise Incompatible(
            f"{path} has format {found}, this release reads {_FORMAT}; open it with the release that wrote it"
        )
    connection.execute(f"PRAGMA busy_timeout={_MIGRATION_LIMIT_MS}")  # another process may be rewriting it
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
            connection.execute("CREATE TABLE views (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)")
            connection.execute("CREATE TABLE shapes (id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE)")
            if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'online'").fetchone():
                _rewrite(connection)
            connection.execute(f"PRAGMA user_version={_FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _rewrite(connection: sqlite3.Connection) -> None:
    """Move the rows of the first format: JSON objects by name (shape 0), arrivals, where told, among their values."""
    views = [row[0] for row in connection.execute("SELECT DISTINCT view FROM online ORDER BY view")]
    for number, view in enumerate(views, 1):
        connection.execute("INSERT INTO views (id, name) VALUES (?, ?)", (number, view))
        tables = ViewTables(number)
        tables.create(connection)
        rows = connection.execute("SELECT key, at, value FROM online WHERE view = ?", (view,))
        while part := rows.fetchmany(_MIGRATED_AT_ONCE):
            tables.upsert(connection, [(place_of(key), at, None, 0, value) for key, at, value in part])
    connection.execute("DROP TABLE online")
