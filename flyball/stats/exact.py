"""Exact distances between two columns, from their sorted values: no bins but where a test is about bins.

| name | what | p-value |
|---|---|---|
| ks   | largest distance of the empirical distribution functions (Smirnov 1939) | asymptotic, for independent rows |
| w1   | Wasserstein-1 distance ∫ |F − G| dx, in the column's unit (Vallender 1974) | none |
| psi  | Σ (q − p) ln(q / p) over the ten quantile bins of the reference (or over names), shares at least 10^-6 | none |
| js   | Jensen–Shannon distance, base 2, over the same bins (Lin 1991, eq. 4.1) | none |
| chi2 | Pearson's χ² of the 2 × k table of the same bins | χ² with k − 1 degrees, for independent rows |

p-values hold for independent rows only; live rows are not (`calibration` gives thresholds for those). Callers:
`flyball.data.drift`, which sorts the columns; `sketch_distances` computes the same from profiles.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput

__all__ = ["BINS", "Distances", "binned", "chi2_tail", "kolmogorov_tail", "of_counts", "of_numbers", "quantile_edges"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

BINS = 10
LEAST_SHARE = 1e-6  # of an empty bin, so that its logarithm is finite; one value for all sizes, so that figures compare
_MOST_TERMS = 100_000


@dataclass(frozen=True)
class Distances:
    """How far two columns are apart; `ks`, `w1` are None for names."""

    psi: float
    js: float
    chi2: float
    chi2_p: float
    degrees: int
    ks: float | None = None
    ks_p: float | None = None
    w1: float | None = None

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the figures by name."""
        return asdict(self)


def of_numbers(reference: Floats, current: Floats) -> Distances:
    """Compare two columns of finite numbers, each sorted ascending, shapes (n,) and (m,).

    Raises:
        InvalidInput: a side has no number.
    """
    n, m = reference.size, current.size
    if not n or not m:
        raise InvalidInput("a drift test needs at least one number on each side; one side has none")
    both = np.concatenate([reference, current])
    order = np.argsort(both, kind="stable")  # two runs: merged, not sorted
    apart = np.cumsum(np.where(order < n, m, -n))  # whole numbers: n m (F - G)
    values = both[order]
    is_last = np.empty(values.size, dtype=bool)
    is_last[-1] = True
    np.not_equal(values[1:], values[:-1], out=is_last[:-1])
    size = float(n) * float(m)
    largest = float(np.abs(apart[is_last]).max()) / size
    with np.errstate(over="ignore"):
        moved = float(np.abs(apart[:-1]).astype(np.float64) @ np.diff(values)) / size
    edges = quantile_edges(reference)
    at = (np.searchsorted(reference, edges), np.searchsorted(current, edges))
    by_bin = of_counts(binned(at[0], n), binned(at[1], m))
    p = kolmogorov_tail(largest * math.sqrt(n * m / (n + m)))
    return Distances(by_bin.psi, by_bin.js, by_bin.chi2, by_bin.chi2_p, by_bin.degrees, largest, p, moved)


def of_counts(reference: Counts, current: Counts) -> Distances:
    """Compare two columns counted over the same bins or names, shape (k,).

    Raises:
        InvalidInput: a side has no row.
    """
    n, m = int(reference.sum()), int(current.sum())
    if not n or not m:
        raise InvalidInput("a drift test needs at least one row on each side; one side has none")
    used = (reference + current) > 0
    p, q = reference[used] / n, current[used] / m
    low_p, low_q = np.maximum(p, LEAST_SHARE), np.maximum(q, LEAST_SHARE)
    psi = float(np.sum((low_q - low_p) * np.log(low_q / low_p)))
    middle = (p + q) / 2
    js = math.sqrt(max((_information(p, middle) + _information(q, middle)) / 2, 0.0))
    together = (reference + current)[used].astype(np.float64)
    # The 2 × k table's χ² in the form that needs no expected counts twice: Σ (√(m/n) r − √(n/m) c)² / (r + c).
    root = math.sqrt(m / n)
    chi2 = float(np.sum((root * reference[used] - current[used] / root) ** 2 / together))
    degrees = int(used.sum()) - 1
    return Distances(psi, js, chi2, chi2_tail(chi2, degrees), degrees)


def quantile_edges(ascending: Floats, bins: int = BINS) -> Floats:
    """Return the inner edges of quantile bins, at most bins − 1, as `numpy.quantile` places them."""
    place = np.arange(1, bins) / bins * (ascending.size - 1)
    low = np.floor(place).astype(np.intp)
    high = np.minimum(low + 1, ascending.size - 1)
    return np.unique(ascending[low] + (ascending[high] - ascending[low]) * (place - low))


def binned(below: npt.NDArray[np.integer] | Floats, total: int) -> Counts:
    """Return the counts of bins from how many values are below each edge; an edge belongs to the bin above it."""
    return np.diff(np.concatenate([[0], np.rint(below).astype(np.int64), [total]]))


def kolmogorov_tail(x: float) -> float:
    """Return the chance that the Kolmogorov statistic exceeds x: 2 Σ (−1)^(k−1) exp(−2 k² x²) (Kolmogorov 1933); for
    small x the other form of the series, 1 − √(2π)/x Σ exp(−(2k − 1)² π² / (8 x²))."""
    if x < 0.04:
        return 1.0
    if x < 1.0:
        terms = sum(math.exp(-((2 * k - 1) ** 2) * math.pi**2 / (8 * x * x)) for k in range(1, 12))
        return max(0.0, 1.0 - math.sqrt(2 * math.pi) / x * terms)
    signs = ((1.0 if k % 2 else -1.0) * math.exp(-2 * k * k * x * x) for k in range(1, 12))
    return max(0.0, min(1.0, 2 * sum(signs)))


def chi2_tail(statistic: float, degrees: int) -> float:
    """Return the chance that χ² with `degrees` degrees of freedom exceeds `statistic`.

    It is the upper regularised incomplete gamma function Q(k/2, x/2): by the series of Abramowitz & Stegun 6.5.29 below
    the mean, by the continued fraction 6.5.31 (Lentz's method) above it.
    """
    if degrees <= 0 or statistic <= 0.0:
        return 1.0
    a, x = degrees / 2, statistic / 2
    scale = -x + a * math.log(x) - math.lgamma(a)
    if scale < -745.0:  # below the smallest float on either side of the mean
        return 1.0 if x < a else 0.0
    if x < a + 1:
        term = total = 1.0 / a
        for k in range(1, _MOST_TERMS):
            term *= x / (a + k)
            total += term
            if term < total * 1e-16:
                break
        return min(1.0, max(0.0, 1.0 - total * math.exp(scale)))
    tiny = 1e-300
    b = x + 1.0 - a
    c, d = 1.0 / tiny, 1.0 / (b or tiny)
    fraction = d
    for k in range(1, _MOST_TERMS):
        step = -k * (k - a)
        b += 2.0
        d = 1.0 / (step * d + b or tiny)
        c = b + step / c or tiny
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return float(min(1.0, max(0.0, math.exp(scale) * fraction)))


def _information(p: Floats, middle: Floats) -> float:
    used = p > 0
    return float(np.sum(p[used] * np.log2(p[used] / middle[used])))
