"""Profiles of tables: what the rows of a version look like, known without reading them again.

A profile is made of each part of a table while it is written (`PROFILER` is the `Summariser` of `storage.tables`), and
the profile of a version is the merge of those of its parts: split anyhow, in any order, the same bytes. Pages show it
(`TableProfile.to_dict`), two of them stand side by side (`compare`), and monitors count live traffic into the bins that
it gives (`reference_of`), so that a reference is never read again.

    profile = profile_frame(pl.scan_parquet("flights/*.parquet"))
    profile.columns["dep_delay"].mean

Exact: rows, nulls, zeros, least and greatest, counts of values where there are few, hours of the week. Quantiles and
bars are exact with up to 2,048 distinct numbers and otherwise told within a cell (`stats.sketches`), the mean to 2^-39
of the largest value (`stats.sums`), distinct values beyond the kept ones to 1.6 % (`stats.distinct`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flyball.data.profiling import packing, tables
from flyball.data.profiling.comparison import ColumnComparison, compare, distances_of
from flyball.data.profiling.table_profile import TableProfile
from flyball.data.profiling.tables import TableSketch
from flyball.errors import InvalidInput, NotFound, did_you_mean, listed
from flyball.stats.profiles import Profile
from flyball.stats.sketch_distances import bins_of_sketch, profile_of_sketch
from flyball.stats.sketches import histogram_of_counts

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "PROFILER",
    "ColumnComparison",
    "TableProfile",
    "compare",
    "distances_of",
    "duplicate_rows",
    "profile_frame",
    "reference_of",
]

_BATCH_ROWS = 250_000  # of a lazy frame, looked at together: a few hundred megabytes at a hundred columns
_MOST_VALUES, _LEAST_ROWS = 1 << 25, 1 << 16  # of a frame, looked at together
_MERGED_AT_ONCE = 16


class Profiler:
    """Makes profiles while tables are written: a `storage.tables.Summariser`."""

    def of(self, frame: pl.DataFrame) -> bytes:
        """Return the profile of some rows, of as many as a part of a table has."""
        return packing.packed(_merged(map(tables.sketch_of, _slices(frame))))

    def merged(self, summaries: Sequence[bytes]) -> bytes:
        """Return the profile of the rows of all: byte for byte that of the rows looked at at once.

        Raises:
            InvalidInput: there is none, or they are of different columns.
            Corrupt, Incompatible: one cannot be read.
        """
        if len(summaries) == 1:
            return summaries[0]
        return packing.packed(_merged(packing.unpacked(part) for part in summaries))


PROFILER = Profiler()


def profile_frame(frame: pl.LazyFrame | pl.DataFrame) -> TableProfile:
    """Profile rows that are not published, in bounded memory.

    Raises:
        InvalidInput: there is no column.
    """
    import polars as pl

    if not isinstance(frame, pl.LazyFrame):
        batches: Iterable[pl.DataFrame] = frame.iter_slices(_BATCH_ROWS) if frame.height else [frame]
        empty = frame.clear()
    else:
        empty = pl.DataFrame(schema=frame.collect_schema())
        batches = frame.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=False)
    if not empty.width:
        raise InvalidInput("there is nothing to profile: the data has no columns")
    return TableProfile(_merged(_sketches(empty, batches)))


def duplicate_rows(frame: pl.LazyFrame | pl.DataFrame) -> int:
    """Return exactly how many rows repeat an earlier one, by reading them: for when a profile's bound is not enough.

    Memory is 16 bytes or so for each distinct row. Two rows of one 64-bit hash would be taken for one.
    """
    import polars as pl

    rows = frame.lazy().select(row=pl.struct(pl.all()).hash())
    counted = rows.select(rows=pl.len(), distinct=pl.col("row").n_unique()).collect(engine="streaming")
    return int(counted["rows"][0]) - int(counted["distinct"][0])


def reference_of(profile: TableProfile, column: str) -> Profile:
    """Return the reference that a monitor compares live values of a column with, in bins of its own.

    It holds what `stats.profiles.bins_of` and `profile` find in the rows: live windows are counted with
    `profile(values, reference.bins)` and compared with `stats.drift.statistic`.

    Raises:
        NotFound: there is no such column.
        InvalidInput: its kind has no bins (vectors, structs).
    """
    sketch = profile.sketch.columns.get(column)
    if sketch is None:
        known = profile.sketch.columns
        raise NotFound(f'the profile has no column "{column}"{did_you_mean(column, known)} (it has: {listed(known)})')
    if sketch.kind == "boolean":
        counts = np.array([sketch.zeros, sketch.rows - sketch.nulls - sketch.zeros])
        seen = counts > 0
        histogram = histogram_of_counts(np.array([0.0, 1.0])[seen], counts[seen])
        return profile_of_sketch(histogram, bins_of_sketch(histogram), nulls=sketch.nulls)
    if sketch.names is not None:
        return profile_of_sketch(sketch.names, bins_of_sketch(sketch.names), nulls=sketch.nulls)
    if sketch.histogram is None or sketch.kind not in ("number", "integer"):
        raise InvalidInput(f'column "{column}" is {sketch.dtype}; monitors compare numbers, texts and booleans')
    shown = profile.columns[column]
    ends = None if sketch.least is None or sketch.greatest is None else (float(sketch.least), float(sketch.greatest))
    return profile_of_sketch(
        sketch.histogram,
        bins_of_sketch(sketch.histogram),
        nulls=sketch.nulls + sketch.nans,
        mean=shown.mean,
        deviation=shown.deviation,
        ends=ends,
    )


def _sketches(empty: pl.DataFrame, batches: Iterable[pl.DataFrame]) -> Iterable[TableSketch]:
    yield tables.sketch_of(empty)
    for batch in batches:
        yield from map(tables.sketch_of, _slices(batch))


def _slices(frame: pl.DataFrame) -> Iterable[pl.DataFrame]:
    """Cut rows so that what is between takes a few hundred megabytes, at whatever width; one slice without rows."""
    rows = max(_MOST_VALUES // max(frame.width, 1), _LEAST_ROWS)
    return frame.iter_slices(rows) if frame.height > rows else [frame]


def _merged(parts: Iterable[TableSketch]) -> TableSketch:
    """Merge a few at a time, so that not all need to be held."""
    waiting: list[TableSketch] = []
    for part in parts:
        waiting.append(part)
        if len(waiting) == _MERGED_AT_ONCE:
            waiting = [tables.merged(waiting)]
    return tables.merged(waiting)
