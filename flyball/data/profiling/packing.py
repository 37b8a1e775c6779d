"""The bytes of a profile: canonical (equal profiles have equal bytes), compact, versioned.

Layout, little-endian:
    "FBPF", format (1 byte), then zlib-packed: length of the header (4 bytes), the header as JSON, the arrays.
An array stands in the header as [dtype, length, first, is_delta]: counts in the smallest unsigned type that holds them,
ascending cells as differences. Integers beyond 64 bits stand as text. Reading checks every length.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from flyball.data.profiling.columns import ColumnSketch
from flyball.data.profiling.tables import TableSketch
from flyball.errors import Corrupt, Incompatible
from flyball.stats.comoments import CoMoments
from flyball.stats.frequencies import Names
from flyball.stats.row_samples import RowSample
from flyball.stats.sketches import Histogram
from flyball.stats.sums import Sums

__all__ = ["FORMAT", "packed", "unpacked"]

FORMAT = 1
_MAGIC = b"FBPF"
_UNSIGNED = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8"))
_DTYPES = {dtype.str: dtype for dtype in (*_UNSIGNED, np.dtype("<f4"))}
_LARGEST = 1 << 30  # bytes of an unpacked profile: far above any, and a bound for what is not one


def packed(sketch: TableSketch) -> bytes:
    """Return the bytes of a profile."""
    out = _Writer()
    header = {
        "rows": sketch.rows,
        "columns": [[name, _column(out, column)] for name, column in sketch.columns.items()],
        "sampled": list(sketch.sampled),
        "correlated": list(sketch.correlated),
        "sample": _optional(_sample, out, sketch.sample),
        "all": _optional(_products, out, sketch.all_products),
        "some": _optional(_products, out, sketch.some_products),
    }
    head = orjson.dumps(header)
    return _MAGIC + bytes([FORMAT]) + zlib.compress(len(head).to_bytes(4, "little") + head + b"".join(out.parts), 1)


def unpacked(data: bytes) -> TableSketch:
    """Read what `packed` wrote.

    Raises:
        Incompatible: a newer release wrote it.
        Corrupt: it is not a profile, or a part is missing.
    """
    if data[:4] != _MAGIC or len(data) < 6:
        raise Corrupt("this is not a stored profile: its first bytes are others; profile the rows again")
    if data[4] != FORMAT:
        raise Incompatible(f"a stored profile has format {data[4]}; this release reads {FORMAT}")
    try:
        body = zlib.decompressobj().decompress(data[5:], _LARGEST)
        size = int.from_bytes(body[:4], "little")
        header = orjson.loads(body[4 : 4 + size])
        read = _Reader(body, 4 + size)
        columns = {name: _read_column(read, kept) for name, kept in header["columns"]}
        sample = header["sample"] and _read_sample(read, header["sample"], len(header["sampled"]))
        every = header["all"] and _read_products(read, header["all"])
        some = header["some"] and _read_products(read, header["some"])
        return TableSketch(
            int(header["rows"]),
            columns,
            sample,
            tuple(header["sampled"]),
            tuple(header["correlated"]),
            every,
            some,
        )
    except (zlib.error, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise Corrupt(f"a stored profile cannot be read ({type(error).__name__}); profile the rows again") from error


class _Writer:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def array(self, values: npt.NDArray[Any], delta: bool = False) -> list[Any]:
        """Put an array of unsigned whole numbers aside and return what the header says of it."""
        words = values.astype(np.uint64)
        first = int(words[0]) if delta and words.size else 0
        if delta:
            words = words[1:] - words[:-1]
        most = int(words.max()) if words.size else 0
        dtype = next(d for d in _UNSIGNED if most < 1 << 8 * d.itemsize)
        self.parts.append(words.astype(dtype).tobytes())
        return [dtype.str, int(words.size), str(first), int(delta and values.size > 0)]

    def floats(self, values: npt.NDArray[np.float64]) -> list[Any]:
        self.parts.append(values.astype("<f4").tobytes())
        return ["<f4", int(values.size), "0", 0]


class _Reader:
    def __init__(self, body: bytes, at: int) -> None:
        self._body, self._at = body, at

    def array(self, kept: list[Any]) -> npt.NDArray[Any]:
        dtype, size, first, is_delta = _DTYPES[kept[0]], int(kept[1]), int(kept[2]), kept[3]
        end = self._at + size * dtype.itemsize
        if size < 0 or end > len(self._body):
            raise ValueError("an array ends before its length")
        words = np.frombuffer(self._body, dtype=dtype, count=size, offset=self._at)
        self._at = end
        if dtype.kind == "f":
            return words.astype(np.float64)
        words = words.astype(np.uint64)
        if not is_delta:
            return words
        return np.cumsum(np.concatenate([np.array([first], dtype=np.uint64), words]), dtype=np.uint64)


def _optional(write: Any, out: _Writer, value: Any) -> Any:
    return None if value is None else write(out, value)


def _column(out: _Writer, column: ColumnSketch) -> dict[str, Any]:
    kept = {
        "kind": column.kind,
        "dtype": column.dtype,
        "n": [column.rows, column.nulls, column.nans, column.infinities, column.zeros, int(column.is_whole)],
        "ends": None if column.least is None else [_number(column.least), _number(column.greatest)],
        "histogram": _optional(_histogram, out, column.histogram),
        "sums": None if column.sums is None else _sums(column.sums),
        "registers": _optional(_Writer.array, out, column.registers),
        "names": _optional(_names, out, column.names),
        "lengths": _optional(_histogram, out, column.lengths),
        "week": _optional(_Writer.array, out, column.week),
        "facts": [[name, _fact(out, fact)] for name, fact in sorted(column.facts.items())],
    }
    return {key: value for key, value in kept.items() if value not in (None, [])}


def _read_column(read: _Reader, kept: Mapping[str, Any]) -> ColumnSketch:
    rows, nulls, nans, infinities, zeros, is_whole = kept["n"]
    least, greatest = (_read_number(end) for end in kept["ends"]) if "ends" in kept else (None, None)
    histogram = _read_histogram(read, kept["histogram"]) if "histogram" in kept else None
    registers = read.array(kept["registers"]).astype(np.uint8) if "registers" in kept else None
    names = _read_names(read, kept["names"]) if "names" in kept else None
    lengths = _read_histogram(read, kept["lengths"]) if "lengths" in kept else None
    week = read.array(kept["week"]).astype(np.int64) if "week" in kept else None
    return ColumnSketch(
        kept["kind"],
        kept["dtype"],
        rows,
        nulls,
        nans,
        infinities,
        zeros,
        bool(is_whole),
        least,
        greatest,
        histogram,
        _read_sums(kept["sums"]) if "sums" in kept else None,
        registers,
        names,
        lengths,
        week,
        {name: _read_fact(read, fact) for name, fact in kept.get("facts", [])},
    )


def _histogram(out: _Writer, value: Histogram) -> list[Any]:
    return [value.scale, value.limit, value.shift, out.array(value.cells, delta=True), out.array(value.counts)]


def _read_histogram(read: _Reader, kept: list[Any]) -> Histogram:
    cells, counts = read.array(kept[3]), read.array(kept[4]).astype(np.int64)
    if cells.shape != counts.shape or not 0 <= kept[2] < 64:
        raise ValueError("a histogram has not one count for each cell")
    return Histogram(kept[0], int(kept[1]), int(kept[2]), cells, counts)


def _sums(value: Sums) -> list[Any]:
    return [value.count, value.level, str(value.high), str(value.low)]


def _read_sums(kept: list[Any]) -> Sums:
    return Sums(int(kept[0]), int(kept[1]), int(kept[2]), int(kept[3]))


def _names(out: _Writer, value: Names) -> list[Any]:
    hashes, counts = out.array(value.hashes, delta=True), out.array(value.counts)
    buckets = _optional(_Writer.array, out, value.buckets)
    return [hashes, counts, list(value.names), buckets, _optional(_Writer.array, out, value.registers)]


def _read_names(read: _Reader, kept: list[Any]) -> Names:
    hashes, counts = read.array(kept[0]), read.array(kept[1]).astype(np.int64)
    if not hashes.size == counts.size == len(kept[2]):
        raise ValueError("names, hashes and counts differ in number")
    buckets = None if kept[3] is None else read.array(kept[3]).astype(np.int64)
    registers = None if kept[4] is None else read.array(kept[4]).astype(np.uint8)
    return Names(hashes, counts, tuple(kept[2]), buckets, registers)


def _fact(out: _Writer, value: Histogram | Names) -> list[Any]:
    return ["names", _names(out, value)] if isinstance(value, Names) else ["histogram", _histogram(out, value)]


def _read_fact(read: _Reader, kept: list[Any]) -> Histogram | Names:
    return _read_names(read, kept[1]) if kept[0] == "names" else _read_histogram(read, kept[1])


def _sample(out: _Writer, value: RowSample) -> list[Any]:
    hashes, counts = out.array(value.hashes, delta=True), out.array(value.counts)
    return [value.rows, int(value.is_exact), hashes, counts, out.floats(value.values.ravel())]


def _read_sample(read: _Reader, kept: list[Any], columns: int) -> RowSample:
    hashes, counts, values = read.array(kept[2]), read.array(kept[3]), read.array(kept[4])
    shaped = values.reshape(columns, hashes.size)
    return RowSample(int(kept[0]), bool(kept[1]), hashes, counts.astype(np.int64), shaped)


def _products(out: _Writer, value: CoMoments) -> list[Any]:
    size = len(value.levels)
    triangle = value.products[np.triu_indices(2 * size)]
    gone = [at for at in range(size) if value.gaps[at, at]]
    rest = (value.gaps[np.ix_(gone, gone)], value.lost[gone], value.lost_squares[gone])
    return [
        value.rows,
        list(value.levels),
        gone,
        [_whole(out, part) for part in (value.digits, triangle, *rest)],
    ]


def _read_products(read: _Reader, kept: list[Any]) -> CoMoments:
    size, gone = len(kept[1]), kept[2]
    digits, triangle, some_gaps, some_lost, some_squares = (_read_whole(read, part) for part in kept[3])
    products, gaps = _zeros(2 * size, 2 * size), _zeros(size, size)
    upper = np.triu_indices(2 * size)
    products[upper] = triangle
    products.T[upper] = triangle
    lost, lost_squares = _zeros(size, 2 * size), _zeros(size, 3 * size)
    gaps[np.ix_(gone, gone)] = some_gaps.reshape(len(gone), len(gone))
    lost[gone] = some_lost.reshape(len(gone), 2 * size)
    lost_squares[gone] = some_squares.reshape(len(gone), 3 * size)
    return CoMoments(int(kept[0]), tuple(kept[1]), digits, products, gaps, lost, lost_squares)


def _whole(out: _Writer, values: npt.NDArray[np.object_]) -> list[Any]:
    """Write Python integers of up to 104 bits: their sign and upper part, and 40 low bits."""
    flat = values.ravel()
    upper = (flat >> 40).astype(np.int64) if flat.size else np.empty(0, np.int64)
    lower = (flat & ((1 << 40) - 1)).astype(np.uint64) if flat.size else np.empty(0, np.uint64)
    turned = (upper << 1) ^ (upper >> 63)  # small negatives become small unsigned numbers
    return [out.array(turned.view(np.uint64)), out.array(lower)]


def _read_whole(read: _Reader, kept: list[Any]) -> npt.NDArray[np.object_]:
    turned, lower = read.array(kept[0]), read.array(kept[1])
    upper = (turned >> np.uint64(1)).view(np.int64) ^ -(turned & np.uint64(1)).view(np.int64)
    found: npt.NDArray[np.object_] = (upper.astype(object) << 40) | lower.astype(object)
    return found


def _zeros(*shape: int) -> npt.NDArray[np.object_]:
    found = np.empty(shape, dtype=object)
    found.fill(0)
    return found


def _number(value: float | int | None) -> Any:
    """JSON has no infinities, and orjson no integers beyond 64 bits."""
    if isinstance(value, int):
        return [str(value)]
    return value if value is None or math.isfinite(value) else [repr(value), 1]


def _read_number(kept: Any) -> float | int:
    if isinstance(kept, list):
        return float(kept[0]) if len(kept) == 2 else int(kept[0])
    return float(kept)
