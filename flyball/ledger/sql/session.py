"""What the nouns of one transaction share: its connection, who acts, and because of what."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite

from flyball.clock import Clock
from flyball.errors import Forbidden

__all__ = ["Session"]


class Session:
    """One transaction's connection; without an actor it may only read."""

    def __init__(self, connection: Connection, clock: Clock, actor: str | None, cause: int | None) -> None:
        self.connection = connection
        self.clock = clock
        self._actor = actor
        self.cause = cause

    @property
    def actor(self) -> str:
        """Who writes; raises Forbidden in a transaction for reading."""
        if self._actor is None:
            raise Forbidden("this transaction only reads; open one with ledger.write(actor)")
        return self._actor

    def insert(self, table: Any) -> Any:
        """Return the dialect's INSERT, which both databases extend by ON CONFLICT in the same way."""
        assert self.actor
        if self.connection.dialect.name == "postgresql":
            from sqlalchemy.dialects import postgresql  # not needed, and slow to import, without that database

            return postgresql.insert(table)
        return sqlite.insert(table)
