"""Rows that come as one matrix: the same answers, the same log, the same refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import RandomForestClassifier

from flyball.errors import InvalidInput
from flyball.models import bundle
from flyball.serving.engine import Engine
from flyball.serving.questions import Answer, Question
from flyball.serving.snapshot import ServedDeployment, Snapshot, Variant, write
from flyball.storage.blobs.files import FileBlobs
from flyball.tracking.traffic import TrafficReader

NAMES = ["a", "b", "c"]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    rows = np.random.default_rng(0).normal(size=(200, 3))
    frame = pl.DataFrame(rows, schema=NAMES)
    model = RandomForestClassifier(5, random_state=0).fit(frame, (rows.sum(axis=1) > 0).astype(int))
    digest = bundle.save(FileBlobs(tmp_path / "blobs"), model, example=frame[:3]).digest
    found = Engine(tmp_path)
    served = ServedDeployment(1, "m", (Variant("champion", "m@1", digest),), mask=("b",))
    write(found.places.snapshot, Snapshot(1, {"m": served}))
    found.refresh()
    return found


def answer(engine: Engine, columns: dict[str, Any], is_matrix: bool) -> Answer:
    plan = engine.plan(Question("m", columns=columns, is_matrix=is_matrix))
    outputs = [part.by.model.predict(part.columns) for part in plan.parts]
    for ticket in engine.log(plan, outputs):
        ticket.wait()
    return plan.answer(outputs)


@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", ">f8"])
def test_a_matrix_is_answered_and_logged_as_its_columns_are(engine: Engine, count: int, dtype: str) -> None:
    rows = (np.random.default_rng(1).normal(size=(count, 3)) * 3).astype(dtype)
    rows.setflags(write=False)  # as a body's own bytes are
    whole = answer(engine, {"any": rows}, True)
    apart = answer(engine, {name: rows[:, at].astype("f8") for at, name in enumerate(NAMES)}, False)
    assert np.array_equal(whole.parts[0].outputs["probability"], apart.parts[0].outputs["probability"])
    engine.close()
    logged = TrafficReader(engine.places.traffic).read_predictions()[0]
    assert len(logged) == 2 * count
    halves = [logged.filter(pl.col("id").is_in(each.ids)) for each in (whole, apart)]
    inputs = [name for name in logged.columns if name.startswith("input")]
    assert inputs
    for name in inputs:
        assert halves[0][name].to_list() == halves[1][name].to_list()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 2)), r"shape \[2, 2\]; expected \[-1, 3\]"),
        (np.array([[0.0, np.inf, 0.0]]), '"b" in row 0 is inf'),
        (np.array([[0.0, 0.0, 0.0], [1.0, -np.inf, 1.0]]), '"b" in row 1 is -inf'),
        (np.array([["x", "y", "z"]], object), '"a" in row 0 is "x"'),
    ],
)
def test_a_wrong_matrix_is_refused_with_the_place(engine: Engine, rows: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        engine.plan(Question("m", columns={"any": rows}, is_matrix=True))
    engine.close()


def test_numbers_whose_squares_overflow_are_still_taken(engine: Engine) -> None:
    found = engine.plan(Question("m", columns={"any": np.full((1, 3), 1e200)}, is_matrix=True))
    assert found.parts[0].columns["a"].tolist() == [1e200]
    engine.close()
