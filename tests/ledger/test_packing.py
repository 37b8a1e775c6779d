"""Points come out of a row as they went in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import Corrupt
from flyball.ledger.points import Point
from flyball.ledger.sql.packing import Columns, in_order, pack, pack_chunk, unpack, unpack_chunk

_I64 = st.integers(-(2**63), 2**63 - 1)
_AT = st.integers(0, 2**63 - 1)
_KEY = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=20)
_POINT = st.builds(Point, _KEY, st.floats(allow_infinity=False), _I64, _AT)


def _bits(points: list[Point]) -> list[tuple[object, ...]]:
    return [(p.key, p.value if p.value == p.value else "NaN", p.step, p.at_ms) for p in points]


@settings(deadline=None)
@given(st.lists(_POINT, min_size=1, max_size=40))
def test_a_request_is_read_back_as_it_was_written(points: list[Point]) -> None:
    assert _bits(unpack(pack(points)).points()) == _bits(points)


@settings(deadline=None)
@given(st.lists(_KEY, min_size=1, max_size=4), _I64, _AT, st.integers(1, 60))
def test_a_request_of_one_step_is_read_back_and_small(keys: list[str], step: int, at: int, count: int) -> None:
    points = [Point(keys[n % len(keys)], n / 3, step, at) for n in range(count)]
    packed = pack(points)
    assert unpack(packed).points() == points
    assert len(packed) <= 12 + sum(len(key.encode()) + 1 for key in keys) + 16 + 10 * count


@settings(deadline=None)
@given(st.lists(st.tuples(_AT, _I64, st.floats(allow_infinity=False)), min_size=1, max_size=60))
def test_a_chunk_is_read_back_in_order_without_repeats(rows: list[tuple[int, int, float]]) -> None:
    twice = [*rows, *rows]
    columns = in_order([Columns(*zip(*twice, strict=True))])
    wanted = sorted({(at, step, 0.0 if v != v else v, v != v) for at, step, v in rows})
    found = [(at, step, 0.0 if v != v else v, v != v) for at, step, v in zip(*columns, strict=True)]
    assert found == wanted
    chunk = pack_chunk(columns)
    ats, steps, values = (column.tolist() for column in unpack_chunk(chunk.data))
    assert (ats, steps, chunk.size) == (list(columns.ats), list(columns.steps), len(wanted))
    assert [v for v in values if v == v] == [v for v in columns.values if v == v]
    assert (chunk.first_at, chunk.first_step) == (ats[0], steps[0])
    assert (chunk.last_at, chunk.last_step) == (ats[-1], steps[-1])


def test_regular_steps_take_no_room() -> None:
    steps = range(-5000, 3000)
    chunk = pack_chunk(Columns(range(10**12, 10**12 + 8000 * 37, 37), steps, [0.5] * 8000))
    assert len(chunk.data) < 8000 * 8 + 60
    assert unpack_chunk(chunk.data)[1].tolist() == list(steps)


@pytest.mark.parametrize("cut", [1, 5, 12, 20, -1])
def test_a_row_that_was_cut_or_is_of_another_format_is_refused(cut: int) -> None:
    data = pack([Point("loss", 0.5, 1, 2), Point("other", math.nan, 1, 2)])
    with pytest.raises(Corrupt):
        unpack(data[:cut])
    with pytest.raises(Corrupt, match="format 9"):
        unpack(b"\x09" + data[1:])
    chunk = pack_chunk(Columns([1, 2, 9], [1, 2, 3], [0.5, 0.25, 0.125])).data
    with pytest.raises(Corrupt):
        unpack_chunk(chunk[:cut])
