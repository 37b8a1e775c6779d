"""What both databases keep of access keys and sessions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from flyball.errors import Conflict, Forbidden, NotFound
from flyball.ledger.access_keys import AccessKey, AccessSession
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.testing.clock import FakeClock
from tests.services import postgres_server

CLOCK = FakeClock()
CI = AccessKey("ci", "operator", "a" * 64, ("late", "fraud"), expires_at=CLOCK.now() + timedelta(days=1))


class AccessKeyCases:
    def test_a_key_is_read_back_and_its_name_is_taken(self, ledger: SqlLedger) -> None:
        with ledger.write("user/alice") as world:
            world.access_keys.add(CI)
            world.access_keys.add(AccessKey("all", "admin", "b" * 64))
        for taken in (replace(CI, digest="c" * 64), replace(CI, name="other")):
            with pytest.raises(Conflict), ledger.write("user/bob") as world:
                world.access_keys.add(taken)
        used = CLOCK.now() + timedelta(hours=1)
        with ledger.write("controller/access") as world:
            world.access_keys.used({"ci": used, "gone": used})
        with ledger.read() as world:
            every, ci = world.access_keys.all()
            (event,) = world.journal.find(ref="key/ci")
        assert ci == replace(CI, made_by="user/alice", made_at=CLOCK.now(), last_used_at=used)
        assert (every.deployments, every.expires_at, every.last_used_at) == ((), None, None)
        assert (event.actor, event.action) == ("user/alice", "access given")
        assert event.detail["deployments"] == ["late", "fraud"]
        assert CI.digest not in str(event)
        with pytest.raises(Forbidden), ledger.read() as world:
            world.access_keys.revoke("ci")

    def test_a_session_ends_with_its_key_or_its_time(self, ledger: SqlLedger) -> None:
        soon, later = CLOCK.now() + timedelta(hours=1), CLOCK.now() + timedelta(hours=2)
        with ledger.write("user/alice") as world:
            for name, digest in (("ci", "a" * 64), ("all", "b" * 64)):
                world.access_keys.add(replace(CI, name=name, digest=digest))
            world.access_keys.begin(AccessSession("1" * 64, "ci", soon))
            world.access_keys.begin(AccessSession("2" * 64, "all", later))
            world.access_keys.begin(AccessSession("3" * 64, "all", CLOCK.now()))  # over at once
            world.access_keys.begin(AccessSession("4" * 64, "all", later))
            world.access_keys.end("4" * 64)
            world.access_keys.end("9" * 64)
        with ledger.read() as world:
            assert {session.digest[0] for session in world.access_keys.sessions()} == {"1", "2"}
        with ledger.write("user/alice") as world:
            assert world.access_keys.revoke("ci").name == "ci"
            with pytest.raises(NotFound):
                world.access_keys.revoke("ci")
            with pytest.raises(NotFound):
                world.access_keys.begin(AccessSession("5" * 64, "ci", later))
        with ledger.read() as world:
            assert world.access_keys.sessions() == [AccessSession("2" * 64, "all", later)]


class TestAccessKeysInSqlite(AccessKeyCases):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[SqlLedger]:
        opened = open_ledger(tmp_path, clock=CLOCK)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


class TestAccessKeysInPostgres(AccessKeyCases):
    @pytest.fixture
    def ledger(self, server: str, tmp_path: Path) -> Iterator[SqlLedger]:
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        opened = open_ledger(tmp_path, LedgerSettings(url=f"{server}/{name}"), CLOCK)
        yield opened
        opened.close()
