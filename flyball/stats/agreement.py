"""Agreement of labellers: kappa and alpha, how far they may be from the truth, and what each means.

    cohen_kappa         two labellers, all items by both; `weights` where the labels have an order
    fleiss_kappa        several labellers, as many on each item (not the same persons)
    krippendorff_alpha  any number, labels may be missing, nominal, ordinal or interval

1 is perfect agreement, 0 what chance would give with the same shares of labels, below 0 less than chance. When only
one label occurs, chance agrees always and nothing can be said: the value is NaN. `data.labels` calls this.

Intervals: Cohen's from the large-sample variance of Fleiss, Cohen & Everitt; Fleiss' from Gwet's, which holds for
kappa other than 0; alpha's by bootstrap of items. Both normal intervals are cut at [-1, 1]; few items make them
narrower than they should be.

Sources: Cohen (1960), Educ. Psychol. Meas. 20, 37–46; Cohen (1968), Psychol. Bull. 70, 213–220 (weights); Fleiss, Cohen
& Everitt (1969), Psychol. Bull. 72, 323–327; Fleiss (1971), Psychol. Bull. 76, 378–382; Gwet (2021), Educ. Psychol.
Meas. 81, 781–790; Krippendorff (2011), Computing Krippendorff's Alpha-Reliability.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput
from flyball.stats.intervals import Interval, check_level

__all__ = ["Scale", "Weights", "cohen_kappa", "fleiss_kappa", "krippendorff_alpha"]

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Weights = Literal["none", "linear", "quadratic"]
Scale = Literal["nominal", "ordinal", "interval"]

RESAMPLES = 2000
_CELLS_AT_ONCE = 20_000_000


def cohen_kappa(
    first: npt.ArrayLike, second: npt.ArrayLike, labels: int, weights: Weights = "none", level: float = 0.95
) -> Interval:
    """Return how far two labellers agree beyond chance.

    Arguments:
        first, second: shape (items,), the labels as codes 0 … labels − 1, in order where they have one.
        labels: how many labels there are.
        weights: what a disagreement counts: all the same, by its distance, or by its distance squared.
        level: of the interval, in (0, 1).

    Raises:
        InvalidInput: no item, different lengths, a code outside 0 … labels − 1, an unknown weight or a wrong level.
    """
    check_level(level)
    a, b = _codes(first, labels), _codes(second, labels)
    if a.shape != b.shape:
        raise InvalidInput(f"the labellers have {len(a)} and {len(b)} labels; both must have labelled the same items")
    cells = np.zeros((labels, labels))
    np.add.at(cells, (a, b), 1)
    shares = cells / len(a)
    agreement = _agreement(labels, weights)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed = float((shares * agreement).sum())
    expected = float((np.outer(rows, columns) * agreement).sum())
    method = "cohen's kappa" if weights == "none" else f"cohen's kappa, {weights} weights"
    if math.isclose(expected, 1, abs_tol=1e-12):
        return Interval(math.nan, math.nan, math.nan, level, method)
    kappa = (observed - expected) / (1 - expected)
    # Fleiss, Cohen & Everitt (1969), the variance of weighted kappa; weights of 0 and 1 give the unweighted one.
    mean = (agreement @ columns)[:, None] + (rows @ agreement)[None, :]
    spread = (shares * (agreement - mean * (1 - kappa)) ** 2).sum() - (kappa - expected * (1 - kappa)) ** 2
    error = math.sqrt(max(float(spread), 0) / len(a)) / (1 - expected)
    return _normal(kappa, error, level, method)


def fleiss_kappa(counts: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Return how far several labellers agree beyond chance.

    Arguments:
        counts: shape (items, labels): how many labellers gave the item each label; items need the same number of
            labellers, two or more.
        level: of the interval, in (0, 1).

    Raises:
        InvalidInput: no item, fewer than two labellers, items with different numbers of them, or a wrong level.
    """
    check_level(level)
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise InvalidInput("there is no item to compare labellers on; expected a table of items by labels")
    if (table < 0).any() or not np.isfinite(table).all():
        raise InvalidInput("a number of labellers is negative or no number; expected how many gave the label")
    labellers = table.sum(axis=1)
    if labellers.min() != labellers.max() or labellers[0] < 2:
        raise InvalidInput(
            f"items have {int(labellers.min())} to {int(labellers.max())} labellers; Fleiss' kappa needs the same "
            "number, two or more, on each: use Krippendorff's alpha"
        )
    raters, items = labellers[0], len(table)
    shares = table.sum(axis=0) / table.sum()
    by_item = ((table**2).sum(axis=1) - raters) / (raters * (raters - 1))
    expected = float((shares**2).sum())
    if math.isclose(expected, 1, abs_tol=1e-12):
        return Interval(math.nan, math.nan, math.nan, level, "fleiss' kappa")
    kappa = (float(by_item.mean()) - expected) / (1 - expected)
    if items < 2:
        return Interval(-1.0, kappa, 1.0, level, "fleiss' kappa")
    # Gwet (2021): each item's own kappa, less what the item does to the agreement expected by chance.
    own = (by_item - expected) / (1 - expected)
    chance = table @ shares / raters
    linear = own - 2 * (1 - kappa) * (chance - expected) / (1 - expected)
    error = math.sqrt(float(((linear - kappa) ** 2).sum()) / (items * (items - 1)))
    return _normal(kappa, error, level, "fleiss' kappa")


