"""The tables. A change here needs a migration beside it (`migrations/versions`); a test holds the two together.

Instants are RFC 3339 text in UTC, which sorts as time and reads the same from both databases.

Later nouns have a module of their own, `<noun>_tables.py`, which puts its tables on the `metadata` of this one; the
last lines here import every such module, so that whoever knows `metadata` knows all tables.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = [
    "alias_changes",
    "artifacts",
    "edges",
    "events",
    "journal_head",
    "leases",
    "metadata",
    "references",
    "resources",
    "runs",
    "search_entries",
    "search_format",
    "versions",
]

metadata = MetaData()


def _some(name: str, *columns: str) -> Index:
    """Return an index of the rows that have the first column; most runs have none, and are written more quickly."""
    there = text(f'"{columns[0]}" IS NOT NULL')
    return Index(name, *columns, sqlite_where=there, postgresql_where=there)


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
    Column("latest", JSON, nullable=False),  # of each metric [value, step, at_ms] of its newest point; null for NaN
    Column("tags", JSON, nullable=False),
    Column("source", JSON, nullable=False),
    Column("environment", JSON, nullable=False),
    Column("result", JSON, nullable=False),
    Column("error", Text),
    Column("cache_key", Text),  # of a step: what it computes; a finished run with the same key is not repeated
    Column("experiment", BigInteger),
    Column("user", Text, nullable=False),
    Column("deleted_at", Text),
    Column("inputs", JSON, nullable=False),
    Column("outputs", JSON, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("folded", BigInteger, nullable=False),  # the number up to which `latest` holds what was logged
    Index("runs_by_start", "started_at", "id"),
    _some("runs_by_owner", "of", "started_at"),
    _some("runs_by_parent", "parent"),
    Index("runs_by_status", "status", "kind"),
    _some("runs_by_cache_key", "cache_key", "status"),
    Index("runs_by_experiment", "experiment", "started_at"),
    Index("runs_by_revision", "revision", "id"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("run", Text, primary_key=True),  # the owner: a run, a logged model (m-…), or nobody (empty)
    Column("path", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
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
    Column("deleted_at", Text),  # it is found no more, and its number is never given again
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
    Column("number", BigInteger, nullable=False),  # of changes of runs and of points, see `Session.take`
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

for _module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    if _module.name.endswith("_tables"):
        importlib.import_module(f"{__package__}.{_module.name}")
