"""The tables of logged models, and of what was removed for good."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Table, Text

from flyball.ledger.sql.tables import metadata

__all__ = ["logged_model_points", "logged_models", "tombstones"]

logged_models = Table(
    "logged_models",
    metadata,
    Column("id", Text, primary_key=True),
    Column("experiment", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text),
    Column("run", Text, index=True),
    Column("status", Text, nullable=False),
    Column("status_message", Text),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("deleted_at", Text, index=True),
    Column("params", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Index("logged_models_by_experiment", "experiment", "created_ms", "id"),
)

logged_model_points = Table(
    "logged_model_points",
    metadata,
    Column("model", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("at_ms", BigInteger, primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("run", Text, primary_key=True),
    Column("dataset", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("bits", BigInteger, primary_key=True),  # of the value: NaN is equal to itself, and SQLite holds it
    Column("value", Float),  # NULL stands for NaN
    Index("logged_model_points_by_key", "key", "value", "model"),
)

tombstones = Table(  # what was removed for good, so that lineage can still say what it was
    "tombstones",
    metadata,
    Column("ref", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("experiment", Text),
    Column("at", Text, nullable=False),
    Column("event", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)
