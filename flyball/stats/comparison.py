"""Comparisons: is the challenger better than the champion, worse, or is there no evidence?

Gates (`against: champion`) and canaries call this. Two models on the *same* rows are compared row by row (`compare`),
which cancels what makes rows hard for both and so needs far fewer rows; two arms of live traffic, each with rows of
its own, by `compare_unpaired`.

What the verdict means. Let the *improvement* be challenger − champion, negated where lower is better, and [low, high]
its interval at `level` (two-sided, 95 % by default):

    better        low > margin
    worse         high < −margin
    no evidence   anything else, also when the rows are too few to tell (`reason` says which)

So of equal models about (1 − level) / 2 are called better by one comparison, and as many worse. A run of looks at the
same growing rows is more than one comparison. "No evidence" does not mean equal: whether a challenger is at least *not
worse* is asked by `not_worse(tolerance)`, which holds when low ≥ −tolerance.

| | same rows | different rows |
|---|---|---|
| auc | DeLong, paired | the arms' own intervals joined (MOVER) |
| accuracy, precision, recall | influence, with two pseudo rows against overconfidence | MOVER of Wilson's (Newcombe) |
| other metrics with an influence | influence | MOVER |
| metrics of one's own | bootstrap, paired | bootstrap |

With `blocks`, differences are summed within blocks before they are compared, in both kinds. Blocks that the arms share,
such as days, cancel what the day did to both.

Sources: DeLong, DeLong & Clarke-Pearson (1988); pseudo rows, Bonett & Price (2012) after Agresti & Min (2005); hybrid
score, Newcombe (1998); method of variance estimates recovery (MOVER), Zou & Donner (2008).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput
from flyball.stats.intervals import (
    Blocks,
    Estimate,
    Interval,
    block_codes,
    bootstrap,
    check_level,
    estimate,
    has_no_spread,
    interval_of,
    percentiles,
    standard_error,
    student_quantile,
    student_tail,
    too_few,
)
from flyball.stats.metrics import Metric, Values
from flyball.stats.metrics import metric as metric_of

__all__ = ["Comparison", "Verdict", "compare", "compare_unpaired"]

Verdict = Literal["better", "worse", "no evidence"]
Rows = tuple[npt.ArrayLike, npt.ArrayLike]
Arms = tuple[tuple[Values, Values], tuple[Values, Values]]
Codes = tuple[Blocks | None, Blocks | None]

FEWEST_ROWS = 10  # below this no interval of a difference keeps its level
FEWEST_OF_A_CLASS = 5  # the same for auc, where each class is a sample
FEWEST_BLOCKS = 5  # with fewer, the spread between blocks is a guess


@dataclass(frozen=True)
class Comparison:
    """Two models by one metric: their intervals, the interval of challenger − champion, and the verdict.

    An interval is None where the rows cannot carry it; then the verdict is "no evidence" and `reason` says why.
    `p_value` is two-sided, for no difference at all (margin 0). `rows` are the challenger's; on the same rows,
    `champion_rows` is equal to it.
    """

    metric: str
    higher_is_better: bool
    challenger: Interval | None
    champion: Interval | None
    difference: Interval | None
    p_value: float | None
    verdict: Verdict
    reason: str
    rows: int
    champion_rows: int
    margin: float = 0.0

    @property
    def improvement(self) -> Interval | None:
        """The difference with its sign turned so that more is better."""
        if self.difference is None or self.higher_is_better:
            return self.difference
        return Interval(
            -self.difference.high,
            -self.difference.value,
            -self.difference.low,
            self.difference.level,
            self.difference.method,
        )

    def not_worse(self, tolerance: float) -> bool:
        """Return whether the challenger is shown to be at most `tolerance` (in the metric's unit, ≥ 0) worse.

        False where the rows are too few to show it.
        """
        if not tolerance >= 0:
            raise InvalidInput(f"tolerance is {tolerance:g}; expected how much worse is allowed, zero or more")
        return self.improvement is not None and self.improvement.low >= -tolerance

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, intervals as mappings; what is None is left out."""
        fields = {
            "metric": self.metric,
            "verdict": self.verdict,
            "reason": self.reason,
            "challenger": self.challenger,
            "champion": self.champion,
            "difference": self.difference,
            "improvement": self.improvement,
            "p_value": self.p_value,
            "rows": self.rows,
            "champion_rows": self.champion_rows,
            "margin": self.margin,
        }
        return {
            name: value.as_dict() if isinstance(value, Interval) else value
            for name, value in fields.items()
            if value is not None
        }

    def __str__(self) -> str:
        if self.challenger is None or self.champion is None:
            return f"{self.metric}: {self.verdict} ({self.reason})"
        return f"{self.metric} {self.challenger} against {self.champion}: {self.verdict} ({self.reason})"


def compare(
    metric: str | Metric,
    truth: npt.ArrayLike,
    challenger: npt.ArrayLike,
    champion: npt.ArrayLike,
    level: float = 0.95,
    margin: float = 0.0,
    blocks: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two models that predicted the same rows.

    Args:
        metric: a name (of the binary task where tasks share it) or a `Metric`.
        truth, challenger, champion: truth and the two predictions, as `Metric.compute`.
        level: of all intervals, in (0, 1).
        margin: what an improvement must exceed to count, in the metric's unit, ≥ 0.
        blocks: shape (rows,): rows of one block depend on one another, blocks do not.
        seed: of the bootstrap.

    Raises:
        NotFound: no metric has this name.
        InvalidInput: malformed rows, level or margin, or a metric without a better direction (bias). Rows that are
            well-formed but too few, or of one class, raise nothing: the verdict is "no evidence".
    """
    metric = _checked_metric(metric, level, margin)
    arms = (metric.checked(truth, challenger), metric.checked(truth, champion))
    rows = len(arms[0][0])
    if metric.task == "multiclass" and metric.needs == "label":  # number the classes of both models alike
        stacked = metric.checked(np.tile(np.asarray(truth), 2), np.concatenate([challenger, champion]))
        arms = ((stacked[0][:rows], stacked[1][:rows]), (stacked[0][rows:], stacked[1][rows:]))
    codes = None if blocks is None else block_codes(blocks, rows)
    asked = _Asked(metric, level, margin, (rows, rows), seed)
    reason = _insufficient(metric, *arms[0], codes) or _insufficient(metric, *arms[1], codes)
    if reason:
        return asked.without_difference(arms, (codes, codes), reason)
    if metric.influence is None:
        return asked.by_bootstrap(arms, (codes, codes), is_paired=True)
    ours, theirs = (estimate(metric, *arm, codes) for arm in arms)
    if np.array_equal(arms[0][1], arms[1][1]):
        return asked.answer(ours.interval(level), theirs.interval(level), _nothing(level), 1.0)
    contributions = metric.influence(*arms[0]) - metric.influence(*arms[1])
    error, freedom = standard_error(contributions, arms[0][0] if metric.by_class else None, codes)
    return asked.by_error(ours, theirs, error, freedom, "paired")


def compare_unpaired(
    metric: str | Metric,
    challenger: Rows,
    champion: Rows,
    level: float = 0.95,
    margin: float = 0.0,
    blocks: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two models that each predicted rows of their own, as the arms of a canary do.

    Args:
        challenger, champion: (truth, prediction) of each.
        blocks: the blocks of the challenger's rows and those of the champion's; equal names are the same block.
        metric, level, margin, seed: as `compare`.

    Raises:
        NotFound, InvalidInput: as `compare`; an arm without rows raises nothing.
    """
    metric = _checked_metric(metric, level, margin)
    rows = (len(np.asarray(challenger[0])), len(np.asarray(champion[0])))
    asked = _Asked(metric, level, margin, rows, seed)
    if 0 in rows:
        empty = "challenger" if rows[0] == 0 else "champion"
        return asked.answer(None, None, None, None, f"the {empty} has no rows")
    arms = (metric.checked(*challenger), metric.checked(*champion))
    shared = None if blocks is None else _shared_codes(blocks, rows)
    own = (None, None) if shared is None else (_renumbered(shared[: rows[0]]), _renumbered(shared[rows[0] :]))
    for name, arm, code in zip(("challenger", "champion"), arms, own, strict=True):
        reason = _insufficient(metric, *arm, code)
        if reason:
            return asked.without_difference(arms, own, f"{name}: {reason}")
    if metric.influence is None:
        return asked.by_bootstrap(arms, own, is_paired=False)
    ours, theirs = (estimate(metric, *arm, code) for arm, code in zip(arms, own, strict=True))
    if shared is None:
        return asked.by_mover(ours, theirs)
    contributions = np.concatenate([metric.influence(*arms[0]), -metric.influence(*arms[1])])
    error, _ = standard_error(contributions, None, shared)
    return asked.by_error(ours, theirs, error, min(ours.freedom, theirs.freedom), "unpaired")


@dataclass(frozen=True)
class _Asked:
    """What was asked, and the ways to answer it."""

    metric: Metric
    level: float
    margin: float
    rows: tuple[int, int]
    seed: int

    def answer(
        self,
        ours: Interval | None,
        theirs: Interval | None,
        difference: Interval | None,
        p_value: float | None,
        reason: str = "",
    ) -> Comparison:
        undecided = Comparison(
            self.metric.name,
            self.metric.higher_is_better,
            ours,
            theirs,
            difference,
            p_value,
            "no evidence",
            reason,
            *self.rows,
            self.margin,
        )
        improvement = undecided.improvement
        if improvement is None:
            return undecided
        verdict, reason = _verdict(improvement, self.margin)
        return replace(undecided, verdict=verdict, reason=reason)

    def without_difference(self, arms: Arms, codes: Codes, reason: str) -> Comparison:
        """Answer with the intervals of the arms that have one."""
        found: list[Interval | None] = []
        for arm, code in zip(arms, codes, strict=True):
            has_none = self.metric.missing(*arm) or too_few(self.metric, len(arm[0]), code)
            try:
                found.append(
                    None if has_none else interval_of(self.metric, *arm, code, level=self.level, seed=self.seed)
                )
            except InvalidInput:  # a bootstrap whose resamples have no value
                found.append(None)
        return self.answer(found[0], found[1], None, None, reason)

    def by_error(self, ours: Estimate, theirs: Estimate, error: float, freedom: float, method: str) -> Comparison:
        """Answer by the standard error of the difference."""
        value = ours.value - theirs.value
        if self.metric.is_proportion:  # Bonett & Price: each arm is right once where the other is not
            error = math.hypot(error, 1 / ours.trials, 1 / theirs.trials)
        elif has_no_spread(error, max(abs(ours.value), abs(theirs.value))):
            if ours.is_on_edge or theirs.is_on_edge:
                return self.by_mover(ours, theirs)
            error = 0.0
        half = student_quantile((1 + self.level) / 2, freedom) * error
        widest = self.metric.high - self.metric.low
        low, high = max(value - half, -widest), min(value + half, widest)
        p_value = 2 * student_tail(abs(value) / error, freedom) if error else float(value == 0)
        difference = Interval(low, value, high, self.level, f"{ours.method}, {method}")
        return self.answer(ours.interval(self.level), theirs.interval(self.level), difference, p_value)

    def by_mover(self, ours: Estimate, theirs: Estimate) -> Comparison:
        """Answer by joining the two arms' own intervals; they must be independent."""
        mine, other = ours.interval(self.level), theirs.interval(self.level)
        low, high = _mover(mine, other)
        difference = Interval(low, ours.value - theirs.value, high, self.level, f"{ours.method}, MOVER")
        return self.answer(mine, other, difference, _mover_p_value(ours, theirs))

    def by_bootstrap(self, arms: Arms, codes: Codes, *, is_paired: bool) -> Comparison:
        """Answer by resampling: the same rows for both, or each arm's own."""
        (truth, ours), (other_truth, theirs) = arms
        try:
            if is_paired:
                mine, other = bootstrap(self.metric, truth, (ours, theirs), codes[0], self.seed).T
            else:
                mine = bootstrap(self.metric, truth, (ours,), codes[0], self.seed)[:, 0]
                other = bootstrap(self.metric, other_truth, (theirs,), codes[1], self.seed + 1)[:, 0]
        except InvalidInput as error:
            return self.answer(None, None, None, None, str(error))
        both = min(len(mine), len(other))
        deviations = mine[:both] - other[:both]
        values = [self.metric.formula(*arm) for arm in arms]
        value = values[0] - values[1]
        beyond = min(int(np.sum(value + deviations <= 0)), int(np.sum(value + deviations >= 0)))
        return self.answer(
            percentiles(values[0], mine, self.level, codes[0]),
            percentiles(values[1], other, self.level, codes[1]),
            percentiles(value, deviations, self.level, codes[0]),
            min(1.0, 2 * (beyond + 1) / (both + 1)),
        )


def _verdict(improvement: Interval, margin: float) -> tuple[Verdict, str]:
    shown = f"the improvement {improvement.value:+.4g} [{improvement.low:+.4g}, {improvement.high:+.4g}]"
    if improvement.low > margin:
        return "better", f"{shown} lies above {margin:g}"
    if improvement.high < -margin:
        return "worse", f"{shown} lies below {-margin:g}"
    if margin:
        return "no evidence", f"{shown} lies neither above {margin:g} nor below {-margin:g}"
    return "no evidence", f"{shown} does not exclude 0"


def _insufficient(metric: Metric, truth: Values, prediction: Values, codes: Blocks | None) -> str:
    """Return why well-formed rows cannot carry a comparison, `""` when they can."""
    reason, rows, trials = metric.missing(truth, prediction), len(truth), metric.trials(truth, prediction)
    if reason:
        return reason
    if rows < FEWEST_ROWS:
        return f"a comparison needs at least {FEWEST_ROWS} rows; there are {rows}"
    if metric.by_class and trials < FEWEST_OF_A_CLASS:
        return f"comparing {metric.name} needs at least {FEWEST_OF_A_CLASS} rows of each class; one has {trials}"
    if trials == 0:
        return f"{metric.name} divides by zero: none of {rows:,} rows is positive"
    number = FEWEST_BLOCKS if codes is None else int(codes.max()) + 1
    if number < FEWEST_BLOCKS:
        return f"a comparison needs at least {FEWEST_BLOCKS} blocks; the {rows:,} rows are of {number}"
    return ""


def _checked_metric(metric: str | Metric, level: float, margin: float) -> Metric:
    found = metric_of(metric) if isinstance(metric, str) else metric
    check_level(level)
    if not 0 <= margin < math.inf:
        raise InvalidInput(f"margin is {margin:g}; expected what an improvement must exceed, zero or more")
    if not found.has_direction:
        raise InvalidInput(f"{found.name} has no better direction, so nothing is better by it; compare mae or rmse")
    return found


def _mover(ours: Interval, theirs: Interval) -> tuple[float, float]:
    """Return the ends of the difference of two independent intervals (Zou & Donner)."""
    value = ours.value - theirs.value
    low = value - math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    return low, value + math.hypot(ours.high - ours.value, theirs.value - theirs.low)


def _mover_p_value(ours: Estimate, theirs: Estimate) -> float:
    """Return the p at which the interval of level 1 − p just reaches zero, by bisection on ln p; at least 1e-12."""
    least, most = math.log(1e-12), 0.0
    for _ in range(40):
        middle = (least + most) / 2
        level = 1 - math.exp(middle)
        low, high = _mover(ours.interval(level), theirs.interval(level))
        least, most = (middle, most) if low <= 0 <= high else (least, middle)
    return math.exp(most)


def _shared_codes(blocks: tuple[npt.ArrayLike, npt.ArrayLike], rows: tuple[int, int]) -> Blocks:
    """Return block numbers of the challenger's rows, then the champion's, equal for equal names."""
    names = [np.asarray(one) for one in blocks]
    for one, number in zip(names, rows, strict=True):
        block_codes(one, number)
    if names[0].dtype.kind != names[1].dtype.kind:
        raise InvalidInput(
            f"the blocks of the challenger are {names[0].dtype.name} and those of the champion {names[1].dtype.name}; "
            "expected one type"
        )
    return block_codes(np.concatenate(names), sum(rows))


def _renumbered(codes: Blocks) -> Blocks:
    return np.asarray(np.unique(codes, return_inverse=True)[1], dtype=np.int64)


def _nothing(level: float) -> Interval:
    return Interval(0.0, 0.0, 0.0, level, "the same predictions")
