"""The shipped ledger cases over a real PostgreSQL server, a database for each case."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flyball.errors import Unavailable
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.testing.ledger import KIND, LedgerCases
from tests.services import postgres_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture
def database(server: str) -> str:
    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


class TestPostgresLedger(LedgerCases):
    @pytest.fixture
    def ledger(self, database: str, tmp_path: Path) -> Iterator[SqlLedger]:
        opened = open_ledger(tmp_path, LedgerSettings(url=database))
        yield opened
        opened.close()


def test_a_connection_that_was_cut_is_an_error_and_the_next_call_works(database: str, tmp_path: Path) -> None:
    opened = open_ledger(tmp_path, LedgerSettings(url=database))
    with pytest.raises(Unavailable), opened.write("user/a") as tx:
        tx.resources.apply(KIND, "x", {})
        with psycopg.connect(database, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        tx.resources.apply(KIND, "y", {})
    with opened.write("user/a") as tx:
        assert tx.resources.all(KIND) == []
        tx.resources.apply(KIND, "x", {})
    opened.close()


def test_a_server_that_is_not_there_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be opened"):
        open_ledger(tmp_path, LedgerSettings(url="postgresql://flyball@127.0.0.1:1/none"))
