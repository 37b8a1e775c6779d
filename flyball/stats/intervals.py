"""Intervals: how far a metric's value may be from the truth, given that these were the rows.

Reports, gates and monitors call `interval`; `comparison` builds on `estimate`. Which method is chosen, and why:

- accuracy, precision, recall: Wilson's score interval, which stays in [0, 1] and holds its level for few rows.
- auc: DeLong's variance with the quantile of Student's t (Brunner & Munzel's degrees of freedom: the two classes are
  two samples), on the logit scale so that it stays in [0, 1].
- other metrics with an `influence`: the variance of the influence (sandwich, delta method), on the scale that has no
  bounds: logit for [0, 1] (brier, f1, average_precision, macro_f1), logarithm for errors (rmse, mae, log_loss, mape)
  and for 1 − r2; bias as it is.
- metrics of one's own: percentile bootstrap, at most 1000 resamples of at most 20,000 rows (m out of n, rescaled), so
  that a million rows cost no more than twenty thousand.
- a value on the edge (auc = 1, f1 = 0) shows no spread, which is no certainty: Wilson's interval for as many trials as
  bear the value (`Metric.trials`; for auc the rows of the smaller class).

Live rows are not independent: flights of one day share its weather. `blocks` names the day (or user, or session) of
each row; contributions are then summed within blocks, blocks are the sample, Student's t has blocks − 1 degrees of
freedom and Wilson's interval counts the effective number of trials. Without it, intervals of such rows are too narrow.

Sources: Wilson (1927); DeLong, DeLong & Clarke-Pearson (1988); Brunner & Munzel (2000); cluster-robust variance CR1,
Cameron & Miller (2015); effective trials, Dean & Pagano (2015); bootstrap m out of n, Bickel, Götze & van Zwet (1997);
incomplete beta function, NIST DLMF 8.17.22.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput
from flyball.stats.metrics import Floats, Metric, Values
from flyball.stats.metrics import metric as metric_of

__all__ = [
    "Estimate",
    "Interval",
    "block_codes",
    "bootstrap",
    "check_level",
    "estimate",
    "has_no_spread",
    "interval",
    "interval_of",
    "percentiles",
    "standard_error",
    "student_quantile",
    "student_tail",
    "too_few",
    "wilson",
]

Blocks = npt.NDArray[np.int64]

RESAMPLES = 1000  # the ends of a 95 % interval then have 25 resamples beyond them
FEWEST_RESAMPLES = 200
ROWS_OF_A_RESAMPLE = 20_000
ROWS_OF_BLOCKS = 100_000  # whole blocks must be drawn; of more rows than this, a part of each block stands for it
ROWS_OF_ALL_RESAMPLES = 20_000_000


@dataclass(frozen=True)
class Interval:
    """`value` and the interval around it that holds the truth in a share `level` of all samples of rows."""

    low: float
    value: float
    high: float
    level: float
    method: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Estimate:
    """A value with what its interval is made of, at any level.

    `error` is the standard error, `freedom` its degrees of freedom (infinite: normal), `trials` the number of rows (or
    blocks) that bear the value.
    """

    metric: Metric
    value: float
    error: float
    freedom: float
    trials: float
    method: str

    @property
    def is_on_edge(self) -> bool:
        """Whether a value in [0, 1] shows no spread, as auc = 1 does; that is no certainty."""
        is_unit = (self.metric.low, self.metric.high) == (0, 1)
        return is_unit and (has_no_spread(self.error, self.value) or not 0 < self.value < 1)

    def interval(self, level: float) -> Interval:
        """Return the interval of this value at `level`, in (0, 1)."""
        low, high = self._ends(student_quantile((1 + level) / 2, self.freedom))
        return Interval(min(low, self.value), self.value, max(high, self.value), level, self.method)

    def _ends(self, quantile: float) -> tuple[float, float]:
        value, bottom, top = self.value, self.metric.low, self.metric.high
        if self.metric.is_proportion:
            return wilson(value, self.trials, quantile)
        if self.is_on_edge:
            return wilson(value, self.trials, quantile)
        if has_no_spread(self.error, value):
            return value, value
        half = quantile * self.error
        if (bottom, top) == (0, 1):
            middle, half = math.log(value / (1 - value)), half / (value * (1 - value))
            return _logistic(middle - half), _logistic(middle + half)
        if bottom == 0:
            factor = math.exp(min(half / value, 700.0))
            return value / factor, value * factor
        if math.isfinite(top):
            factor = math.exp(min(half / (top - value), 700.0))
            return top - (top - value) * factor, top - (top - value) / factor
        return value - half, value + half


def interval(
    metric: str | Metric,
    truth: npt.ArrayLike,
    prediction: npt.ArrayLike,
    level: float = 0.95,
    seed: int = 0,
    blocks: npt.ArrayLike | None = None,
) -> Interval:
    """Return the value of a metric with its interval.

    Args:
        metric: a name (of the binary task where tasks share it) or a `Metric`.
        truth, prediction: as `Metric.compute`.
        level: share of samples whose interval holds the truth, in (0, 1).
        seed: of the bootstrap; other methods draw nothing.
        blocks: shape (rows,), any type: rows of one block depend on one another, blocks do not.

    Raises:
        NotFound: no metric has this name.
        InvalidInput: malformed rows, rows without a value (`Metric.compute`), fewer than two rows (proportions: one) or
            blocks, a level that is none.

    O(n log n) for ranks, else O(n).

    >>> str(interval("accuracy", [0, 1, 1, 1], [0, 1, 1, 0]))
    '0.750 [0.301, 0.954]'
    """
    metric = metric_of(metric) if isinstance(metric, str) else metric
    check_level(level)
    truth, prediction = metric.checked(truth, prediction)
    codes = None if blocks is None else block_codes(blocks, len(truth))
    reason = metric.missing(truth, prediction) or too_few(metric, len(truth), codes)
    if reason:
        raise InvalidInput(reason)
    return interval_of(metric, truth, prediction, codes, level=level, seed=seed)


def interval_of(
    metric: Metric, truth: Values, prediction: Values, codes: Blocks | None, *, level: float, seed: int
) -> Interval:
    """Return the interval of checked rows that have a value; `codes` are blocks numbered from 0."""
    if metric.influence is None:
        draws = bootstrap(metric, truth, (prediction,), codes, seed)
        return percentiles(metric.formula(truth, prediction), draws[:, 0], level, codes)
    return estimate(metric, truth, prediction, codes).interval(level)


def estimate(metric: Metric, truth: Values, prediction: Values, codes: Blocks | None) -> Estimate:
    """Return the value of a metric that has an `influence`, with its standard error, of checked rows."""
    assert metric.influence is not None
    value, trials = metric.formula(truth, prediction), float(metric.trials(truth, prediction))
    if metric.is_proportion and codes is None:
        spread = math.sqrt(value * (1 - value) / trials) if trials else 0.0
        return Estimate(metric, value, spread, math.inf, trials, "Wilson")
    contributions = metric.influence(truth, prediction)
    strata = truth if metric.by_class else None
    error, freedom = standard_error(contributions, strata, codes)
    method = "Wilson" if metric.is_proportion else metric.method
    if codes is not None:
        number = int(codes.max()) + 1
        if has_no_spread(error, value):
            trials = min(trials, number)
        elif metric.is_proportion:
            trials = min(trials, value * (1 - value) / error**2)
        method += f", {number:,} blocks"
    return Estimate(metric, value, error, freedom, trials, method)


def standard_error(
    contributions: Floats, strata: npt.NDArray[Any] | None = None, codes: Blocks | None = None
) -> tuple[float, float]:
    """Return the root of the variance of a sum of contributions, and its degrees of freedom.

    Args:
        contributions: shape (rows,), each row's share h in the error of a value.
        strata: shape (rows,), what independent sample a row is of; the degrees of freedom are Welch–Satterthwaite's.
        codes: shape (rows,), the block of each row, numbered from 0; contributions add up within blocks.
    """
    if codes is not None:
        sums = np.bincount(codes, weights=contributions)
        number = len(sums)
        return math.sqrt(float(sums @ sums) * number / max(number - 1, 1)), max(number - 1, 1)
    squares = contributions**2
    if strata is None:
        return math.sqrt(float(squares.sum())), max(len(squares) - 1, 1)
    variance, divisor = 0.0, 0.0
    for one in np.unique(strata):
        members = strata == one
        share = float(squares[members].sum())
        variance += share
        divisor += share**2 / max(int(members.sum()) - 1, 1)
    return math.sqrt(variance), variance**2 / divisor if divisor else math.inf


def wilson(share: float, trials: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of `trials`, (0, 1) when there are none; `quantile` is 1.96 for 95 %."""
    if trials <= 0:
        return 0.0, 1.0
    square = quantile**2 / trials
    middle = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def bootstrap(
    metric: Metric, truth: Values, predictions: tuple[Values, ...], codes: Blocks | None, seed: int
) -> Floats:
    """Return by how much resampled values differ from the value, shape (resamples, predictions), of checked rows.

    All predictions see the same resamples. Where fewer units are drawn than there are, deviations shrink by √(m/n).

    Raises:
        InvalidInput: the metric has no value on more than half of the resamples.
    """
    random = np.random.default_rng(seed)
    if codes is not None and len(truth) > ROWS_OF_BLOCKS:
        kept = np.sort(random.choice(len(truth), ROWS_OF_BLOCKS, replace=False))
        truth, predictions, codes = truth[kept], tuple(p[kept] for p in predictions), codes[kept]
        codes = np.asarray(np.unique(codes, return_inverse=True)[1], dtype=np.int64)
    units = len(truth) if codes is None else int(codes.max()) + 1
    drawn = min(units, ROWS_OF_A_RESAMPLE)
    rows = drawn if codes is None else len(truth)
    resamples = max(min(RESAMPLES, ROWS_OF_ALL_RESAMPLES // rows), FEWEST_RESAMPLES)
    centre = np.array([metric.formula(truth, prediction) for prediction in predictions])
    found = np.full((resamples, len(predictions)), np.nan)
    order = None if codes is None else np.argsort(codes, kind="stable")
    sizes = None if codes is None else np.bincount(codes)
    for number in range(resamples):
        picked = random.integers(0, units, drawn)
        if order is not None and sizes is not None:
            picked = order[_rows_of(picked, sizes)]
        sample = truth[picked]
        if not any(metric.missing(sample, prediction[picked]) for prediction in predictions):
            found[number] = [metric.formula(sample, prediction[picked]) for prediction in predictions]
    found = found[np.isfinite(found).all(axis=1)]
    if len(found) * 2 < resamples:
        raise InvalidInput(
            f"{metric.name} has a value on only {len(found)} of {resamples} resamples of the {len(truth):,} rows; "
            "give more rows, or make its formula defined on them"
        )
    return np.asarray((found - centre) * math.sqrt(drawn / units))


def percentiles(value: float, deviations: Floats, level: float, codes: Blocks | None) -> Interval:
    """Return the percentile interval of bootstrap deviations, shape (resamples,)."""
    low, high = value + np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2])
    method = f"bootstrap of {len(deviations):,}"
    if codes is not None:
        method += f", {int(codes.max()) + 1:,} blocks"
    return Interval(min(float(low), value), value, max(float(high), value), level, method)


