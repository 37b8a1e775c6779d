"""The tables. A change here needs a migration beside it (`migrations/versions`); a test holds the two together.

Instants are RFC 3339 text in UTC, which sorts as time and reads the same from both databases.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "alias_changes",
    "artifacts",
    "edges",
    "events",
    "journal_head",
    "leases",
    "metadata",
    "metric_points",
    "references",
    "resources",
    "runs",
    "search_entries",
    "search_format",
    "versions",
]

metadata = MetaData()

resources = Table(
    "resources",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("status", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("owner", Text, index=True),
    Column("generation", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
)

references = Table(  # whose spec refers to whom: for the wake-up rule, deletion and impact analysis
    "resource_references",
    metadata,
    Column("source_kind", Text, primary_key=True),
    Column("source_name", Text, primary_key=True),
    Column("target_kind", Text, primary_key=True),
    Column("target_name", Text, primary_key=True),
    Index("resource_references_by_target", "target_kind", "target_name"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("finished_at", Text),
    Column("heartbeat_at", Text),
    Column("of", Text),
    Column("parent", Text),
    Column("event", BigInteger),
    Column("params", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("source", JSON, nullable=False),
    Column("environment", JSON, nullable=False),
    Column("result", JSON, nullable=False),
    Column("error", Text),
    Column("cache_key", Text),  # of a step: what it computes; a finished run with the same key is not repeated
    Index("runs_by_start", "started_at", "id"),
    Index("runs_by_owner", "of", "started_at"),
    Index("runs_by_parent", "parent"),
    Index("runs_by_status", "status", "kind"),
    Index("runs_by_cache_key", "cache_key", "status"),
)

metric_points = Table(
    "metric_points",
    metadata,
    Column("run", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("at", Text, nullable=False),
    Column("value", Float),  # NULL stands for NaN, which SQLite cannot hold
    Index("metric_points_by_key", "run", "key", "step", "at"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("run", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("digest", Text, nullable=False, index=True),
    Column("size_bytes", BigInteger, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", Text, nullable=False, index=True),
    Column("created_at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("run", Text),
    Column("event", BigInteger),
    Column("metadata", JSON, nullable=False),
)

alias_changes = Table(  # append-only: the newest row of an alias is where it points
    "alias_changes",
    metadata,
    Column("event", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("alias", Text, nullable=False),
    Column("number", Integer),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Index("alias_changes_by_name", "kind", "name", "alias", "event"),
)

edges = Table(
    "edges",
    metadata,
    Column("source", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Index("edges_by_target", "target"),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("ref", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("cause", BigInteger),
    Column("hash", Text, nullable=False),
    Index("events_by_ref", "ref", "seq"),
)

journal_head = Table(  # one row: PostgreSQL locks it, so numbers have no gaps and follow the order of commits
    "journal_head",
    metadata,
    Column("only", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("lease", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", Text, nullable=False),
    UniqueConstraint("lease", "epoch", name="leases_epoch"),
)

search_entries = Table(  # what a search finds, as it is shown; an entry that changes gets a new, higher id
    "search_entries",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("ref", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False, index=True),
    Column("form", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("at", Text, nullable=False, index=True),
    Column("description", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("columns", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("owner", Text),
    Column("domain", Text),
    sqlite_autoincrement=True,
)

search_format = Table(  # one row: what the words in the index were cut by; 0: not built yet
    "search_format",
    metadata,
    Column("only", Integer, primary_key=True),
    Column("format", Integer, nullable=False),
)

# The words themselves stand in `search_text` (rowid, words): a table of FTS5 in SQLite, of a tsvector in PostgreSQL.
# The migration makes it; SQLAlchemy has no word for either.
