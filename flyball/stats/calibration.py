"""Thresholds for windows of dependent live rows, at a stated false-alarm rate.

Live rows come in time order and resemble their neighbours: two days of weather are never a random sample of half a
year. A test that assumes independent rows alarms at once. So a monitor asks its own reference how its windows differ:

1. Cut the reference, in time order, into consecutive blocks of as many rows as a live window has.
2. Compare each block with the rest of the reference, its two neighbours left out (they resemble it).
3. Put the statistics on a scale without bounds (logit for js and ks, logarithm for the others) and take the one-sided
   Student prediction limit for one more block: mean + t · s · sqrt(1 + 1/B), s taken from the upper side where that
   side is the longer one. Serial correlation of the blocks lowers their effective number B, so that a column bound to
   the season gets a wide limit, and so do few blocks.
4. The level of that limit is alpha / (columns × windows of the horizon) (Bonferroni): under the model, `alpha` is the
   chance that *any* column passes its limit in any of `horizon` windows.
5. A column drifts when it passes its limit in `persistence` windows in a row (`persisting`). A storm worse than any in
   the reference passes; drift stays. The model of step 3 alone does not hold its rate where weather is concerned: in
   healthy replays of the flights single windows passed far more often than alpha says, above all where a window is a
   day, and two in a row did not, so the default is two (docs/decisions/0004 says how far that can be trusted).

Two floors lie under each limit: the same prediction limit for blocks drawn from the reference as independent rows (no
window of real rows varies less), and what a value that the reference never showed may take of a window by chance.
Where the rows have no time order the first floor alone is the threshold, and the calibration says so (`ordered`).

Sources: Student prediction limit for a future observation, Hahn & Meeker, *Statistical Intervals* (1991), §4.8;
effective number (1 − ρ)/(1 + ρ) of an AR(1) series, Bayley & Hammersley (1946); integer-degree Student distribution,
Abramowitz & Stegun 26.7.3–4; leave-out of neighbours, h-block cross-validation, Burman, Chow & Nolan (1994).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput
from flyball.stats.drift import BOUNDED, distance
from flyball.stats.profiles import Bins, Column, Profile, bins_of, merge, profile

__all__ = ["Calibration", "Exceeded", "Limit", "calibrate", "calibrate_blocks", "metric_limit", "prediction_limit"]

DRAWN_BLOCKS = 60  # independent blocks drawn for the floor: enough that Student's t is near the normal
FEWEST_BLOCKS = 4  # below this a spread over time cannot be told at all


@dataclass(frozen=True)
class Limit:
    """What one column's statistic may reach: `threshold`, beside the `typical` (median) and `largest` of the blocks."""

    threshold: float
    typical: float
    largest: float
    effective_blocks: float


@dataclass(frozen=True)
class Exceeded:
    """A column whose statistic in a window (or reference block) was above its threshold."""

    column: str
    window: int
    statistic: float
    threshold: float


@dataclass(frozen=True)
class Calibration:
    """Thresholds of one monitor and how they were come by.

    `false_alarms` is what the reference itself says of them: of its blocks, each judged by limits calibrated without
    it, the share at which an alarm would have stood; `exceeded` names single blocks beyond the full limits.
    """

    test: str
    window: int
    alpha: float
    horizon: int
    persistence: int
    ordered: bool
    blocks: int
    limits: Mapping[str, Limit]
    false_alarms: float
    exceeded: tuple[Exceeded, ...]

    def judge(self, reference: Mapping[str, Profile], window: Mapping[str, Profile], number: int = 0) -> list[Exceeded]:
        """Return the columns of a live window above their thresholds, the worst (in thresholds) first."""
        found = []
        for name, limit in self.limits.items():
            value = distance(self.test, reference[name].counts, window[name].counts, reference[name].bins)
            if value > limit.threshold:
                found.append(Exceeded(name, number, value, limit.threshold))
        return sorted(found, key=lambda e: -e.statistic / e.threshold)

    def explain(self) -> str:
        """Return, in a sentence, what the thresholds rest on."""
        if self.ordered:
            basis = f"{self.blocks} consecutive blocks of the reference"
        else:
            basis = "independent draws from the reference, which has no time order or fewer than four windows of rows"
        return (
            f"{self.test} on windows of {self.window} rows, thresholds from {basis}, at a stated rate of "
            f"{self.alpha:g} for any of {len(self.limits)} columns within {self.horizon} windows; drift is "
            f"{self.persistence} windows in a row beyond the threshold"
        )

    def persisting(self, judged: Sequence[Sequence[Exceeded]]) -> list[Exceeded]:
        """Return the drift that stands after the latest window: the columns beyond their thresholds in each of the last
        `persistence` windows, as found in the latest; `judged` holds what `judge` said of each window, in order."""
        recent = [{e.column for e in window} for window in judged[-self.persistence :]]
        if len(recent) < self.persistence:
            return []
        return [e for e in judged[-1] if all(e.column in columns for columns in recent)]


