"""The tables of notes on resources and versions, and of the stages that versions were in."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from flyball.ledger.sql.tables import metadata

__all__ = ["note_tags", "notes", "stage_changes"]

notes = Table(
    "notes",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),  # of a version; 0 is the resource itself
    Column("description", Text),
    Column("stage", Text),
    Column("source", Text),
    Column("run", Text),
    Column("updated_at", Text, nullable=False),
)

note_tags = Table(
    "note_tags",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index("note_tags_by_key", "kind", "key"),
)

stage_changes = Table(  # append-only
    "stage_changes",
    metadata,
    Column("event", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("stage", Text),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Index("stage_changes_by_name", "kind", "name", "event"),
)
