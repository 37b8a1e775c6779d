"""What the nouns of one transaction share: its connection, who acts, because of what, and numbers for changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection
from sqlalchemy.dialects import sqlite

from flyball.clock import Clock
from flyball.errors import Forbidden

__all__ = ["Session", "raw"]

_NUMBERS = 64  # taken at a time; those that a transaction does not use are never used
_TAKE = "UPDATE journal_head SET number = number + ? RETURNING number"


def raw(connection: Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """Execute a statement of plain SQL, with `?` for values, by the driver itself; return its cursor.

    For what runs thousands of times a second: SQLAlchemy takes several times as long as SQLite does.
    """
    return _driver(connection).execute(_written(statement, connection.dialect.name), values)


def _driver(connection: Connection) -> Any:
    """Return the driver's connection, within a transaction, which SQLAlchemy opens only for statements of its own."""
    if not connection.in_transaction():
        connection.begin()
    return connection.connection.driver_connection


@cache
def _written(statement: str, dialect: str) -> str:
    """Return a statement with its values marked as the driver wants them; so it holds no other `?` or `%`."""
    return statement.replace("?", "%s") if dialect == "postgresql" else statement


class Session:
    """One transaction's connection; without an actor it may only read.

    The transaction is begun by the driver, and SQLAlchemy's connection is made for who asks for one: most writes of
    trackers never do, and it costs as much as all their statements.
    """

    def __init__(
        self, engine: Engine, borrowed: PoolProxiedConnection, clock: Clock, actor: str | None, cause: int | None
    ) -> None:
        self._engine = engine
        self._borrowed = borrowed
        self._connection: Connection | None = None
        self.clock = clock
        self._actor = actor
        self.cause = cause
        self._numbers = (0, 0)  # the next, and the first that is not ours
        self.dialect = engine.dialect.name
        self._execute: Any = borrowed.driver_connection.execute  # type: ignore[union-attr]

    def begin(self, begin: str) -> None:
        """Begin as told; PostgreSQL's driver does so by itself."""
        if self.dialect == "sqlite":
            self._execute(begin)

    def commit(self) -> None:
        (self._borrowed if self._connection is None else self._connection).commit()

    def close(self) -> None:
        """Give the connection back; what was not committed is undone."""
        (self._borrowed if self._connection is None else self._connection).close()

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, within the transaction."""
        if self._connection is None:
            found = Connection(self._engine, self._borrowed).execution_options(flyball_begin="")
            found.begin()
            self._connection = found
        return self._connection

    @property
    def actor(self) -> str:
        """Who writes; raises Forbidden in a transaction for reading."""
        if self._actor is None:
            raise Forbidden("this transaction only reads; open one with ledger.write(actor)")
        return self._actor

    def raw(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Execute plain SQL; see `raw`."""
        return self._execute(_written(statement, self.dialect), values)

    def take(self) -> int:
        """Return the next number for a change of a run or for points, and hold the journal until the commit.

        Numbers are as the commits are: who has read up to one has missed none below it. Whoever writes what has a
        number takes it first, so that all writers wait for each other at the same place.
        """
        assert self.actor
        following, end = self._numbers
        if following == end:
            (end,) = self.raw(_TAKE, (_NUMBERS,)).fetchone()
            following = end - _NUMBERS + 1
            end += 1
        self._numbers = (following + 1, end)
        return following

    @contextmanager
    def acting(self, actor: str, cause: int | None) -> Iterator[None]:
        """What is done within is done by another actor."""
        before = self._actor, self.cause
        self._actor, self.cause = actor, cause
        try:
            yield
        finally:
            self._actor, self.cause = before

    @contextmanager
    def undoable(self) -> Iterator[None]:
        """What is done within is undone when it raises."""
        with self.connection.begin_nested():
            try:
                yield
            except BaseException:
                self._numbers = (0, 0)  # those taken within are given back
                raise

    def insert(self, table: Any) -> Any:
        """Return the dialect's INSERT, which both databases extend by ON CONFLICT in the same way."""
        assert self.actor
        if self.dialect == "postgresql":
            from sqlalchemy.dialects import postgresql  # not needed, and slow to import, without that database

            return postgresql.insert(table)
        return sqlite.insert(table)
