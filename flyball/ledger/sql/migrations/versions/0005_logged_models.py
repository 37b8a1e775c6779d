"""Logged models with their points, tombstones, and paths of files in the order of bytes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # A folder is a range of paths: in the order of a language, "a/b" does not stand behind "a/".
        op.execute('ALTER TABLE artifacts ALTER COLUMN path TYPE TEXT COLLATE "C"')
    op.create_table(
        "logged_models",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("experiment", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.Text),
        sa.Column("run", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("status_message", sa.Text),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.Text),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
    )
    op.create_index("ix_logged_models_run", "logged_models", ["run"])
    op.create_index("ix_logged_models_deleted_at", "logged_models", ["deleted_at"])
    op.create_index("logged_models_by_experiment", "logged_models", ["experiment", "created_ms", "id"])
    op.create_table(
        "logged_model_points",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("at_ms", sa.BigInteger, primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True),
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("bits", sa.BigInteger, primary_key=True),
        sa.Column("value", sa.Float),
    )
    op.create_index("logged_model_points_by_key", "logged_model_points", ["key", "value", "model"])
    op.create_table(
        "tombstones",
        sa.Column("ref", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("experiment", sa.Text),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("event", sa.BigInteger, nullable=False),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
    )
