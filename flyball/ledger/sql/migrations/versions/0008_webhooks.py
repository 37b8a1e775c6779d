"""Webhooks and what was delivered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("webhook", sa.Text, primary_key=True),
        sa.Column("event", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("made_at", sa.Text, nullable=False),
        sa.Column("due_at", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("log", sa.JSON, nullable=False),
    )
    op.create_index("deliveries_by_state", "deliveries", ["state", "webhook", "event"])
    op.create_index("deliveries_by_event", "deliveries", ["event"])
    op.create_table(
        "delivery_position",
        sa.Column("only", sa.Integer, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