def calibrate(
    reference: Mapping[str, Column],
    *,
    window: int,
    alpha: float = 0.01,
    horizon: int | None = None,
    test: str = "js",
    persistence: int = 2,
    ordered: bool = True,
    seed: int = 0,
) -> tuple[Calibration, dict[str, Profile]]:
    """Calibrate a monitor on reference columns, each of shape (rows,) in time order, and return their profiles too.

    Args:
        window: rows of a live window.
        alpha: under the model, the chance that any column is beyond its threshold in any window of the horizon;
            `persistence` comes on top, as real weather breaks the model.
        horizon: windows the monitor will look at; by default as many as the reference has, but at least 20.
        persistence: windows in a row that a column must be beyond its threshold to count as drifting.
        ordered: False when the rows have no time order.

    Raises:
        InvalidInput: no columns, unequal lengths, fewer rows than a window, or an alpha outside (0, 1).
    """
    lengths = {name: len(column) for name, column in reference.items()}
    if not lengths or len(set(lengths.values())) != 1:
        raise InvalidInput(
            f"the reference has columns of {sorted(set(lengths.values()))} rows; expected equal, non-empty ones"
        )
    rows = next(iter(lengths.values()))
    if not 1 <= window <= rows:
        raise InvalidInput(f"a window of {window} rows does not fit a reference of {rows}; choose 1 to {rows}")
    starts = [i * rows // (rows // window) for i in range(rows // window + 1)]
    blocks = {}
    for name, column in reference.items():
        bins = bins_of(column)
        blocks[name] = [profile(column[a:b], bins) for a, b in itertools.pairwise(starts)]
    found = calibrate_blocks(
        blocks,
        window=window,
        alpha=alpha,
        horizon=horizon,
        test=test,
        persistence=persistence,
        ordered=ordered,
        seed=seed,
    )
    return found, {name: merge(parts) for name, parts in blocks.items()}


def calibrate_blocks(
    blocks: Mapping[str, Sequence[Profile]],
    *,
    window: int,
    alpha: float = 0.01,
    horizon: int | None = None,
    test: str = "js",
    persistence: int = 2,
    ordered: bool = True,
    seed: int = 0,
) -> Calibration:
    """Calibrate from the profiles of consecutive blocks alone, as kept with a data set; see `calibrate`."""
    if not 0 < alpha < 1:
        raise InvalidInput(f"a false-alarm rate of {alpha:g} is not possible; expected a number between 0 and 1")
    if persistence < 1:
        raise InvalidInput(f"a persistence of {persistence} windows is not possible; expected 1 or more")
    if not blocks or not all(blocks.values()):
        raise InvalidInput("there is nothing to calibrate on; expected at least one column with at least one block")
    number = min(len(parts) for parts in blocks.values())
    looks = max(number, 20) if horizon is None else horizon
    level = alpha / (len(blocks) * max(looks, 1))
    ordered = ordered and number >= FEWEST_BLOCKS
    rng = np.random.default_rng(seed)
    limits: dict[str, Limit] = {}
    standing = np.zeros(number, dtype=bool)
    exceeded: list[Exceeded] = []
    for name, parts in blocks.items():
        bins, counts = parts[0].bins, np.array([p.counts for p in parts])
        floor = _independent_limit(counts.sum(axis=0), bins, window, level, test, rng)
        values = _against_the_rest(counts, bins, test, 1 if ordered else 0)
        threshold, effective = floor, float(number)
        if ordered:
            dependent, effective = prediction_limit(values, level, bounded=test in BOUNDED)
            threshold = max(floor, dependent)
            beyond = _exceeds_without_itself(values, floor, level, test in BOUNDED)
        else:
            beyond = values > floor
        standing |= _stands(beyond, persistence)
        limits[name] = Limit(threshold, float(np.median(values)), float(values.max()), effective)
        exceeded += [Exceeded(name, i, float(v), threshold) for i, v in enumerate(values) if v > threshold]
    return Calibration(
        test, window, alpha, looks, persistence, ordered, number, limits, float(standing.mean()), tuple(exceeded)
    )


def prediction_limit(values: npt.ArrayLike, level: float, *, bounded: bool) -> tuple[float, float]:
    """Return the limit that one more value exceeds with chance `level`, and the effective number of the values.

    `values`, shape (blocks,), stand in time order and are positive; bounded ones lie below 1.
    """
    scaled = _unbound(np.asarray(values, dtype=np.float64), bounded)
    number = _effective_number(scaled)
    freedom = max(round(number) - 1, 1)
    limit = float(scaled.mean()) + _student(level, freedom) * _upward_deviation(scaled) * math.sqrt(1 + 1 / number)
    return _bind(limit, bounded), number


def metric_limit(
    values: Sequence[float],
    *,
    level: float,
    errors: Sequence[float] = (),
    higher_is_better: bool = True,
    bounded: bool = True,
) -> float:
    """Return what a metric of a healthy live window passes with chance `level`: below it (above it, when lower is
    better) a window is worse than the reference's own windows ever are.

    Args:
        values: the metric on consecutive windows of *unseen* reference rows, in time order, at least two.
        errors: standard errors of the values; the spread is taken no smaller than they say.
        bounded: the metric lies in (0, 1), such as AUC; otherwise it is positive, such as RMSE.

    Raises:
        InvalidInput: fewer than two values.
    """
    if len(values) < 2:
        raise InvalidInput(
            f"a spread cannot be told from {len(values)} windows of unseen reference rows; expected two or more"
        )
    sign = -1.0 if higher_is_better else 1.0
    points = np.asarray(values, dtype=np.float64)
    scaled = sign * _unbound(points, bounded)
    slope = (
        points * (1 - points) if bounded else points
    )  # of the scale's inverse: errors on the scale are error / slope
    noise = float(np.mean(np.asarray(errors) / np.maximum(slope, 1e-9))) if len(errors) else 0.0
    number = _effective_number(scaled)
    deviation = max(_upward_deviation(scaled), noise)
    quantile = _student(level, max(round(number) - 1, 1))
    return _bind(sign * (float(scaled.mean()) + quantile * deviation * math.sqrt(1 + 1 / number)), bounded)


def _against_the_rest(counts: npt.NDArray[np.int64], bins: Bins, test: str, neighbours: int) -> npt.NDArray[np.float64]:
    """Return the statistic of each block, counts of shape (blocks, bins), against the others but its neighbours."""
    total, last = counts.sum(axis=0), len(counts) - 1
    found = np.zeros(len(counts))
    for i, block in enumerate(counts):
        near = counts[max(i - neighbours, 0) : min(i + neighbours, last) + 1].sum(axis=0)
        rest = total - near
        found[i] = distance(test, rest if rest.sum() else total, block, bins)
    return found


def _independent_limit(
    total: npt.NDArray[np.int64], bins: Bins, window: int, level: float, test: str, rng: np.random.Generator
) -> float:
    """Return the limit for windows of independent rows drawn from the reference, or for a value new to it if larger."""
    rows = int(total.sum())
    drawn = rng.multinomial(window, total / rows, size=DRAWN_BLOCKS)
    values = np.array([distance(test, total, one, bins) for one in drawn])
    by_chance, _ = prediction_limit(values, level, bounded=test in BOUNDED) if values.max() > 0 else (0.0, 0.0)
    # A value absent from n rows has, at this level, a share below ln(1/level)/n ("rule of three"); Bernstein bounds
    # how many rows of a window it then takes.
    surprise = -math.log(level)
    expected = window * surprise / rows
    unseen = min(expected + math.sqrt(2 * expected * surprise) + surprise, window / 2)
    novel = (total * ((window - unseen) / rows)).astype(np.float64)
    novel[int(np.argmin(total))] += unseen
    return max(by_chance, distance(test, total, np.rint(novel * 1000).astype(np.int64), bins))


def _exceeds_without_itself(
    values: npt.NDArray[np.float64], floor: float, level: float, bounded: bool
) -> npt.NDArray[np.bool_]:
    """Say of each block whether it exceeds the limit that the others alone would set."""
    found = np.zeros(len(values), dtype=bool)
    for i, value in enumerate(values):
        limit, _ = prediction_limit(np.delete(values, i), level, bounded=bounded)
        found[i] = value > max(limit, floor)
    return found


def _upward_deviation(scaled: npt.NDArray[np.float64]) -> float:
    """Return the standard deviation, or that of the upper side where it is larger (rain: mostly none, then much)."""
    above = scaled[scaled > scaled.mean()] - scaled.mean()
    upward = math.sqrt(float(above @ above) / max(above.size - 1, 1)) if above.size else 0.0
    return max(float(scaled.std(ddof=1)), upward)


def _stands(beyond: npt.NDArray[np.bool_], persistence: int) -> npt.NDArray[np.bool_]:
    """Say of each block whether it ends a run of at least `persistence` blocks beyond the limit."""
    found = beyond.copy()
    for lag in range(1, persistence):
        found &= np.concatenate([np.zeros(min(lag, len(beyond)), dtype=bool), beyond[:-lag]])[: len(beyond)]
    return found


def _effective_number(scaled: npt.NDArray[np.float64]) -> float:
    """Return how many independent blocks tell as much about spread, from the lag-one autocorrelation."""
    centred = scaled - scaled.mean()
    power = float(centred @ centred)
    lagged = float(centred[1:] @ centred[:-1]) / power if power > 0 else 0.0
    correlation = min(max(lagged, 0.0), 0.9)
    return max(len(scaled) * (1 - correlation) / (1 + correlation), 2.0)


def _unbound(values: npt.NDArray[np.float64], bounded: bool) -> npt.NDArray[np.float64]:
    clipped = np.clip(values, 1e-9, 1 - 1e-9) if bounded else np.maximum(values, 1e-12)
    return np.log(clipped / (1 - clipped)) if bounded else np.log(clipped)


def _bind(value: float, bounded: bool) -> float:
    if bounded:
        return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
    return math.exp(min(value, 700.0))


def _student(level: float, freedom: int) -> float:
    """Return t with P(T > t) = level for whole degrees of freedom, by bisection on the closed form."""
    low, high = 0.0, 1.0
    while _student_tail(high, freedom) > level and high < 1e12:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_tail(middle, freedom) > level else (low, middle)
    return high


def _student_tail(t: float, freedom: int) -> float:
    """P(T > t), t ≥ 0 (Abramowitz & Stegun 26.7.3 odd, 26.7.4 even)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, term, series = math.cos(angle) ** 2, 1.0, 1.0
    if freedom % 2:
        for k in range(2, freedom - 1, 2):
            term *= cosine * k / (k + 1)
            series += term
        inner = 0.0 if freedom == 1 else math.sin(angle) * math.cos(angle) * series
        return 0.5 - (angle + inner) / math.pi
    for k in range(1, freedom - 2, 2):
        term *= cosine * k / (k + 1)
        series += term
    return 0.5 - math.sin(angle) * series / 2
