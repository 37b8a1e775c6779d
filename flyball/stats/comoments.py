"""Products of all pairs of columns, exactly the same however the rows were split: Pearson's correlation for all pairs.

Each column is cut into its two highest digits of 20 bits, as `sums` does with larger ones: whole numbers whose products
over a few thousand rows add up exactly in a matrix multiplication, in whatever order it adds. Missing values count pair
by pair (a row counts for a pair when both are there): what a missing value takes away is kept beside. Merging lines the
digits of the columns up to the larger and adds.

A value is kept to 2^-21 of the largest absolute value of its column, or better; the correlation of columns whose spread
is above a thousandth of that is right to six figures. Callers: profiles of tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.stats.sums import NO_LEVEL, largest_of, level_of

__all__ = ["CoMoments", "comoments_of", "merged"]

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.object_]  # Python integers

BITS = 20
_FAR = 20  # levels from zero beyond which a factor would leave float64
_HELD = 1 << 10  # chunks whose products, of at most 2^50 each, add up in 64 bits
_CHUNK = 1 << 12  # rows whose digits, at a few dozen columns, stay in the second-level cache


@dataclass(frozen=True)
class CoMoments:
    """Sums of products of c columns. All arrays hold Python integers.

    Attributes:
        rows: how many rows.
        levels: of each column's high digit, shape (c,).
        digits: sums of the high digits of all columns and then of the low ones, shape (2c,).
        products: of those, shape (2c, 2c), symmetric.
        gaps: how often two columns are missing together, shape (c, c).
        lost: sums of digits of the rows where a column is missing, shape (c, 2c).
        lost_squares: the same of high · high, high · low, low · low, shape (c, 3c).
    """

    rows: int
    levels: tuple[int, ...]
    digits: Whole
    products: Whole
    gaps: Whole
    lost: Whole
    lost_squares: Whole

    def correlations(self) -> npt.NDArray[np.float64]:
        """Return Pearson's correlations, shape (c, c), NaN where a column does not vary or no row has both."""
        size = len(self.levels)
        high, low = slice(0, size), slice(size, 2 * size)
        unit = 1 << BITS
        g, s, m, q = self.products, self.digits, self.lost, self.lost_squares
        product = g[high, high] * unit**2 + (g[high, low] + g[low, high]) * unit + g[low, low]
        square = np.diagonal(product)
        sums = s[high] * unit + s[low]
        gone = m[:, high] * unit + m[:, low]
        gone_squares = q[:, high] * unit**2 + q[:, low] * (2 * unit) + q[:, 2 * size :]
        empty = np.diagonal(self.gaps)
        both = self.rows - empty[:, None] - empty[None, :] + self.gaps
        left = sums[:, None] - gone.T  # [i, j]: the sum of column i over the rows where j is there
        squares = square[:, None] - gone_squares.T
        covariance = both * product - left * left.T
        variance = both * squares - left * left
        return np.array(
            [[_ratio(covariance[i, j], variance[i, j], variance[j, i]) for j in range(size)] for i in range(size)]
        ).reshape(size, size)


