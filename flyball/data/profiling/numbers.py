"""How the numbers of a column are distributed, in as few passes over them as can be.

Blocks of numbers go through all that is counted of them while they are in cache: the hash of each row, the distinct
values, the sums, the cells of the histogram. Two sorts of columns take less: numbers that lie on a grid (whole ones,
cents, tenths of a degree) are counted in a table, one place a step, and numbers of which there are few are grouped.
All else is then told from what was counted. Called by `measuring`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flyball.data.profiling.grouping import are_few, grouped
from flyball.stats.distinct import RegisterFold, Registers, likely_distinct, registers_of
from flyball.stats.hashing import Hashes, chain_words, float_hashes, hashes_of, integer_hashes, spread
from flyball.stats.sketches import (
    SMALL,
    FloatFold,
    Histogram,
    IntegerFold,
    histogram_of_counts,
    histogram_of_floats,
    histogram_of_integers,
)
from flyball.stats.sums import SumFold, Sums, sums_of, sums_of_counts

__all__ = ["DENSE_RANGE", "TIME_CELLS", "Distribution", "floats_of", "integers_of", "times_of"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DENSE_RANGE = 1 << 16  # whole numbers within such a range are counted one by one in a table
TIME_CELLS = 1 << 15  # an hourly series of three years has a cell for each hour, so that gaps are seen exactly
_GRID_RANGE = 1 << 19  # steps of a grid; the places that most numbers take are few, and stay in cache
_GRIDS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)  # steps in a unit
_LOOKED_AT = 1000  # numbers that tell of most columns that they are on no grid
_BLOCK = 1 << 15  # numbers taken together, so that what is between stays in cache


class Distribution(NamedTuple):
    """What is kept of numbers; `registers` of all of them, whether or not the histogram has each value."""

    histogram: Histogram
    sums: Sums
    registers: Registers | None
    is_whole: bool = False


def floats_of(
    values: Floats, ends: tuple[float, float], zeros: int, rows: Hashes | None, space: Hashes
) -> Distribution:
    """Count finite numbers, shape (n,), at least one.

    Args:
        values: without -0.0.
        ends: the least and the greatest.
        zeros: how many are 0.
        rows: hashes of rows, shape (n,), into which the numbers are chained.
        space: of n words or more, to work in.
    """
    steps = _steps_in_a_unit(values, ends)
    found = None if steps is None else _on_grid(values, ends, steps, space)
    if steps is not None and found is not None:
        if rows is not None:
            chain_words(rows, values.view(np.uint64))
        return _of_counts(*found, float_hashes(found[0]), is_whole=steps == 1.0)
    words = values.view(np.uint64)
    first = spread(words[:_BLOCK])
    if are_few(first):
        products = spread(words, space, rows)
        groups = grouped(products, keep_slots=False)
        if groups is not None:
            return _of_counts(values[groups.examples], groups.counts, hashes_of(products[groups.examples]))
        rows = None
    return _one_by_one(values, words, first, ends, zeros, rows, space)


def integers_of(
    numbers: Integers, ends: tuple[int, int], rows: Hashes | None, space: Hashes
) -> tuple[Distribution, int]:
    """Count whole numbers, shape (n,), at least one; return how many are 0 beside. Arguments as of `floats_of`."""
    words = numbers.view(np.uint64)
    least, greatest = ends
    if greatest - least < min(DENSE_RANGE, 8 * numbers.size):
        if rows is not None:
            chain_words(rows, words)
        table = np.bincount(np.subtract(numbers, least, out=space[: numbers.size].view(np.int64)))
        found = np.flatnonzero(table)
        zeros = int(table[-least]) if least <= 0 <= greatest else 0
        values = found + least
        return _of_counts(values.astype(np.float64), table[found], integer_hashes(values)), zeros
    zeros = numbers.size - int(np.count_nonzero(numbers)) if least <= 0 <= greatest else 0
    first = spread(words[:_BLOCK])
    if are_few(first):
        products = spread(words, space, rows)
        groups = grouped(products, keep_slots=False)
        if groups is not None:
            each = numbers[groups.examples].astype(np.float64)
            return _of_counts(each, groups.counts, hashes_of(products[groups.examples])), zeros
        rows = None
    return _one_by_one(numbers, words, first, (float(least), float(greatest)), zeros, rows, space), zeros


def times_of(
    micros: Integers, ends: tuple[int, int], rows: Hashes | None, space: Hashes
) -> tuple[Histogram, Registers | None]:
    """Count times in microseconds, shape (n,), by cells of one width; registers where cells hold more than one time.

    Arguments as of `floats_of`.
    """
    words = micros.view(np.uint64)
    if micros.size <= SMALL:
        products, histogram = spread(words, space, rows), histogram_of_integers(micros, TIME_CELLS)
        return histogram, None if histogram.is_exact else registers_of(hashes_of(products))
    distinct = RegisterFold(likely_distinct(spread(words[:_BLOCK]), micros.size))
    cells = IntegerFold(*ends, TIME_CELLS, space)
    spare = np.empty(min(_BLOCK, micros.size), dtype=np.uint64)
    for start in range(0, micros.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        distinct.add(spread(words[block], spare, None if rows is None else rows[block]))
        cells.add(micros[block])
    histogram = cells.finish(lambda: micros)
    return histogram, None if histogram.is_exact else distinct.finish(lambda: spread(words, space))


def _of_counts(values: Floats, counts: Integers, hashes: Hashes, *, is_whole: bool = False) -> Distribution:
    histogram = histogram_of_counts(values, counts)
    return Distribution(histogram, sums_of_counts(values, counts), registers_of(hashes), is_whole)


def _one_by_one(
    values: Floats | Integers,
    words: Hashes,
    first: Hashes,
    ends: tuple[float, float],
    zeros: int,
    rows: Hashes | None,
    space: Hashes,
) -> Distribution:
    if values.size <= SMALL:
        products = spread(words, space, rows)
        floats = values.astype(np.float64, copy=False)
        histogram = histogram_of_floats(floats, ends=ends)
        return Distribution(histogram, sums_of(floats, max(ends[1], -ends[0])), registers_of(hashes_of(products)))
    distinct = RegisterFold(likely_distinct(first, values.size))
    sums = SumFold(max(ends[1], -ends[0]))
    cells = FloatFold(*ends, zeros, space=space)
    spare = np.empty(min(_BLOCK, values.size), dtype=np.uint64)
    for start in range(0, values.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        distinct.add(spread(words[block], spare, None if rows is None else rows[block]))
        part = values[block].astype(np.float64, copy=False)
        sums.add(part)
        cells.add(part)
    histogram = cells.finish(lambda: values.astype(np.float64, copy=False))
    registers = distinct.finish(lambda: spread(words, space))
    if histogram.is_exact:
        return Distribution(histogram, sums_of_counts(histogram.values, histogram.counts), registers)
    return Distribution(histogram, sums.finish(), registers)


def _steps_in_a_unit(values: Floats, ends: tuple[float, float]) -> float | None:
    """Return the steps of the coarsest grid that the first numbers lie on; None where they lie on none."""
    first = values[:_LOOKED_AT]
    most = min(_GRID_RANGE, 8 * values.size)
    for steps in _GRIDS:
        if (ends[1] - ends[0]) * steps >= most or max(ends[1], -ends[0]) * steps >= 1 << 52:
            return None
        if bool((np.rint(first * steps) / steps == first).all()):
            return steps
    return None


def _on_grid(values: Floats, ends: tuple[float, float], steps: float, space: Hashes) -> tuple[Floats, Integers] | None:
    """Return the distinct numbers and how often each occurs; None where one is not on the grid."""
    least = float(np.rint(ends[0] * steps))
    places = space[: values.size].view(np.int64)
    step, back = np.empty((2, min(_BLOCK, values.size)))
    for start in range(0, values.size, _BLOCK):
        part = values[start : start + _BLOCK]
        on, exact = step[: part.size], back[: part.size]
        if steps == 1.0:
            np.rint(part, out=on)
            is_on = on == part
        else:
            np.rint(np.multiply(part, steps, out=on), out=on)
            is_on = np.divide(on, steps, out=exact) == part
        if not bool(is_on.all()):
            return None
        np.subtract(on, least, out=places[start : start + _BLOCK], casting="unsafe")
    table = np.bincount(places)
    found = np.flatnonzero(table)
    return ((found + least) / steps).astype(np.float64, copy=False), table[found]
