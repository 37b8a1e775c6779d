"""How far the values of two tables are apart, column by column, from a sample of their rows.

What `diffs` falls back on where no summaries are kept: up to 100,000 rows of each side, evenly spaced, counted into the
bins of the first (`stats.profiles`) and compared by the Jensen–Shannon distance (`stats.drift`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flyball.stats.drift import distance
from flyball.stats.profiles import bins_of, profile

if TYPE_CHECKING:
    import polars as pl

__all__ = ["sampled_distances"]

_SAMPLE_ROWS = 100_000


def sampled_distances(
    before: pl.LazyFrame, rows_before: int, after: pl.LazyFrame, rows_after: int, columns: Sequence[str]
) -> dict[str, float]:
    """Return the distance of each column that can be counted (numbers, times, truth values, texts), from 0 to 1.

    Columns that are of one sort on one side and of another on the other have none, nor has any when a side is empty.
    """
    if not rows_before or not rows_after:
        return {}
    old, new = before.collect_schema(), after.collect_schema()
    names = [name for name in columns if _sort(old[name]) is not None and _sort(old[name]) == _sort(new[name])]
    left, right = _sampled(before.select(names), rows_before), _sampled(after.select(names), rows_after)
    found = {}
    for name in names:
        first, second = _values(left[name]), _values(right[name])
        bins = bins_of(first)
        found[name] = distance("js", profile(first, bins).counts, profile(second, bins).counts, bins)
    return found


def _sampled(frame: pl.LazyFrame, rows: int) -> pl.DataFrame:
    return frame.gather_every(max(1, -(-rows // _SAMPLE_ROWS))).collect(engine="streaming")


def _sort(dtype: pl.DataType) -> str | None:
    import polars as pl

    if dtype.is_numeric() or isinstance(dtype, pl.Boolean):
        return "number"
    if dtype.is_temporal():
        return "time"
    return "text" if isinstance(dtype, pl.String | pl.Categorical | pl.Enum) else None


def _values(column: pl.Series) -> Any:
    """Return a NumPy array: float64 with NaN for null, or objects."""
    import polars as pl

    if _sort(column.dtype) == "text":
        return column.cast(pl.String).to_numpy()
    return column.to_physical().cast(pl.Float64).to_numpy()
