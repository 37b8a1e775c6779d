"""Online values in one SQLite file: a WITHOUT ROWID table, WAL, a connection a thread; many processes may read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from flyball.errors import Corrupt
from flyball.storage.online import OnlineValue

__all__ = ["SqliteOnline"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS online (
  view TEXT NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (view, key)
) WITHOUT ROWID
"""
_UPSERT = """
INSERT INTO online (view, key, at, value) VALUES (?, ?, ?, ?)
ON CONFLICT (view, key) DO UPDATE SET at = excluded.at, value = excluded.value WHERE excluded.at >= online.at
"""
_MAX_VARIABLES = 500


class SqliteOnline:
    """An `OnlineStore` in the file `path`. Event times are kept to the microsecond."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._local = threading.local()
        self._connection().execute(_SCHEMA)

    def put(self, view: str, rows: Iterable[tuple[str, OnlineValue]]) -> int:
        records = [(view, key, _micros(v.event_time), orjson.dumps(dict(v.values))) for key, v in rows]
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            before = connection.total_changes
            connection.executemany(_UPSERT, records)
            changed = connection.total_changes - before
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return changed

    def get(self, view: str, keys: Sequence[str]) -> list[OnlineValue | None]:
        connection = self._connection()
        if len(keys) == 1:
            found = connection.execute(
                "SELECT key, at, value FROM online WHERE view = ? AND key = ?", (view, keys[0])
            ).fetchall()
        else:
            found = []
            for start in range(0, len(keys), _MAX_VARIABLES):
                part = keys[start : start + _MAX_VARIABLES]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, at, value FROM online WHERE view = ? AND key IN ({marks})"
                found += connection.execute(query, (view, *part)).fetchall()
        by_key = {key: _decode(at, value) for key, at, value in found}
        return [by_key.get(key) for key in keys]

    def delete(self, view: str, keys: Sequence[str] | None = None) -> int:
        connection = self._connection()
        if keys is None:
            return connection.execute("DELETE FROM online WHERE view = ?", (view,)).rowcount
        changed = 0
        for key in keys:
            changed += connection.execute("DELETE FROM online WHERE view = ? AND key = ?", (view, key)).rowcount
        return changed

    def count(self, view: str) -> int:
        row = self._connection().execute("SELECT count(*) FROM online WHERE view = ?", (view,)).fetchone()
        return int(row[0])

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            self._local.connection = connection
        return connection


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _decode(at: int, value: bytes) -> OnlineValue:
    try:
        return OnlineValue(_EPOCH + timedelta(microseconds=at), orjson.loads(value))
    except orjson.JSONDecodeError as error:
        raise Corrupt("an online value cannot be read back; materialise its view again") from error
