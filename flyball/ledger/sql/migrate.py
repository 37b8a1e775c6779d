"""Bring a database to the schema of this release; Alembic is imported only when there is something to do."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from flyball.errors import Incompatible, Unavailable

__all__ = ["HEAD", "REVISIONS", "bring_up_to_date", "upgrade"]

REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
)  # every revision there ever was, oldest first
HEAD = REVISIONS[-1]

_LOCK_KEY = 7_070_071  # PostgreSQL advisory lock: any constant of ours


def bring_up_to_date(engine: Engine, lock_file: Path | None = None) -> None:
    """Create or upgrade the schema; many processes may call this at once.

    Raises:
        Incompatible: the schema is of a newer release.
    """
    with engine.connect() as connection:
        if _current(connection) == HEAD:
            return
    with _exclusively(engine, lock_file), engine.connect() as connection:
        found = _current(connection)
        if found != HEAD:
            upgrade(connection)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if found is not None and found not in REVISIONS:
        raise Incompatible(
            f"the ledger has schema {found}, which is of a newer Flyball than this one (schema {HEAD}); "
            "nothing was changed, install the newer release to open it"
        )
    return found


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to a revision, without asking whether others do so at the same time."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@contextmanager
def _exclusively(engine: Engine, lock_file: Path | None) -> Iterator[None]:
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
            connection.commit()
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})
                connection.commit()
    elif lock_file is None:
        yield
    else:
        try:
            with lock_file.open("a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                yield
        except PermissionError as error:
            raise Unavailable(f"{lock_file} cannot be written; check who owns the home") from error
