"""The tables of access keys and of sessions."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Table, Text

from flyball.ledger.sql.tables import metadata

__all__ = ["access_keys", "access_sessions"]

access_keys = Table(
    "access_keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("deployments", JSON, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("last_used_at", Text),
)

access_sessions = Table(
    "access_sessions",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("key", Text, nullable=False, index=True),
    Column("expires_at", Text, nullable=False),
)
