"""The tables of experiments and of points."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, Table, Text

from flyball.ledger.sql.tables import metadata

__all__ = ["experiments", "input_datasets", "point_chunks", "point_journal", "removed_runs"]

experiments = Table(
    "experiments",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),  # also of deleted ones
    Column("artifact_location", Text),  # NULL: where this server keeps artifacts
    Column("tags", JSON, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("deleted_at", Text),
    sqlite_autoincrement=True,
)

input_datasets = Table(  # what runs name by (name, digest), once for each experiment
    "input_datasets",
    metadata,
    Column("experiment", BigInteger, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("source_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("contexts", JSON, nullable=False),
    Column("schema", Text),
    Column("profile", Text),
)

point_journal = Table(  # what requests logged, a row for each; sealing moves its points into chunks
    "point_journal",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("run", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("point_journal_by_run", "run", "id"),
)

point_chunks = Table(  # the points of one metric, in order, without repeats
    "point_chunks",
    metadata,
    Column("run", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("part", BigInteger, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("first_step", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

removed_runs = Table(  # what an index of runs has to forget
    "removed_runs",
    metadata,
    Column("run", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False, index=True),
)
