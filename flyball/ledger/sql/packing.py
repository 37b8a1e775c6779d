"""How points stand in a row: a request's points packed together, and the chunk of one metric.

Both are read as lists of numbers. NaN is kept by its bits, which a column of SQLite could not do. Little-endian.

A request: `<BBHII` format, flags, metrics, points, bytes of names; names joined by NUL; the place of each point's name
(u16, unless all names differ); steps (i64) and times (i64), each once when all are the same; values (f64).

A chunk: `<BccI` format, how steps and times are kept, points; steps, times; values (f64). Integers are kept as
first and stride (`a`), as distances from the first (`i`, i32) or as they are (`q`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, islice
from math import nan
from operator import lt
from typing import Any, NamedTuple

from flyball.errors import Corrupt
from flyball.ledger.points import Point, PointColumns

__all__ = [
    "MOST_POINTS",
    "Chunk",
    "Columns",
    "Packed",
    "in_order",
    "pack",
    "pack_arrays",
    "pack_chunk",
    "unpack",
    "unpack_chunk",
]

MOST_POINTS = 8192
"""Of one row: what is read and written at a time stays small, and the places of names fit in 16 bits."""

_FORMAT = 1
_EACH_ITS_NAME, _ONE_STEP, _ONE_TIME = 1, 2, 4
_HEAD = struct.Struct("<BBHII")
_CHUNK = struct.Struct("<BccI")
_PAIR = struct.Struct("<qq")
_STRIDE, _NEAR, _RAW = b"a", b"i", b"q"
_I32 = 2**31
_SINGLE = struct.Struct("<qqd")  # step, time, value of a request of one point, whose flags are all set


class Packed(NamedTuple):
    """A request's points as columns; `places` says which of `names` each has."""

    names: list[str]
    places: Sequence[int]
    steps: Sequence[int]
    ats: Sequence[int]
    values: Sequence[float]

    def points(self) -> list[Point]:
        """Return them as points, in the order in which they were given."""
        names = map(self.names.__getitem__, self.places)
        return list(map(Point._make, zip(names, self.values, self.steps, self.ats, strict=True)))


class Columns(NamedTuple):
    """The points of one metric, in order of (time, step, value), without repeats."""

    ats: Sequence[int]
    steps: Sequence[int]
    values: Sequence[float]


class Chunk(NamedTuple):
    """A chunk as it is to be written: its first and last (time, step), and its bytes."""

    first_at: int
    first_step: int
    last_at: int
    last_step: int
    size: int
    data: bytes


def pack(points: Sequence[Point]) -> bytes:
    """Return the points of a request, at most `MOST_POINTS`, as the bytes of a row."""
    if len(points) == 1:  # what is logged most often
        key, value, step, at = points[0]
        text = key.encode()
        return _HEAD.pack(_FORMAT, 7, 1, 1, len(text)) + text + _SINGLE.pack(step, at, value)
    columns = PointColumns.of(points)
    keys, values, steps, ats = columns.keys, columns.values, columns.steps, columns.ats
    count = len(values)
    names: dict[str, int] = {}
    places = [names.setdefault(key, len(names)) for key in keys]
    text = "\0".join(names).encode()
    flags, parts = 0, [text]
    if len(names) == count:
        flags |= _EACH_ITS_NAME
    else:
        parts.append(_layout("H", count).pack(*places))
    for flag, numbers in ((_ONE_STEP, steps), (_ONE_TIME, ats)):
        if numbers.count(numbers[0]) == count:
            flags |= flag
            parts.append(_layout("q", 1).pack(numbers[0]))
        else:
            parts.append(_layout("q", count).pack(*numbers))
    parts.append(_layout("d", count).pack(*values))
    return _HEAD.pack(_FORMAT, flags, len(names), count, len(text)) + b"".join(parts)


def unpack(data: bytes) -> Packed:
    """Return what `pack` was given. Raises Corrupt."""
    try:
        form, flags, names, count, size = _HEAD.unpack_from(data)
        _check(form)
        place = _HEAD.size
        keys = data[place : place + size].decode().split("\0")
        place += size
        places: Sequence[int] = range(count)
        if not flags & _EACH_ITS_NAME:
            places, place = _take(data, place, "H", count)
        columns: list[Sequence[int]] = []
        for flag in (_ONE_STEP, _ONE_TIME):
            taken, place = _take(data, place, "q", 1 if flags & flag else count)
            columns.append(taken * count if flags & flag else taken)
        values, place = _take(data, place, "d", count)
    except (struct.error, UnicodeDecodeError) as error:
        raise Corrupt(f"a row of points cannot be read: {error}") from error
    if len(keys) != names or place != len(data):
        raise Corrupt("a row of points is not as long as it says")
    return Packed(keys, places, columns[0], columns[1], values)


def pack_chunk(columns: Columns) -> Chunk:
    """Return points of one metric, which are in order, as a chunk."""
    ats, steps, values = columns
    count = len(values)
    step_form, step_data = _integers(steps)
    at_form, at_data = _integers(ats)
    head = _CHUNK.pack(_FORMAT, step_form, at_form, count)
    data = b"".join((head, step_data, at_data, _layout("d", count).pack(*values)))
    return Chunk(ats[0], steps[0], ats[-1], steps[-1], count, data)


