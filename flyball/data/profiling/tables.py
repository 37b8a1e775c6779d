"""What is kept of a table: a sketch of each column, a sample of its rows, and the products of its numeric columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from flyball.data.profiling.columns import ColumnSketch
from flyball.data.profiling.columns import merged as merged_columns
from flyball.data.profiling.measuring import Measured, measured
from flyball.errors import InvalidInput, listed
from flyball.stats import comoments, row_samples
from flyball.stats.comoments import CoMoments, comoments_of
from flyball.stats.hashing import mixed
from flyball.stats.row_samples import RowSample, lowest

__all__ = ["FEW_ROWS", "MOST_CORRELATED", "ONE_IN", "TableSketch", "merged", "sketch_of"]

MOST_CORRELATED = 64  # numeric columns, the first in the table's order
FEW_ROWS = 1 << 15  # up to here all rows are multiplied, beyond it one in `ONE_IN`, chosen by its hash
ONE_IN = 32
_CHOSEN = np.uint64((1 << 64) // ONE_IN)


@dataclass(frozen=True)
class TableSketch:
    """A table.

    Attributes:
        rows: how many.
        columns: by name, in the table's order.
        sample: its rows; None without a column by which rows can be compared.
        sampled: the columns whose values the sample has, in its order.
        correlated: the columns that are multiplied, in order.
        all_products: of all rows; None when there are more than `FEW_ROWS`.
        some_products: of one row in `ONE_IN`; None where fewer than two columns are numbers.
    """

    rows: int
    columns: Mapping[str, ColumnSketch]
    sample: RowSample | None
    sampled: tuple[str, ...]
    correlated: tuple[str, ...]
    all_products: CoMoments | None
    some_products: CoMoments | None


def sketch_of(frame: pl.DataFrame) -> TableSketch:
    """Look at all rows of a frame."""
    hashes = np.zeros(frame.height, dtype=np.uint64)
    space = np.empty(frame.height, dtype=np.uint64)
    found = {name: measured(frame[name].rechunk(), hashes, space) for name in frame.columns}
    columns = {name: column.sketch for name, column in found.items()}
    correlated = tuple(n for n, c in columns.items() if c.kind in ("number", "integer"))[:MOST_CORRELATED]
    sampled = tuple(name for name, column in found.items() if column.values is not None)
    sample = all_products = some_products = None
    if any(c.kind != "other" for c in columns.values()):
        hashes = mixed(hashes, hashes)
        chosen = np.flatnonzero(hashes < _CHOSEN)
        at, kept, counts, is_exact = lowest(hashes, chosen, int(_CHOSEN))
        values = np.stack([_values(found[name], at) for name in sampled]) if sampled else np.empty((0, at.size))
        with np.errstate(over="ignore"):  # beyond float32 is infinite: its rank is what counts
            values = values.astype(np.float32).astype(np.float64)
        sample = RowSample(frame.height, is_exact, kept, counts, values)
        if len(correlated) > 1:
            some_products = comoments_of([_values(found[name], chosen) for name in correlated])
            if frame.height <= FEW_ROWS:
                every = np.arange(frame.height)
                all_products = comoments_of([_values(found[name], every) for name in correlated])
    return TableSketch(frame.height, columns, sample, sampled, correlated, all_products, some_products)


def merged(parts: Sequence[TableSketch]) -> TableSketch:
    """Return the sketch of all rows together, exactly as if they had been looked at at once.

    Raises:
        InvalidInput: there is no part, or their columns differ.
    """
    if not parts:
        raise InvalidInput("there is no profile to merge; expected at least one")
    first, rows = parts[0], sum(part.rows for part in parts)
    for part in parts[1:]:
        if list(part.columns) != list(first.columns):
            raise InvalidInput(
                f"profiles of different columns cannot be merged: {listed(first.columns)} and {listed(part.columns)}"
            )
    columns = {name: merged_columns(name, [part.columns[name] for part in parts]) for name in first.columns}
    samples = [part.sample for part in parts if part.sample is not None]
    some = [part.some_products for part in parts if part.some_products is not None]
    every = [part.all_products for part in parts if part.all_products is not None]
    return TableSketch(
        rows,
        columns,
        row_samples.merged(samples) if samples else None,
        first.sampled,
        first.correlated,
        comoments.merged(every) if every and rows <= FEW_ROWS else None,
        comoments.merged(some) if some else None,
    )


def _values(
    column: Measured, at: np.ndarray[tuple[int], np.dtype[np.intp]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    assert column.values is not None
    return column.values(at)
