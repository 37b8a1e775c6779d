"""Search: an entry for each resource, version and run, and an index of their words; `reindexing` fills it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "search_entries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("ref", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("form", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("columns", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("domain", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_search_entries_kind", "search_entries", ["kind"])
    op.create_index("ix_search_entries_at", "search_entries", ["at"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE TABLE search_text (rowid BIGINT PRIMARY KEY, words TSVECTOR NOT NULL)")
        op.execute("CREATE INDEX search_text_by_word ON search_text USING gin (words)")
    else:
        # Words come cut and folded already: this tokenizer only has to part them at spaces.
        tokenize = "ascii tokenchars ':_'"
        op.get_bind().exec_driver_sql(
            f"CREATE VIRTUAL TABLE search_text USING fts5(words, tokenize = \"{tokenize}\", prefix = '1 2 3 4')"
        )
    made = op.create_table(
        "search_format",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("format", sa.Integer, nullable=False),
    )
    op.bulk_insert(made, [{"only": 1, "format": 0}])
