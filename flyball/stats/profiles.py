"""Column profiles: what a column looked like, in a few hundred bytes, mergeable.

A profile counts the values of a column in bins that are fixed once, by the reference (`bins_of`). Whoever sees rows
(the data set at publication, the prediction log, a monitor's window) counts into the same bins; profiles of parts are
added by `merge`, so that a split of the rows, anyhow, gives the same counts. Drift tests (`drift`) and their thresholds
(`calibration`) read counts only and never the rows again.

Layout of `Profile.counts` (int64):
    numeric      [below the first edge, between edges …, from the last edge up, nulls]      len(edges) + 2 entries
    categorical  [one per known name …, any other name, nulls]                              len(names) + 2 entries
NaN counts as null; infinities fall in the outer bins.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.errors import Corrupt, InvalidInput

__all__ = ["Bins", "Column", "Profile", "bins_of", "merge", "profile"]

Column = npt.NDArray[Any] | Sequence[Any]

MOST_NUMERIC_BINS = (
    20  # a quantile bin then holds 5 %: fine enough to see a mirrored column, few enough for small windows
)
MOST_NAMES = 60  # commoner names each have a bin; the rest share "any other"


@dataclass(frozen=True)
class Bins:
    """Fixed bins of one column: ascending `edges` (numeric) or `names` by falling frequency (categorical)."""

    edges: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def is_numeric(self) -> bool:
        return bool(self.edges)

    @property
    def size(self) -> int:
        """Number of counts, the bins of outliers and nulls included."""
        return len(self.edges or self.names) + 2


@dataclass(frozen=True)
class Profile:
    """Counts per bin, and the moments of a numeric column's finite values (`total`, `squares` are about zero)."""

    bins: Bins
    counts: npt.NDArray[np.int64]
    finite: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    @property
    def nulls(self) -> int:
        return int(self.counts[-1])

    @property
    def mean(self) -> float | None:
        """Mean of the finite values; None when there is none."""
        return self.total / self.finite if self.finite else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation (dividing by n) of the finite values; None when there is none."""
        if not self.finite:
            return None
        return math.sqrt(max(self.squares / self.finite - (self.total / self.finite) ** 2, 0.0))

    def to_json(self) -> dict[str, Any]:
        """Return a value that JSON can hold; `from_json` gives back an equal profile."""
        known: dict[str, Any] = {"counts": self.counts.tolist()}
        if not self.bins.is_numeric:
            return known | {"names": list(self.bins.names)}
        moments = [self.finite, self.total, self.squares]
        ends = [self.least, self.greatest] if self.finite else []
        return known | {"edges": list(self.bins.edges), "moments": moments + ends}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Profile:
        """Read what `to_json` wrote.

        Raises:
            Corrupt: a part is missing or the counts do not fit the bins.
        """
        try:
            bins = Bins(tuple(float(e) for e in value.get("edges", ())), tuple(str(n) for n in value.get("names", ())))
            counts = np.asarray(value["counts"], dtype=np.int64)
            finite, total, squares, *ends = value.get("moments", (0, 0.0, 0.0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Corrupt(f"this is not a stored profile ({error!r}); expected counts with edges or names") from error
        if counts.shape != (bins.size,) or bool((counts < 0).any()):
            raise Corrupt(f"a stored profile has {counts.size} counts for {bins.size} bins; profile the column again")
        least, greatest = ends or (math.inf, -math.inf)
        return cls(bins, counts, int(finite), float(total), float(squares), float(least), float(greatest))


def bins_of(column: Column) -> Bins:
    """Choose the bins of a reference column, shape (rows,): numbers and booleans numeric, all else by name.

    A number of few distinct values (an hour, a weekday) gets a bin for each value; others get quantile bins.

    Raises:
        InvalidInput: the column is empty or not one-dimensional.
    """
    values = _as_array(column)
    if values.size == 0:
        raise InvalidInput("a reference column has no rows; at least one row is needed to choose bins")
    if values.dtype == object:
        counted = Counter(_names(values))
        common = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MOST_NAMES]
        return Bins(names=tuple(name for name, _ in common))
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Bins()  # nothing but nulls: whatever comes later is "any other", be it number or name
    distinct = np.unique(finite)
    if distinct.size <= MOST_NUMERIC_BINS + 10:
        inner = (distinct[:-1] + distinct[1:]) / 2
    else:
        inner = np.quantile(finite, np.arange(1, MOST_NUMERIC_BINS) / MOST_NUMERIC_BINS, method="higher")
    beyond = np.nextafter(distinct[-1], math.inf)
    return Bins(edges=tuple(np.unique(np.concatenate([distinct[:1], inner, [beyond]])).tolist()))


def profile(column: Column, bins: Bins) -> Profile:
    """Count a column, shape (rows,), into `bins`; an empty column gives a profile of zero rows.

    Raises:
        InvalidInput: the bins are numeric and the column is not.
    """
    values = _as_array(column)
    if not bins.is_numeric:
        return Profile(bins, _count_names(values, bins))
    if values.dtype == object:
        raise InvalidInput("a column was numeric in the reference and holds text now; expected numbers or nulls")
    known = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(bins.edges, known, side="right"), minlength=bins.size)
    counts[-1] = values.size - known.size
    finite = known[np.isfinite(known)]
    if finite.size == 0:
        return Profile(bins, counts)
    return Profile(
        bins,
        counts,
        int(finite.size),
        float(finite.sum()),
        float(np.dot(finite, finite)),
        float(finite.min()),
        float(finite.max()),
    )


def merge(profiles: Iterable[Profile]) -> Profile:
    """Return the profile of all rows together. Counts are exact; moments agree to rounding.

    Raises:
        InvalidInput: there is no profile, or two were counted in different bins.
    """
    parts = list(profiles)
    if not parts:
        raise InvalidInput("there is no profile to merge; expected at least one")
    bins = parts[0].bins
    if any(part.bins != bins for part in parts):
        raise InvalidInput("profiles counted in different bins cannot be merged; count both in the reference's bins")
    return Profile(
        bins,
        np.sum([part.counts for part in parts], axis=0, dtype=np.int64),
        sum(part.finite for part in parts),
        math.fsum(part.total for part in parts),
        math.fsum(part.squares for part in parts),
        min(part.least for part in parts),
        max(part.greatest for part in parts),
    )


def _as_array(column: Column) -> npt.NDArray[Any]:
    """Return float64 for numbers and booleans (None as NaN), object for all else."""
    values = np.asarray(column)
    if values.ndim != 1:
        raise InvalidInput(f"a column has shape {values.shape}; expected one dimension")
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    values = values.astype(object)
    if all(v is None or isinstance(v, int | float | np.number) for v in values):
        return np.array([math.nan if v is None else float(v) for v in values])
    return values


def _names(values: npt.NDArray[Any]) -> list[str]:
    return [str(v) for v in values.tolist() if not _is_null(v)]


def _count_names(values: npt.NDArray[Any], bins: Bins) -> npt.NDArray[np.int64]:
    place = {name: i for i, name in enumerate(bins.names)}
    other = len(bins.names)
    counts = np.zeros(bins.size, dtype=np.int64)
    for value, times in Counter(values.tolist()).items():
        counts[-1 if _is_null(value) else place.get(str(value), other)] += times
    return counts


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
