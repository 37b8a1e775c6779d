"""Traces with their spans and assessments, data sets to evaluate on, and scorers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "traces",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("experiment", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("took_ms", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("session", sa.Text),
        sa.Column("run", sa.Text),
        sa.Column("client_id", sa.Text),
        sa.Column("request", sa.Text),
        sa.Column("response", sa.Text),
        sa.Column("span_count", sa.Integer, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
    )
    op.create_index("traces_by_time", "traces", ["experiment", "at_ms", "id"])
    op.create_index("traces_by_name", "traces", ["experiment", "name", "at_ms"])
    op.create_index("traces_by_session", "traces", ["experiment", "session", "at_ms"])
    op.create_index("traces_by_run", "traces", ["run"])
    op.create_table(
        "trace_spans",
        sa.Column("trace", sa.Text, primary_key=True),
        sa.Column("part", sa.Integer, primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "trace_marks",
        sa.Column("trace", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("type", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, primary_key=True),
    )
    op.create_index("trace_marks_by_name", "trace_marks", ["name", "trace"])
    op.create_table(
        "trace_links",
        sa.Column("trace", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
    )
    op.create_index("trace_links_by_target", "trace_links", ["kind", "target"])
    op.create_table(
        "assessments",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("trace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("source_type", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("rationale", sa.Text),
        sa.Column("span", sa.Text),
        sa.Column("overrides", sa.Text),
        sa.Column("is_valid", sa.Boolean, nullable=False),
        sa.Column("metadata", sa.JSON),
    )
    op.create_index("assessments_by_trace", "assessments", ["trace", "created_ms"])
    op.create_index("assessments_by_name", "assessments", ["kind", "name", "trace"])
    op.create_table(
        "evaluation_sets",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.Text),
        sa.Column("updated_by", sa.Text),
        sa.Column("schema", sa.Text),
        sa.Column("count", sa.Integer),
        sa.Column("tags", sa.JSON, nullable=False),
    )
    op.create_index("evaluation_sets_by_time", "evaluation_sets", ["created_ms", "id"])
    op.create_index("evaluation_sets_by_name", "evaluation_sets", ["name"])
    op.create_table(
        "evaluation_set_experiments",
        sa.Column("set", sa.Text, primary_key=True),
        sa.Column("experiment", sa.BigInteger, primary_key=True, autoincrement=False),
    )
    op.create_index("evaluation_sets_by_experiment", "evaluation_set_experiments", ["experiment"])
    op.create_table(
        "evaluation_records",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("set", sa.Text, nullable=False),
        sa.Column("inputs_hash", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
    )
    op.create_index("evaluation_records_by_inputs", "evaluation_records", ["set", "inputs_hash"], unique=True)
    op.create_index("evaluation_records_by_time", "evaluation_records", ["set", "created_ms", "id"])
    op.create_table(
        "scorers",
        sa.Column("experiment", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