def block_codes(blocks: npt.ArrayLike, rows: int) -> Blocks:
    """Return the blocks numbered from 0, shape (rows,).

    Raises:
        InvalidInput: another length than the rows, a missing block, types that cannot be sorted together.
    """
    names = np.asarray(blocks)
    if names.shape != (rows,):
        raise InvalidInput(f"blocks has shape {names.shape}; expected one block for each of the {rows:,} rows")
    missing = 0
    if names.dtype.kind == "O":
        missing = sum(name is None or name != name for name in names.tolist())
    elif names.dtype.kind in "fMm":
        missing = int(np.count_nonzero(np.isnan(names)))
    if missing:
        raise InvalidInput(f"{missing:,} of {rows:,} rows have no block; give them one or leave them out")
    try:
        return np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)
    except TypeError as error:
        raise InvalidInput("blocks holds values of several types; expected one type, such as dates") from error


def check_level(level: float) -> None:
    """Raise InvalidInput unless the level lies in (0, 1)."""
    if not 0 < level < 1:
        hint = f"; did you mean {level / 100:g}?" if 1 < level < 100 else ""
        raise InvalidInput(f"level is {level:g}; expected a share between 0 and 1, such as 0.95{hint}")


def too_few(metric: Metric, rows: int, codes: Blocks | None) -> str:
    """Return why these rows, though well-formed, cannot show a spread; `""` when they can."""
    if codes is not None and int(codes.max()) == 0:
        return f"all {rows:,} rows are one block; the spread between blocks needs at least two"
    if rows < 2 and not metric.is_proportion:
        return f"the interval of {metric.name} needs at least two rows; there is one"
    return ""


