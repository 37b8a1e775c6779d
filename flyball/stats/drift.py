"""Drift tests: how far a window's counts are from the reference's, one number a test.

Each test takes two count vectors over the same bins (`profiles`), nulls as a bin of their own, and returns a statistic
that is 0 for equal shares and grows with the difference. A statistic alone says nothing: rows of one window depend on
one another (two days of weather are no sample of half a year), so thresholds come from `calibration`, never from tables
for independent rows.

| name | statistic | range |
|---|---|---|
| js   | Jensen–Shannon distance, base 2 (Lin 1991, eq. 4.1; Endres & Schindelin 2003: a metric) | 0–1 |
| psi  | population stability index Σ (q − p) ln(q / p), half a row added to each bin | 0–∞ |
| ks   | Kolmogorov–Smirnov distance of the binned values; for names, total variation | 0–1 |
| w1   | Wasserstein-1 distance between bin midpoints, in spreads of the reference (numbers within its range) | 0–∞ |
| chi2 | two-sample χ² per row, Σ (p − q)² / (p + q), in the symmetric form, without the rows' factor | 0–2 |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput, NotFound, did_you_mean, listed
from flyball.stats.profiles import Bins, Profile

__all__ = ["BOUNDED", "TESTS", "distance", "names", "statistic"]

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

BOUNDED = frozenset({"js", "ks"})  # their tails are modelled on (0, 1)


def names() -> list[str]:
    """Return the names of all drift tests, sorted."""
    return sorted(TESTS)


def statistic(test: str, reference: Profile, current: Profile) -> float:
    """Return the statistic of `test` between two profiles over the same bins.

    Raises:
        NotFound: no test has this name.
        InvalidInput: the bins differ or a side has no rows.
    """
    if reference.bins != current.bins:
        raise InvalidInput("the two profiles were counted in different bins; count both in the reference's bins")
    return distance(test, reference.counts, current.counts, reference.bins)


def distance(test: str, reference: Counts, current: Counts, bins: Bins) -> float:
    """Return the statistic of `test` between two count vectors, shape (bins.size,)."""
    if test not in TESTS:
        raise NotFound(f'no drift test is called "{test}"{did_you_mean(test, TESTS)} (known: {listed(names())})')
    if reference.sum() == 0 or current.sum() == 0:
        raise InvalidInput("a drift test needs at least one row on each side; one side has none")
    return TESTS[test](reference, current, bins)


def js(reference: Counts, current: Counts, bins: Bins) -> float:
    """Jensen–Shannon distance."""
    del bins
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2
    return float(np.sqrt(max((_information(p, middle) + _information(q, middle)) / 2, 0.0)))


def psi(reference: Counts, current: Counts, bins: Bins) -> float:
    """Population stability index; bins empty on both sides do not count."""
    del bins
    used = (reference + current) > 0
    p, q = _shares(reference[used] + 0.5), _shares(current[used] + 0.5)
    return float(np.sum((q - p) * np.log(q / p)))


def ks(reference: Counts, current: Counts, bins: Bins) -> float:
    """Kolmogorov–Smirnov distance (numbers; the share of nulls may be larger), total variation (names)."""
    p, q = _shares(reference), _shares(current)
    if not bins.is_numeric:
        return float(np.abs(p - q).sum() / 2)
    return float(np.abs(np.cumsum(p - q)).max())


def w1(reference: Counts, current: Counts, bins: Bins) -> float:
    """Wasserstein-1 distance over bin midpoints per spread of the reference, plus the shift in the share of nulls."""
    p, q = _shares(reference), _shares(current)
    if not bins.is_numeric:
        return float(np.abs(p - q).sum() / 2)
    edges = np.asarray(bins.edges)
    points = np.concatenate([edges[:1], (edges[:-1] + edges[1:]) / 2, edges[-1:]])
    known_p, known_q = _shares(reference[:-1]), _shares(current[:-1])
    centre = float(known_p @ points)
    spread = float(np.sqrt(known_p @ (points - centre) ** 2)) or 1.0
    moved = float(np.abs(np.cumsum(known_p - known_q))[:-1] @ np.diff(points)) / spread
    return moved + float(abs(p[-1] - q[-1]))


def chi2(reference: Counts, current: Counts, bins: Bins) -> float:
    """Symmetric χ² distance between shares."""
    del bins
    p, q = _shares(reference), _shares(current)
    either = p + q
    used = either > 0
    return float(np.sum((p - q)[used] ** 2 / either[used]))


TESTS: dict[str, Callable[[Counts, Counts, Bins], float]] = {"js": js, "psi": psi, "ks": ks, "w1": w1, "chi2": chi2}


def _shares(counts: npt.NDArray[np.int64] | npt.NDArray[np.floating[Any]]) -> Shares:
    total = float(counts.sum())
    return np.asarray(counts / total if total else counts, dtype=np.float64)


def _information(p: Shares, middle: Shares) -> float:
    """Return Σ p log2(p / middle) over the bins that p uses."""
    used = p > 0
    return float(np.sum(p[used] * np.log2(p[used] / middle[used])))
