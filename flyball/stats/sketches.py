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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput

__all__ = [
    "SMALL",
    "FloatFold",
    "Histogram",
    "IntegerFold",
    "Scale",
    "histogram_of_counts",
    "histogram_of_floats",
    "histogram_of_integers",
    "merged",
]

Scale = Literal["float", "integer"]
Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]

CELLS = 2048  # of numbers: about a hundred to an octave of a bell curve, 8 KB before packing
_SIGN = np.uint64(1 << 63)
SMALL = 1 << 14  # fewer values are sorted; more are counted in tables
_ONE_SIGN_BITS, _TWO_SIGNS_BITS = 16, 19  # of the first table
_FINER_BITS = 20  # of later tables
_BLOCK = 1 << 15  # values looked at together, so that what is between stays in cache
_COUNTED = 1 << 18  # places counted together: a table of 2^19 counts must be worth it
_NORMAL = 2.0**-1022  # the smallest number of full precision
_NEAR_ZERO = 2.0**-30  # of the greatest: what is smaller, and not 0, makes counting begin anew


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
    if values.size <= SMALL:
        return _sorted_keys(_float_keys(values + 0.0), "float", limit)
    least, greatest = (float(values.min()), float(values.max())) if ends is None else ends
    if least <= 0.0 <= greatest and ends is None:
        values = values + 0.0
    zeros = values.size - int(np.count_nonzero(values)) if least == 0.0 else 0
    fold = FloatFold(least, greatest, zeros, limit, space)
    for start in range(0, values.size, _BLOCK):
        fold.add(values[start : start + _BLOCK])
    return fold.finish(lambda: values)


