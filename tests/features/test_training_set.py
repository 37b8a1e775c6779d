"""Training sets of several views and functions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from flyball.errors import InvalidInput
from flyball.features.requests import on_request
from flyball.features.training_set import training_set
from flyball.features.views import feature_view


@feature_view(entity="tailnum", event_time="arr_ts", ttl="2d")
def previous_leg(flights: pl.LazyFrame) -> pl.LazyFrame:
    return flights.filter(pl.col("arr_delay").is_not_null()).select("tailnum", "arr_ts", previous_delay="arr_delay")


@feature_view(entity="origin", event_time="time_hour", known_at="known_at")
def weather_then(weather: pl.LazyFrame) -> pl.LazyFrame:
    return weather.select("origin", "time_hour", "temp", known_at=pl.col("time_hour").dt.offset_by("2h"))


@on_request
def calendar(sched_dep_ts: datetime) -> dict[str, int]:
    return {"utc_hour": sched_dep_ts.hour}


@on_request
def felt(temp: float) -> dict[str, bool]:
    return {"is_cold": temp < 32.0}


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_views_and_functions_stand_beside_each_row_in_its_own_order(shared_data: Path, engine: str) -> None:
    folder = shared_data / "nycflights13"
    sources = {n: pl.scan_parquet(folder / f"{n}.parquet") for n in ("flights", "weather")}
    rows = sources["flights"].filter(pl.col("month") == 10).select("flight_id", "tailnum", "origin", "sched_dep_ts")
    made = training_set(rows, [previous_leg, weather_then, calendar, felt], "sched_dep_ts", sources, ages=True).collect(
        engine=engine
    )  # type: ignore[call-overload]
    assert made.select(rows.collect_schema().names()).equals(rows.collect())
    assert made.columns[4:] == [
        "previous_delay",
        "previous_leg_age_s",
        "temp",
        "weather_then_age_s",
        "utc_hour",
        "is_cold",
    ]
    assert made["previous_leg_age_s"].max() <= 2 * 86_400  # type: ignore[operator]
    assert made["weather_then_age_s"].min() == 7_200
    assert (made["temp"] < 32.0).equals(made["is_cold"], check_names=False)


def test_what_is_missing_or_twice_there_is_refused(shared_data: Path) -> None:
    flights = pl.scan_parquet(shared_data / "nycflights13" / "flights.parquet")
    with pytest.raises(InvalidInput, match='needs the source "flights"; did you mean "flight"'):
        training_set(flights, [previous_leg], "sched_dep_ts", {"flight": flights})
    with pytest.raises(InvalidInput, match="previous_leg was given twice"):
        training_set(flights, [previous_leg, previous_leg], "sched_dep_ts", {"flights": flights})
    with pytest.raises(InvalidInput, match="no features were given"):
        training_set(flights, [], "sched_dep_ts", {"flights": flights})
    with pytest.raises(InvalidInput, match="expected functions decorated"):
        training_set(flights, [len], "sched_dep_ts", {"flights": flights})  # type: ignore[list-item]
    named = flights.with_columns(utc_hour=1)
    with pytest.raises(InvalidInput, match='a column "utc_hour" already'):
        training_set(named, [calendar], "sched_dep_ts")
