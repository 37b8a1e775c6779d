"""A fair sample of a table's distinct rows with their counts, the same however the rows were split.

Kept are the `ROWS` distinct rows of the smallest hashes (bottom-k, see `frequencies`), each with the number of times it
occurs. From it come duplicates (exact while there are no more distinct rows than are kept), rank correlation and
association of categories. Callers: profiles of tables.

Values are numbers for all columns: of a text the low 32 bits of its hash, which only tell equal from different.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.stats.hashing import Hashes

__all__ = ["ROWS", "RowSample", "association", "lowest", "merged", "rank_correlation"]

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

ROWS = 1024  # the standard error of a rank correlation is then about 0.03


@dataclass(frozen=True)
class RowSample:
    """Distinct rows.

    Attributes:
        rows: how many rows the table has.
        is_exact: whether these are all of its distinct rows.
        hashes: of the kept rows, ascending, uint64 shape (k,).
        counts: how often each occurs, int64 shape (k,).
        values: shape (columns, k), float64; NaN where missing.
    """

    rows: int
    is_exact: bool
    hashes: Hashes
    counts: Counts
    values: Values

    @property
    def duplicates(self) -> tuple[int, int]:
        """How many rows repeat an earlier one, and a bound that is passed in one case of twenty at most.

        Equal where the sample is exact; otherwise scaled up from the sample, with the upper end of the Poisson interval
        for the rows of the sample that repeat.
        """
        seen, extra = int(self.counts.sum()), int((self.counts - 1).sum())
        if self.is_exact or not seen:
            return extra, extra
        repeated = int((self.counts > 1).sum())
        bound = repeated + 1.645 * math.sqrt(repeated) + 3.0 if repeated else 3.0  # -ln 0.05 when none was seen
        times = extra / repeated if repeated else 1.0
        return round(extra / seen * self.rows), min(math.ceil(bound * times / seen * self.rows), self.rows)


def lowest(
    hashes: Hashes, some: npt.NDArray[np.intp] | None = None, below: int = 0
) -> tuple[npt.NDArray[np.intp], Hashes, Counts, bool]:
    """Choose the sample of rows, shape (n,) of well-mixed hashes.

    Args:
        hashes: of the rows.
        some, below: the places of those that are less than `below`, of a caller that knows them.

    Returns:
        A place in `hashes` of each kept row, its hash, its count, and whether all distinct rows are kept.
    """
    within = min(((1 << 64) - 1) // max(hashes.size, 1) * ROWS * 2, (1 << 64) - 1)
    if some is not None and within < below:
        low = some[hashes[some] <= np.uint64(within)]
    else:
        low = np.flatnonzero(hashes <= np.uint64(within))
    found, first, counts = np.unique(hashes[low], return_index=True, return_counts=True)
    if found.size < ROWS and low.size < hashes.size:  # few rows differ
        low = np.arange(hashes.size)
        found, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    is_exact = low.size == hashes.size and found.size <= ROWS
    kept = slice(0, ROWS)
    return low[first[kept]], found[kept], counts[kept].astype(np.int64), is_exact


def merged(parts: Sequence[RowSample]) -> RowSample:
    """Return the sample of all rows together, exactly as if it had been taken at once; same columns in each."""
    hashes = np.concatenate([part.hashes for part in parts])
    found, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    counts = np.zeros(found.size, dtype=np.int64)
    np.add.at(counts, place, np.concatenate([part.counts for part in parts]))
    values = np.concatenate([part.values for part in parts], axis=1)
    is_exact = all(part.is_exact for part in parts) and found.size <= ROWS
    kept = slice(0, ROWS)
    return RowSample(
        sum(part.rows for part in parts), is_exact, found[kept], counts[kept], values[:, first[kept]].copy()
    )


def rank_correlation(first: Values, second: Values, counts: Counts) -> float | None:
    """Return Spearman's correlation of two columns, shape (k,), each row occurring `counts` times; None where one of
    them does not vary or fewer than three rows have both."""
    both = ~(np.isnan(first) | np.isnan(second))
    if int(both.sum()) < 3:
        return None
    weights = counts[both].astype(np.float64)
    a, b = _ranks(first[both], weights), _ranks(second[both], weights)
    a, b = a - np.average(a, weights=weights), b - np.average(b, weights=weights)
    bottom = math.sqrt(float(weights @ (a * a)) * float(weights @ (b * b)))
    return float(weights @ (a * b)) / bottom if bottom else None


def association(first: Values, second: Values, counts: Counts) -> float | None:
    """Return Cramér's V of two columns of categories, corrected for chance (Bergsma 2013, eq. 8).

    None where one of them does not vary. A missing value counts as a category.
    """
    _, rows = np.unique(first, return_inverse=True)
    _, columns = np.unique(second, return_inverse=True)
    height, width = int(rows.max(initial=0)) + 1, int(columns.max(initial=0)) + 1
    total = float(counts.sum())
    if height < 2 or width < 2 or total < 3:
        return None
    table = np.bincount(rows * width + columns, weights=counts, minlength=height * width).reshape(height, width)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    phi = float(((table - expected) ** 2 / expected).sum()) / total
    chance = (height - 1) * (width - 1) / (total - 1)
    short = min(height - (height - 1) ** 2 / (total - 1), width - (width - 1) ** 2 / (total - 1)) - 1
    return min(1.0, math.sqrt(max(phi - chance, 0.0) / short)) if short > 0 else None


def _ranks(values: Values, weights: Values) -> Values:
    """Return mid-ranks where each value stands for `weights` rows."""
    _, place = np.unique(values, return_inverse=True)
    mass = np.bincount(place, weights=weights)
    return np.asarray((np.cumsum(mass) - mass / 2)[place])