class FloatFold:
    """Takes blocks of finite floats, of which the ends are known, and counts them in a table by their leading bits.

    Args:
        least, greatest: of all that will be taken; -0.0 must have been made 0.0.
        zeros: how many of them are 0, where `least` is 0: a table that begins far from zero has one place for it.
        limit: the most cells.
        space: of as many words as values will be taken, to work in until `finish`.
    """

    def __init__(
        self, least: float, greatest: float, zeros: int = 0, limit: int = CELLS, space: Keys | None = None
    ) -> None:
        self._limit, self._ends = limit, (least, greatest)
        self._zeros: int | None = None
        self._table = _Table(space)
        self._shift, self._base = 64 - _TWO_SIGNS_BITS, 0
        if least < 0.0 <= greatest:
            return
        if least == 0.0 and greatest > _NORMAL / _NEAR_ZERO:
            self._zeros, least = zeros, greatest * _NEAR_ZERO
        low, high = sorted(_bits_of(end) for end in (least, greatest))
        self._shift = max((high - low).bit_length() - _ONE_SIGN_BITS, 0)
        self._base = low >> self._shift
        if self._zeros is not None:
            self._base -= 1  # the place of what is below: zeros, or too much for this table

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Take some values, shape (n,) with n up to 2^15."""
        place = self._table.room(values.size)
        np.right_shift(values.view(np.uint64), np.uint64(self._shift), out=place)
        if self._zeros is not None:
            np.maximum(place, np.uint64(self._base), out=place)
        if self._base:
            np.subtract(place, np.uint64(self._base), out=place)

    def finish(self, values: Callable[[], npt.NDArray[np.float64]]) -> Histogram:
        """Return the histogram of all that was taken, which `values` gives again where the table was too coarse."""
        table, base = self._table.counts(), self._base
        is_far = self._zeros is not None and int(table[0]) != self._zeros  # more than zeros lies below the table
        if self._zeros is not None:
            table[0] = 0
        occupied = np.count_nonzero(table) + (self._zeros is not None)
        if is_far or (self._shift and occupied <= self._limit):
            return _refined(values(), self._ends, self._limit)
        cells, counts, shift = _coarsened(table, base, self._shift, self._limit)
        if self._zeros is not None:
            zero = np.zeros(1, dtype=np.uint64)
            cells, counts = _gathered(np.concatenate([zero, cells]), np.concatenate([[self._zeros], counts]))
        return _of_bits(cells, counts, shift, self._limit)


def _refined(values: npt.NDArray[np.float64], ends: tuple[float, float], limit: int) -> Histogram:
    """Count finite floats in tables that become finer where values lie."""
    least, greatest = ends
    bits = np.ascontiguousarray(values).view(np.uint64)
    low, high = sorted(_bits_of(end) for end in (least, greatest))
    if least < 0.0 <= greatest:
        cells, counts, shift = _cells(bits, 0, 64 - _TWO_SIGNS_BITS, limit)
    else:
        shift = max((high - low).bit_length() - _ONE_SIGN_BITS, 0)
        cells, counts, shift = _cells(bits, low >> shift, shift, limit)
    return _of_bits(cells, counts, shift, limit)


def _bits_of(value: float) -> int:
    return int(np.array(value + 0.0).view(np.uint64))


def _of_bits(cells: Keys, counts: Counts, shift: int, limit: int) -> Histogram:
    """Return the histogram of cells of IEEE 754 bits without their `shift` low ones."""
    is_negative = (cells >> np.uint64(63 - shift)) == 1
    mask = np.uint64((1 << (64 - shift)) - 1)
    keys = np.where(is_negative, ~cells & mask, cells | np.uint64(1 << (63 - shift)))
    order = np.argsort(keys)
    return _fitted(keys[order], counts[order], shift, "float", limit)


def histogram_of_integers(
    values: npt.NDArray[np.int64], limit: int, ends: tuple[int, int] | None = None, space: Keys | None = None
) -> Histogram:
    """Count 64-bit integers, shape (n,), in cells of one width (a power of two); `ends` and `space` as of floats."""
    if values.size <= SMALL:
        return _sorted_keys(values.view(np.uint64) ^ _SIGN, "integer", limit)
    fold = IntegerFold(*((int(values.min()), int(values.max())) if ends is None else ends), limit, space)
    for start in range(0, values.size, _BLOCK):
        fold.add(values[start : start + _BLOCK])
    return fold.finish(lambda: values)


class IntegerFold:
    """Takes blocks of 64-bit integers, of which the ends are known, and counts them in cells of one width."""

    def __init__(self, least: int, greatest: int, limit: int, space: Keys | None = None) -> None:
        self._limit = limit
        self._table = _Table(space)
        first, last = least + (1 << 63), greatest + (1 << 63)  # as keys
        self._shift = max((last - first).bit_length() - min(_FINER_BITS, limit.bit_length() + 2), 0)
        self._base = first >> self._shift

    def add(self, values: npt.NDArray[np.int64]) -> None:
        """Take some integers, shape (n,) with n up to 2^15."""
        place = self._table.room(values.size)
        np.bitwise_xor(values.view(np.uint64), _SIGN, out=place)
        np.right_shift(place, np.uint64(self._shift), out=place)
        np.subtract(place, np.uint64(self._base), out=place)

    def finish(self, values: Callable[[], npt.NDArray[np.int64]]) -> Histogram:
        """Return the histogram of all that was taken, which `values` gives again where the table was too coarse."""
        counts = self._table.counts()
        if self._shift and np.count_nonzero(counts) <= self._limit:
            keys = values().view(np.uint64) ^ _SIGN
            cells, counts, shift = _cells(keys, self._base, self._shift, self._limit)
            order = np.argsort(cells)
            return _fitted(cells[order], counts[order], shift, "integer", self._limit)
        cells, counts, shift = _coarsened(counts, self._base, self._shift, self._limit)
        return _fitted(cells, counts, shift, "integer", self._limit)


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


class _Table:
    """Counts by place, of blocks of places that are written into the room it gives.

    `space` is for the places of all that will be taken; without, they are counted now and then.
    """

    def __init__(self, space: Keys | None) -> None:
        self._places = np.empty(_COUNTED, dtype=np.uint64) if space is None else space
        self._counts = np.zeros(0, dtype=np.int64)
        self._taken = 0

    def room(self, size: int) -> Keys:
        """Return room for `size` places, up to 2^15, which the caller fills before it asks again."""
        if self._taken + size > self._places.size:
            self._count()
        self._taken += size
        return self._places[self._taken - size : self._taken]

    def counts(self) -> Counts:
        """Return the counts, up to the last place that was taken."""
        self._count()
        return self._counts

    def _count(self) -> None:
        found = np.bincount(self._places[: self._taken].view(np.int64), minlength=self._counts.size)
        if self._counts.size:
            found[: self._counts.size] += self._counts
        self._counts, self._taken = found, 0


def _coarsened(table: Counts, base: int, shift: int, limit: int) -> tuple[Keys, Counts, int]:
    """Join neighbours of a table whose first place is cell `base`, until hardly more than `limit` cells are occupied.

    A table that is hardly occupied is left to `_fitted`, which looks at occupied places only.
    """
    while shift < 63 and np.count_nonzero(table) > max(limit, table.size // 32):
        odd = base & 1
        joined = np.zeros((table.size + odd + 1) // 2, dtype=np.int64)
        even = table[odd::2]
        joined[odd : odd + even.size] = even
        rest = table[1 - odd :: 2]
        joined[: rest.size] += rest
        table, base, shift = joined, base >> 1, shift + 1
    found = np.flatnonzero(table)
    return found.astype(np.uint64) + np.uint64(base), table[found], shift


def _sorted_keys(keys: Keys, scale: Scale, limit: int) -> Histogram:
    cells, counts = np.unique(keys, return_counts=True)
    return _fitted(cells, counts.astype(np.int64), 0, scale, limit)


def _cells(bits: Keys, base: int, shift: int, limit: int) -> tuple[Keys, Counts, int]:
    """Count in a table by the leading bits; while few cells are occupied, in a finer one, until each is one value."""
    place = np.right_shift(bits, np.uint64(shift))
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
