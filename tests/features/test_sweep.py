"""The sweep beside looking at every row for every question."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.features import sweep
from flyball.features.sweep import Block, Sweep

questions = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=30)
rows = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 25), st.integers(0, 40)), max_size=60)


@settings(max_examples=300, deadline=None)
@given(questions, rows, st.integers(0, 4), st.booleans(), st.integers(1, 9), st.sampled_from([1, 40_000]))
def test_every_question_finds_the_newest_row_that_had_arrived(
    asked: list[tuple[int, int]],
    given_rows: list[tuple[int, int, int]],
    offset: int,
    is_late: bool,
    at_once: int,
    spread: int,
) -> None:
    asked.sort(key=lambda question: question[1])
    # Arrivals are no sooner than events; codes that are far apart take both passes of the sort.
    there = sorted((event, event + delay if is_late else event, code) for code, event, delay in given_rows)
    found = Sweep(
        np.array([code * spread for code, _ in asked], dtype=np.int32),
        np.array([time for _, time in asked], dtype=np.int64),
        3 * spread + 1,
        offset,
    )
    for block in blocks(there, at_once, is_late, spread):
        found.add(block)
    found.finish()
    for number, (code, time) in enumerate(asked):
        known = [
            position
            for position, (event, arrival, own) in enumerate(there)
            if own == code and event + offset <= time and arrival <= time
        ]
        best = max(known, default=-1)
        assert found.positions[number] == best
        if known:
            assert found.events[number] == there[best][0]


def blocks(there: list[tuple[int, int, int]], at_once: int, is_late: bool, spread: int) -> list[Block]:
    """Return rows in blocks of about so many, none of which ends between two rows of one instant."""
    cuts = [0]
    for end in range(1, len(there) + 1):
        is_border = end == len(there) or there[end][0] != there[end - 1][0]
        if (is_border and end - cuts[-1] >= at_once) or end == len(there):
            cuts.append(end)
    found = []
    for begin, end in itertools.pairwise(cuts):
        columns = [np.array(column, dtype=np.int64) for column in zip(*there[begin:end], strict=True)]
        events, arrivals, codes = columns
        wide = np.where(codes < 0, -1, codes * spread).astype(np.int32)
        until = there[end][0] - 1 if end < len(there) else 2**62
        found.append(Block(wide, events, arrivals if is_late else None, np.arange(begin, end), until))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000])
def test_the_last_value_that_is_small_enough_is_found_wherever_it_lies(size: int) -> None:
    random = np.random.default_rng(size)
    values, bounds = random.integers(0, 50, size), random.integers(-5, 60, 500)
    ends = random.integers(0, size + 1, 500)
    before = values.copy()
    found = sweep._last_at_most(values, bounds, ends)
    expected = [max(np.flatnonzero(values[:end] <= bound), default=-1) for bound, end in zip(bounds, ends, strict=True)]
    assert found.tolist() == expected
    assert values.tolist() == before.tolist()
