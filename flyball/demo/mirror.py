"""The fault of a table: one number is mirrored inside its own range, which no contract of ranges can see.

Of the inputs that the drift monitor will see mirrored, the one is taken that hurts the model most; where there is
none, the one that hurts so much that the quality of labelled answers shows it: in both cases one that retraining can
make good. All this is found on the rows to learn from alone; where there is no such input, nothing is broken and the
demo says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from flyball.data.blocks import blocks_of
from flyball.data.rows import Rows
from flyball.demo.faults import Fault
from flyball.demo.job import Sizes
from flyball.evaluation.evaluate import answers_for, task_of, truth_for
from flyball.monitoring.windows import drift_in, make_reference
from flyball.stats.metrics import metric as metric_of
from flyball.training.registering import answer

__all__ = ["choose_mirror"]

_CLEARLY = 1.15  # times its threshold, in every window of the mirrored rows
_LEAST_DROP = {"auc": 0.02, "accuracy": 0.02, "r2": 0.05}
_FELT = 5  # times the least drop, for a fault that only the truth can tell
_HEALED = 2 / 3  # of what a fault takes: so much must come back for the fault to be chosen
_TRIED = 5  # retrainings that are tried to find it
_TAUGHT = 0.7  # of the labelled rows, the recipe's share that teaches
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
    trial = _Trial(learnt, test, target, inputs, time, metric, sizes)
    drops = {name: trial.drop(name) for name in numbers}
    seen = [name for name in numbers if ratios[name] >= _CLEARLY and drops[name] >= _LEAST_DROP[metric]]
    felt = [name for name in numbers if drops[name] >= _FELT * _LEAST_DROP[metric]]
    if not seen and not felt:
        worst = max(numbers, key=lambda name: drops[name])
        return None, (
            "no fault: no number, mirrored inside its range, would both be told from healthy windows and hurt "
            f"({worst} hurts most: {drops[worst]:.3f} of {metric})"
        )
    name, back = _worst_that_heals(trial, drops, seen or felt)
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
    taken = f"that takes {drops[name]:.3f} of {metric}, of which learning from mirrored rows gives {back:.3f} back"
    chosen = f"fault: {name} will be mirrored; on rows to learn from {taken}; {notice}"
    return Fault(name, values, sizes.fault_at, sentence, is_in_inputs=bool(seen)), chosen


def _worst_that_heals(trial: _Trial, drops: dict[str, float], names: Sequence[str]) -> tuple[str, float]:
    """Return the input that hurts most of those that retraining can make good, and what it gives back."""
    worst = sorted(names, key=lambda name: -drops[name])[:_TRIED]
    found = {}
    for name in worst:
        found[name] = trial.given_back(name)
        if found[name] >= _HEALED * drops[name]:
            return name, found[name]
    best = max(found, key=lambda name: found[name])
    return best, found[best]


def _ratios(learnt: pl.DataFrame, numbers: list[str], time: str | None, sizes: Sizes) -> dict[str, float]:
    """Return by column the smallest statistic of mirrored windows, in thresholds."""
    reference = make_reference(
        blocks_of(learnt.lazy(), numbers, event_time=time),
        numbers,
        window=sizes.window,
        false_alarms=_FALSE_ALARMS,
        horizon=sizes.horizon,
        persistence=2,
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


class _Trial:
    """What mirroring an input takes from a model that learnt the rows unbroken, and what retraining gives back."""

    def __init__(
        self,
        learnt: pl.DataFrame,
        test: pl.Expr,
        target: str,
        inputs: Sequence[str],
        time: str | None,
        metric: str,
        sizes: Sizes,
    ) -> None:
        self._learnt, self._unseen = learnt.filter(~test), learnt.filter(test)
        self._target, self._inputs, self._time, self._metric = target, tuple(inputs), time, metric
        self._new_rows = round(sizes.labels * _TAUGHT)
        self._sums = {name: sum(_range(learnt[name])) for name in inputs if learnt[name].dtype.is_numeric()}
        self._task = task_of(learnt[target].to_numpy())
        self._model = self._fitted(self._learnt)
        self._healthy = self._value(self._model, self._unseen)
        self._broken: dict[str, float] = {}

    def drop(self, name: str) -> float:
        """Return how much of the metric mirroring takes."""
        self._broken[name] = self._value(self._model, self._mirrored(self._unseen, name))
        return self._healthy - self._broken[name]

    def given_back(self, name: str) -> float:
        """Return how much of it comes back when as many mirrored rows are learnt as the demo will have labelled."""
        again = self._fitted(pl.concat([self._learnt, self._mirrored(self._learnt.tail(self._new_rows), name)]))
        return self._value(again, self._mirrored(self._unseen, name)) - self._broken[name]

    def _mirrored(self, frame: pl.DataFrame, name: str) -> pl.DataFrame:
        return frame.with_columns((pl.lit(self._sums[name]) - pl.col(name)).cast(frame[name].dtype).alias(name))

    def _rows(self, frame: pl.DataFrame) -> Rows:
        return Rows.of(frame, self._target, event_time=self._time, inputs=self._inputs)

    def _fitted(self, frame: pl.DataFrame) -> Any:
        from flyball.demo.project.pipelines import fit

        return fit(self._rows(frame))

    def _value(self, model: Any, frame: pl.DataFrame) -> float:
        rows, wanted = self._rows(frame), metric_of(self._metric)
        return float(wanted.compute(truth_for(self._task, rows.y), answers_for(wanted, answer(model, rows))))


def _range(column: pl.Series) -> tuple[float, float]:
    known = column.drop_nulls()
    low, high = known.min(), known.max()
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    return low, high
