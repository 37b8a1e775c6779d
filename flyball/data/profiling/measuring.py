"""Look at rows: a Polars column becomes its sketch, its values as numbers, and a hash for each row.

Vectorised throughout: passes over NumPy arrays that stay in cache where they can, and Polars for what is text. A column
of few distinct values is grouped, and all else told from one value a group and the counts. Texts are grouped by Polars'
own fast hash, which serves only to find equal rows; what is kept are stable hashes (`stats.hashing`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.data.profiling.columns import ColumnSketch, Kind, has_each_value
from flyball.data.profiling.grouping import are_few, grouped
from flyball.stats.distinct import Registers, registers_of, registers_of_spread
from flyball.stats.frequencies import names_of, names_of_rows
from flyball.stats.hashing import (
    NULL_HASH,
    Hashes,
    chain,
    chain_words,
    float_hashes,
    hashes_of,
    integer_hashes,
    spread,
    text_hashes,
)
from flyball.stats.sketches import Histogram, histogram_of_counts, histogram_of_floats, histogram_of_integers
from flyball.stats.sums import Sums, sums_of, sums_of_counts

__all__ = ["TIME_CELLS", "Measured", "kind_of", "measured"]

Floats = npt.NDArray[np.float64]

TIME_CELLS = 1 << 15  # an hourly series of three years has a cell for each hour, so that gaps are seen exactly
DENSE_RANGE = 1 << 16  # integers within such a range are counted one by one in a table
_MOST_HOURS = 1 << 20  # more than a century: hours within are counted one by one
_BLOCK = 1 << 16  # rows taken together, so that what is between stays in cache
_TEXT_ROWS = 1 << 16  # texts are joined this many at a time
_HOUR_US = 3_600_000_000
_FIRST_MONDAY_H = 72  # 1970-01-01 was a Thursday: hour 0 is hour 72 of its week


@dataclass(frozen=True)
class Measured:
    """One column of some rows.

    Attributes:
        sketch: what is kept.
        values: as float64 with NaN where missing, by the places of some rows; None where it has no such values.
    """

    sketch: ColumnSketch
    values: Callable[[npt.NDArray[np.intp]], Floats] | None


def kind_of(dtype: pl.DataType) -> Kind:
    """Return how a column of this type is profiled."""
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer() and dtype not in (pl.Int128, pl.UInt64):
        return "integer"
    if dtype.is_numeric() or dtype in (pl.Duration, pl.Time):
        return "number"
    if dtype in (pl.Datetime, pl.Date):
        return "time"
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else None
    if isinstance(inner, pl.DataType) and inner.is_numeric():
        return "vector"
    return "other"


def measured(series: pl.Series, rows: Hashes, space: Hashes) -> Measured:
    """Look at one column, and take the hashes of its values into those of the rows, shape (n,), in place.

    `space`, shape (n,), is worked in and holds nothing afterwards.

    Columns that hold neither numbers, texts, times nor vectors of numbers do not count when rows are compared.
    """
    kind = kind_of(series.dtype)
    nulls = series.null_count()
    known = series.drop_nulls() if nulls else series
    there = series.is_not_null().to_numpy() if nulls else None
    if kind == "text":
        return _texts(series, known, there, rows)
    if kind == "boolean":
        return _booleans(series, known, there, rows)
    if kind == "vector":
        return _vectors(series, known, there, rows)
    if kind == "other":
        sketch = ColumnSketch(kind, str(series.dtype), len(series), nulls)
        return Measured(sketch, None)
    if kind == "time":
        return _times(series, known, there, rows, space)
    if kind == "integer":
        return _integers(series, known, there, rows, space)
    return _numbers(series, known, there, rows, space)


def _numbers(
    series: pl.Series, known: pl.Series, there: npt.NDArray[np.bool_] | None, rows: Hashes, space: Hashes
) -> Measured:
    if known.dtype in (pl.Duration, pl.Time):
        known = known.to_physical().cast(pl.Float64) / _units_a_second(known.dtype)
    every = values = known.cast(pl.Float64).to_numpy()
    nans = infinities = 0
    ends = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (math.isfinite(ends[0]) and math.isfinite(ends[1])):
        nans, infinities = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        every = np.where(np.isnan(values), np.nan, values + 0.0)  # one kind of NaN, one zero
        values = every[np.isfinite(every)]
        ends = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    elif ends[0] <= 0.0 <= ends[1]:
        every = values = values + 0.0
    products = _spread(every.view(np.uint64), there, rows, space)
    finite = products.compress(np.isfinite(every)) if nans or infinities else products
    histogram, sums, registers = _distribution(values, finite, space, ends)
    zeros = int(values.size - np.count_nonzero(values)) if ends[0] <= 0.0 <= ends[1] else 0
    sketch = ColumnSketch(
        "number",
        str(series.dtype),
        len(series),
        len(series) - len(known),
        nans,
        infinities,
        zeros,
        is_whole=bool(values.size) and _is_whole(values),
        least=ends[0] if values.size else None,
        greatest=ends[1] if values.size else None,
        histogram=histogram,
        sums=sums,
        registers=None if histogram.is_exact else registers,
    )
    return Measured(sketch, _floats_at(every, there))


def _distribution(
    values: Floats, products: Hashes, space: Hashes, ends: tuple[float, float] | None
) -> tuple[Histogram, Sums, Registers]:
    """Return what is kept of the values of numbers, of which `products` (which may lie in `space`) tell equal ones."""
    groups = grouped(products, keep_slots=False) if are_few(products) else None
    if groups is not None:
        each = values[groups.examples]
        registers = registers_of(hashes_of(products[groups.examples]))
        return histogram_of_counts(each, groups.counts), sums_of_counts(each, groups.counts), registers
    registers = registers_of_spread(products)
    histogram = histogram_of_floats(values, ends=ends, space=space)
    if histogram.is_exact:
        return histogram, sums_of_counts(histogram.values, histogram.counts), registers
    return histogram, sums_of(values, max(ends[1], -ends[0]) if ends else None), registers


def _integers(
    series: pl.Series, known: pl.Series, there: npt.NDArray[np.bool_] | None, rows: Hashes, space: Hashes
) -> Measured:
    numbers = known.cast(pl.Int64).to_numpy()
    size = numbers.size
    least, greatest = (int(numbers.min()), int(numbers.max())) if size else (0, 0)
    registers = None
    if size and greatest - least < min(DENSE_RANGE, 8 * size):
        _spread(numbers.view(np.uint64), there, rows, None)
        table = np.bincount(np.subtract(numbers, least, out=space[:size].view(np.int64)))
        found = np.flatnonzero(table)
        histogram = histogram_of_counts((found + least).astype(np.float64), table[found])
        sums = sums_of_counts((found + least).astype(np.float64), table[found])
        if not has_each_value("integer", histogram, least, greatest):
            registers = registers_of(integer_hashes(found + least))
    else:
        products = _spread(numbers.view(np.uint64), there, rows, space)
        histogram, sums, registers = _distribution(numbers.astype(np.float64), products, space, None)
        if not size or has_each_value("integer", histogram, least, greatest):
            registers = None
    sketch = ColumnSketch(
        "integer",
        str(series.dtype),
        len(series),
        len(series) - len(known),
        zeros=int(size - np.count_nonzero(numbers)),
        is_whole=bool(size),
        least=least if size else None,
        greatest=greatest if size else None,
        histogram=histogram,
        sums=sums if size else Sums(),
        registers=registers,
    )
    return Measured(sketch, _floats_at(numbers, there))


def _times(
    series: pl.Series, known: pl.Series, there: npt.NDArray[np.bool_] | None, rows: Hashes, space: Hashes
) -> Measured:
    micros = known.cast(pl.Datetime("us")).to_physical().to_numpy()
    registers = registers_of_spread(_spread(micros.view(np.uint64), there, rows, space))
    histogram = histogram_of_integers(micros, TIME_CELLS)
    hours = micros // _HOUR_US
    week = np.zeros(168, dtype=np.int64)
    if micros.size:
        first = int(hours.min())
        if int(hours.max()) - first < _MOST_HOURS:
            by_hour = np.bincount(hours - first)
            np.add.at(week, (np.arange(by_hour.size) + first + _FIRST_MONDAY_H) % 168, by_hour)
        else:
            week += np.bincount((hours + _FIRST_MONDAY_H) % 168, minlength=168)
    sketch = ColumnSketch(
        "time",
        str(series.dtype),
        len(series),
        len(series) - len(known),
        least=int(micros.min()) if micros.size else None,
        greatest=int(micros.max()) if micros.size else None,
        histogram=histogram,
        registers=None if histogram.is_exact else registers,
        week=week,
    )
    return Measured(sketch, _floats_at(micros, there))


def _booleans(series: pl.Series, known: pl.Series, there: npt.NDArray[np.bool_] | None, rows: Hashes) -> Measured:
    values = known.to_numpy().astype(np.int64)
    sketch = ColumnSketch(
        "boolean", str(series.dtype), len(series), len(series) - len(known), zeros=int((values == 0).sum())
    )
    _spread(values.view(np.uint64), there, rows, None)
    return Measured(sketch, _floats_at(values, there))


def _texts(series: pl.Series, known: pl.Series, there: npt.NDArray[np.bool_] | None, rows: Hashes) -> Measured:
    if known.dtype != pl.String:
        known = known.cast(pl.String)
    groups = grouped(known.hash().to_numpy())
    if groups is None:
        sizes = known.str.len_chars().to_numpy().astype(np.int64)
        hashes = _text_hashes(known)
        names = names_of_rows(hashes, lambda at: known.gather(at).to_list())
        by_length, empty = _integer_histogram(sizes), int((sizes == 0).sum())
        _chain(rows, hashes, there)
        values = _floats_at(hashes.astype(np.uint32), there)  # enough to tell the rows of a sample apart
    else:
        texts = known.gather(groups.examples)
        each = _text_hashes(texts)
        names = names_of(each, groups.counts, lambda at: texts.gather(at).to_list())
        sizes = texts.str.len_chars().to_numpy().astype(np.int64)
        by_length, empty = histogram_of_counts(sizes, groups.counts), int(groups.counts[sizes == 0].sum())
        by_slot = groups.by_slot(each)
        _chain_taken(rows, by_slot, groups.slots, there)
        values = _floats_at(groups.slots, there, by_slot.astype(np.uint32))
    sketch = ColumnSketch(
        "text",
        str(series.dtype),
        len(series),
        len(series) - len(known),
        zeros=empty,
        names=names,
        lengths=by_length,
    )
    return Measured(sketch, values)


def _vectors(series: pl.Series, known: pl.Series, there: npt.NDArray[np.bool_] | None, rows: Hashes) -> Measured:
    if isinstance(known.dtype, pl.Array):
        known = known.arr.to_list()
    sizes = known.list.len().to_numpy().astype(np.int64)
    flat = known.filter(pl.Series(sizes > 0)).explode().cast(pl.Float64).fill_null(float("nan")).to_numpy()
    norms = np.zeros(sizes.size)
    if flat.size:
        starts = (np.cumsum(sizes) - sizes)[sizes > 0]
        with np.errstate(over="ignore"):
            norms[sizes > 0] = np.sqrt(np.add.reduceat(flat * flat, starts))
            norms = norms.astype(np.float32).astype(np.float64)  # so that the order of adding does not show
    finite = np.isfinite(norms)
    sketch = ColumnSketch(
        "vector",
        str(series.dtype),
        len(series),
        len(series) - len(known),
        nans=int(np.isnan(norms).sum()),
        infinities=int(np.isinf(norms).sum()),
        zeros=int((norms == 0.0).sum()),
        least=float(norms[finite].min()) if finite.any() else None,
        greatest=float(norms[finite].max()) if finite.any() else None,
        histogram=histogram_of_floats(norms[finite]),
        lengths=_integer_histogram(sizes),
    )
    hashes = float_hashes(np.where(np.isnan(norms), np.nan, norms)) ^ integer_hashes(sizes)
    _chain(rows, hashes, there)
    return Measured(sketch, None)


def _text_hashes(texts: pl.Series) -> Hashes:
    found = []
    for start in range(0, max(len(texts), 1), _TEXT_ROWS):
        part = texts.slice(start, _TEXT_ROWS)
        joined = part.str.join("").item() if len(part) else ""
        found.append(text_hashes((joined or "").encode(), part.str.len_bytes().to_numpy()))
    return np.concatenate(found)


def _integer_histogram(values: npt.NDArray[np.int64]) -> Histogram:
    if values.size and int(values.max()) < DENSE_RANGE:
        table = np.bincount(values)
        found = np.flatnonzero(table)
        return histogram_of_counts(found, table[found])
    return histogram_of_floats(values.astype(np.float64))


def _spread(words: Hashes, there: npt.NDArray[np.bool_] | None, rows: Hashes, space: Hashes | None) -> Hashes:
    """Chain the words of values into the hashes of their rows; return them spread, where there is `space` for it."""
    if there is None and space is not None:
        return spread(words, space, rows)
    if there is None:
        chain_words(rows, words)
        return words
    every = np.full(there.size, NULL_HASH, dtype=np.uint64)
    every[there] = words
    chain_words(rows, every)
    return words if space is None else spread(words, space)


def _chain(rows: Hashes, hashes: Hashes, there: npt.NDArray[np.bool_] | None) -> None:
    if there is not None:
        every = np.full(there.size, NULL_HASH, dtype=np.uint64)
        every[there] = hashes
        hashes = every
    chain(rows, hashes)


def _chain_taken(
    rows: Hashes, table: Hashes, index: npt.NDArray[np.integer], there: npt.NDArray[np.bool_] | None
) -> None:
    """Chain table[index], block by block: without nulls there is no need to write all of it out."""
    if there is not None:
        _chain(rows, table.take(index), there)
        return
    for start in range(0, index.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        chain(rows[block], table.take(index[block]))


def _floats_at(
    values: npt.NDArray[np.generic],
    there: npt.NDArray[np.bool_] | None,
    table: npt.NDArray[np.generic] | None = None,
) -> Callable[[npt.NDArray[np.intp]], Floats]:
    """Return a function that gives, for places of rows, their values (those of `table` at them, where there is one)."""

    def shown(at: npt.NDArray[np.intp]) -> Floats:
        found = values[at] if table is None else table[values[at]]
        return np.asarray(found, dtype=np.float64)

    if there is None:
        return shown
    place = np.cumsum(there) - 1

    def found(at: npt.NDArray[np.intp]) -> Floats:
        out = np.full(at.size, np.nan)
        has = there[at]
        out[has] = shown(place[at[has]])
        return out

    return found


def _is_whole(values: Floats) -> bool:
    """Return whether all are whole numbers; the first thousand answer for most columns that are not."""
    return all(bool((part == np.floor(part)).all()) for part in (values[:1000], values[1000:]))


def _units_a_second(dtype: pl.DataType) -> float:
    unit = getattr(dtype, "time_unit", "ns") or "ns"
    return {"ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
