"""Sliding windows against brute force."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.features.joins import join_as_of
from flyball.features.views import feature_view
from flyball.features.windows import windowed

START = datetime(2013, 5, 1, tzinfo=UTC)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(-5, 5)), min_size=1, max_size=12),
    every=st.sampled_from([1, 5]),
    steps=st.integers(1, 4),
    closed=st.sampled_from(["left", "right"]),
)
def test_a_join_at_any_instant_of_the_grid_gives_the_window_that_ends_there(
    rows: list[tuple[str, int, int]], every: int, steps: int, closed: Any
) -> None:
    period = every * steps

    @feature_view(entity="key", event_time="time")
    def recent(frame: pl.LazyFrame) -> pl.LazyFrame:
        return windowed(
            frame,
            by="key",
            time="time",
            every=timedelta(minutes=every),
            period=timedelta(minutes=period),
            closed=closed,
            count=pl.len(),
            mean=pl.mean("x"),
        )

    frame = pl.LazyFrame(
        {
            "key": [k for k, _, _ in rows],
            "time": [START + timedelta(minutes=t) for _, t, _ in rows],
            "x": [x for *_, x in rows],
        }
    )
    grid = [(key, minute) for key in "ab" for minute in range(0, 100, every)]
    asked = pl.LazyFrame({"key": [k for k, _ in grid], "at": [START + timedelta(minutes=m) for _, m in grid]})
    found = join_as_of(asked, "at", recent.compute(frame), recent).collect()
    for (key, at), count, mean in zip(grid, found["count"], found["mean"], strict=True):
        inside = [
            x for k, t, x in rows if k == key and (at - period <= t < at if closed == "left" else at - period < t <= at)
        ]
        assert (count or 0) == len(inside)
        assert mean == (pytest.approx(sum(inside) / len(inside)) if inside else None)


def test_a_period_off_the_grid_and_a_window_of_nothing_are_refused() -> None:
    frame = pl.LazyFrame({"key": ["a"], "time": [START]})
    with pytest.raises(InvalidInput, match="period 25m is no multiple of the step 10m"):
        windowed(frame, by="key", time="time", every="10m", period="25m", n=pl.len())
    with pytest.raises(InvalidInput, match="needs what to compute"):
        windowed(frame, by="key", time="time", every="10m", period="20m")
    with pytest.raises(InvalidInput, match='no column "tme" for a window; did you mean "time"'):
        windowed(frame, by="key", time="tme", every="10m", period="20m", n=pl.len())
