"""Columns of a user's table: what is left out, what is warned of, and which fault is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flyball.demo.columns import inputs_of, tells_the_target
from flyball.demo.job import Sizes
from flyball.demo.mirror import choose_mirror
from flyball.demo.table import table_job

ROWS = 4000


@pytest.fixture
def frame() -> pl.DataFrame:
    random = np.random.default_rng(0)
    part, other = random.integers(0, 50, ROWS), random.integers(0, 50, ROWS)
    return pl.DataFrame(
        {
            "y": part + other,
            "part": part,
            "other": other,
            "copy": part + other,
            "row": np.arange(ROWS) + 7,
            "constant": np.ones(ROWS),
            "empty": pl.Series([None] * ROWS, dtype=pl.Float64),
            "note": [f"text {i}" for i in range(ROWS)],
            "kind": [f"k{i % 3}" for i in range(ROWS)],
            "flag": random.random(ROWS) > 0.5,
            "noise": random.normal(size=ROWS),
        }
    )


def test_what_cannot_be_an_input_and_what_holds_the_answer_is_left_out_by_name(frame: pl.DataFrame) -> None:
    prepared, inputs, notes = inputs_of(frame, "y", ["y"])
    assert inputs == ["kind", "flag", "noise"]
    said = " | ".join(notes)
    for name in (
        "row is left out: it numbers the rows",
        "constant is left out",
        "empty is left out",
        "note is left out",
    ):
        assert name in said
    assert "copy is left out: copy is y itself" in said
    assert "part, other are left out: part + other is y" in said
    assert prepared["flag"].dtype == pl.Int64


def test_an_input_that_alone_tells_the_target_is_warned_of_and_noise_is_not() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, ROWS)
    table = pl.DataFrame(
        {"y": truth, "leak": truth * 3.0 + random.normal(size=ROWS) / 10, "noise": random.normal(size=ROWS)}
    )
    found = tells_the_target(table, "y", "binary", ["leak", "noise"])
    assert len(found) == 1
    assert "leak alone predicts y" in found[0]


def test_the_columns_of_the_bicycles_that_add_up_to_the_target_are_found(shared_data: Path) -> None:
    job = table_job(shared_data / "bike_sharing" / "hour.csv", target="cnt", time="dteday", fault=False)
    assert not {"casual", "registered", "instant", "dteday", "cnt"} & set(job.inputs)
    assert any("casual + registered is cnt" in note for note in job.notes)
    assert job.metric == "r2"
    assert job.fault is None


def test_without_time_the_stream_is_shuffled_and_with_it_in_order(shared_data: Path) -> None:
    bikes = shared_data / "bike_sharing" / "hour.csv"
    ordered = [tick.label for tick in table_job(bikes, target="cnt", time="dteday", fault=False).stream.ticks]
    assert ordered == sorted(ordered)
    first, again, other = (table_job(bikes, target="cnt", fault=False, seed=s).stream.truth for s in (0, 0, 1))
    assert first == again != other


def test_rows_that_teach_and_rows_that_are_replayed_share_no_day(shared_data: Path) -> None:
    source = shared_data / "bike_sharing" / "hour.csv"
    job, swapped = (table_job(source, target="cnt", time="dteday", fault=False, seed=seed) for seed in (0, 1))
    days = set(job.rows["dteday"].cast(pl.String).to_list())
    assert days.isdisjoint(tick.label[:10] for tick in job.stream.ticks)
    assert days.isdisjoint(swapped.rows["dteday"].cast(pl.String).to_list())
    assert job.rows.height + len(job.stream) == 17_379


def _learnable(hurts: bool) -> pl.DataFrame:
    random = np.random.default_rng(2)
    x = random.exponential(size=2 * ROWS)
    y = (x + random.normal(size=2 * ROWS) / 2 > 0.8) if hurts else random.random(2 * ROWS) > 0.5
    return pl.DataFrame({"x": x, "z": random.normal(size=2 * ROWS), "y": y.astype(int)})


def test_the_mirrored_input_is_one_that_the_monitor_sees_and_that_hurts() -> None:
    rows = _learnable(hurts=True)
    test = pl.int_range(pl.len()) % 4 == 3
    fault, said = choose_mirror(rows, rows, test, "y", ["x", "z"], None, "auc", Sizes.of(rows.height))
    assert fault is not None
    assert fault.column == "x"
    assert fault.is_in_inputs
    assert rows["x"].min() <= min(fault.values) <= max(fault.values) <= rows["x"].max() + 1e-9  # type: ignore[operator]
    assert "gives" in said


def test_where_no_input_hurts_nothing_is_broken_and_the_reason_is_said() -> None:
    rows = _learnable(hurts=False)
    test = pl.int_range(pl.len()) % 4 == 3
    fault, said = choose_mirror(rows, rows, test, "y", ["x", "z"], None, "auc", Sizes.of(rows.height))
    assert fault is None
    assert said.startswith("no fault:")


@pytest.mark.parametrize(
    ("values", "metric", "classes"),
    [
        (["no", "yes"], "auc", {0, 1}),
        (["a", "b", "c"], "accuracy", {0, 1, 2}),
        ([1, 2], "auc", {0, 1}),
        ([False, True], "auc", {0, 1}),
    ],
)
def test_classes_of_any_kind_become_numbers(
    tmp_path: Path, values: list[object], metric: str, classes: set[int]
) -> None:
    path = tmp_path / "table.parquet"
    random = np.random.default_rng(3)
    chosen = [values[i] for i in random.integers(0, len(values), ROWS)]
    pl.DataFrame({"y": chosen, "x": random.normal(size=ROWS)}).write_parquet(path)
    job = table_job(path, target="y", fault=False)
    assert job.metric == metric
    assert set(job.rows["y"].to_list()) == classes
