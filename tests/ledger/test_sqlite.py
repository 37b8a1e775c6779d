"""The shipped ledger cases over SQLite, and what only a file can suffer."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.errors import Corrupt, Incompatible, InvalidInput
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.ledger.sql.migrate import HEAD, REVISIONS
from flyball.ledger.sql.tables import metadata
from flyball.testing.ledger import KIND, LedgerCases


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    opened = open_ledger(tmp_path)
    yield opened
    opened.close()


class TestSqliteLedger(LedgerCases):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[SqlLedger]:
        opened = open_ledger(tmp_path)
        yield opened
        opened.close()


def test_a_changed_event_shows(ledger: SqlLedger, tmp_path: Path) -> None:
    with ledger.write("user/a") as tx:
        for number in range(5):
            tx.journal.note("said", "x/y", {"n": number})
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE events SET actor = 'user/mallory' WHERE seq = 3")
    with pytest.raises(Corrupt, match="event 3"), ledger.read() as tx:
        tx.journal.verify()


@pytest.mark.parametrize("statement", ["DELETE FROM events WHERE seq = 3", "DELETE FROM events WHERE seq = 5"])
def test_a_removed_event_shows(ledger: SqlLedger, tmp_path: Path, statement: str) -> None:
    with ledger.write("user/a") as tx:
        for number in range(5):
            tx.journal.note("said", "x/y", {"n": number})
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute(statement)
    with pytest.raises(Corrupt), ledger.read() as tx:
        tx.journal.verify()


def test_a_ledger_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Incompatible, match="newer Flyball"):
        open_ledger(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is not a database, it is a text" * 100)
    with pytest.raises(Corrupt):
        open_ledger(tmp_path)


def test_migrations_lead_to_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    opened = open_ledger(tmp_path)
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with opened.engine.connect() as connection:
        # The index of words is a table of FTS5, of which SQLAlchemy knows nothing; FTS5 keeps it in tables of its own.
        ours = {"include_name": lambda name, *_: not str(name).startswith("search_text")}
        differences = compare_metadata(MigrationContext.configure(connection, opts=ours), metadata)
    assert differences == []
    import flyball.ledger.sql as package

    script = ScriptDirectory(str(Path(package.__file__).parent / "migrations"))
    assert script.get_current_head() == HEAD
    assert {s.revision for s in script.walk_revisions()} == set(REVISIONS)


def _open_and_note(folder: str) -> int:
    opened = open_ledger(Path(folder))
    with opened.write("user/a") as tx:
        seq = tx.journal.note("said", "x/y").seq
    opened.close()
    return seq


def test_many_processes_may_open_a_new_home_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert sorted(pool.map(_open_and_note, [str(tmp_path)] * 8)) == list(range(1, 9))


_WRITER = f"""
import sys
from pathlib import Path
from flyball.ledger.sql import open_ledger
import flyball.testing.ledger
opened = open_ledger(Path(sys.argv[1]))
for number in range(100_000):
    with opened.write("user/a") as tx:
        tx.resources.apply("{KIND}", "x", {{"size": number + 2}})
    print(number + 2, flush=True)
"""


def test_kill_9_loses_no_acknowledged_change_and_leaves_no_half(tmp_path: Path) -> None:
    for _round in range(3):
        child = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _line in range(20):
            last = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        last = max([last, *(int(line) for line in child.stdout.read().split())])
        child.wait(30)
        opened = open_ledger(tmp_path)
        with opened.read() as tx:
            found = tx.resources.get(KIND, "x")
            assert found.spec["size"] in (last, last + 1)
            assert tx.journal.verify() == found.revision
        opened.close()
        with opened.write("user/a") as tx:
            tx.resources.delete(KIND, "x")
        opened.close()
        (tmp_path / "ledger.db").rename(tmp_path / f"done-{_round}.db")


def test_the_url_must_be_of_a_known_database(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="postgresql://"):
        open_ledger(tmp_path, LedgerSettings(url="mysql://root@localhost/x"))
