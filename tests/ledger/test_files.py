"""Files, logged models and removal over SQLite and over a real PostgreSQL server, and which paths are refused."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flyball.errors import InvalidInput
from flyball.ledger.artifacts import check_path, location_of, proxied
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from tests.ledger.files import FileCases, ModelCases, RemovalCases
from tests.services import postgres_server


class TestFilesInSqlite(FileCases, ModelCases, RemovalCases):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[SqlLedger]:
        opened = open_ledger(tmp_path)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


class TestFilesInPostgres(FileCases, ModelCases, RemovalCases):
    @pytest.fixture
    def ledger(self, server: str, tmp_path: Path) -> Iterator[SqlLedger]:
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            # The order of a language, in which a folder would not stand beside what is in it.
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")
        opened = open_ledger(tmp_path, LedgerSettings(url=f"{server}/{name}"))
        yield opened
        opened.close()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a", "a"),
        ("a/b.txt", "a/b.txt"),
        ("a//b/./c", "a/b/c"),
        ("100%.txt", "100%.txt"),
        ("a%20b", "a%20b"),
        ("what?.txt", "what?.txt"),
        ("...", "..."),
        ("..a/b..", "..a/b.."),
        ("loss:train.png", "loss:train.png"),
        ("~/x", "~/x"),
        ("$HOME/x", "$HOME/x"),
        ("café", "café"),
        ("cafe\u0301", "cafe\u0301"),
        ("A/a", "A/a"),
        ("n" * 255, "n" * 255),
        ("CON/nul.txt", "CON/nul.txt"),
    ],
)
def test_a_path_is_kept_letter_by_letter(given: str, kept: str) -> None:
    assert check_path(given) == kept


@pytest.mark.parametrize(
    "path",
    [
        "..", "../x", "a/../b", "a/..", "./../x", "a/ .. /b", "..\\x", "a\\b", "\\\\host\\share",
        "/etc/passwd", "//host/x", "%2e%2e/x", "%2E%2E%2Fx", "%252e%252e%252fx", "..%2fx", "..%252fx",
        "%2fetc%2fpasswd",
        "..%5cx", "%255c", "a%00b", "a\x00b", "a\nb", "a\r\nb", "\x7f", "a%0d%0ab", "a#b", "a%23b",
        "C:/x", "c:x", "a/C:/x", "C%3A/x", "file:/etc/passwd", "file:///etc/passwd", "FILE:x", "a/file:x",
        "http://169.254.169.254/x", "s3://bucket/x", "a/https://x", "．．/x", "a/‥/b", "．．／x", "＼x", "\ud800",
        "%2525252525252525252525252e%2e/x", "n" * 256, "é" * 128, "/".join(["n" * 200] * 6),
        "", ".", "./", "a/", "a/.",
    ],
)  # fmt: skip
def test_what_leads_out_or_cannot_be_kept_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid path"):
        check_path(path)


@pytest.mark.parametrize(("given", "kept"), [("", ""), ("a/", "a"), ("./", ""), ("a/b//", "a/b")])
def test_a_folder_may_be_the_whole_tree(given: str, kept: str) -> None:
    assert check_path(given, is_folder=True) == kept


def test_an_address_of_the_proxy_is_known_by_its_scheme_or_path() -> None:
    assert location_of("7", None, "r") == "mlflow-artifacts:/7/r/artifacts"
    assert location_of("7", "s3://bucket/x?region=eu", "r") == "s3://bucket/x/r/artifacts?region=eu"
    assert proxied("mlflow-artifacts:/7/r/artifacts") == "7/r/artifacts"
    assert proxied("mlflow-artifacts://host:80/7/r") == "7/r"
    assert proxied("http://host/api/2.0/mlflow-artifacts/artifacts/7/r") == "7/r"
    for elsewhere in ("s3://bucket/7/r", "file:///7/r", "/7/r", "http://host/other/7", "7/r"):
        assert proxied(elsewhere) is None
