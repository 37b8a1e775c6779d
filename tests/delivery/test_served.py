"""What served when, told from the journal alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flyball.errors import NotFound
from flyball.governance.identity import Principal
from flyball.platform import Platform
from flyball.testing.clock import FakeClock

START = datetime(2026, 5, 3, 14, tzinfo=UTC)


class World:
    """A home whose journal gets moves of traffic an hour apart."""

    def __init__(self, home: Path) -> None:
        self.clock = FakeClock(START)
        self.platform = Platform.open(home, Principal("user/root", "admin"), self.clock)

    def note(self, action: str, ref: str = "deployment/late", **detail: Any) -> None:
        with self.platform.ledger.write("controller/deployment") as world:
            world.journal.note(action, ref, detail)
        self.clock.advance(3600)

    def texts(self, at: datetime | None = None) -> list[str]:
        return [one.text for one in self.platform.served("late", at)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    with closing(made.platform):
        yield made


def table(**shares: float) -> list[dict[str, Any]]:
    versions = {"champion": "late@1", "canary": "late@2", "baseline": "late@1"}
    return [{"name": name, "version": versions[name], "weight": share} for name, share in shares.items()]


def test_each_instant_has_the_table_that_held_then(world: World) -> None:
    shadow = [*table(champion=100), {"name": "shadow", "version": "late@2", "weight": 10.0, "is_mirror": True}]
    world.note("serves", traffic=table(champion=100))
    world.note("blocked", because="no champion")  # moves nothing
    world.note("rollout started", traffic=table(champion=60, canary=20, baseline=20))
    world.note("serves", ref="deployment/late-2", traffic=table(canary=100))  # another deployment's
    world.note("rolled back", traffic=shadow)
    expected = ["late@1 100 %, late@2 in the shadow of 10 %", "late@1 80 %, late@2 20 %", "late@1 100 %"]
    assert world.texts() == expected
    for hour, at in ((4, expected[0]), (2, expected[1]), (3, expected[1]), (1, expected[2]), (0, expected[2])):
        assert world.texts(START.replace(hour=14 + hour, minute=30)) == [at]
    assert world.texts(START.replace(hour=13)) == []


def test_a_table_holds_from_its_instant_to_before_the_next_ones(world: World) -> None:
    world.note("serves", traffic=table(champion=100))
    world.note("promoted", traffic=table(canary=100))
    assert world.texts(START) == ["late@1 100 %"]
    assert world.texts(START.replace(hour=15)) == ["late@2 100 %"]


def test_events_from_before_tables_were_kept_are_told_by_their_versions(world: World) -> None:
    world.note("serves", version="late@1")
    world.note("rollout started", champion="late@1", challenger="late@2", share=5)
    world.note("promoted", champion="late@1", challenger="late@2")
    assert world.texts() == ["late@2 100 %", "late@1 95 %, late@2 5 %", "late@1 100 %"]


def test_a_deleted_deployment_is_still_told_of_and_serves_nothing_after(world: World) -> None:
    world.note("serves", traffic=table(champion=100))
    world.note("deleted")
    assert world.texts() == ["late@1 100 %"]
    assert world.texts(START.replace(hour=18)) == []


def test_more_events_than_a_page_are_all_read(world: World) -> None:
    world.note("serves", traffic=table(champion=100))
    with world.platform.ledger.write("controller/deployment") as writing:
        for _ in range(1200):
            writing.journal.note("blocked", "deployment/late", {})
    assert world.texts() == ["late@1 100 %"]


def test_a_deployment_that_never_was_is_not_found(world: World) -> None:
    with pytest.raises(NotFound, match="deployment/late"):
        world.platform.served("late")