def krippendorff_alpha(
    counts: npt.ArrayLike,
    scale: Scale = "nominal",
    level: float = 0.95,
    values: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Interval:
    """Return how far any number of labellers agree beyond chance; items with fewer than two labels say nothing.

    Arguments:
        counts: shape (items, labels): how many labellers gave the item each label; for ordinal labels in order.
        scale: what a disagreement counts: all the same, by ranks, or by the difference of `values` squared.
        level: of the interval, in (0, 1).
        values: shape (labels,): the numbers that labels of an interval scale stand for; default: 0, 1, 2…
        seed: of the bootstrap.

    Raises:
        InvalidInput: no item has two labels, a negative count, an unknown scale or a wrong level.
    """
    check_level(level)
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or (table < 0).any() or not np.isfinite(table).all():
        raise InvalidInput("the counts are not a table of items by labels with numbers from 0")
    table = table[table.sum(axis=1) >= 2]
    if not len(table):
        raise InvalidInput("no item has labels of two labellers; nothing can be said about their agreement")
    numbers = np.arange(table.shape[1], dtype=np.float64) if values is None else np.asarray(values, dtype=np.float64)
    if numbers.shape != (table.shape[1],):
        raise InvalidInput(f"there are {numbers.size} values for {table.shape[1]} labels; expected one for each")
    # Items that were labelled alike count together, so a million items cost what their few patterns cost.
    patterns, times = np.unique(table, axis=0, return_counts=True)
    within = _coincidences(patterns)
    alpha = float(_alphas(times[None, :].astype(np.float64), within, scale, numbers)[0])
    random = np.random.default_rng(seed)
    drawn: list[Floats] = []
    rows = max(1, min(RESAMPLES, _CELLS_AT_ONCE // max(len(patterns), 1)))
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        picked = random.multinomial(int(times.sum()), times / times.sum(), size=size).astype(np.float64)
        drawn.append(_alphas(picked, within, scale, numbers))
    found = np.concatenate(drawn)
    found = found[np.isfinite(found)]
    method = f"krippendorff's alpha, {scale}"
    if math.isnan(alpha) or not len(found):
        return Interval(math.nan, alpha, math.nan, level, method)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(min(float(low), alpha), alpha, max(float(high), alpha), level, method)


def _codes(values: npt.ArrayLike, labels: int) -> Codes:
    codes = np.asarray(values)
    if codes.ndim != 1 or not len(codes):
        raise InvalidInput("there is no item to compare labellers on; expected one label for each item")
    if not np.issubdtype(codes.dtype, np.integer) or codes.min() < 0 or codes.max() >= labels:
        raise InvalidInput(f"a label's code is not one of 0 to {labels - 1}; number the labels from 0")
    return codes.astype(np.int64)


def _agreement(labels: int, weights: Weights) -> Floats:
    """Return how far two labels agree, shape (labels, labels), 1 on the diagonal."""
    distance = np.abs(np.subtract.outer(np.arange(labels), np.arange(labels))) / max(labels - 1, 1)
    if weights == "linear":
        return np.asarray(1 - distance)
    if weights == "quadratic":
        return np.asarray(1 - distance**2)
    if weights != "none":
        raise InvalidInput(f'"{weights}" is not a weight; expected none, linear or quadratic')
    return np.eye(labels)


def _coincidences(patterns: Floats) -> Floats:
    """Return the pairs of labels within an item, over the number of its labels less one: (items, labels, labels)."""
    pairs = np.asarray(patterns[:, :, None] * patterns[:, None, :])
    places = np.arange(patterns.shape[1])
    pairs[:, places, places] -= patterns
    return np.asarray(pairs / (patterns.sum(axis=1) - 1)[:, None, None])


def _alphas(times: Floats, within: Floats, scale: Scale, values: Floats) -> Floats:
    """Return alpha of each resample; `times`, shape (resamples, patterns), says how often each pattern occurs."""
    labels = within.shape[1]
    together = (times @ within.reshape(len(within), -1)).reshape(-1, labels, labels)
    margins = together.sum(axis=2)
    total = margins.sum(axis=1)
    distance = _distances(margins, scale, values)
    observed = (together * distance).sum(axis=(1, 2)) / total
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = (margins[:, :, None] * margins[:, None, :] * distance).sum(axis=(1, 2)) / (total * (total - 1))
        return np.asarray(np.where(expected > 0, 1 - observed / expected, np.nan))


def _distances(margins: Floats, scale: Scale, values: Floats) -> Floats:
    """Return what a disagreement of two labels counts, squared: (resamples or 1, labels, labels)."""
    labels = margins.shape[1]
    if scale == "nominal":
        return (1 - np.eye(labels))[None]
    if scale == "interval":
        return np.asarray((np.subtract.outer(values, values) ** 2)[None])
    if scale != "ordinal":
        raise InvalidInput(f'"{scale}" is not a scale; expected nominal, ordinal or interval')
    # The labels that lie between two, themselves by half: differences of mid-ranks.
    ranks = np.cumsum(margins, axis=1) - margins / 2
    return np.asarray((ranks[:, :, None] - ranks[:, None, :]) ** 2)


def _normal(value: float, error: float, level: float, method: str) -> Interval:
    half = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(max(value - half, -1.0), value, min(value + half, 1.0), level, method)