def pack_arrays(ats: Any, steps: Any, values: Any) -> Chunk:
    """Return points of one metric, which are in order and in arrays as of `unpack_chunk`, as a chunk."""
    step_form, step_data = _whole_numbers(steps)
    at_form, at_data = _whole_numbers(ats)
    head = _CHUNK.pack(_FORMAT, step_form, at_form, len(values))
    ends = int(ats[0]), int(steps[0]), int(ats[-1]), int(steps[-1])
    return Chunk(*ends, len(values), b"".join((head, step_data, at_data, values.astype("<f8").tobytes())))


def in_order(columns: Iterable[Columns]) -> Columns:
    """Return the points of one metric in order of (time, step, value), exact repeats once; NaN after 0."""
    given = list(columns)
    if len(given) > 1:
        given = [Columns(*(list(chain.from_iterable(part)) for part in zip(*given, strict=True)))]
    if given:
        ats, steps, values = given[0]
        # As they mostly come.
        if _rises(steps if ats.count(ats[0]) == len(ats) else ats) or _rises(list(zip(ats, steps, strict=True))):
            return given[0]
    found: set[tuple[int, int, float, bool, float]] = set()
    for ats, steps, values in given:
        # NaN, which equals nothing, stands as (0, True, NaN) with one NaN object: sets find it by identity.
        found.update(
            (at, step, 0.0, True, nan) if value != value else (at, step, value, False, value)
            for at, step, value in zip(ats, steps, values, strict=True)
        )
    ordered = sorted(found)
    ats_, steps_, _, _, values_ = zip(*ordered, strict=True) if ordered else ((), (), (), (), ())
    return Columns(ats_, steps_, values_)


def _rises(values: Sequence[Any]) -> bool:
    return all(map(lt, values, islice(values, 1, None)))


def unpack_chunk(data: bytes) -> tuple[Any, Any, Any]:
    """Return times, steps (int64) and values (float64) of a chunk as NumPy arrays. Raises Corrupt."""
    try:
        form, step_form, at_form, count = _CHUNK.unpack_from(data)
        _check(form)
        return _columns(data, count, (step_form, at_form))
    except (struct.error, ValueError) as error:
        raise Corrupt(f"a chunk of points cannot be read: {error}") from error


def _columns(data: bytes, count: int, forms: tuple[bytes, bytes]) -> tuple[Any, Any, Any]:
    import numpy as np  # slow to load, and whoever only writes does without

    found, place = [], _CHUNK.size
    for kept in forms:
        if kept == _STRIDE:
            first, stride = _PAIR.unpack_from(data, place)
            found.append(np.arange(count, dtype=np.int64) * stride + first)  # exact also where it ends at 2**63 - 1
            place += _PAIR.size
        elif kept == _NEAR:
            (first,) = _layout("q", 1).unpack_from(data, place)
            found.append(np.add(np.frombuffer(data, "<i4", count, place + 8), first, dtype=np.int64))
            place += 8 + 4 * count
        else:
            found.append(np.frombuffer(data, "<i8", count, place))
            place += 8 * count
    return found[1], found[0], np.frombuffer(data, "<f8", count, place)


def _integers(numbers: Sequence[int]) -> tuple[bytes, bytes]:
    first, count = numbers[0], len(numbers)
    stride = numbers[1] - first if count > 1 else 0
    if stride and abs(stride) < 2**62:
        is_even = list(numbers) == list(range(first, first + stride * count, stride))
    else:
        is_even = list(numbers).count(first) == count
    if is_even:
        return _STRIDE, _PAIR.pack(first, stride)
    distances = [number - first for number in numbers]
    if min(distances) >= -_I32 and max(distances) < _I32:
        return _NEAR, _layout("q", 1).pack(first) + _layout("i", count).pack(*distances)
    return _RAW, _layout("q", count).pack(*numbers)


def _whole_numbers(numbers: Any) -> tuple[bytes, bytes]:
    """Return an array of integers as `_integers` does."""
    import numpy as np  # see `_columns`

    first, last, count = int(numbers[0]), int(numbers[-1]), len(numbers)
    stride = (last - first) // (count - 1) if count > 1 else 0
    if abs(stride) < 2**62 and (numbers == np.arange(count, dtype=np.int64) * stride + first).all():
        return _STRIDE, _PAIR.pack(first, stride)
    least, most = int(numbers.min()), int(numbers.max())
    if least - first >= -_I32 and most - first < _I32:
        return _NEAR, _layout("q", 1).pack(first) + (numbers - first).astype("<i4").tobytes()
    return _RAW, numbers.astype("<i8").tobytes()


def _take(data: bytes, place: int, kind: str, count: int) -> tuple[tuple[Any, ...], int]:
    layout = _layout(kind, count)
    return layout.unpack_from(data, place), place + layout.size


@lru_cache(maxsize=8192)
def _layout(kind: str, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{kind}")


def _check(form: int) -> None:
    if form != _FORMAT:
        raise Corrupt(f"a row of points has format {form}; this release knows {_FORMAT}")
