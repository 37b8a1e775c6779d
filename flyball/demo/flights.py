"""The flights job: will this flight arrive 15 minutes late or more, known before it leaves?

A flight is asked about at its scheduled departure, cut to ten minutes. The request holds what the schedule says; the
rest is looked up: the weather two hours earlier, the aircraft's previous leg, recent departures. Every other day
teaches and the days between are replayed, so that nothing drifts by itself; `seasons` teaches January to March and
replays the rest of the year.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from flyball.demo.faults import Fault
from flyball.demo.job import Job, Sizes, SourceTable, Stream, Tick
from flyball.features.training_set import training_set
from flyball.features.views import FeatureView

__all__ = ["FEATURES", "REQUEST", "flights_job", "pushes_by_tick", "read_sample", "training_rows"]

ZONE = "America/New_York"
REQUEST = ("carrier", "origin", "dest", "distance", "hour", "weekday")
FEATURES = (
    *REQUEST, "temp", "humid", "wind_speed", "precip", "pressure", "visib", "previous_delay", "departures_1h",
    "delay_24h",
)  # fmt: skip
_KEYS = ("tailnum",)  # of a request, beside its inputs: by which features are looked up
_LATE_MINUTES = 15
_FOLDER = Path(__file__).parent


def read_sample(folder: Path = _FOLDER / "data") -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return (flights, weather) of the demo's files, time stamps and distances put back; see the README beside them."""
    flights = pl.read_parquet(folder / "flights.parquet").join(
        pl.read_parquet(folder / "routes.parquet"), on=["origin", "dest"], how="left"
    )
    scheduled = pl.lit(datetime(2013, 1, 1, tzinfo=UTC)) + _minutes("sched_minute")
    flights = flights.with_columns(sched_dep_ts=scheduled).with_columns(
        dep_ts=pl.col("sched_dep_ts") + _minutes("dep_delay")
    )
    return flights.with_columns(arr_ts=pl.col("dep_ts") + _minutes("elapsed")), pl.read_parquet(
        folder / "weather.parquet"
    )


def asked(flights: pl.DataFrame) -> pl.DataFrame:
    """Return each flight as it is asked about, in order of asking, with its truth and when that became known."""
    local = pl.col("sched_dep_ts").dt.convert_time_zone(ZONE)
    return flights.select(
        "flight_id",
        "tailnum",
        "carrier",
        "origin",
        "dest",
        pl.col("distance").cast(pl.Int64),
        hour=local.dt.hour().cast(pl.Int64),
        weekday=local.dt.weekday().cast(pl.Int64),
        hour_utc=pl.col("sched_dep_ts").dt.hour().cast(pl.Int64),
        day=local.dt.date(),
        asked_at=pl.col("sched_dep_ts").dt.truncate("10m"),
        known_at=pl.col("arr_ts"),
        late=(pl.col("arr_delay") >= _LATE_MINUTES).cast(pl.Int64),
    ).sort("asked_at", "flight_id")


def training_rows(rows: pl.DataFrame, views: tuple[FeatureView, ...], sources: dict[str, pl.LazyFrame]) -> pl.DataFrame:
    """Return asked rows with their features as known when they were asked."""
    joined = training_set(rows.lazy(), views, at="asked_at", sources=sources).collect()
    return joined.select("flight_id", "asked_at", "known_at", *FEATURES, "late")


