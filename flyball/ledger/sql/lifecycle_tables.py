"""The tables of promotion requests with their reviews, and of papers."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Table, Text

from flyball.ledger.sql.tables import metadata

__all__ = ["papers", "promotion_requests", "promotion_reviews"]

promotion_requests = Table(
    "promotion_requests",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("before", Text, nullable=False),
    Column("to", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("expires_at", Text),
    Column("evidence", JSON, nullable=False),
    Column("event", BigInteger, nullable=False),
    Column("decided_by", Text),
    Column("decided_at", Text),
    Column("decided_event", BigInteger),
    Index("promotion_requests_by_name", "kind", "name", "number"),
    Index("promotion_requests_by_state", "state"),
    sqlite_autoincrement=True,
)

promotion_reviews = Table(  # append-only
    "promotion_reviews",
    metadata,
    Column("event", BigInteger, primary_key=True, autoincrement=False),
    Column("request", Integer, nullable=False, index=True),
    Column("actor", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("at", Text, nullable=False),
)

papers = Table(  # append-only: each edit is a row
    "papers",
    metadata,
    Column("sort", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("content", JSON, nullable=False),
    Column("note", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("event", BigInteger, nullable=False),
)
