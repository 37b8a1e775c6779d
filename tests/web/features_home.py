"""A home with feature views of real flights for the tests of the feature pages: fresh, stale, wrong, failed, ending."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from pages_home import HOSTILE, Server

from flyball.errors import FlyballError
from flyball.governance.identity import Principal
from flyball.platform import Platform
from flyball.storage.online import OnlineValue
from flyball.testing.clock import FakeClock

NOW = datetime(2013, 12, 31, 3, tzinfo=UTC)
CODE = '''
from datetime import datetime

import polars as pl

import flyball as fb


@fb.feature_view(entity="origin", event_time="time_hour", known_at="known_at", ttl="4h", owner="team/weather")
def weather_then(weather: pl.LazyFrame) -> pl.LazyFrame:
    """The newest observation at the airport that is at least two hours old: the feed is that late."""
    return weather.select(
        "origin", "time_hour", "temp", "humid", "wind_speed", known_at=pl.col("time_hour") + pl.duration(hours=2)
    )


@fb.feature_view(
    entity="tailnum", event_time="arr_ts", ttl="14d", incremental=True, owner="team/flights", tags=["gold", "aircraft"],
    defaults={"previous_delay": 0.0},
)
def previous_leg(flown: pl.LazyFrame) -> pl.LazyFrame:
    """How late, in minutes, the aircraft landed last, and who flew it."""
    landed = flown.filter(pl.col("tailnum").is_not_null() & pl.col("arr_ts").is_not_null())
    return landed.select(
        "tailnum", "arr_ts", previous_delay=pl.col("arr_delay").cast(pl.Float64), flown_by="carrier",
        was_far=pl.col("distance") > 1000,
    )


@fb.feature_view(entity="origin", event_time="dep_ts", look_back="90m", owner="team/flights", tags=["gold"])
def departures(flown: pl.LazyFrame) -> pl.LazyFrame:
    """How many flights left the airport within the last hour, every ten minutes."""
    return fb.windowed(
        flown, by="origin", time="dep_ts", every="10m", period="1h", departures_1h=pl.len(),
        mean_delay_1h=pl.mean("dep_delay"),
    )


@fb.feature_view(entity="dest", event_time="arr_ts", source="flown")
def broken(flown: pl.LazyFrame) -> pl.LazyFrame:
    return flown.select("dest", "arr_ts", gate="gate_number")


@fb.on_request
def when(sched_dep_ts: datetime) -> dict:
    """The hour and the day of the week of the schedule."""
    return {"hour": sched_dep_ts.hour, "weekday": sched_dep_ts.isoweekday()}
'''


class FeatureHome:
    """A platform at the end of 2013, by a clock that is moved by hand."""

    def __init__(self, folder: Path, shared_data: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "features.py").write_text(CODE)
        self.clock = FakeClock(NOW - timedelta(days=3))
        self.platform = Platform.open(folder / "home", clock=self.clock)
        self.flights = shared_data / "nycflights13"

    def as_viewer(self) -> Platform:
        return self.platform.as_(Principal("user/vera", "viewer"))

    def close(self) -> None:
        self.platform.close()


def furnish(home: FeatureHome) -> None:
    """Declare six views and two services, materialise, push, tamper, deprecate."""
    at, clock = home.platform, home.clock
    columns = [
        "flight_id",
        "tailnum",
        "carrier",
        "origin",
        "dest",
        "distance",
        "dep_ts",
        "arr_ts",
        "dep_delay",
        "arr_delay",
    ]
    flown = pl.scan_parquet(home.flights / "flights.parquet")
    known = [name for name in columns if name in flown.collect_schema()]
    flown = flown.select(known).filter(pl.col("dep_ts") > datetime(2013, 11, 25, tzinfo=UTC)).sort("dep_ts").collect()
    early = pl.col("arr_ts") < NOW - timedelta(days=3)
    at.declare(
        "Dataset",
        "flown",
        entity=["tailnum"],
        event_time="arr_ts",
        columns={"carrier": {"classification": "confidential"}},
    )
    at.declare("Dataset", "weather", entity=["origin"], event_time="time_hour")
    at.publish("flown", flown.filter(early))
    weather = pl.read_parquet(home.flights / "weather.parquet").filter(pl.col("time_hour") < NOW)
    at.publish("weather", weather.filter(pl.col("time_hour") < clock.now()))
    views = {view.name: view for view in at.views_in("features.py")}
    for name, view in views.items():
        if name != "broken":
            at.declare_view(view, **({} if name in ("when", "departures") else {"materialise": {"every": "10m"}}))
    definition = {"name": "broken", "entity": ["dest"], "event_time": "arr_ts", "features": {"gate": "string"}}
    at.declare(
        "FeatureView",
        "broken",
        definition=definition,
        dataset="flown",
        function="features.py:broken",
        description=HOSTILE,
        materialise={},
    )
    for name in ("previous_leg", "departures", "weather_then"):
        at.keep_view(name)
    clock.advance(2.5 * 86_400)
    at.publish("flown", flown.filter(~early, pl.col("arr_ts") < clock.now()), mode="append")
    landed = [
        {"tailnum": tail, "arr_ts": clock.now() - timedelta(minutes=n), "previous_delay": 3.0 * n, "flown_by": "UA",
         "was_far": True}
        for n, tail in enumerate(["N14228", "N24211", "N619AA"])
    ]  # fmt: skip
    at.push("previous_leg", landed)
    at.publish("weather", weather.filter(pl.col("time_hour") >= NOW - timedelta(days=3)), mode="append")
    clock.advance(0.5 * 86_400)
    at.keep_view("previous_leg")
    at.keep_view("weather_then")
    wrong = [
        (key, OnlineValue(clock.now() - timedelta(minutes=1), {"departures_1h": 999, "mean_delay_1h": None}))
        for key in ("EWR",)
    ]
    at.online.put("departures@1", wrong)
    at.keep_view("departures")
    with contextlib.suppress(FlyballError):
        at.keep_view("broken")
    at.declare("FeatureView", "last_delay", definition={**at.resource("feature-view/previous_leg").spec["definition"],
               "name": "last_delay"}, dataset="flown", owner="user/alice")  # fmt: skip
    at.deprecate_view("last_delay", "It counts cancelled flights too.", "previous_leg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        at.feature_service("late", [views["previous_leg"], views["departures"]], owner="team/flights")  # type: ignore[list-item]
    pinned = [{"view": "weather_then", "version": 1, "digest": "0" * 64}]
    at.declare("FeatureService", "late-before", views=pinned, description="as it was in spring")
    at.declare("Model", "late")
    at.declare("Deployment", "late", model="late@champion", features=["weather_then", "when"], service="late")


def many_views(platform: Platform, count: int) -> None:
    """Declare so many views at once: what the list must page through."""
    from flyball.delivery.documents import Document

    definition = {"entity": ["key"], "event_time": "at", "features": {"x": "float64"}}
    platform.apply(
        Document(
            "feature-view",
            f"view_{n:05}",
            {"definition": {**definition, "name": f"view_{n:05}"}, "owner": f"team/{n % 7}"},
        )
        for n in range(count)
    )


@contextlib.contextmanager
def served_features(folder: Path, shared_data: Path, *, full: bool = True) -> Iterator[tuple[FeatureHome, Server]]:
    """Open a home, furnish it or leave it empty, serve its pages, and close both."""
    it = FeatureHome(folder, shared_data)
    if full:
        furnish(it)
    server = Server(it.platform)
    try:
        yield it, server
    finally:
        server.close()
        it.close()
