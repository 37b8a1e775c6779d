"""How benchmarks report: a table for people, and a last line for programs."""

from __future__ import annotations

import io
import json

import pytest

from benchmarks.report import Measure, report


def test_the_last_line_is_a_list_with_every_field() -> None:
    out = io.StringIO()
    report([Measure("a start", 1.23456, "s", target=3), Measure("rows", 10.0, "rows/s", better="higher")], out)
    found = json.loads(out.getvalue().splitlines()[-1])
    keys = ["work", "value", "unit", "peer", "peer_value", "ratio", "limit", "target", "met"]
    assert [list(each) for each in found] == [keys, keys]
    assert found[0]["value"] == 1.235 and found[0]["met"] is True and found[1]["met"] is None


@pytest.mark.parametrize(
    ("better", "value", "target", "met", "ratio"),
    [("lower", 2.0, 3.0, True, 5.0), ("lower", 4.0, 3.0, False, 2.5), ("higher", 20.0, 15.0, True, 2.0)],
)
def test_a_ratio_says_how_many_times_better_than_the_peer(
    better: str, value: float, target: float, met: bool, ratio: float
) -> None:
    measure = Measure("x", value, "u", peer="other", peer_value=10.0, target=target, better=better)  # type: ignore[arg-type]
    assert (measure.met, measure.ratio) == (met, ratio)


def test_a_missed_target_stands_out_in_the_table() -> None:
    out = io.StringIO()
    report([Measure("size", 302.0, "MB", target=300)], out)
    assert "NOT MET" in out.getvalue()
