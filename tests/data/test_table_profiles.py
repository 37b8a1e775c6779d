"""Profiles of tables: the same bytes for any parts, figures of real tables, comparison, drift, references."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.data.drift import drift
from flyball.data.profiles import PROFILER, TableProfile, compare, duplicate_rows, profile_frame, reference_of
from flyball.data.profiling import packing, tables
from flyball.data.profiling.columns import ColumnSketch
from flyball.errors import Corrupt, Incompatible, InvalidInput, NotFound
from flyball.stats.drift import statistic
from flyball.stats.frequencies import names_of
from flyball.stats.hashing import integer_hashes
from flyball.stats.profiles import profile
from flyball.stats.sketches import histogram_of_floats


def mixed_frame(rows: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    start = datetime(2024, 1, 1)
    made = pl.DataFrame(
        {
            "bell": rng.normal(100, 15, rows),
            "tail": rng.pareto(1.0, rows) * rng.choice([-1, 1], rows),
            "wild": rng.choice([0.0, -0.0, math.nan, math.inf, -math.inf, 1.5, 2.25], rows),
            "small": rng.integers(0, 50, rows),
            "id": rng.integers(-(2**62), 2**62, rows),
            "flag": rng.random(rows) < 0.3,
            "few": rng.choice(["EWR", "JFK", "LGA", "", "Zürich"], rows),
            "many": [f"user {int(u)}" for u in 30_000 * rng.random(rows) ** 2],
            "at": [start + timedelta(minutes=int(m)) for m in rng.integers(0, 500_000, rows)],
            "day": [date(2024, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 400, rows)],
            "took": [timedelta(milliseconds=int(m)) for m in rng.integers(0, 5000, rows)],
            "spot": rng.normal(size=(rows, 3)),
            "words": [["a"] * int(n) for n in rng.integers(0, 3, rows)],
        },
        schema_overrides={"spot": pl.Array(pl.Float64, 3)},
        strict=False,
    )
    holes = [
        pl.when(pl.Series(rng.random(rows) > 0.1)).then(pl.col(name)).alias(name)
        for name in made.columns
        if name not in ("bell", "many")
    ]
    return made.with_columns(holes).with_columns(pl.col("few").cast(pl.Categorical).alias("kind"))


FRAME = mixed_frame(45_000)
WHOLE = PROFILER.of(FRAME)


@pytest.mark.parametrize("parts", [2, 7, 60])
def test_a_profile_is_byte_for_byte_the_merge_of_any_parts(parts: int) -> None:
    shuffled = FRAME.sample(fraction=1.0, shuffle=True, seed=parts)
    cut = [PROFILER.of(shuffled[at::parts]) for at in range(parts)]
    assert PROFILER.merged(cut) == WHOLE
    half = len(cut) // 2
    assert PROFILER.merged([PROFILER.merged(cut[half:]), PROFILER.merged(cut[:half])]) == WHOLE


def test_parts_without_rows_change_nothing_and_sorted_parts_neither() -> None:
    empty = PROFILER.of(FRAME.clear())
    by_size = FRAME.sort("bell")
    cut = [PROFILER.of(part) for part in by_size.iter_slices(9_999)]
    assert PROFILER.merged([empty, *cut, empty]) == WHOLE
    assert TableProfile.from_bytes(empty).to_bytes() == empty
    assert TableProfile.from_bytes(WHOLE).to_bytes() == WHOLE


values = st.fixed_dictionaries(
    {
        "f": st.none() | st.floats(),
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "s": st.none() | st.text(max_size=5),
        "b": st.none() | st.booleans(),
        "t": st.none() | st.datetimes(min_value=datetime(1700, 1, 1), max_value=datetime(2200, 1, 1)),
        "v": st.none() | st.lists(st.floats(width=32), max_size=3),
    }
)
SCHEMA = {
    "f": pl.Float64,
    "i": pl.Int64,
    "s": pl.String,
    "b": pl.Boolean,
    "t": pl.Datetime("us"),
    "v": pl.List(pl.Float64),
}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(values, max_size=12), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_any_rows_split_anyhow_give_the_same_bytes(parts: list[list[dict[str, Any]]], random: Any) -> None:
    rows = [row for part in parts for row in part]
    whole = PROFILER.of(pl.DataFrame(rows, schema=SCHEMA))
    assert PROFILER.merged([PROFILER.of(pl.DataFrame(part, schema=SCHEMA)) for part in parts]) == whole
    random.shuffle(rows)
    assert PROFILER.of(pl.DataFrame(rows, schema=SCHEMA)) == whole
    orjson.dumps(TableProfile.from_bytes(whole).to_dict())


def test_figures_of_flights_are_those_of_their_description(shared_data: Path) -> None:
    found = profile_frame(pl.scan_parquet(shared_data / "nycflights13/flights.parquet"))
    columns = found.columns
    assert found.rows == 336_776
    nulls = {"dep_time": 8255, "arr_time": 8713, "arr_delay": 9430, "air_time": 9430, "tailnum": 2512}
    assert {name: columns[name].nulls for name in nulls} == nulls
    assert columns["dep_delay"].mean == pytest.approx(12.639070, abs=5e-7)
    assert columns["arr_delay"].mean == pytest.approx(6.895377, abs=5e-7)
    assert dict(columns["origin"].top) == {"EWR": 120_835, "JFK": 111_279, "LGA": 104_662}
    months = [27004, 24951, 28834, 28330, 28796, 28243, 29425, 29327, 27574, 28889, 27268, 28135]
    assert dict(columns["month"].top) == dict(enumerate(months, start=1))
    assert (columns["tailnum"].distinct, columns["tailnum"].distinct_error) == (4043, 0.0)
    assert columns["flight_id"].distinct == pytest.approx(336_776, rel=0.05)
    assert columns["tailnum"].lengths["greatest"] == 6


def test_shown_figures_are_polars_own(shared_data: Path) -> None:
    weather = pl.read_parquet(shared_data / "nycflights13/weather.parquet")
    found = profile_frame(weather)
    for name in ("temp", "humid", "wind_speed", "visib"):
        column, shown = weather[name].drop_nulls(), found.columns[name]
        assert (shown.least, shown.greatest) == (column.min(), column.max())
        assert shown.mean == pytest.approx(column.mean(), rel=1e-9)
        assert shown.deviation == pytest.approx(column.std(ddof=0), rel=1e-3)
        quartiles = [float(np.quantile(column, q)) for q in (0.25, 0.75)]
        assert [shown.quantiles["0.25"], shown.quantiles["0.75"]] == pytest.approx(quartiles, rel=1e-3)
        reach = 1.5 * (quartiles[1] - quartiles[0])
        beyond = int(((column < quartiles[0] - reach) | (column > quartiles[1] + reach)).sum())
        assert shown.outliers is not None
        assert shown.outliers.rows == pytest.approx(beyond, abs=25)
        assert shown.bars is not None
        assert len(shown.bars.counts) <= 40
        assert sum(shown.bars.counts) == pytest.approx(len(column))
    pearson = found.correlations["pearson"]
    both = weather.drop_nulls(["temp", "dewp"])
    assert pearson["temp", "dewp"] == pytest.approx(np.corrcoef(both["temp"], both["dewp"])[0, 1], abs=1e-6)
    ranks = both.select(pl.corr("temp", "dewp", method="spearman")).item()
    assert found.correlations["spearman"]["temp", "dewp"] == pytest.approx(ranks, abs=0.1)
    gaps = sorted((stamps := weather["time_hour"].unique().sort()).diff().drop_nulls().dt.total_hours().to_list())[-7:]
    assert stamps.len() == found.columns["time_hour"].distinct
    assert sorted(gap.seconds / 3600 for gap in found.gaps["time_hour"]) == gaps
    weekday, hour = pl.col("time_hour").dt.weekday().cast(pl.Int64), pl.col("time_hour").dt.hour()
    hours = weather.select(h=(weekday - 1) * 24 + hour)["h"]
    assert found.columns["time_hour"].week == np.bincount(hours, minlength=168).tolist()


def test_missing_hours_are_found(shared_data: Path) -> None:
    bikes = pl.read_csv(shared_data / "bike_sharing/hour.csv")
    times = bikes.select(t=pl.col("dteday").str.to_datetime() + pl.duration(hours="hr"))
    shown = profile_frame(times.sample(fraction=1.0, shuffle=True, seed=1)).columns["t"]
    assert (shown.missing_steps, shown.step_s, shown.resolution_s) == (165, 3600.0, 0.0)


def test_duplicates_are_exact_in_small_tables_and_bounded_in_others(shared_data: Path) -> None:
    small = profile_frame(pl.DataFrame({"a": [1, 1, 2, None, None], "b": ["x", "x", "x", None, None]}))
    assert small.duplicates == (2, 2)
    train = pl.read_csv(shared_data / "adult/adult-train.csv", has_header=False, infer_schema_length=None)
    found = profile_frame(train).duplicates
    assert found is not None
    assert found[1] >= 24
    assert found[1] < 0.02 * train.height
    assert duplicate_rows(train) == 24


def test_correlations_of_large_tables_are_of_one_row_in_32() -> None:
    rng = np.random.default_rng(2)
    first = rng.normal(size=200_000)
    frame = pl.DataFrame({"a": first, "b": first + rng.normal(size=200_000), "c": rng.normal(size=200_000)})
    found = profile_frame(frame)
    assert found.sketch.all_products is None
    assert found.sketch.some_products is not None
    assert found.sketch.some_products.rows == pytest.approx(200_000 / 32, rel=0.05)
    assert found.correlations["pearson"]["a", "b"] == pytest.approx(0.5**0.5, abs=0.03)
    assert found.correlations["pearson"]["a", "c"] == pytest.approx(0, abs=0.04)


def test_categories_that_go_together_are_found() -> None:
    rng = np.random.default_rng(3)
    city = rng.choice(["Berlin", "Kyoto", "Lima"], 30_000)
    frame = pl.DataFrame(
        {"city": city, "land": [c[0] for c in city], "coin": rng.random(30_000) < 0.5, "n": range(30_000)}
    )
    found = profile_frame(frame).correlations["cramers_v"]
    assert found["city", "land"] > 0.99
    assert found["city", "coin"] < 0.1


def test_every_type_has_a_profile() -> None:
    frame = pl.DataFrame(
        {
            "decimal": [Decimal("1.50"), None, Decimal("-2.25")],
            "clock": [time(12, 30), time(0, 0), None],
            "wait": [timedelta(seconds=90), None, timedelta(days=1)],
            "huge": pl.Series([2**64 - 1, 0, None], dtype=pl.UInt64),
            "wide": pl.Series([2**100, None, -(2**100)], dtype=pl.Int128),
            "raw": [b"\x00", None, b"\xff"],
            "pair": [{"a": 1}, None, {"a": 2}],
            "tags": [["x"], [], None],
            "embedding": [[3.0, 4.0], [], None],
            "enum": pl.Series(["lo", "hi", None], dtype=pl.Enum(["lo", "hi"])),
            "nothing": [None, None, None],
            "zoned": pl.Series([datetime(2024, 3, 31), None, datetime(1969, 1, 1)]).dt.replace_time_zone("Asia/Tokyo"),
            "nanos": pl.Series([1, None, 10**18]).cast(pl.Datetime("ns")),
        }
    )
    columns = profile_frame(frame).columns
    assert [c.nulls for c in columns.values()] == [1] * 10 + [3, 1, 1]
    assert columns["decimal"].mean == -0.375
    assert columns["clock"].greatest == 45_000.0
    assert columns["wait"].greatest == 86_400.0
    assert columns["huge"].greatest == float(2**64)
    assert columns["wide"].least == -float(2**100)
    assert columns["embedding"].greatest == 5.0
    assert columns["embedding"].lengths["greatest"] == 2
    assert dict(columns["enum"].top) == {"lo": 1, "hi": 1}
    assert columns["zoned"].least == "1968-12-31T15:00:00Z"
    assert columns["nanos"].greatest == "2001-09-09T01:46:40Z"
    assert (columns["raw"].kind, columns["pair"].kind, columns["tags"].kind) == ("other", "other", "other")
    orjson.dumps(profile_frame(frame).to_dict())


def test_identifiers_beyond_what_floats_hold_are_told_apart() -> None:
    ids = pl.DataFrame({"id": np.arange(2**60, 2**60 + 20_000)})
    shown = profile_frame(ids).columns["id"]
    assert shown.distinct == pytest.approx(20_000, rel=0.07)
    assert (shown.least, shown.greatest) == (2**60, 2**60 + 19_999)
    few = [PROFILER.of(pl.DataFrame({"id": [2**60 + i]})) for i in range(3)] + [PROFILER.of(pl.DataFrame({"id": [5]}))]
    assert TableProfile.from_bytes(PROFILER.merged(few)).columns["id"].distinct == 4


def test_sensitive_columns_show_no_value() -> None:
    secret = profile_frame(pl.DataFrame({"name": ["Ada Lovelace", "Alan Turing"], "pay": [98765, 12345], "n": [1, 2]}))
    shown = orjson.dumps(secret.to_dict(hide=["name", "pay"])).decode()
    assert not any(text in shown for text in ("Ada", "Turing", "98765", "12345", '"pay","n"', '"n","pay"'))
    assert '"hidden":true' in shown
    other = profile_frame(pl.DataFrame({"name": ["Grace Hopper"], "pay": [55555], "n": [2]}))
    both = orjson.dumps([c.to_dict() for c in compare(secret, other, hide=["name", "pay"])]).decode()
    assert not any(text in both for text in ("Ada", "Grace", "98765", "55555", "5.556e+04"))
    with pytest.raises(NotFound, match='no column "nam"; did you mean "name"'):
        secret.to_dict(hide=["nam"])


def test_two_profiles_stand_side_by_side(shared_data: Path) -> None:
    weather = pl.read_parquet(shared_data / "nycflights13/weather.parquet")
    winter = weather.filter(pl.col("month") <= 3).with_columns(gone=1, turned=pl.lit("text"))
    summer = weather.filter(pl.col("month").is_between(7, 9)).with_columns(new=1, turned=1.0)
    found = {c.name: c for c in compare(profile_frame(winter), profile_frame(summer))}
    temp = found["temp"]
    assert temp.change == "another"
    assert temp.distances is not None
    assert round(temp.distances.psi, 2) == 12.13
    assert temp.summary == "temp is another: mean 36.67 → 74.04 (+4.46 deviations), PSI 12.1"
    assert len(temp.edges) == len(temp.shares[0]) + 1
    assert [sum(part) for part in temp.shares] == pytest.approx([1, 1])
    assert found["origin"].change == "same"
    assert set(found["origin"].edges) == {"EWR", "JFK", "LGA"}
    assert (found["gone"].change, found["new"].change, found["turned"].change) == ("removed", "added", "type")
    assert found["turned"].summary == "turned was String, is Float64"
    assert "missing 70.0% → 88.8%" in found["wind_gust"].summary
    orjson.dumps([c.to_dict() for c in found.values()])


def test_drift_from_profiles_is_near_that_of_the_rows(shared_data: Path) -> None:
    flights = pl.scan_parquet(shared_data / "nycflights13/flights.parquet").drop("flight_id", "year")
    sides = flights.filter(pl.col("month") <= 3), flights.filter(pl.col("month") > 9)
    exact = {d.column: d for d in drift(*sides)}
    near = {d.column: d for d in drift(*(profile_frame(side) for side in sides), method="profile")}
    assert list(exact) == flights.collect_schema().names()
    for name, column in exact.items():
        other = near[name]
        assert column.nulls == pytest.approx(other.nulls)
        assert column.distances is not None and other.distances is not None
        assert other.distances.psi == pytest.approx(column.distances.psi, rel=0.02, abs=0.005), name
        assert other.distances.js == pytest.approx(column.distances.js, abs=0.002), name
        if column.distances.ks is not None:
            assert other.distances.ks == pytest.approx(column.distances.ks, abs=0.002), name
            assert other.distances.w1 == pytest.approx(column.distances.w1, rel=0.002), name
    carrier = exact["carrier"].distances
    assert carrier is not None
    assert near["carrier"].distances is not None
    other_carrier = near["carrier"].distances
    assert (other_carrier.psi, other_carrier.chi2) == pytest.approx((carrier.psi, carrier.chi2), rel=1e-9)
    assert {d.column for d in drift(*sides, ["dest"], method="profile")} == {"dest"}


def test_drift_says_what_it_cannot_compare() -> None:
    first = pl.DataFrame(
        {"a": [1.0, math.nan], "b": ["x", "y"], "c": [None, None], "d": [[1.0], [2.0]], "e": [True, None]}
    )
    second = pl.DataFrame({"a": [2.0, 3.0], "b": [1, 2], "c": [1, 2], "d": [[1.0], [2.0]], "e": [False, False]})
    for method in ("exact", "profile"):
        found = {d.column: d for d in drift(first, second, method=method)}
        assert found["a"].distances is not None
        assert found["a"].nulls == (0.5, 0.0)
        assert found["b"].distances is None
        assert found["b"].why == "b was String and is Int64"
        assert found["c"].distances is None
        assert found["e"].distances is not None
        assert found["e"].distances.js == pytest.approx(1.0)
        orjson.dumps([d.to_dict() for d in found.values()])
    with pytest.raises(NotFound, match='current rows have no column "aa"; did you mean "a"'):
        drift(first.rename({"a": "aa"}), second, ["aa"])
    with pytest.raises(InvalidInput, match="no column in common: one has x, the other y"):
        drift(pl.DataFrame({"x": [1]}), pl.DataFrame({"y": [1]}))
    with pytest.raises(InvalidInput, match="expected exact or profile"):
        drift(first, second, method="sharp")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="holds no rows"):
        drift(profile_frame(first), second)


def test_a_profile_is_the_reference_that_live_rows_are_counted_into(shared_data: Path) -> None:
    flights = pl.read_parquet(shared_data / "nycflights13/flights.parquet")
    past, live = flights.filter(pl.col("month") <= 6), flights.filter(pl.col("month") == 12)
    kept = TableProfile.from_bytes(PROFILER.of(past))
    for name in ("dep_delay", "distance", "hour", "carrier", "tailnum"):
        reference = reference_of(kept, name)
        rows = [
            f[name].to_list() if f[name].dtype == pl.String else f[name].cast(pl.Float64).to_numpy()
            for f in (past, live)
        ]
        again = profile(rows[0], reference.bins)
        assert reference.counts.tolist() == again.counts.tolist()
        if reference.mean is not None:
            assert (reference.mean, reference.deviation) == pytest.approx((again.mean, again.deviation), rel=1e-6)
        window = profile(rows[1], reference.bins)
        assert statistic("js", reference, window) == statistic("js", again, window)
    flag = reference_of(profile_frame(pl.DataFrame({"f": [True, False, None]})), "f")
    assert flag.counts.tolist() == profile([1.0, 0.0, None], flag.bins).counts.tolist()
    with pytest.raises(NotFound, match='did you mean "carrier"'):
        reference_of(kept, "carier")
    with pytest.raises(InvalidInput, match="monitors compare numbers, texts and booleans"):
        reference_of(kept, "arr_ts")


def test_facts_of_others_travel_with_the_column() -> None:
    def with_facts(count: int) -> bytes:
        sketch = tables.sketch_of(pl.DataFrame({"review": ["good"] * count}))
        names = names_of(integer_hashes(np.array([1])), np.array([count]), lambda _: ["en"])
        facts = {"language": names, "brightness": histogram_of_floats(np.full(count, 0.5))}
        column = ColumnSketch(**{**vars(sketch.columns["review"]), "facts": facts})
        return packing.packed(tables.TableSketch(**{**vars(sketch), "columns": {"review": column}}))

    merged = TableProfile.from_bytes(PROFILER.merged([with_facts(2), with_facts(3)]))
    assert merged.to_bytes() == with_facts(5)
    facts = merged.columns["review"].facts
    assert facts["language"] == {"top": [("en", 5)], "distinct": 1}
    assert facts["brightness"]["0.5"] == 0.5


def test_what_is_no_profile_is_refused_in_words() -> None:
    with pytest.raises(Corrupt, match="not a stored profile"):
        TableProfile.from_bytes(b"PAR1 and more")
    with pytest.raises(Incompatible, match="has format 9; this release reads 1"):
        TableProfile.from_bytes(b"FBPF\x09" + WHOLE[5:])
    for damaged in (WHOLE[:-40], WHOLE[:5] + b"\x00" + WHOLE[6:], WHOLE[:200]):
        with pytest.raises(Corrupt, match="profile the rows again"):
            TableProfile.from_bytes(damaged)
    with pytest.raises(InvalidInput, match="different columns cannot be merged: a and b"):
        PROFILER.merged([PROFILER.of(pl.DataFrame({name: [1]})) for name in "ab"])
    with pytest.raises(InvalidInput, match='column "a" is Int64 in one and String in another'):
        PROFILER.merged([PROFILER.of(pl.DataFrame({"a": value})) for value in ([1], ["1"])])
    with pytest.raises(InvalidInput, match="at least one"):
        PROFILER.merged([])
    with pytest.raises(InvalidInput, match="no columns"):
        profile_frame(pl.DataFrame())
