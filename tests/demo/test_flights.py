"""The flights job: look-ups see what training rows say, and the figures of the data's README come out again."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from flyball.data.rows import Rows
from flyball.demo.flights import FEATURES, REQUEST, asked, flights_job, pushes_by_tick, read_sample, training_rows
from flyball.demo.project.features import VIEWS, previous_leg, weather_then
from flyball.demo.project.pipelines import fit
from flyball.features.lookup import look_up
from flyball.features.pushes import push
from flyball.features.training_set import training_set
from flyball.storage.online.sqlite import SqliteOnline

Sample = tuple[pl.DataFrame, dict[str, pl.LazyFrame]]


@pytest.fixture(scope="module")
def sample() -> Sample:
    flights, weather = read_sample()
    return flights, {"flown": flights.lazy(), "weather": weather.lazy()}


def test_the_sample_is_every_flown_flight_with_its_times(shared_data: Path, sample: Sample) -> None:
    columns = ["flight_id", "carrier", "tailnum", "sched_dep_ts", "dep_ts", "arr_ts", "arr_delay"]
    source = pl.read_parquet(shared_data / "nycflights13" / "flights.parquet").filter(pl.col("dep_ts").is_not_null())
    ours = sample[0].select(columns).sort("flight_id")
    theirs = source.select(columns).sort("flight_id")
    known = pl.col("arr_ts").is_not_null() & pl.col("arr_delay").is_not_null()
    assert ours.height == theirs.height == 328_521
    for name in columns:
        assert (ours.filter(known)[name].cast(pl.String) == theirs.filter(known)[name].cast(pl.String)).all(), name


def test_pushed_features_looked_up_are_those_of_the_training_rows(sample: Sample, tmp_path: Path) -> None:
    flights, sources = sample
    every = asked(flights)
    part = every.filter(pl.col("day").dt.month() == 5, pl.col("day").dt.day().is_in([3, 4, 5, 9]))
    expected = training_rows(part, VIEWS, sources)
    ticks = part["asked_at"].unique().sort()
    store = SqliteOnline(tmp_path / "online.sqlite")
    specs = [view.spec() for view in VIEWS]
    looked_up = [name for name in FEATURES if name not in REQUEST]
    by_tick = part.partition_by("asked_at", maintain_order=True)
    compared = 0
    for tick, rows, pushed in zip(ticks.to_list(), by_tick, pushes_by_tick(ticks, VIEWS, sources), strict=True):
        for spec, records in pushed:
            push(spec, records, store)
        keys = {"origin": rows["origin"].to_list(), "tailnum": rows["tailnum"].to_list()}
        found = pl.DataFrame(
            look_up(store, specs, keys, tick), schema=dict.fromkeys(looked_up, pl.Float64), strict=False
        )
        wanted = expected.slice(compared, rows.height)
        for name in looked_up:
            assert found[name].eq_missing(wanted[name].cast(pl.Float64)).all(), (tick, name)
        compared += rows.height
    assert compared == part.height > 3000


def test_the_default_job_has_the_rows_that_the_documents_state() -> None:
    job = flights_job(seasons=False, fault=True, seed=0)
    taught = job.rows.drop_nulls("late")
    assert taught.height == 83_203
    assert len(job.stream) == 42_005
    assert job.fault is not None
    assert job.fault.since >= job.sizes.fault_at == 12_000
    assert set(taught["hour"].to_list()) <= set(range(24))
    wrong = {job.fault.applied(n, job.stream.records[n])["hour"] for n in range(job.fault.since, len(job.stream))}
    assert wrong <= set(range(24)), "the contract would see another hour"
    assert job.fault.applied(0, job.stream.records[0]) == job.stream.records[0]


def test_a_fault_touches_one_field_of_the_request_only() -> None:
    job = flights_job(seasons=False, fault=True, seed=0)
    assert job.fault is not None
    before = job.stream.records[job.fault.since]
    after = job.fault.applied(job.fault.since, before)
    assert {name for name in before if before[name] != after[name]} == {"hour"}


@pytest.mark.parametrize(("views", "expected"), [((weather_then,), 0.7054), ((weather_then, previous_leg), 0.7189)])
def test_a_model_of_the_same_features_is_as_good_as_the_datas_readme_says(
    sample: Sample, views: tuple[object, ...], expected: float
) -> None:
    flights, sources = sample
    local = pl.col("sched_dep_ts").dt.convert_time_zone("America/New_York")
    rows = flights.filter(pl.col("arr_delay").is_not_null()).with_columns(
        hour=local.dt.hour().cast(pl.Int64),
        weekday=local.dt.weekday().cast(pl.Int64),
        month=local.dt.month(),
        late=(pl.col("arr_delay") >= 15).cast(pl.Int64),
    )
    joined = training_set(rows.lazy(), views, at="sched_dep_ts", sources=sources).collect()  # type: ignore[arg-type]
    inputs = ["carrier", "origin", "hour", "weekday", "distance", "temp", "humid", "wind_speed", "precip", "pressure"]
    inputs += ["visib", *(["previous_delay"] if len(views) > 1 else [])]
    taught, unseen = (
        Rows.of(joined.filter(p), "late", inputs=inputs) for p in (pl.col("month") <= 6, pl.col("month") > 6)
    )
    assert (len(taught), len(unseen)) == (160_678, 166_668)
    found = roc_auc_score(unseen.y, fit(taught).predict_proba(unseen.X)[:, 1])
    assert found == pytest.approx(expected, abs=0.01)
