"""Point-in-time joins against published figures of real flights and against brute force."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.features.joins import join_as_of
from flyball.features.views import FeatureView, feature_view
from flyball.features.windows import windowed

ENGINES = ("in-memory", "streaming")
START = datetime(2013, 5, 1, tzinfo=UTC)


def minutes(count: int) -> timedelta:
    return timedelta(minutes=count)


@feature_view(entity="origin", event_time="time_hour")
def weather_then(weather: pl.LazyFrame) -> pl.LazyFrame:
    return weather.select("origin", "time_hour", "temp", observed_at="time_hour")


@feature_view(entity="origin", event_time="time_hour", known_at="published_at")
def weather_published(weather: pl.LazyFrame) -> pl.LazyFrame:
    return weather.select("origin", "time_hour", "temp", published_at=pl.col("time_hour") + minutes(120))


@feature_view(entity="tailnum", event_time="arr_ts")
def previous_leg(flights: pl.LazyFrame) -> pl.LazyFrame:
    landed = flights.filter(pl.col("arr_delay").is_not_null())
    return landed.select("tailnum", "arr_ts", previous_delay="arr_delay", previous_id="flight_id")


@feature_view(entity="origin", event_time="dep_ts")
def departures(flights: pl.LazyFrame) -> pl.LazyFrame:
    return windowed(flights, by="origin", time="dep_ts", every="1m", period="1h", closed="left", departures=pl.len())


@pytest.fixture(scope="module")
def flights(shared_data: Path) -> pl.LazyFrame:
    return pl.scan_parquet(shared_data / "nycflights13" / "flights.parquet")


@pytest.fixture(scope="module")
def weather(shared_data: Path) -> pl.LazyFrame:
    return pl.scan_parquet(shared_data / "nycflights13" / "weather.parquet")


@pytest.mark.parametrize("engine", ENGINES)
def test_join_a_newest_weather_two_hours_old_is_that_of_the_published_figures(
    flights: pl.LazyFrame, weather: pl.LazyFrame, engine: Any
) -> None:
    computed = weather_then.compute(weather)
    joined = join_as_of(flights, "sched_dep_ts", computed, weather_then, "2h", age=True).collect(engine=engine)
    assert joined["flight_id"].equals(flights.select("flight_id").collect()["flight_id"])
    ages = joined["weather_then_age_s"].drop_nulls() / 60 - 120
    assert (len(ages), ages.sum(), ages.max(), (ages >= 60).sum()) == (328_521, 9_413_469, 1_679, 1_201)
    matched = joined.filter(pl.col("observed_at").is_not_null())
    assert matched["temp"].null_count() == 12
    assert matched["temp"].sum() == pytest.approx(18_529_353.0)
    examples = joined.filter(pl.col("flight_id").is_in([0, 100_000])).sort("flight_id")
    assert examples["observed_at"].dt.hour().to_list() == [8, 11]
    assert examples["temp"].to_list() == [39.02, 26.96]


def test_weather_known_two_hours_later_gives_join_a_as_well(flights: pl.LazyFrame, weather: pl.LazyFrame) -> None:
    joined = join_as_of(
        flights, "sched_dep_ts", weather_published.compute(weather), weather_published, age=True
    ).collect()
    assert joined["weather_published_age_s"].sum() / 60 - 120 * 328_521 == 9_413_469
    assert joined["temp"].sum() == pytest.approx(18_529_353.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_join_b_previous_leg_is_that_of_the_published_figures(flights: pl.LazyFrame, engine: Any) -> None:
    joined = join_as_of(flights, "sched_dep_ts", previous_leg.compute(flights), previous_leg).collect(engine=engine)
    assert joined.height == 336_776
    assert joined["previous_id"].count() == 324_471
    assert joined["previous_delay"].sum() == 2_201_507
    examples = joined.filter(pl.col("flight_id").is_in([0, 100_000])).sort("flight_id")
    assert examples.select("previous_id", "previous_delay").rows() == [(None, None), (95_347, 17)]


def test_departures_of_the_last_hour_sum_to_the_published_figure(flights: pl.LazyFrame) -> None:
    joined = join_as_of(flights, "sched_dep_ts", departures.compute(flights), departures)
    assert joined.filter(pl.col("dep_ts").is_not_null()).select(pl.sum("departures")).collect().item() == 6_193_094


Event = tuple[str | None, int | None, int | None]
events = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.none() | st.integers(0, 12), st.none() | st.integers(0, 14)),
    max_size=14,
)
questions = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.none() | st.integers(0, 16)), max_size=8)


def instants(values: list[int | None]) -> pl.Series:
    return pl.Series([None if v is None else START + minutes(v) for v in values], dtype=pl.Datetime("us", "UTC"))


def view_of(is_bitemporal: bool, ttl: int | None) -> FeatureView:
    @feature_view(
        entity="key",
        event_time="event",
        known_at="known" if is_bitemporal else None,
        ttl=None if ttl is None else minutes(ttl),
    )
    def number(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame if is_bitemporal else frame.drop("known")

    return number


def brute_force(
    rows: list[Event], key: str | None, at: int | None, offset: int, ttl: int | None, is_bitemporal: bool
) -> int | None:
    best: tuple[int, int, int] | None = None
    for number, (own, event, known) in enumerate(rows):
        arrived = known if is_bitemporal else event
        if None in (own, event, arrived, key, at) or own != key:
            continue
        assert event is not None and arrived is not None and at is not None
        if event <= at - offset and arrived <= at:
            candidate = (event, arrived, number)
            best = candidate if best is None or candidate > best else best
    if best is None or at is None or (ttl is not None and at - best[0] > ttl):
        return None
    return best[2]


@settings(max_examples=120, deadline=None)
@given(
    rows=events,
    asked=questions,
    offset=st.sampled_from([0, 2]),
    ttl=st.sampled_from([None, 0, 3]),
    is_bitemporal=st.booleans(),
    engine=st.sampled_from(ENGINES),
)
def test_any_join_is_that_of_brute_force(
    rows: list[Event], asked: list[tuple[Any, Any]], offset: int, ttl: int | None, is_bitemporal: bool, engine: Any
) -> None:
    frame = pl.LazyFrame(
        {
            "key": pl.Series([r[0] for r in rows], dtype=pl.String),
            "event": instants([r[1] for r in rows]),
            "known": instants([r[2] for r in rows]),
            "number": pl.Series(range(len(rows)), dtype=pl.Int64),
        }
    )
    questions = pl.LazyFrame(
        {"key": pl.Series([q[0] for q in asked], dtype=pl.String), "at": instants([q[1] for q in asked])}
    )
    view = view_of(is_bitemporal, ttl)
    joined = join_as_of(questions, "at", view.compute(frame), view, minutes(offset)).collect(engine=engine)
    assert joined.columns == ["key", "at", "number"]
    assert joined.select("key", "at").equals(questions.collect())
    expected = [brute_force(rows, key, at, offset, ttl, is_bitemporal) for key, at in asked]
    assert joined["number"].to_list() == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_a_large_bitemporal_join_is_that_of_a_scan_by_hand(engine: Any) -> None:
    random = np.random.default_rng(7)
    count = 200_000
    event = np.sort(random.integers(0, 1_000_000, count))
    known = event + (random.exponential(20_000, count)).astype(np.int64)
    key = random.integers(0, 50, count)
    at, wanted = random.integers(0, 1_100_000, 300), random.integers(0, 52, 300)
    frame = pl.LazyFrame({"key": key, "event": event, "known": known, "number": np.arange(count)}).with_columns(
        (pl.lit(START) + pl.duration(microseconds=pl.col(c) * 1000)).alias(c) for c in ("event", "known")
    )
    shuffled = frame.collect().sample(fraction=1, shuffle=True, seed=3).lazy()
    asked = pl.LazyFrame({"key": wanted, "at": at}).with_columns(
        at=pl.lit(START) + pl.duration(microseconds=pl.col("at") * 1000)
    )
    view = view_of(True, None)
    expected = []
    for moment, own in zip(at, wanted, strict=True):
        usable = np.flatnonzero((key == own) & (event <= moment) & (known <= moment))
        best = max(usable, key=lambda i: (event[i], known[i]), default=None)
        expected.append(None if best is None else (event[best], known[best]))
    for frame_as_it_is in (frame, shuffled):
        found = join_as_of(asked, "at", view.compute(frame_as_it_is), view).collect(engine=engine)["number"]
        assert [None if n is None else (event[n], known[n]) for n in found] == expected


def test_zones_and_units_are_aligned_and_a_time_without_zone_is_refused() -> None:
    at = pl.Series([datetime(2013, 5, 1, 8)]).dt.cast_time_unit("ms").dt.replace_time_zone("America/New_York")
    event = pl.Series([datetime(2013, 5, 1, 12), datetime(2013, 5, 1, 13)]).dt.cast_time_unit("ns")
    frame = pl.LazyFrame(
        {"key": ["a", "a"], "event": event.dt.replace_time_zone("UTC"), "known": [0, 0], "number": [1, 2]}
    )
    view = view_of(False, None)
    rows = pl.LazyFrame({"key": pl.Series(["a"], dtype=pl.Categorical), "at": at})
    joined = join_as_of(rows, "at", view.compute(frame), view).collect()
    assert joined["number"].to_list() == [1]
    assert joined.schema["at"] == pl.Datetime("ms", "America/New_York")
    with pytest.raises(InvalidInput, match=r'"at" of the rows has no zone; say which .*replace_time_zone'):
        join_as_of(rows.with_columns(pl.col("at").dt.replace_time_zone(None)), "at", view.compute(frame), view)
    with pytest.raises(InvalidInput, match='"event" of the view number has no zone'):
        view.compute(frame.with_columns(pl.col("event").dt.replace_time_zone(None)))


def test_a_key_of_another_type_a_missing_column_and_a_name_that_is_taken_are_refused(flights: pl.LazyFrame) -> None:
    computed = previous_leg.compute(flights)
    with pytest.raises(InvalidInput, match=r'"tailnum" is Int64 in the rows and String in the view previous_leg; cast'):
        join_as_of(flights.with_columns(tailnum=pl.lit(1, pl.Int64)), "sched_dep_ts", computed, previous_leg)
    with pytest.raises(
        InvalidInput, match='lack the entity of the view previous_leg, "tailnum"; did you mean "tail_num"'
    ):
        join_as_of(flights.rename({"tailnum": "tail_num"}), "sched_dep_ts", computed, previous_leg)
    with pytest.raises(InvalidInput, match='no time column "sched_dep"; did you mean "sched_dep_ts"'):
        join_as_of(flights, "sched_dep", computed, previous_leg)
    with pytest.raises(InvalidInput, match='a column "previous_delay" already'):
        join_as_of(flights.with_columns(previous_delay=1), "sched_dep_ts", computed, previous_leg)


def test_a_feature_without_a_value_gets_its_default() -> None:
    @feature_view(entity="key", event_time="event", ttl="1m", defaults={"number": -1})
    def numbered(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame

    frame = pl.LazyFrame({"key": ["a", "b"], "event": instants([0, 0]), "number": [1, None]})
    rows = pl.LazyFrame({"key": ["a", "a", "b", "c"], "at": instants([1, 2, 0, 0])})
    joined = join_as_of(rows, "at", numbered.compute(frame), numbered).collect()
    assert joined["number"].to_list() == [1, -1, -1, -1]
