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
from flyball.data.profiling.numbers import DENSE_RANGE, floats_of, integers_of, times_of
from flyball.data.profiling.texts import hashes_of_texts, texts_of
from flyball.stats.hashing import (
    NULL_HASH,
    Hashes,
    chain,
    chain_words,
    float_hashes,
    integer_hashes,
    spread,
)
from flyball.stats.sketches import Histogram, histogram_of_counts, histogram_of_floats
from flyball.stats.sums import Sums

__all__ = ["Measured", "kind_of", "measured"]

Floats = npt.NDArray[np.float64]

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
    zeros = int(values.size - np.count_nonzero(values)) if ends[0] <= 0.0 <= ends[1] else 0
    if zeros and not (nans or infinities):
        every = values = values + 0.0
    chained = rows if there is None and every is values else None
    if chained is None:
        _spread(every.view(np.uint64), there, rows, None)
    found = floats_of(values, ends, zeros, chained, space) if values.size else None
    sketch = ColumnSketch(
        "number",
        str(series.dtype),
        len(series),
        len(series) - len(known),
        nans,
        infinities,
        zeros,
        is_whole=found is not None and (found.is_whole or _is_whole(values)),
        least=ends[0] if values.size else None,
        greatest=ends[1] if values.size else None,
        histogram=found.histogram if found else histogram_of_floats(values),
        sums=found.sums if found else Sums(),
        registers=None if found is None or found.histogram.is_exact else found.registers,
    )
    return Measured(sketch, _floats_at(every, there))


def _integers(
    series: pl.Series, known: pl.Series, there: npt.NDArray[np.bool_] | None, rows: Hashes, space: Hashes
) -> Measured:
    numbers = known.cast(pl.Int64).to_numpy()
    least, greatest = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
    if there is not None:
        _spread(numbers.view(np.uint64), there, rows, None)
    found, zeros = None, 0
    if numbers.size:
        found, zeros = integers_of(numbers, (least, greatest), rows if there is None else None, space)
    is_counted = found is None or has_each_value("integer", found.histogram, least, greatest)
    sketch = ColumnSketch(
        "integer",
        str(series.dtype),
        len(series),
        len(series) - len(known),
        zeros=zeros,
        is_whole=bool(numbers.size),
        least=least if numbers.size else None,
        greatest=greatest if numbers.size else None,
        histogram=found.histogram if found else histogram_of_floats(np.empty(0)),
        sums=found.sums if found else Sums(),
        registers=None if is_counted or found is None else found.registers,
    )
    return Measured(sketch, _floats_at(numbers, there))


def _times(
    series: pl.Series, known: pl.Series, there: npt.NDArray[np.bool_] | None, rows: Hashes, space: Hashes
) -> Measured:
    micros = known.cast(pl.Datetime("us")).to_physical().to_numpy()
    if there is not None:
        _spread(micros.view(np.uint64), there, rows, None)
    least, greatest = (int(micros.min()), int(micros.max())) if micros.size else (0, 0)
    histogram, registers = times_of(micros, (least, greatest), rows if there is None else None, space)
    week = np.zeros(168, dtype=np.int64)
    if micros.size:
        hours, counts = _by_hour(micros, least // _HOUR_US, greatest // _HOUR_US, space)
        np.add.at(week, (hours + _FIRST_MONDAY_H) % 168, counts)
    sketch = ColumnSketch(
        "time",
        str(series.dtype),
        len(series),
        len(series) - len(known),
        least=least if micros.size else None,
        greatest=greatest if micros.size else None,
        histogram=histogram,
        registers=registers,
        week=week,
    )
    return Measured(sketch, _floats_at(micros, there))


def _by_hour(
    micros: npt.NDArray[np.int64], first: int, last: int, space: Hashes
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return hours since 1970 and how many times are in each."""
    if last - first >= _MOST_HOURS:
        return np.unique(micros // _HOUR_US, return_counts=True)
    if bool((micros[1:] >= micros[:-1]).all()):  # as most tables of events are
        edges = np.arange(first, last + 2) * _HOUR_US
        return np.arange(first, last + 1), np.diff(np.searchsorted(micros, edges))
    hours = np.floor_divide(micros, _HOUR_US, out=space[: micros.size].view(np.int64))
    found = np.bincount(np.subtract(hours, first, out=hours))
    return np.arange(found.size) + first, found


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
    taken: list[Hashes] = []

    def take(start: int, hashes: Hashes) -> None:
        if there is None:
            chain(rows[start : start + hashes.size], hashes)
        else:
            taken.append(hashes)

    found = texts_of(known, take)
    if there is not None:
        _chain(rows, np.concatenate(taken) if taken else np.empty(0, dtype=np.uint64), there)
    if found.counts is None:
        by_length, empty = _integer_histogram(found.sizes), int((found.sizes == 0).sum())
    else:
        by_length = histogram_of_counts(found.sizes, found.counts)
        empty = int(found.counts[found.sizes == 0].sum())
    sketch = ColumnSketch(
        "text",
        str(series.dtype),
        len(series),
        len(series) - len(known),
        zeros=empty,
        names=found.names,
        lengths=by_length,
    )

    def told_apart(at: npt.NDArray[np.intp]) -> Floats:
        return hashes_of_texts(known.gather(at)).astype(np.uint32).astype(np.float64)

    return Measured(sketch, _at_rows(told_apart, there))


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


def _floats_at(
    values: npt.NDArray[np.generic], there: npt.NDArray[np.bool_] | None
) -> Callable[[npt.NDArray[np.intp]], Floats]:
    """Return a function that gives, for places of rows, their values."""
    return _at_rows(lambda at: values.take(at).astype(np.float64, copy=False), there)


def _at_rows(
    shown: Callable[[npt.NDArray[np.intp]], Floats], there: npt.NDArray[np.bool_] | None
) -> Callable[[npt.NDArray[np.intp]], Floats]:
    """Return `shown`, which takes places among the values that are there, for places of rows; NaN where missing."""
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
