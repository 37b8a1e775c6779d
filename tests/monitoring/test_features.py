"""A feature view that is stale or wrong online alerts people as a monitor does, until it is healthy again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from flyball.cli.columns import COLUMNS
from flyball.control.loop import Loop
from flyball.ledger import kinds
from flyball.ledger.resources import Resource
from flyball.monitoring.features import FeatureAlertController
from flyball.platform import Platform
from flyball.storage.online import OnlineValue
from flyball.testing.clock import FakeClock

VIEWS = '''
import polars as pl
import flyball as fb


@fb.feature_view(entity="key", event_time="at", ttl="2h")
def watched_speed(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Speed at the last reading."""
    return readings.select("key", "at", speed=pl.col("x") * 2)
'''
VIEW = "feature-view/watched_speed"


class World:
    """A home whose view is kept when the test says so, and the loop with the controller of its alerts."""

    def __init__(self, folder: Path) -> None:
        (folder / "features.py").write_text(VIEWS)
        sys.modules.pop("flyball_file_features", None)
        self.clock = FakeClock(datetime.now(UTC))
        self.platform = Platform.open(folder / "home", clock=self.clock)
        self.platform.declare("Dataset", "readings", entity=["key"], event_time="at")
        self.publish()
        (view,) = self.platform.views_in("features.py")
        self.platform.declare_view(view, materialise={"every": "10m", "sample": 400})
        self.loop = Loop(self.platform.ledger, [FeatureAlertController()], self.clock)

    def publish(self) -> None:
        rows = pl.DataFrame({"key": [f"k{n}" for n in range(100)], "x": range(100)})
        at = self.clock.now() - timedelta(minutes=1)
        self.platform.publish("readings", rows.with_columns(at=pl.lit(at)))

    def keep(self) -> None:
        self.clock.advance(1.0)
        self.platform.keep_view("watched_speed")
        self.loop.settle()

    def alert(self, condition: str) -> Resource:
        return self.platform.resource(f"alert/watched_speed-{condition}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.loop.stop()
    made.platform.close()


def test_a_stale_view_fires_an_alert_that_ends_when_it_is_fresh_again(world: World) -> None:
    world.keep()
    assert world.platform.resources("alert") == []
    world.clock.advance(3 * 3600)
    world.keep()
    alert = world.alert("stale")
    severity = kinds.validate("alert", alert.name, alert.spec).severity  # type: ignore[attr-defined]
    assert (alert.status["state"], severity, alert.owner) == ("firing", "warning", VIEW)
    assert "older than the time to live" in alert.spec["summary"]
    fired = world.platform.events(ref="alert/watched_speed-stale", action="fired")
    began = world.platform.events(ref=VIEW, action="stale")
    assert [event.cause for event in fired] == [began[0].seq]
    world.keep()
    assert world.platform.events(ref="alert/watched_speed-stale", action="fired") == fired  # it is told once
    world.publish()
    world.keep()
    world.keep()
    assert world.alert("stale").status["state"] == "resolved"
    ended = world.platform.events(ref=VIEW, action="no longer stale")
    resolved = world.platform.events(ref="alert/watched_speed-stale", action="resolved")
    assert [event.cause for event in resolved] == [ended[0].seq]


def test_values_that_nobody_stored_are_a_critical_alert_without_a_value_in_it(world: World) -> None:
    world.keep()
    wrong = [(f"k{n}", OnlineValue(world.clock.now() + timedelta(seconds=1), {"speed": -54321})) for n in range(90)]
    world.platform.online.put("watched_speed@1", wrong)
    world.clock.advance(2.0)
    world.keep()
    alert = world.alert("disagrees")
    assert (alert.status["state"], alert.spec["severity"]) == ("firing", "critical")
    assert "54321" not in str(alert)
    assert COLUMNS["alert"]["what"](world.platform, alert) == alert.spec["summary"]  # as `flyball get alerts` prints it


def test_an_alert_begun_while_no_controller_ran_is_told_by_the_next_and_goes_with_its_view(world: World) -> None:
    world.clock.advance(3 * 3600)
    world.platform.keep_view("watched_speed")
    assert world.platform.resources("alert") == []
    world.loop.settle()
    assert world.alert("stale").status["state"] == "firing"
    spec = world.platform.resource(VIEW).spec
    world.platform.declare("FeatureView", "watched_speed", **{**spec, "status": "retired", "retired": {"reason": "x"}})
    world.loop.settle()
    assert world.alert("stale").status["state"] == "resolved"
    world.platform.delete(VIEW)
    assert world.platform.resources("alert") == []


def test_the_pages_show_the_alert_and_lead_to_the_view(world: World) -> None:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from flyball.web.pages import mount

    world.keep()
    world.clock.advance(3 * 3600)
    world.keep()
    app = FastAPI()
    mount(app, world.platform)
    paths = ("/monitors", "/monitors/alerts/watched_speed-stale", "/")
    with TestClient(app) as client:
        listing, one, overview = (client.get(path) for path in paths)
    assert [page.status_code for page in (listing, one, overview)] == [200, 200, 200]
    assert "/monitors/alerts/watched_speed-stale" in listing.text
    for page in (one, overview):
        assert 'href="/features/watched_speed"' in page.text
        assert "older than the time to live" in page.text
