"""The fault of a table: one number is mirrored inside its own range, which no contract of ranges can see.

Of the inputs that the drift monitor will see mirrored, the one is taken that hurts the model most; where there is
none, the one that hurts so much that the quality of labelled answers shows it. Both are found on the rows to learn from
alone; where no input does either, nothing is broken and the demo says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from flyball.data.rows import Rows
from flyball.demo.faults import Fault
from flyball.demo.job import Sizes
from flyball.evaluation.evaluate import task_of, truth_for
from flyball.monitoring.windows import drift_in, make_reference
from flyball.stats.metrics import metric as metric_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["choose_mirror"]

_CLEARLY = 1.15  # times its threshold, in every window of the mirrored rows
_LEAST_DROP = {"auc": 0.02, "accuracy": 0.02, "r2": 0.05}
_FELT = 5  # times the least drop, for a fault that only the truth can tell
_FALSE_ALARMS = 0.01


def choose_mirror(
    learnt: pl.DataFrame,
    replayed: pl.DataFrame,
    test: pl.Expr,
    target: str,
    inputs: Sequence[str],
    time: str | None,
    metric: str,
    sizes: Sizes,
) -> tuple[Fault | None, str]:
    """Return the fault and a sentence on the choice; None where no input would be seen and hurt."""
    numbers = [name for name in inputs if learnt[name].dtype.is_numeric()]
    if not numbers:
        return None, "no fault: there is no number among the inputs to be mirrored"
    ratios = _ratios(learnt, numbers, time, sizes)
    drops = _drops(learnt, test, target, inputs, numbers, time, metric)
    seen = [name for name in numbers if ratios[name] >= _CLEARLY and drops[name] >= _LEAST_DROP[metric]]
    felt = [name for name in numbers if drops[name] >= _FELT * _LEAST_DROP[metric]]
    if not seen and not felt:
        worst = max(numbers, key=lambda name: drops[name])
        return None, (
            "no fault: no number, mirrored inside its range, would both be told from healthy windows and hurt "
            f"({worst} hurts most: {drops[worst]:.3f} of {metric})"
        )
    name = max(seen or felt, key=lambda name: drops[name])
    low, high = _range(learnt[name])
    values = (low + high - replayed[name]).cast(replayed[name].dtype).to_list()
    sentence = (
        f"from request {sizes.fault_at:,} on {name} comes mirrored inside its own range, x → {low + high:g} − x; the "
        "contract cannot see it"
    )
    notice = (
        f"each of their windows then lies {ratios[name]:.1f} times the monitor's threshold away or more"
        if seen
        else "their windows look as healthy ones do, so only the truth, when it comes, can tell"
    )
    taken = f"that takes {drops[name]:.3f} of {metric}"
    chosen = f"fault: {name} will be mirrored; on rows to learn from {taken}, and {notice}"
    return Fault(name, values, sizes.fault_at, sentence, is_in_inputs=bool(seen)), chosen


def _ratios(learnt: pl.DataFrame, numbers: list[str], time: str | None, sizes: Sizes) -> dict[str, float]:
    """Return by column the smallest statistic of mirrored windows, in thresholds."""
    reference = make_reference(
        learnt.select(numbers),
        numbers,
        window=sizes.window,
        false_alarms=_FALSE_ALARMS,
        horizon=sizes.horizon,
        persistence=2,
        ordered=time is not None,
    )
    mirrored = learnt.select(
        (pl.lit(sum(_range(learnt[name]))) - pl.col(name)).alias(f"input.{name}") for name in numbers
    )
    least = dict.fromkeys(numbers, float("inf"))
    size = min(sizes.window, learnt.height)
    for start in range(0, learnt.height - size + 1, size):
        found = drift_in(mirrored.slice(start, size), reference, 0)
        for name in numbers:
            limit = reference.calibration.limits[name].threshold
            least[name] = min(least[name], found.statistics[name] / max(limit, 1e-12))
    return least


def _drops(
    learnt: pl.DataFrame,
    test: pl.Expr,
    target: str,
    inputs: Sequence[str],
    names: list[str],
    time: str | None,
    metric: str,
) -> dict[str, float]:
    """Return by column how much of the metric mirroring it takes from a model that learnt the rows unbroken."""
    from flyball.demo.project.pipelines import fit
    from flyball.training.registering import answer

    rows = Rows.of(learnt.filter(~test), target, event_time=time, inputs=inputs)
    unseen = learnt.filter(test)
    model = fit(rows)

    def value(frame: pl.DataFrame) -> float:
        part = Rows.of(frame, target, event_time=time, inputs=inputs)
        truth = truth_for(task_of(rows.y), part.y)
        return float(metric_of(metric).compute(truth, _judged(metric, answer(model, part))))

    healthy = value(unseen)
    drops = {}
    for name in names:
        whole = sum(_range(learnt[name]))
        broken = unseen.with_columns((pl.lit(whole) - pl.col(name)).cast(learnt[name].dtype).alias(name))
        drops[name] = healthy - value(broken)
    return drops


def _judged(metric: str, outputs: Any) -> np.ndarray[Any, Any]:
    from flyball.evaluation.evaluate import answers_for

    return answers_for(metric_of(metric), outputs)


def _range(column: pl.Series) -> tuple[float, float]:
    known = column.drop_nulls()
    low, high = known.min(), known.max()
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    return low, high