def flights_job(*, seasons: bool, fault: bool, seed: int) -> Job:
    """Return the job on flights; an odd seed swaps the days that teach and the days that are replayed."""
    from flyball.demo.project.features import VIEWS

    flights, weather = read_sample()
    every = asked(flights)
    month, day = pl.col("day").dt.month(), pl.col("day").dt.ordinal_day()
    if seasons:
        learnt = every.filter(month <= 3)
        replayed = every.filter((month > 3) & (day % 3 == seed % 3))
        turn = day
        how = "January to March teach; every third day and second flight of the rest of the year is replayed"
    else:
        half = every.filter(month.is_between(4, 9))
        learnt, replayed = half.filter(day % 2 == seed % 2), half.filter(day % 2 != seed % 2)
        turn = day // 2
        how = "every other day of April to September teaches; every second flight of the days between is replayed"
    sources = {"flown": flights.lazy(), "weather": weather.lazy()}
    # Days judge by turns, so that the rows that judge come from all months, as the live ones do.
    rows = training_rows(learnt, VIEWS, sources)
    asked_about = replayed.gather_every(2)
    stream = _stream(asked_about, pushes_by_tick(asked_about["asked_at"].unique().sort(), VIEWS, sources))
    sizes = Sizes.of(len(stream))
    judging = learnt.filter(turn % 4 == 3)["flight_id"]
    return Job(
        name="late",
        dataset="flights",
        title=f"will a flight arrive {_LATE_MINUTES} minutes late or more, known before it leaves? ({how})",
        rows=rows,
        spec={
            "target": "late",
            "event_time": "asked_at",
            "known_at": "known_at",
            "label_time": "known_at",
            "entity": ["flight_id"],
            "description": "flights as they were asked about, with their features as known then",
        },
        contract=(_FOLDER / "contract.odcs.yaml").read_text(encoding="utf-8"),
        inputs=FEATURES,
        test=pl.col("flight_id").is_in(judging.implode()),
        metric="auc",
        least=0.6,
        stream=stream,
        sizes=sizes,
        slices=("origin", "carrier"),
        sources={
            "flown": SourceTable(flights, "flights.parquet", {"event_time": "sched_dep_ts", "known_at": "arr_ts"}),
            "weather": SourceTable(weather, "weather.parquet", {"event_time": "time_hour"}),
        },
        views=VIEWS,
        fault=_utc_hour(asked_about, stream, sizes) if fault and not seasons else None,
        is_watched_only=seasons,
    )


def pushes_by_tick(
    ticks: pl.Series, views: tuple[FeatureView, ...], sources: dict[str, pl.LazyFrame]
) -> list[tuple[Any, ...]]:
    """Return for each tick what the feeds push before its requests: of each view, the newest row of every entity that
    became known since the tick before. So look-ups see what the join of training rows would give.

    Args:
        ticks: (n,) distinct instants, rising.
    """
    pushes: list[list[Any]] = [[] for _ in range(len(ticks))]
    for view in views:
        rows = view.compute(sources[view.source]).drop_nulls([*view.entity, view.event_time, view.known_at]).collect()
        spec = view.spec()
        available = rows.select(pl.max_horizontal(view.event_time, view.known_at)).to_series()
        order = [view.event_time, view.known_at] if view.is_bitemporal else [view.event_time]
        newest = (
            rows.with_columns(tick=ticks.search_sorted(available, side="left"))
            .filter(pl.col("tick") < len(ticks))
            .sort("tick", *order, maintain_order=True)
            .unique(["tick", *view.entity], keep="last", maintain_order=True)
        )
        records = newest.drop("tick").to_dicts()
        for tick, start, count in (
            newest.group_by("tick", maintain_order=True)
            .len()
            .with_columns(start=pl.col("len").cum_sum() - pl.col("len"))
            .select("tick", "start", "len")
            .iter_rows()
        ):
            pushes[tick].append((spec, records[start : start + count]))
    return [tuple(rows) for rows in pushes]


def _stream(asked_about: pl.DataFrame, pushes: list[tuple[Any, ...]]) -> Stream:
    at = asked_about["asked_at"].unique().sort()
    counts = asked_about.group_by("asked_at").len().sort("asked_at")["len"].to_list()
    ticks, start = [], 0
    for instant, count, pushed in zip(at.to_list(), counts, pushes, strict=True):
        ticks.append(Tick(start, start + count, instant, instant.strftime("%Y-%m-%d %H:%M UTC"), pushed))
        start += count
    told = at.search_sorted(asked_about["known_at"].fill_null(datetime(2100, 1, 1, tzinfo=UTC)), side="left")
    records = asked_about.select(*REQUEST, *_KEYS).to_dicts()
    return Stream(records, asked_about["late"].to_list(), told.to_list(), ticks)


def _utc_hour(asked_about: pl.DataFrame, stream: Stream, sizes: Sizes) -> Fault:
    tick = stream.tick_of(sizes.fault_at)
    return Fault(
        "hour",
        asked_about["hour_utc"].to_list(),
        tick.start,
        f"from {tick.label} on the schedule feed gives the hour in UTC in place of local time; the contract, which "
        "allows 0 to 23, cannot see it",
    )


def _minutes(column: str) -> pl.Expr:
    return pl.duration(minutes=pl.col(column).cast(pl.Int32))
