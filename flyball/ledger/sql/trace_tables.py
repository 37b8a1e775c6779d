"""The tables of traces, data sets to evaluate on, and scorers."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text

from flyball.ledger.sql.tables import metadata

__all__ = [
    "assessments", "evaluation_records", "evaluation_set_experiments", "evaluation_sets", "scorers", "trace_links",
    "trace_marks", "trace_spans", "traces",
]  # fmt: skip

traces = Table(
    "traces",
    metadata,
    Column("id", Text, primary_key=True),
    Column("experiment", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("took_ms", BigInteger),
    Column("state", Text, nullable=False),
    Column("name", Text),  # as the tag says
    Column("session", Text),  # as the metadata say
    Column("run", Text),  # likewise
    Column("client_id", Text),
    Column("request", Text),
    Column("response", Text),
    Column("span_count", Integer, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Index("traces_by_time", "experiment", "at_ms", "id"),
    Index("traces_by_name", "experiment", "name", "at_ms"),
    Index("traces_by_session", "experiment", "session", "at_ms"),
    Index("traces_by_run", "run"),
)

trace_spans = Table(  # a part for each request, joined as they become many; a text for each line, compressed
    "trace_spans",
    metadata,
    Column("trace", Text, primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

trace_marks = Table(  # once for all spans of a trace that share name, type and status
    "trace_marks",
    metadata,
    Column("trace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("type", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Index("trace_marks_by_name", "name", "trace"),
)

trace_links = Table(
    "trace_links",
    metadata,
    Column("trace", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("target", Text, primary_key=True),
    Index("trace_links_by_target", "kind", "target"),
)

assessments = Table(
    "assessments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("trace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),  # JSON
    Column("source_type", Text, nullable=False),
    Column("source", Text),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("error", JSON),
    Column("rationale", Text),
    Column("span", Text),
    Column("overrides", Text),
    Column("is_valid", Boolean, nullable=False),
    Column("metadata", JSON),
    Index("assessments_by_trace", "trace", "created_ms"),
    Index("assessments_by_name", "kind", "name", "trace"),
)

evaluation_sets = Table(
    "evaluation_sets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("updated_by", Text),
    Column("schema", Text),
    Column("count", Integer),  # NULL: there never was a record
    Column("tags", JSON, nullable=False),
    Index("evaluation_sets_by_time", "created_ms", "id"),
    Index("evaluation_sets_by_name", "name"),
)

evaluation_set_experiments = Table(
    "evaluation_set_experiments",
    metadata,
    Column("set", Text, primary_key=True),
    Column("experiment", BigInteger, primary_key=True, autoincrement=False),
    Index("evaluation_sets_by_experiment", "experiment"),
)

evaluation_records = Table(
    "evaluation_records",
    metadata,
    Column("id", Text, primary_key=True),
    Column("set", Text, nullable=False),
    Column("inputs_hash", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("document", JSON, nullable=False),  # inputs, outputs, expectations, tags, source, created_by, updated_by
    Index("evaluation_records_by_inputs", "set", "inputs_hash", unique=True),
    Index("evaluation_records_by_time", "set", "created_ms", "id"),
)

scorers = Table(
    "scorers",
    metadata,
    Column("experiment", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
