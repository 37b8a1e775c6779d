"""Points come out of a row as they went in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import Corrupt
from flyball.ledger.points import Point, PointColumns
from flyball.ledger.sql.packing import Columns, in_order, pack, pack_arrays, pack_chunk, unpack, unpack_chunk

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


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.tuples(_AT, _I64), st.tuples(st.integers(0, 90), st.integers(-9, 9))), min_size=1, max_size=40
    ),
    st.sampled_from([None, 0, 1, -7]),
)
def test_a_chunk_packed_from_arrays_reads_as_one_packed_from_lists(
    rows: list[tuple[int, int]], stride: int | None
) -> None:
    ats, first = [at for at, _ in rows], rows[0][1] // 2
    steps = [step for _, step in rows] if stride is None else [first + stride * n for n in range(len(rows))]
    values = [n / 7 for n in range(len(rows))]
    arrays = np.array(ats, np.int64), np.array(steps, np.int64), np.array(values)
    chunk = pack_arrays(*arrays)
    assert chunk == pack_chunk(Columns(ats, steps, values))
    assert all((found == wanted).all() for found, wanted in zip(unpack_chunk(chunk.data), arrays, strict=True))


def test_columns_are_the_points_that_they_were_made_of() -> None:
    points = [Point("a", 0.5, 1, 2), Point("b", 1.5, -3, 4), Point("a", 2.5, 5, 6)]
    columns = PointColumns.of(points)
    assert (list(columns), columns[1], list(columns[1:]), len(columns)) == (points, points[1], points[1:], 3)
    assert columns.is_plain
    assert PointColumns.of(columns) is columns
    for point in (Point("a", math.inf, 1, 1), Point("a", 0.5, 2**63, 1), Point("a", 0.5, 1, -1), Point("a", 1, 1, 1)):
        assert not PointColumns.of([*points, point]).is_plain


@pytest.mark.parametrize("ats", [[2**63 - 2, 2**63 - 1], [2**61, 2**62], [0, 2**62 - 1, 2**63 - 2]])
def test_times_up_to_the_last_of_64_bits_are_read_back(ats: list[int]) -> None:
    steps = [-(2**63) + n for n in range(len(ats), 0, -1)]
    chunk = pack_chunk(Columns(ats, steps, [0.5] * len(ats)))
    assert [column.tolist() for column in unpack_chunk(chunk.data)[:2]] == [ats, steps]
    assert pack_arrays(np.array(ats), np.array(steps), np.full(len(ats), 0.5)) == chunk
