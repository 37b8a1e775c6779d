"""The formats of the file of `sqlite.py`: a new file's tables, and files of earlier releases rewritten.

The first format had all views in one table. The second kept keys that are no numbers in a table of text for each view,
which is where the third keeps those that clash.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from flyball.errors import Incompatible
from flyball.storage.online._sqlite_tables import ViewTables, rows_of

__all__ = ["prepare"]

_FORMAT = 3  # kept as `user_version`; a file of the first format has 0 there
_MOVED_AT_ONCE = 10_000  # rows
_LIMIT_MS = 600_000


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; rewrite a file of an earlier format, in one transaction.

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
    wait_ms = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute(f"PRAGMA busy_timeout={_LIMIT_MS}")  # another process may be rewriting it
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if not found:
            connection.execute("CREATE TABLE views (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)")
            connection.execute("CREATE TABLE shapes (id INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE)")
            if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'online'").fetchone():
                _rewrite_first(connection)
        elif found == 2:
            _rewrite_second(connection)
        connection.execute(f"PRAGMA user_version={_FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute(f"PRAGMA busy_timeout={wait_ms}")


def _rewrite_first(connection: sqlite3.Connection) -> None:
    """Move rows that are JSON objects by name (shape 0) and have arrivals, where told, among their values."""
    views = [row[0] for row in connection.execute("SELECT DISTINCT view FROM online ORDER BY view")]
    for number, view in enumerate(views, 1):
        connection.execute("INSERT INTO views (id, name) VALUES (?, ?)", (number, view))
        tables = ViewTables(number)
        tables.create(connection)
        rows = connection.execute("SELECT key, at, NULL, 0, value FROM online WHERE view = ?", (view,))
        while part := rows.fetchmany(_MOVED_AT_ONCE):
            tables.upsert(connection, rows_of(*zip(*part, strict=True)))
    connection.execute("DROP TABLE online")


def _rewrite_second(connection: sqlite3.Connection) -> None:
    """Move keys that are no numbers to where their hashes say."""
    for (number,) in connection.execute("SELECT id FROM views").fetchall():
        tables = ViewTables(number)
        before = f"before_{number}"
        connection.execute(f"ALTER TABLE {tables.clashing} RENAME TO {before}")
        tables.create(connection)
        rows = connection.execute(f"SELECT key, event, arrival, shape, value FROM {before}")
        while part := rows.fetchmany(_MOVED_AT_ONCE):
            tables.upsert(connection, rows_of(*zip(*part, strict=True)))
        connection.execute(f"DROP TABLE {before}")