def comoments_of(columns: Sequence[npt.NDArray[np.float64]]) -> CoMoments:
    """Return the co-moments of columns, each shape (n,), NaN or an infinity where missing."""
    size, rows = len(columns), columns[0].size if columns else 0
    levels, missing = [], {}
    cleaned = []
    for at, column in enumerate(columns):
        is_there = np.isfinite(column)
        if not bool(is_there.all()):
            missing[at] = ~is_there
            column = np.where(is_there, column, 0.0)
        cleaned.append(column)
        levels.append(level_of(largest_of(column), BITS))
    digits, products = _zeros(2 * size), _zeros(2 * size, 2 * size)
    gaps, lost, lost_squares = _zeros(size, size), _zeros(size, 2 * size), _zeros(size, 3 * size)
    held = [np.zeros(sums.shape, dtype=np.int64) for sums in (digits, products)]  # of some chunks: 2^63 is far
    at_missing = list(missing)
    space = np.empty((2 * size, min(_CHUNK, rows)))
    for start in range(0, rows, _CHUNK):
        part = slice(start, start + _CHUNK)
        both = space[:, : min(_CHUNK, rows - start)]
        for at, (column, level) in enumerate(zip(cleaned, levels, strict=True)):
            _cut_digits(column[part], level, both[at], both[at + size])
        held[0] += both.sum(axis=1).astype(np.int64)
        held[1] += (both @ both.T).astype(np.int64)
        if start // _CHUNK % _HELD == _HELD - 1 or start + _CHUNK >= rows:
            for sums, part_sums in zip((digits, products), held, strict=True):
                sums += part_sums.astype(object)
                part_sums.fill(0)
        if at_missing:
            absent = np.stack([missing[at][part] for at in at_missing]).astype(np.float64)
            gaps[np.ix_(at_missing, at_missing)] += _whole(absent @ absent.T)
            lost[at_missing] += _whole(absent @ both.T)
            upper, lower = both[:size], both[size:]
            squares = np.concatenate([upper * upper, upper * lower, lower * lower])
            lost_squares[at_missing] += _whole(absent @ squares.T)
    return CoMoments(rows, tuple(levels), digits, products, gaps, lost, lost_squares)


def merged(parts: Sequence[CoMoments]) -> CoMoments:
    """Return the co-moments of all rows together, exactly as if they had been taken at once; same columns in each."""
    size = len(parts[0].levels)
    levels = tuple(max(part.levels[at] for part in parts) for at in range(size))
    digits, products = _zeros(2 * size), _zeros(2 * size, 2 * size)
    gaps, lost, lost_squares = _zeros(size, size), _zeros(size, 2 * size), _zeros(size, 3 * size)
    for part in parts:
        down = [min(level - mine, 2) for level, mine in zip(levels, part.levels, strict=True)]
        kept = [at for at in range(2 * size) if at // size + down[at % size] < 2]  # digits that the whole still has
        place = [at + size * down[at % size] for at in kept]
        digits[place] += part.digits[kept]
        products[np.ix_(place, place)] += part.products[np.ix_(kept, kept)]
        gaps += part.gaps
        lost[:, place] += part.lost[:, kept]
        same = [at for at in range(3 * size) if down[at % size] == 0]
        lost_squares[:, same] += part.lost_squares[:, same]
        lower = [at for at in range(size) if down[at] == 1]
        lost_squares[:, [at + 2 * size for at in lower]] += part.lost_squares[:, lower]
    return CoMoments(sum(part.rows for part in parts), levels, digits, products, gaps, lost, lost_squares)


def _cut_digits(values: Floats, level: int, high: Floats, low: Floats) -> None:
    """Cut finite numbers into their digits at `level` and the one below, which are written into `high` and `low`."""
    if level == NO_LEVEL:
        high.fill(0.0)
        low.fill(0.0)
        return
    power = -BITS * (level - 1)
    scaled = np.ldexp(values, power) if abs(level) > _FAR else values * 2.0**power
    np.rint(np.multiply(scaled, 2.0**-BITS, out=high), out=high)
    np.subtract(scaled, np.multiply(high, 2.0**BITS, out=low), out=low)
    np.rint(low, out=low)


def _zeros(*shape: int) -> Whole:
    found = np.empty(shape, dtype=object)
    found.fill(0)
    return found


def _whole(exact: npt.NDArray[np.float64]) -> Whole:
    return exact.astype(np.int64).astype(object)


def _ratio(covariance: int, first: int, second: int) -> float:
    if first <= 0 or second <= 0:
        return float("nan")
    return max(-1.0, min(1.0, _root_ratio(covariance, first, second)))


def _root_ratio(covariance: int, first: int, second: int) -> float:
    """Return covariance / sqrt(first · second) in whole numbers up to the last step, whatever their size."""
    bottom = math.isqrt(first * second << 64)
    return (covariance << 32) / bottom
