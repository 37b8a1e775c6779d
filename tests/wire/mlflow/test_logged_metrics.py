"""Metrics of a batch: what clients send is read column by column, anything else one by one, and both say the same."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flyball.ledger.points import Point, PointColumns
from flyball.wire.mlflow.logged_metrics import metrics
from flyball.wire.mlflow.refusals import Refused

FIELD = metrics("metrics")
ONE: dict[str, Any] = {"key": "loss", "value": 0.5, "timestamp": 17, "step": 3}


def test_what_clients_send_becomes_columns() -> None:
    sent = [{**ONE, "key": f"m{n % 3}", "value": n if n % 2 else n / 7, "step": n - 5} for n in range(100)]
    found = FIELD.read(sent, "metrics")
    assert type(found.points) is PointColumns
    assert list(found.points) == [Point(m["key"], float(m["value"]), m["step"], 17) for m in sent]
    without_steps = [{k: v for k, v in m.items() if k != "step"} for m in sent]
    assert [p.step for p in FIELD.read(without_steps, "metrics").points] == [0] * 100


@pytest.mark.parametrize(
    ("odd", "wanted"),
    [
        ({**ONE, "value": "NaN"}, Point("loss", math.nan, 3, 17)),
        ({**ONE, "value": "Infinity"}, Point("loss", math.inf, 3, 17)),
        ({**ONE, "value": math.nan}, Point("loss", math.nan, 3, 17)),
        ({**ONE, "timestamp": "17"}, Point("loss", 0.5, 3, 17)),
        ({**ONE, "step": "-9"}, Point("loss", 0.5, -9, 17)),
        ({**ONE, "value": 1 << 60}, Point("loss", float(1 << 60), 3, 17)),
        ({"key": "loss", "value": 2, "timestamp": 17, "dataset_name": "d"}, Point("loss", 2.0, 0, 17)),
        ({"key": "loss", "value": 2, "timestamp": 17}, Point("loss", 2.0, 0, 17)),
    ],
)
def test_one_odd_metric_among_many_is_read_as_alone(odd: dict[str, Any], wanted: Point) -> None:
    found = list(FIELD.read([ONE, odd, ONE], "metrics").points)
    alone = list(FIELD.read([odd], "metrics").points)
    plain = Point("loss", 0.5, 3, 17)
    assert [repr(p) for p in found] == [repr(p) for p in (plain, wanted, plain)]
    assert [repr(p) for p in alone] == [repr(wanted)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (7, "metrics\\[1\\]"),
        ({**ONE, "key": ""}, "metrics\\[1\\].key"),
        ({**ONE, "key": 7}, "metrics\\[1\\].key"),
        ({**ONE, "key": "a/../b"}, "metrics\\[1\\].name"),
        ({**ONE, "key": "a" * 251}, "Metric name"),
        ({**ONE, "value": True, "step": 1.5}, "metrics\\[1\\].step"),
        ({**ONE, "timestamp": -1}, "metrics\\[1\\].timestamp"),
        ({**ONE, "step": 1 << 63}, "metrics\\[1\\].step"),
        ({"key": "a", "value": 1, "step": 1}, "metrics\\[1\\].timestamp"),
    ],
)
def test_a_wrong_metric_is_named_by_its_place(wrong: Any, message: str) -> None:
    with pytest.raises(Refused, match=message):
        FIELD.read([ONE, wrong, ONE], "metrics")


def test_a_metric_of_a_model_is_told_apart() -> None:
    found = FIELD.read([ONE, {**ONE, "model_id": "m-1"}], "metrics")
    assert len(found.points) == 2
    assert [(of.model, of.key) for of in found.of_models] == [("m-1", "loss")]
