"""The tables of deliveries to webhooks."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Table, Text

from flyball.ledger.sql.tables import metadata

__all__ = ["deliveries", "delivery_position"]

deliveries = Table(
    "deliveries",
    metadata,
    Column("webhook", Text, primary_key=True),
    Column("event", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("made_at", Text, nullable=False),
    Column("due_at", Text, nullable=False),  # of one that ended: when
    Column("attempts", Integer, nullable=False),
    Column("log", JSON, nullable=False),
    Index("deliveries_by_state", "state", "webhook", "event"),
    Index("deliveries_by_event", "event"),
)

delivery_position = Table(  # at most one row
    "delivery_position",
    metadata,
    Column("only", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)
