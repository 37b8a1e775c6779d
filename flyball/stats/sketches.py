"""Distributions of numbers and times in a bounded number of cells, the same however the rows were split.

A `Histogram` counts values by the leading bits of a 64-bit key that sorts as the values do. It keeps as many leading
bits as leave no more than `limit` occupied cells. That number of bits is decided by the set of values alone: a part's
set is smaller, so a part never keeps fewer bits than the whole, and merging only drops bits. So the histogram of all
rows is, exactly, the merge of the histograms of any parts in any order. With `limit` or fewer distinct values every
value has its own cell and everything told from it is exact; otherwise a cell's width bounds the error.

Keys: `float` values by their IEEE 754 bits with the order of negatives turned (cells are narrow relative to the value,
and narrower still where values lie close together, as 100 ± 1); `integer` values (times) as they are, so that all cells
are of one width. Callers: the profiles of tables (`flyball.data.profiles`); distances are in `sketch_distances`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput

__all__ = ["Histogram", "Scale", "histogram_of_counts", "histogram_of_floats", "histogram_of_integers", "merged"]

Scale = Literal["float", "integer"]
Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]

CELLS = 2048  # of numbers: about a hundred to an octave of a bell curve, 8 KB before packing
_SIGN = np.uint64(1 << 63)
_SMALL = 1 << 14  # fewer values are sorted; more are counted in tables
_ONE_SIGN_BITS, _TWO_SIGNS_BITS = 16, 19  # of the first table
_FINER_BITS = 20  # of later tables
_BLOCK = 1 << 15  # values looked at together, so that what is between stays in cache


@dataclass(frozen=True)
class Histogram:
    """Counts of values by cell.

    Attributes:
        scale: how keys are made of values.
        limit: the most cells, at least 2 (the sign is always told).
        shift: how many low bits of the key were dropped; 0 means that each cell is one value.
        cells: the occupied cells ascending, uint64 shape (k,): keys without their low bits.
        counts: how many values each holds, int64 shape (k,), all positive.
    """

    scale: Scale
    limit: int
    shift: int
    cells: Keys
    counts: Counts

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def is_exact(self) -> bool:
        """Whether each cell holds one value only."""
        return self.shift == 0

    @property
    def values(self) -> Numbers:
        """The lower end of each cell, float64 or int64, shape (k,); the value itself where the histogram is exact."""
        return _decoded(self.cells << np.uint64(self.shift), self.scale)

    @property
    def ends(self) -> Numbers:
        """The greatest value that each cell can hold, shape (k,)."""
        low = self.cells << np.uint64(self.shift)
        return _decoded(low | np.uint64((1 << self.shift) - 1), self.scale)

    def coarsened(self, shift: int) -> Histogram:
        """Return the histogram with `shift` low bits dropped, at least as many as now."""
        if shift == self.shift:
            return self
        cells, counts = _gathered(self.cells >> np.uint64(shift - self.shift), self.counts)
        return Histogram(self.scale, self.limit, shift, cells, counts)

    def count_below(self, values: Numbers) -> npt.NDArray[np.float64]:
        """Return how many values are below each of `values`, shape (n,), cells cut by a straight line."""
        low, high = self.values.astype(np.float64), self.ends.astype(np.float64)
        before = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.float64)
        asked = np.asarray(values, dtype=np.float64)
        at = np.searchsorted(high, asked, side="left")  # cells that end before the value are below it whole
        inside = np.minimum(at, low.size - 1)
        width = high[inside] - low[inside]
        is_cut = (at < low.size) & (asked > low[inside]) & (width > 0)
        part = np.zeros(asked.size)
        part[is_cut] = (asked[is_cut] - low[inside[is_cut]]) / width[is_cut]
        return np.asarray(before[at] + part * self.counts[inside])

    def deviation(self, mean: float, least: float, greatest: float) -> float:
        """Return the standard deviation, dividing by n, of the values about their mean.

        Exact, but for rounding, when the histogram is; otherwise values are taken as spread evenly over their cell,
        which is off by a small part of a cell's width.
        """
        low = np.maximum(self.values.astype(np.float64), least)
        high = np.minimum(self.ends.astype(np.float64), greatest)
        scale = max(greatest - mean, mean - least)  # squares of these cannot overflow
        if not scale > 0.0 or not math.isfinite(scale):
            return 0.0 if scale == 0.0 else math.inf
        middle, width = ((low / 2 + high / 2) - mean) / scale, (high - low) / scale
        return scale * math.sqrt(float((middle**2 + width**2 / 12) @ self.counts) / max(self.total, 1))

    def quantiles(self, levels: Sequence[float], least: float, greatest: float) -> list[float]:
        """Return, for each level in [0, 1], the quantile as `numpy.quantile` defines it (linear between two ranks).

        Exact when the histogram is; otherwise each rank is placed on a straight line within the cell that it is in.

        Args:
            levels: between 0 and 1.
            least, greatest: the smallest and greatest value counted; they cut the outer cells.

        Raises:
            InvalidInput: the histogram is empty.
        """
        total = self.total
        if not total:
            raise InvalidInput("an empty histogram has no quantiles; expected at least one value")
        low = np.maximum(self.values.astype(np.float64), least)
        high = np.minimum(self.ends.astype(np.float64), greatest)
        place = np.asarray(levels, dtype=np.float64) * (total - 1)
        first = np.floor(place)
        found = [self._at_ranks(rank, low, high) for rank in (first, np.minimum(first + 1, total - 1))]
        return [float(v) for v in found[0] + (found[1] - found[0]) * (place - first)]

    def _at_ranks(
        self, ranks: npt.NDArray[np.float64], low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        summed = np.cumsum(self.counts)
        at = np.searchsorted(summed, ranks, side="right")
        into = (ranks - (summed[at] - self.counts[at]) + 0.5) / self.counts[at]
        return np.asarray(low[at] + (high[at] - low[at]) * into)


def histogram_of_floats(
    values: npt.NDArray[np.float64],
    limit: int = CELLS,
    ends: tuple[float, float] | None = None,
    space: Keys | None = None,
) -> Histogram:
    """Count finite floats, shape (n,); -0.0 counts as 0.0. About 2 ns a value.

    Args:
        values: what to count.
        limit: the most cells, at least 2 (the sign is always told).
        ends: the smallest and greatest value of a caller that knows them, and that has no -0.0.
        space: of n words or more, to work in: fresh memory costs as much as the counting.
    """
    if values.size <= _SMALL:
        return _sorted_keys(_float_keys(values + 0.0), "float", limit)
    least, greatest = (float(values.min()), float(values.max())) if ends is None else ends
    if least <= 0.0 <= greatest and ends is None:
        values = values + 0.0
    bits = np.ascontiguousarray(values).view(np.uint64)
    low, high = sorted(int(np.array(end + 0.0).view(np.uint64)) for end in (least, greatest))
    if least < 0.0 <= greatest:
        cells, counts, shift = _cells(bits, 0, 64 - _TWO_SIGNS_BITS, limit, space)
    else:
        shift = max((high - low).bit_length() - _ONE_SIGN_BITS, 0)
        cells, counts, shift = _cells(bits, low >> shift, shift, limit, space)
    is_negative = (cells >> np.uint64(63 - shift)) == 1
    mask = np.uint64((1 << (64 - shift)) - 1)
    keys = np.where(is_negative, ~cells & mask, cells | np.uint64(1 << (63 - shift)))
    order = np.argsort(keys)
    return _fitted(keys[order], counts[order], shift, "float", limit)


def histogram_of_integers(values: npt.NDArray[np.int64], limit: int) -> Histogram:
    """Count 64-bit integers, shape (n,), in cells of one width (a power of two)."""
    keys = values.view(np.uint64) ^ _SIGN
    if values.size <= _SMALL:
        return _sorted_keys(keys, "integer", limit)
    first, last = int(keys.min()), int(keys.max())
    shift = max((last - first).bit_length() - min(_FINER_BITS, limit.bit_length() + 2), 0)
    cells, counts, shift = _cells(keys, first >> shift, shift, limit)
    order = np.argsort(cells)
    return _fitted(cells[order], counts[order], shift, "integer", limit)


def histogram_of_counts(values: Numbers, counts: Counts, scale: Scale = "float", limit: int = CELLS) -> Histogram:
    """Count distinct values, shape (k,), of which each was seen `counts` times, shape (k,)."""
    if scale == "float":
        keys = _float_keys(np.asarray(values, dtype=np.float64) + 0.0)
    else:
        keys = np.asarray(values, dtype=np.int64).view(np.uint64) ^ _SIGN
    cells, summed = _gathered(keys, np.asarray(counts, dtype=np.int64))
    return _fitted(cells, summed, 0, scale, limit)


def merged(parts: Sequence[Histogram]) -> Histogram:
    """Return the histogram of all values together, exactly as if they had been counted at once.

    Raises:
        InvalidInput: there is no part, or two count on different scales or with different limits.
    """
    if not parts:
        raise InvalidInput("there is no histogram to merge; expected at least one")
    scale, limit = parts[0].scale, parts[0].limit
    if any((part.scale, part.limit) != (scale, limit) for part in parts):
        raise InvalidInput("histograms of different scales or limits cannot be merged; count both in the same way")
    shift = max(part.shift for part in parts)
    keys = np.concatenate([part.cells >> np.uint64(shift - part.shift) for part in parts])
    cells, counts = _gathered(keys, np.concatenate([part.counts for part in parts]))
    return _fitted(cells, counts, shift, scale, limit)


def _sorted_keys(keys: Keys, scale: Scale, limit: int) -> Histogram:
    cells, counts = np.unique(keys, return_counts=True)
    return _fitted(cells, counts.astype(np.int64), 0, scale, limit)


def _cells(bits: Keys, base: int, shift: int, limit: int, space: Keys | None = None) -> tuple[Keys, Counts, int]:
    """Count in a table by the leading bits; while few cells are occupied, in a finer one, until each is one value."""
    place = np.right_shift(bits, np.uint64(shift), out=None if space is None else space[: bits.size])
    if base:
        place -= np.uint64(base)
    index = place.view(np.int64)
    table = np.bincount(index)
    found = np.flatnonzero(table)
    cells = found.astype(np.uint64) + np.uint64(base)
    table_bits = min(_FINER_BITS, limit.bit_length() + 5)  # many more cells than the limit would only be joined again
    while found.size <= limit and shift > 0:
        rank = np.zeros(table.size, dtype=np.int64)
        rank[found] = np.arange(found.size)
        example = np.zeros(found.size, dtype=np.uint64)
        is_exact = True
        for start in range(0, bits.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            code = index[block] = rank.take(index[block])
            if is_exact:
                empty = np.flatnonzero(example.take(code) != bits[block])
                example[code[empty]] = np.where(example[code[empty]] == 0, bits[block][empty], example[code[empty]])
                is_exact = bool((example.take(code) == bits[block]).all())
        if is_exact:
            return example, table[found], 0
        finer = min(shift, max(table_bits - (found.size - 1).bit_length(), 1))
        mask = np.uint64((1 << finer) - 1)
        shift -= finer
        for start in range(0, bits.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            low = ((bits[block] >> np.uint64(shift)) & mask).view(np.int64)
            index[block] = (index[block] << finer) | low
        table = np.bincount(index)
        found = np.flatnonzero(table)
        cells = (cells[found >> finer] << np.uint64(finer)) | (found.astype(np.uint64) & mask)
    return cells, table[found], shift


def _fitted(cells: Keys, counts: Counts, shift: int, scale: Scale, limit: int) -> Histogram:
    """Drop as many low bits as leave no more than `limit` of the ascending distinct cells."""
    more = 0
    if cells.size > limit:
        lengths = _bit_lengths(cells[1:] ^ cells[:-1])  # two neighbours fall together when that many bits are dropped
        apart = np.cumsum(np.bincount(lengths, minlength=65)[::-1])[::-1]  # [e]: pairs with a length of e or more
        while more < 63 - shift and 1 + (apart[more + 1] if more < 64 else 0) > limit:
            more += 1
        cells, counts = _gathered(cells >> np.uint64(more), counts)
    return Histogram(scale, limit, shift + more, cells, counts)


def _gathered(keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """Return the distinct keys ascending, and the sum of the counts of each."""
    if keys.size == 0:
        return keys, counts
    if not bool((keys[1:] >= keys[:-1]).all()):
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first], np.add.reduceat(counts, first)


def _float_keys(values: npt.NDArray[np.float64]) -> Keys:
    bits = np.ascontiguousarray(values).view(np.uint64)
    return np.where(bits >> np.uint64(63) == 1, ~bits, bits | _SIGN)


def _decoded(keys: Keys, scale: Scale) -> Numbers:
    if scale == "integer":
        return (keys ^ _SIGN).view(np.int64)
    bits = np.where(keys >> np.uint64(63) == 1, keys ^ _SIGN, ~keys)
    return bits.view(np.float64)


def _bit_lengths(words: Keys) -> npt.NDArray[np.int64]:
    upper = (words >> np.uint64(32)).astype(np.float64)
    lower = (words & np.uint64(0xFFFF_FFFF)).astype(np.float64)
    return np.where(upper > 0, np.frexp(upper)[1] + 32, np.frexp(lower)[1]).astype(np.int64)
