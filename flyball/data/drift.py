"""Drift of two tables, column by column: exactly from their rows, or from their profiles without a row.

`exact` reads one column of each side at a time and sorts it, so that memory is that of a few columns, whatever the
table's width. `profile` reads nothing where profiles are given, and streams once over what is not a profile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flyball.data.profiles import TableProfile, distances_of, profile_frame
from flyball.errors import InvalidInput, NotFound, did_you_mean, listed
from flyball.stats.exact import Distances, of_counts, of_numbers

if TYPE_CHECKING:
    import polars as pl

    Side = pl.LazyFrame | pl.DataFrame | TableProfile

__all__ = ["ColumnDrift", "drift"]

_MOST_AT_ONCE = 4  # columns in memory


@dataclass(frozen=True)
class ColumnDrift:
    """How far a column of the current rows is from the reference.

    Attributes:
        column: its name.
        distances: see `stats.exact`; None where there is nothing to compare (no value on a side, another type).
        nulls: share of rows without a value (NaN and infinities among them), of the reference and now.
        why: what cannot be compared, in words.
    """

    column: str
    distances: Distances | None
    nulls: tuple[float, float]
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON values."""
        found = self.distances.to_dict() if self.distances is not None else {}
        return {"column": self.column, **found, "nulls": list(self.nulls), "why": self.why}


def drift(
    reference: Side,
    current: Side,
    columns: Sequence[str] | None = None,
    *,
    method: Literal["exact", "profile"] = "exact",
) -> list[ColumnDrift]:
    """Compare the columns of two tables.

    Args:
        reference, current: rows, lazy or not, or (method `profile`) profiles.
        columns: which; all that both have by default.
        method: `exact`, or `profile`: within what `stats.sketch_distances` says.

    Raises:
        NotFound: a column is not on both sides.
        InvalidInput: no column is on both sides, the method is unknown, or a profile is to be compared exactly.
    """
    if method not in ("exact", "profile"):
        raise InvalidInput(f'method is "{method}"; expected exact or profile')
    known = [_names(side) for side in (reference, current)]
    chosen = [name for name in known[0] if name in known[1]] if columns is None else list(columns)
    for name in chosen:
        for side, names in zip(("reference has", "current rows have"), known, strict=True):
            if name not in names:
                raise NotFound(f'the {side} no column "{name}"{did_you_mean(name, names)} (known: {listed(names)})')
    if not chosen:
        raise InvalidInput(
            f"the two tables have no column in common: one has {listed(known[0])}, the other {listed(known[1])}"
        )
    if method == "profile":
        sides = [_profile(side, chosen) for side in (reference, current)]
        return [_from_profiles(name, *sides) for name in chosen]
    if isinstance(reference, TableProfile) or isinstance(current, TableProfile):
        raise InvalidInput("a profile holds no rows to compare exactly; give the rows, or method='profile'")
    frames = reference.lazy(), current.lazy()
    with ThreadPoolExecutor(min(_MOST_AT_ONCE, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda name: _exactly(name, *frames), chosen))


def _exactly(name: str, reference: pl.LazyFrame, current: pl.LazyFrame) -> ColumnDrift:
    import polars as pl

    from flyball.data.profiling.measuring import kind_of

    sides = [frame.select(name).collect(engine="streaming")[name] for frame in (reference, current)]
    kinds = [kind_of(side.dtype) for side in sides]
    are_numbers = [kind in ("number", "integer", "time") for kind in kinds]
    if are_numbers[0] != are_numbers[1] or (not are_numbers[0] and kinds[0] != kinds[1]):
        return ColumnDrift(name, None, _null_shares(sides), f"{name} was {sides[0].dtype} and is {sides[1].dtype}")
    if kinds[0] in ("vector", "other"):
        return ColumnDrift(name, None, _null_shares(sides), f"{name} is {sides[0].dtype}, which has no order")
    if not are_numbers[0]:
        known = [side.drop_nulls().cast(pl.String) for side in sides]
        counts = [side.to_frame(name).lazy().group_by(name).len(f"n{i}") for i, side in enumerate(known)]
        both = counts[0].join(counts[1], on=name, how="full").select(pl.col("n0", "n1").fill_null(0)).collect()
        nulls = _null_shares(sides)
        if not (len(known[0]) and len(known[1])):
            return ColumnDrift(name, None, nulls, f"{name} has no value on one side")
        pair = [both[f"n{i}"].cast(pl.Int64).to_numpy() for i in range(2)]
        return ColumnDrift(name, of_counts(*pair), nulls)
    rows = [len(side) for side in sides]
    values = [_sorted(side) for side in sides]
    nulls_of = [1 - v.size / n if n else 0.0 for v, n in zip(values, rows, strict=True)]
    if not (values[0].size and values[1].size):
        return ColumnDrift(name, None, (nulls_of[0], nulls_of[1]), f"{name} has no value on one side")
    return ColumnDrift(name, of_numbers(*values), (nulls_of[0], nulls_of[1]))


def _sorted(series: pl.Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the finite numbers ascending; times as microseconds."""
    import polars as pl

    if series.dtype in (pl.Datetime, pl.Date):
        series = series.cast(pl.Datetime("us")).to_physical()
    elif series.dtype in (pl.Duration, pl.Time):
        series = series.to_physical()
    values = series.drop_nulls().cast(pl.Float64).sort().to_numpy()
    if values.size and not (np.isfinite(values[0]) and np.isfinite(values[-1])):  # NaN comes last
        values = values[np.isfinite(values)]
    return values


def _from_profiles(name: str, reference: TableProfile, current: TableProfile) -> ColumnDrift:
    first, second = reference.sketch.columns[name], current.sketch.columns[name]
    shares = [(s.nulls + s.nans + s.infinities) / s.rows if s.rows else 0.0 for s in (first, second)]
    found = distances_of(first, second)
    why = ""
    if found is None:
        same = first.dtype == second.dtype
        why = f"{name} has nothing to compare" if same else f"{name} was {first.dtype} and is {second.dtype}"
    return ColumnDrift(name, found, (shares[0], shares[1]), why)


def _profile(side: Side, columns: Sequence[str]) -> TableProfile:
    return side if isinstance(side, TableProfile) else profile_frame(side.lazy().select(columns))


def _names(side: Side) -> list[str]:
    return list(side.sketch.columns) if isinstance(side, TableProfile) else side.lazy().collect_schema().names()


def _null_shares(sides: Sequence[pl.Series]) -> tuple[float, float]:
    first, second = (side.null_count() / len(side) if len(side) else 0.0 for side in sides)
    return first, second
