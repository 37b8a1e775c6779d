"""Comparisons: is the challenger better than the champion, worse, or is there no evidence?

Gates (`against: champion`) and canaries call this. Two models on the *same* rows are compared row by row (`compare`),
which cancels what makes rows hard for both and so needs far fewer rows; two arms of live traffic, each with rows of
its own, by `compare_unpaired`.

What the verdict means. Let the *improvement* be challenger − champion, negated where lower is better, and [low, high]
its interval at `level` (two-sided, 95 % by default):

    better        low > margin
    worse         high < −margin
    no evidence   anything else, also when the rows are too few to tell (`reason` says which)

So of equal models at most (1 − level) / 2 are called better by one comparison, and as many worse. A run of looks at the
same growing rows is more than one comparison. "No evidence" does not mean equal: whether a challenger may be *not worse*
is asked by `not_worse(tolerance)`, which holds when low ≥ −tolerance.

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
from collections.abc import Callable
from dataclasses import dataclass
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
    percentiles,
    standard_error,
    student_quantile,
    student_tail,
    too_few,
    wilson,
)
from flyball.stats.metrics import Floats, Metric, Values
from flyball.stats.metrics import metric as metric_of

__all__ = ["Comparison", "Verdict", "compare", "compare_unpaired"]

Verdict = Literal["better", "worse", "no evidence"]
Rows = tuple[npt.ArrayLike, npt.ArrayLike]

FEWEST_ROWS = 10  # below this no interval of a difference keeps its level
FEWEST_OF_A_CLASS = 5  # the same for auc, where each class is a sample
FEWEST_BLOCKS = 5  # with fewer, the spread between blocks is a guess


@dataclass(frozen=True)
class Comparison:
    """Two models by one metric: their intervals, the interval of challenger − champion, and the verdict.

    The three intervals are None where the rows cannot carry them; then the verdict is "no evidence" and `reason` says
    why. `p_value` is two-sided, for no difference at all (margin 0). `rows` are the challenger's; on the same rows,
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
    truth_seen, champion = metric.checked(truth, champion)
    _, challenger = metric.checked(truth, challenger)
    if metric.needs == "label" and metric.task == "multiclass":
        truth_seen, challenger, champion = _same_codes(truth, challenger, champion)
    codes = None if blocks is None else block_codes(blocks, len(truth_seen))
    arms = ((truth_seen, challenger), (truth_seen, champion))
    judged = _Judged(metric, level, margin, (len(truth_seen), len(truth_seen)))
    reason = next(filter(None, (_insufficient(metric, *arm, codes) for arm in arms)), "")
    if reason:
        return judged.without_difference(arms, (codes, codes), reason, seed)
    if metric.influence is None:
        draws = bootstrap(metric, truth_seen, (challenger, champion), codes, seed)
        return judged.of_draws(arms, draws[:, 0], draws[:, 1], codes)
    ours, theirs = (estimate(metric, *arm, codes) for arm in arms)
    value = ours.value - theirs.value
    if np.array_equal(challenger, champion):
        same = Interval(0.0, 0.0, 0.0, level, "the same predictions")
        return judged.of(ours.interval(level), theirs.interval(level), same, 1.0)
    contributions = metric.influence(*arms[0]) - metric.influence(*arms[1])
    strata = truth_seen if metric.by_class else None
    error, freedom = standard_error(contributions, strata, codes)
    return judged.of_estimates(ours, theirs, value, error, freedom, "paired")


def compare_unpaired(
    metric: str | Metric,
    challenger: Rows,
    champion: Rows,
    level: float = 0.95,
    margin: float = 0.0,
    blocks: Rows | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two models that each predicted rows of their own, as the arms of a canary do.

    Args:
        challenger, champion: (truth, prediction) of each.
        blocks: the blocks of the challenger's rows and those of the champion's; equal names are the same block.
        metric, level, margin, seed: as `compare`.

    Raises:
        NotFound, InvalidInput: as `compare`.
    """
    metric = _checked_metric(metric, level, margin)
    arms = (metric.checked(*challenger), metric.checked(*champion))
    rows = (len(arms[0][0]), len(arms[1][0]))
    codes: tuple[Blocks | None, Blocks | None] = (None, None)
    if blocks is not None:
        codes = _shared_codes(blocks, rows)
    judged = _Judged(metric, level, margin, rows)
    reasons = (_insufficient(metric, *arm, _renumbered(code)) for arm, code in zip(arms, codes, strict=True))
    names = ("challenger", "champion")
    reason = next((f"{name}: {why}" for name, why in zip(names, reasons, strict=True) if why), "")
    own = tuple(_renumbered(code) for code in codes)
    if reason:
        return judged.without_difference(arms, (own[0], own[1]), reason, seed)
    if metric.influence is None:
        draws = [bootstrap(metric, truth, (p,), code, seed + i) for i, ((truth, p), code) in enumerate(zip(arms, own))]
        shortest = min(len(one) for one in draws)
        return judged.of_draws(arms, draws[0][:shortest, 0], draws[1][:shortest, 0], own[0])
    ours, theirs = (estimate(metric, *arm, code) for arm, code in zip(arms, own, strict=True))
    if codes[0] is None or codes[1] is None:
        return judged.of_mover(ours, theirs)
    contributions = np.concatenate([metric.influence(*arms[0]), -metric.influence(*arms[1])])
    error, freedom = standard_error(contributions, None, np.concatenate(codes))  # type: ignore[arg-type]
    freedom = min(freedom, ours.freedom, theirs.freedom)
    return judged.of_estimates(ours, theirs, ours.value - theirs.value, error, freedom, "unpaired")
