"""Promotion requests with their reviews, and what people write about versions: cards and risk assessments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "promotion_requests",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("to", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("asked_at", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Text),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("event", sa.BigInteger, nullable=False),
        sa.Column("decided_by", sa.Text),
        sa.Column("decided_at", sa.Text),
        sa.Column("decided_event", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    op.create_index("promotion_requests_by_name", "promotion_requests", ["kind", "name", "number"])
    op.create_index("promotion_requests_by_state", "promotion_requests", ["state"])
    op.create_table(
        "promotion_reviews",
        sa.Column("event", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("request", sa.Integer, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
    )
    op.create_index("ix_promotion_reviews_request", "promotion_reviews", ["request"])
    op.create_table(
        "papers",
        sa.Column("sort", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("event", sa.BigInteger, nullable=False),
    )
