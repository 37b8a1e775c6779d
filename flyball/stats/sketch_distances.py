"""Distances between two columns from what their profiles keep: the same figures as `exact`, without the rows.

Two histograms are brought to common cells. Where both are exact (few distinct values) so is everything here; otherwise
values are taken as spread evenly over their cell, and `ks` can be short by what the largest cell holds. Names beyond
what is kept are compared in hashed buckets, which can only make `js`, `psi` and `chi2` smaller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput
from flyball.stats import profiles
from flyball.stats.exact import BINS, Distances, binned, kolmogorov_tail, of_counts
from flyball.stats.frequencies import Names
from flyball.stats.profiles import Bins, Profile
from flyball.stats.sketches import Histogram

__all__ = ["bars_of", "bins_of_sketch", "of_histograms", "of_names", "profile_of_sketch", "quantile_edges_of"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def of_histograms(reference: Histogram, current: Histogram, ends: tuple[float, float]) -> Distances:
    """Compare two columns of numbers or times.

    Args:
        reference, current: on one scale.
        ends: the smallest and greatest value of both together; they cut the outer cells.

    Raises:
        InvalidInput: a side has no value, or the scales differ.
    """
    n, m = reference.total, current.total
    if not n or not m:
        raise InvalidInput("a drift test needs at least one number on each side; one side has none")
    if reference.scale != current.scale:
        raise InvalidInput("a column of numbers and a column of times cannot be compared")
    shift = max(reference.shift, current.shift)
    a, b = reference.coarsened(shift), current.coarsened(shift)
    cells = np.union1d(a.cells, b.cells)
    apart = np.zeros(cells.size)
    np.add.at(apart, np.searchsorted(cells, a.cells), a.counts / n)
    np.add.at(apart, np.searchsorted(cells, b.cells), -(b.counts / m))
    after = np.cumsum(apart)
    before = after - apart
    frame = Histogram(a.scale, a.limit, shift, cells, np.ones(cells.size, dtype=np.int64))
    low = np.maximum(frame.values.astype(np.float64), ends[0])
    high = np.minimum(frame.ends.astype(np.float64), ends[1])
    moved = float(_area(before, after) @ (high - low)) + float(np.abs(after[:-1]) @ (low[1:] - high[:-1]))
    edges = quantile_edges_of(reference)
    by_bin = of_counts(binned(reference.count_below(edges), n), binned(current.count_below(edges), m))
    largest = min(1.0, float(np.abs(after).max()))
    p = kolmogorov_tail(largest * math.sqrt(n * m / (n + m)))
    return Distances(by_bin.psi, by_bin.js, by_bin.chi2, by_bin.chi2_p, by_bin.degrees, largest, p, moved)


def of_names(reference: Names, current: Names) -> Distances:
    """Compare two columns of texts: by name where every name is kept on both sides, otherwise in hashed buckets.

    Raises:
        InvalidInput: a side has no text.
    """
    if not (reference.is_exact and current.is_exact):
        return of_counts(reference.all_buckets, current.all_buckets)
    hashes = np.union1d(reference.hashes, current.hashes)
    counts = np.zeros((2, hashes.size), dtype=np.int64)
    counts[0, np.searchsorted(hashes, reference.hashes)] = reference.counts
    counts[1, np.searchsorted(hashes, current.hashes)] = current.counts
    return of_counts(counts[0], counts[1])


def quantile_edges_of(histogram: Histogram, bins: int = BINS) -> Floats:
    """Return the inner edges of quantile bins, at most bins − 1."""
    values = histogram.values.astype(np.float64)
    found = histogram.quantiles([k / bins for k in range(1, bins)], float(values[0]), float(histogram.ends[-1]))
    return np.unique(found)


def bars_of(histograms: Sequence[Histogram], ends: tuple[float, float], most: int = 40) -> tuple[Floats, list[Floats]]:
    """Return common bars for a chart: edges, shape (b + 1,), and for each histogram the counts between, shape (b,).

    Few distinct values get a bar each. Otherwise bars are of one width over the middle 99 % of the values, and the
    outer two reach to the ends.
    """
    shift = max(h.shift for h in histograms)
    values = np.unique(np.concatenate([h.coarsened(shift).values for h in histograms])).astype(np.float64)
    if values.size == 0:
        return np.empty(0), [np.empty(0) for _ in histograms]
    if shift == 0 and values.size <= most:
        gaps = np.diff(values)
        margin = float(gaps.min()) / 2 if gaps.size else 0.5
        inner = values[:-1] + gaps / 2
        edges = np.concatenate([[values[0] - margin], inner, [values[-1] + margin]])
    else:
        known = [h for h in histograms if h.total]
        low = min(h.quantiles([0.005], *ends)[0] for h in known)
        high = max(h.quantiles([0.995], *ends)[0] for h in known)
        inner = low + (high / 2 - low / 2) * 2 * np.arange(1, most) / most
        edges = np.unique(np.concatenate([[ends[0]], inner[(inner > ends[0]) & (inner < ends[1])], [ends[1]]]))
        if edges.size == 1:
            edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    counts = []
    for histogram in histograms:
        if not histogram.total:
            counts.append(np.zeros(edges.size - 1))
            continue
        below = histogram.count_below(edges)
        below[0], below[-1] = 0.0, histogram.total
        counts.append(np.diff(below))
    return edges, counts


def bins_of_sketch(sketch: Histogram | Names) -> Bins:
    """Return the bins of a reference column, as `profiles.bins_of` chooses them from its rows.

    A number of few values has a bin for each, other numbers have quantile bins whose edges are ends of cells, so that
    the reference is counted exactly. Of a column of more names than are kept, the bins are of the sampled ones.
    """
    if isinstance(sketch, Names):
        return Bins(names=tuple(name for name, _ in sketch.most_common(profiles.MOST_NAMES)))
    if not sketch.total:
        return Bins()
    values = sketch.values.astype(np.float64)
    last = float(sketch.ends[-1])
    if values.size <= profiles.MOST_NUMERIC_BINS + 10:
        inner = (values[:-1] + values[1:]) / 2 if sketch.is_exact else values[1:]
    else:
        levels = np.arange(1, profiles.MOST_NUMERIC_BINS) / profiles.MOST_NUMERIC_BINS
        at = np.searchsorted(np.cumsum(sketch.counts), np.ceil(levels * (sketch.total - 1)), side="right")
        inner = values[np.minimum(at, values.size - 1)]
    beyond = np.nextafter(last, math.inf)
    return Bins(edges=tuple(np.unique(np.concatenate([values[:1], inner, [beyond]])).tolist()))


def profile_of_sketch(
    sketch: Histogram | Names,
    bins: Bins,
    *,
    nulls: int = 0,
    mean: float | None = None,
    deviation: float | None = None,
    ends: tuple[float, float] | None = None,
) -> Profile:
    """Count what a sketch holds into bins: the `Profile` that live windows are compared with.

    Args:
        sketch: of the column; in bins of its own (`bins_of_sketch`) the counts are those of its rows.
        bins: of `bins_of_sketch`, or of another reference.
        nulls: rows without a value.
        mean, deviation, ends: of the finite numbers, where known.

    Raises:
        InvalidInput: the bins are of numbers and the sketch of names, or the other way round.
    """
    counts = np.zeros(bins.size, dtype=np.int64)
    counts[-1] = nulls
    if isinstance(sketch, Names):
        if bins.is_numeric:
            raise InvalidInput("a column was numeric in the reference and holds text now; expected numbers or nulls")
        place = {name: at for at, name in enumerate(bins.names)}
        for name, times in zip(sketch.names, sketch.counts.tolist(), strict=True):
            counts[place.get(name, len(bins.names))] += times
        counts[len(bins.names)] += sketch.total - int(sketch.counts.sum())
        return Profile(bins, counts)
    if not bins.is_numeric:
        if bins.names:
            raise InvalidInput("a column was text in the reference and holds numbers now; expected text or nulls")
        counts[0] = sketch.total
        return Profile(bins, counts)
    counts[:-1] = binned(sketch.count_below(np.asarray(bins.edges)), sketch.total)
    if not sketch.total or mean is None or deviation is None or ends is None:
        return Profile(bins, counts)
    squares = (deviation * deviation + mean * mean) * sketch.total
    return Profile(bins, counts, sketch.total, mean * sketch.total, squares, *ends)


def _area(before: Floats, after: Floats) -> Floats:
    """Return the mean of |d| where d goes on a straight line from `before` to `after`."""
    a, b = np.abs(before), np.abs(after)
    crossed = np.sign(before) * np.sign(after) < 0
    total = np.where(a + b > 0, a + b, 1.0)
    return np.where(crossed, (a * a + b * b) / (2 * total), (a + b) / 2)
