"""Online values in one SQLite file, in WAL, a connection a thread; many processes may read while one writes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson

from flyball.errors import Corrupt, FlyballError, Unavailable
from flyball.storage.online import Encoded, OnlineValue, Together, check_lengths, decoded, micros_of
from flyball.storage.online._sqlite_formats import prepare
from flyball.storage.online._sqlite_tables import ViewTables, parts_of, rows_of

__all__ = ["SqliteOnline"]

_WRITTEN_AT_ONCE = 20_000  # rows of a transaction of `put_encoded`: a push waits a fifth of a second for its turn
_LOCK_LIMIT_S = 30.0
_MMAP_BYTES = 0x7FFF0000  # the most that SQLite maps; address space, not memory
_CACHE_KB = 32_000
_CHECKPOINT_PAGES = 4_000  # of the log: a page that several transactions wrote is then moved into the file once


class SqliteOnline:
    """An `OnlineStore` in the file `path`. Times are kept to the microsecond.

    A thread reads by one connection, which maps the file, and writes by another, which does not: so writing a file of
    any size takes little memory. A file of an earlier release is rewritten when it is first opened. `put` is one
    transaction; `put_encoded` one for each 20,000 rows, so what a crash cuts off is written by writing all of it again.

    Raises:
        Incompatible: the file is of a later release.
        Corrupt: it is no file of online values.
        Unavailable: it cannot be opened, or was locked for longer than half a minute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._local = threading.local()
        self._views: dict[str, ViewTables] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        with self._translated():
            prepare(self._writing(), path)

    # writing

    def put(self, view: str, rows: Iterable[tuple[str, OnlineValue]]) -> int:
        shapes: dict[tuple[str, ...], int] = {}
        listed = list(rows)
        with self._translated(), self._transaction() as connection:
            tables = self._entered(connection, view)
            for _, value in listed:
                names = tuple(value.values)
                if names not in shapes:
                    shapes[names] = _shape(connection, names)
            records = rows_of(
                [key for key, _ in listed],
                [micros_of(value.event_time) for _, value in listed],
                [None if value.known_at is None else micros_of(value.known_at) for _, value in listed],
                [shapes[tuple(value.values)] for _, value in listed],
                [orjson.dumps(list(value.values.values())) for _, value in listed],
            )
            changed = tables.upsert(connection, records)
        self._views[view] = tables  # not before it is committed
        return changed

    def put_encoded(
        self,
        view: str,
        names: Sequence[str],
        keys: Sequence[str],
        event_times_us: Sequence[int],
        values: Sequence[bytes],
        arrivals_us: Sequence[int] | None = None,
    ) -> int:
        check_lengths(view, len(keys), event_times_us=event_times_us, values=values, arrivals_us=arrivals_us)
        with self._translated():
            with self._transaction() as connection:
                tables, shape = self._entered(connection, view), _shape(connection, tuple(names))
            self._views[view] = tables
            arrivals = [None] * len(keys) if arrivals_us is None else arrivals_us
            rows = rows_of(keys, event_times_us, arrivals, [shape] * len(keys), values)
            changed = 0
            for part in parts_of(rows, _WRITTEN_AT_ONCE):
                with self._transaction() as connection:
                    changed += tables.upsert(connection, part)
        return changed

    def delete(self, view: str, keys: Sequence[str] | None = None) -> int:
        with self._translated():
            tables = self._tables(view)
            if tables is None:
                return 0
            with self._transaction() as connection:
                before = connection.total_changes
                if keys is None:
                    for table in tables.tables:
                        connection.execute(f"DELETE FROM {table}")
                else:
                    for key in keys:
                        tables.delete(connection, key)
                changed = connection.total_changes - before
            # Deleted bytes are overwritten in the file (`secure_delete`) and must not live on in its log either. Where
            # a reader is in the middle of a query the log stays until the next checkpoint.
            self._writing().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return changed

    # reading

    def get(self, view: str, keys: Sequence[str]) -> list[OnlineValue | None]:
        return [None if row is None else decoded(self, view, row) for row in self.read(view, keys)]

    def read(self, view: str, keys: Sequence[str]) -> list[Encoded | None]:
        try:
            tables = self._views.get(view) or self._tables(view)
            if tables is None:
                return [None] * len(keys)
            connection: sqlite3.Connection = getattr(self._local, "reading", None) or self._reading()
            if len(keys) == 1:
                return [tables.one(connection, keys[0])]
            return tables.many(connection, keys)
        except sqlite3.Error as error:
            raise self._translation(error) from error

    def together(self, view: str, keys: Sequence[str]) -> Together | None:
        try:
            tables = self._views.get(view) or self._tables(view)
            if tables is None:
                return None
            connection: sqlite3.Connection = getattr(self._local, "reading", None) or self._reading()
            return tables.together(connection, keys)
        except sqlite3.Error as error:
            if "UTF-8" in str(error):  # a value that is damaged; `read` gives its bytes to who can say of which view
                return None
            raise self._translation(error) from error

    def heads(self, view: str, keys: Sequence[str]) -> list[Encoded | None]:
        with self._translated():
            tables = self._tables(view)
            # By the connection that does not map the file: who asks is about to write, and all of it perhaps.
            return [None] * len(keys) if tables is None else tables.many(self._writing(), keys, heads=True)

    def names(self, view: str, number: int) -> tuple[str, ...] | None:  # noqa: ARG002 (shapes are the whole file's)
        if not number:
            return None
        found = self._names.get(number)
        if found is None:
            with self._translated():
                row = self._reading().execute("SELECT names FROM shapes WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise Corrupt(f"{self.path} lacks the names of some values ({number}); materialise its views again")
            found = self._names[number] = tuple(orjson.loads(row[0]))
        return found

    def count(self, view: str) -> int:
        with self._translated():
            tables = self._tables(view)
            if tables is None:
                return 0
            # All pages are read: by the connection that does not map the file, so that they do not stay in memory.
            counts = [self._writing().execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables.tables]
        return sum(counts)

    # views

    def _tables(self, view: str) -> ViewTables | None:
        """Return a view's tables, None when nothing was ever written for it; another process may do so any time."""
        found = self._views.get(view)
        if found is None:
            row = self._reading().execute("SELECT id FROM views WHERE name = ?", (view,)).fetchone()
            if row is not None:
                found = self._views[view] = ViewTables(row[0])
        return found

    def _entered(self, connection: sqlite3.Connection, view: str) -> ViewTables:
        found = self._tables(view)
        if found is None:
            inserted = connection.execute("INSERT INTO views (name) VALUES (?) RETURNING id", (view,)).fetchall()
            found = ViewTables(inserted[0][0])
            found.create(connection)
        return found

    # the connection

    def _reading(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "reading", None)
        if connection is None:
            connection = self._local.reading = self._connected(_MMAP_BYTES)
        return connection

    def _writing(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "writing", None)
        if connection is None:
            connection = self._local.writing = self._connected(0)
        return connection

    def _connected(self, mmap_bytes: int) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_LOCK_LIMIT_S, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        for setting in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "secure_delete=ON",
            f"mmap_size={mmap_bytes}",
            f"cache_size=-{_CACHE_KB}",
            f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
        ):
            connection.execute(f"PRAGMA {setting}").fetchall()
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._writing()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk ends it by itself
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translation(error) from error

    def _translation(self, error: sqlite3.Error) -> FlyballError:
        if isinstance(error, sqlite3.OperationalError):
            return Unavailable(f"the online values in {self.path} cannot be used now ({error}); try again")
        return Corrupt(f"{self.path} is no file of online values or is damaged ({error}); restore it or remove it")


def _shape(connection: sqlite3.Connection, names: tuple[str, ...]) -> int:
    """Return the number that stands for these names in each row, making it when they are new."""
    text = orjson.dumps(names).decode()
    connection.execute("INSERT INTO shapes (names) VALUES (?) ON CONFLICT DO NOTHING", (text,))
    return int(connection.execute("SELECT id FROM shapes WHERE names = ?", (text,)).fetchone()[0])