def has_no_spread(error: float, value: float) -> bool:
    """Return whether a standard error is zero but for rounding."""
    return error <= 1e-12 * max(abs(value), 1e-288)


def student_quantile(share: float, freedom: float) -> float:
    """Return t with P(T ≤ t) = share, for any degrees of freedom > 0; infinite ones give the normal quantile."""
    if share < 0.5:
        return -student_quantile(1 - share, freedom)
    t = NormalDist().inv_cdf(share)
    if freedom >= 1e5:  # the two differ by less than 1e-4 of the width
        return t
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    for _ in range(100):  # Newton from the left of a convex tail: it never oversteps
        density = math.exp(scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (student_tail(t, freedom) - (1 - share)) / density
        t += step
        if abs(step) <= 1e-12 * t:
            break
    return t


def student_tail(t: float, freedom: float) -> float:
    """Return P(T > t): half the incomplete beta function I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t²)."""
    if t < 0:
        return 1 - student_tail(-t, freedom)
    if freedom >= 1e5 or math.isinf(t):
        return NormalDist().cdf(-t)
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b) by its continued fraction (DLMF 8.17.22, Lentz's evaluation), mirrored where that converges slowly."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    scale = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    d = 1 / (1 - (a + b) * x / (a + 1))
    c, fraction = 1.0, d
    for m in range(1, 2000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + numerator * d)
            c = 1 + numerator / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return scale * fraction / a


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def _rows_of(picked: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the positions, in rows sorted by block, of all rows of the picked blocks."""
    counts = sizes[picked]
    ends = np.cumsum(counts)
    starts = np.cumsum(sizes) - sizes
    return np.asarray(np.repeat(starts[picked] - (ends - counts), counts) + np.arange(int(ends[-1])))
