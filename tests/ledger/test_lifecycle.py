"""Promotion requests and papers over SQLite and over a real PostgreSQL server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from tests.ledger.lifecycle import LifecycleCases
from tests.services import postgres_server


class TestLifecycleInSqlite(LifecycleCases):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[SqlLedger]:
        opened = open_ledger(tmp_path)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


class TestLifecycleInPostgres(LifecycleCases):
    @pytest.fixture
    def ledger(self, server: str, tmp_path: Path) -> Iterator[SqlLedger]:
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        opened = open_ledger(tmp_path, LedgerSettings(url=f"{server}/{name}"))
        yield opened
        opened.close()
