"""The first schema. Written out, not taken from `tables`, so that it stays what it was when later ones come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "resources",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("status", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
    )
    op.create_index("ix_resources_owner", "resources", ["owner"])
    op.create_table(
        "resource_references",
        sa.Column("source_kind", sa.Text, primary_key=True),
        sa.Column("source_name", sa.Text, primary_key=True),
        sa.Column("target_kind", sa.Text, primary_key=True),
        sa.Column("target_name", sa.Text, primary_key=True),
    )
    op.create_index("resource_references_by_target", "resource_references", ["target_kind", "target_name"])
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("started_at", sa.Text, nullable=False),
        sa.Column("finished_at", sa.Text),
        sa.Column("heartbeat_at", sa.Text),
        sa.Column("of", sa.Text),
        sa.Column("parent", sa.Text),
        sa.Column("event", sa.BigInteger),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("source", sa.JSON, nullable=False),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("result", sa.JSON, nullable=False),
        sa.Column("error", sa.Text),
    )
    op.create_index("runs_by_start", "runs", ["started_at", "id"])
    op.create_index("runs_by_owner", "runs", ["of", "started_at"])
    op.create_index("runs_by_parent", "runs", ["parent"])
    op.create_index("runs_by_status", "runs", ["status", "kind"])
    op.create_table(
        "metric_points",
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("value", sa.Float),
    )
    op.create_index("metric_points_by_key", "metric_points", ["run", "key", "step", "at"])
    op.create_table(
        "artifacts",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_artifacts_digest", "artifacts", ["digest"])
    op.create_table(
        "versions",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("run", sa.Text),
        sa.Column("event", sa.BigInteger),
        sa.Column("metadata", sa.JSON, nullable=False),
    )
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_table(
        "alias_changes",
        sa.Column("event", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("number", sa.Integer),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
    )
    op.create_index("alias_changes_by_name", "alias_changes", ["kind", "name", "alias", "event"])
    op.create_table(
        "edges",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
    )
    op.create_index("edges_by_target", "edges", ["target"])
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("cause", sa.BigInteger),
        sa.Column("hash", sa.Text, nullable=False),
    )
    op.create_index("events_by_ref", "events", ["ref", "seq"])
    head = op.create_table(
        "journal_head",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
    )
    op.bulk_insert(head, [{"only": 1, "seq": 0, "hash": "0" * 64}])
    op.create_table(
        "leases",
        sa.Column("lease", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Text, nullable=False),
        sa.UniqueConstraint("lease", "epoch", name="leases_epoch"),
    )
