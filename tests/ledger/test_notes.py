"""Notes over SQLite and over a real PostgreSQL server, and how any text is a name."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.ledger.refs import Ref, check_name, ledger_name, ref, shown_name
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from tests.ledger.notes import NoteCases
from tests.services import postgres_server


class TestNotesInSqlite(NoteCases):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[SqlLedger]:
        opened = open_ledger(tmp_path)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


class TestNotesInPostgres(NoteCases):
    @pytest.fixture
    def ledger(self, server: str, tmp_path: Path) -> Iterator[SqlLedger]:
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        opened = open_ledger(tmp_path, LedgerSettings(url=f"{server}/{name}"))
        yield opened
        opened.close()


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
def test_any_text_is_a_name_that_is_read_back(text: str) -> None:
    name = ledger_name(text)
    assert shown_name(name) == text
    assert check_name(name, "model") == name
    assert ref(f"model/{name}@3") == Ref("model", name, "3")


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"), min_size=1))
def test_two_texts_are_two_names(one: str, other: str) -> None:
    assert (ledger_name(one) == ledger_name(other)) == (one == other)


@pytest.mark.parametrize("name", ["a%41", "%2e", "a%", "a%FF", "%", "a%zz", "a b", "", "%C3", "x" * 801])
def test_no_other_way_to_write_a_name_is_one(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_name(name, "model")


def test_only_models_have_such_names() -> None:
    assert check_name("a%20b", "model") == "a%20b"
    with pytest.raises(InvalidInput):
        check_name("a%20b", "dataset")
    with pytest.raises(InvalidInput):
        ref("dataset/a%20b@1")
