"""Who was erased is known at each publication without reading every certificate again, and never out of date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import event

from flyball.data.masking import home_key, keyed_hash
from flyball.ledger.sql.database import SqlLedger
from flyball.platform import Platform
from flyball.privacy.suppression import Suppressions, lift, suppression_of

PEOPLE = pl.DataFrame({"email": [f"u{n}@example.org" for n in range(20)], "n": range(20)})


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    opened.declare("dataset", "people", subject="email")
    yield opened
    opened.close()


def certify(platform: Platform, *numbers: int) -> None:
    """Publish certificates of erased people."""
    key = home_key(platform.home)
    with platform.ledger.write("user/a") as world:
        for n in numbers:
            hash = keyed_hash(key, f"u{n}@example.org")
            metadata = {"subject": hash, "columns": ["email"], "complete": True, "rows": 1, "left": 0}
            world.versions.publish("erasure", f"c{n:012}", f"{n:064x}", metadata=metadata)


def admitted(platform: Platform) -> int:
    return int(platform.guard.admit("people", PEOPLE.lazy()).frame.collect().height)


def test_what_is_erased_and_allowed_again_counts_with_the_next_publication(platform: Platform) -> None:
    assert admitted(platform) == 20
    certify(platform, 3, 4)
    assert admitted(platform) == 18
    with platform.ledger.write("user/a") as world:
        world.journal.note("looked", "dataset/people")  # something else happened
    assert admitted(platform) == 18
    other = Platform.open(platform.home)  # another process of the home
    certify(other, 5)
    lift(other.ledger, keyed_hash(home_key(platform.home), "u3@example.org"), ["email"], "user/b")
    other.close()
    assert admitted(platform) == 18
    assert set(platform.guard.admit("people", PEOPLE.lazy()).frame.collect()["n"]) == set(range(20)) - {4, 5}


def test_certificates_are_not_read_again_for_other_events_and_are_after_very_many(platform: Platform) -> None:
    certify(platform, *range(1_000, 2_000))
    key = home_key(platform.home)
    kept = Suppressions(platform.ledger)
    first = kept.now(key)
    assert first == suppression_of(platform.ledger, key)
    read: list[str] = []
    assert isinstance(platform.ledger, SqlLedger)
    engine = platform.ledger.engine
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_rest: read.append(statement))
    for _ in range(20):
        with platform.ledger.write("user/a") as world:
            world.journal.note("looked", "dataset/people")
        assert kept.now(key) is first
    assert [statement for statement in read if "FROM versions" in statement] == []
    with platform.ledger.write("user/a") as world:
        for _ in range(1_500):
            world.journal.note("looked", "dataset/people")
    certify(platform, 7)
    found = kept.now(key)
    assert found is not None and len(found.hashes["email"]) == 1_001
    assert len([statement for statement in read if "FROM versions" in statement and "ORDER BY" in statement]) <= 3
