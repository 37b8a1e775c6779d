"""Runs get a cache key, by which a pipeline finds the finished run of a step."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", sa.Column("cache_key", sa.Text))
    op.create_index("runs_by_cache_key", "runs", ["cache_key", "status"])
