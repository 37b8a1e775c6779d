"""Ledgers as earlier releases made them: by their migrations, none of ours."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine

from flyball.ledger.sql.migrate import upgrade


def older_ledger(home: Path, revision: str) -> Path:
    """Make an empty ledger of SQLite with the schema of a revision; return its file."""
    home.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{home / 'ledger.db'}")
    with engine.connect() as connection:
        upgrade(connection, revision)
    engine.dispose()
    return home / "ledger.db"


def copy_rows(source: Path, target: Path, *tables: str) -> None:
    """Copy what two ledgers have columns for; runs of an older one need their metrics."""
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("ATTACH DATABASE ? AS other", (str(source),))
        for table in tables:
            here, there = (
                {row[1] for row in connection.execute(f"PRAGMA {schema}.table_info({table})")}
                for schema in ("main", "other")
            )
            columns = ", ".join(f'"{name}"' for name in sorted(here & there))
            extra = (", metrics", ", '{}'") if "metrics" in here - there else ("", "")
            connection.execute(f"DELETE FROM main.{table}")
            connection.execute(
                f"INSERT INTO main.{table} ({columns}{extra[0]}) SELECT {columns}{extra[1]} FROM other.{table}"
            )
        connection.commit()
