"""Evaluate a model's answers: every metric of the task with its interval, and the slices where it is worst.

Works on arrays and frames that the caller has; knows neither models nor the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.stats.intervals import Interval, interval
from flyball.stats.metrics import Metric, default_metric, metric, metrics_for

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Evaluation", "Slice", "answers_for", "evaluate", "task_of", "truth_for"]

SLICE_ROWS = 50  # a slice of fewer rows says nothing that its interval would not swallow
WORST_SLICES = 10

Outputs = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Slice:
    """The rows where `column` is `value`, and the deciding metric on them."""

    column: str
    value: str
    rows: int
    interval: Interval


@dataclass(frozen=True)
class Evaluation:
    """What was found. `metric` decides; `metrics` holds all of the task's by name."""

    task: str
    metric: str
    rows: int
    metrics: Mapping[str, Interval]
    worst_slices: tuple[Slice, ...] = ()
    curves: Mapping[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> Interval:
        """The deciding metric."""
        return self.metrics[self.metric]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.rows:,} rows, {self.task}"]
        for name, found in self.metrics.items():
            mark = "*" if name == self.metric else " "
            lines.append(f"{mark} {name:<18} {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]")
        for part in self.worst_slices[:3]:
            found = part.interval
            lines.append(
                f"  worst: {part.column} = {part.value} ({part.rows:,} rows): "
                f"{self.metric} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def task_of(target: Sequence[Any] | np.ndarray[Any, Any] | pl.Series) -> str:
    """Return the task that a target column sets: binary, multiclass or regression.

    Raises:
        InvalidInput: there is only one class, or nothing at all.
    """
    values = np.asarray(target)
    if values.size == 0:
        raise InvalidInput("the target is empty; there is nothing to learn from")
    is_number = values.dtype.kind in "fiu"
    if is_number and values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    distinct = np.unique(values.astype(str) if values.dtype == object else values)
    if distinct.size == 1:
        raise InvalidInput(
            f"the target is {distinct[0]} in all {values.size:,} rows; a model needs at least two values"
        )
    if distinct.size == 2:
        return "binary"
    if is_number and (distinct.size > 20 or not np.all(distinct == np.round(distinct))):
        return "regression"
    return "multiclass"


def truth_for(task: str, target: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the truth as metrics take it: 0/1 for binary (1 is the later class in order), floats for regression."""
    values = np.asarray(target)
    if task == "binary":
        if values.dtype == bool:
            return values.astype(np.int64)
        classes = np.unique(values)
        if classes.size <= 2 and np.isin(classes, [0, 1]).all():
            return values.astype(np.int64)
        positive: np.ndarray[Any, Any] = (values == classes[-1]).astype(np.int64)
        return positive
    return values.astype(np.float64) if task == "regression" else values


def answers_for(wanted: Metric, outputs: Outputs) -> np.ndarray[Any, Any]:
    """Return the part of a model's outputs that a metric judges.

    Raises:
        InvalidInput: the model gives no such output.
    """
    names = {"score": "probability", "label": "prediction", "proba": "probabilities", "value": "prediction"}
    name = names[wanted.needs]
    if name not in outputs:
        raise InvalidInput(
            f"{wanted.name} judges the output {name!r}, which this model does not give (it gives: {listed(outputs)})"
        )
    found: np.ndarray[Any, Any] = np.asarray(outputs[name])
    return found


def evaluate(
    task: str,
    target: np.ndarray[Any, Any],
    outputs: Outputs,
    *,
    deciding: str | None = None,
    frame: pl.DataFrame | None = None,
    slices: Sequence[str] = (),
    blocks: np.ndarray[Any, Any] | None = None,
) -> Evaluation:
    """Evaluate answers against the truth.

    Args:
        task: binary, multiclass or regression.
        target: (n,) true values.
        outputs: by name, the model's answers for the same n rows.
        deciding: the metric that decides; default: the task's.
        frame: (n rows) columns to slice by.
        slices: names of those columns; each value with at least 50 rows is a slice.
        blocks: (n,) group of each row, such as its day, when rows within a group depend on each other.

    Raises:
        InvalidInput: lengths differ, a value is not finite, only one class, an unknown metric or column.
    """
    truth = truth_for(task, target)
    chosen = metric(deciding or default_metric(task).name)
    if chosen.task != task:
        raise InvalidInput(f"{chosen.name} is a metric for {chosen.task}; the task is {task}")
    found: dict[str, Interval] = {}
    for each in metrics_for(task):
        if {"score": "probability", "proba": "probabilities"}.get(each.needs, "prediction") not in outputs:
            continue
        found[each.name] = interval(each.name, truth, _answers(each, outputs, task, target), blocks=blocks)
    if chosen.name not in found:
        answers_for(chosen, outputs)
    worst = _worst_slices(chosen, truth, _answers(chosen, outputs, task, target), frame, slices)
    return Evaluation(task, chosen.name, len(truth), found, worst)


def _answers(wanted: Metric, outputs: Outputs, task: str, target: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return answers for a metric; labels of a binary task become 0/1 in the same way as the truth."""
    answers = answers_for(wanted, outputs)
    if task == "binary" and wanted.needs == "label" and answers.dtype.kind not in "iuf":
        classes = np.unique(np.asarray(target))
        positive: np.ndarray[Any, Any] = (answers == classes[-1]).astype(np.int64)
        return positive
    return answers


def _worst_slices(
    chosen: Metric,
    truth: np.ndarray[Any, Any],
    answers: np.ndarray[Any, Any],
    frame: pl.DataFrame | None,
    slices: Sequence[str],
) -> tuple[Slice, ...]:
    if frame is None or not slices:
        return ()
    parts: list[Slice] = []
    for column in slices:
        if column not in frame.columns:
            raise InvalidInput(f'there is no column "{column}" to slice by{did_you_mean(column, frame.columns)}')
        values = np.asarray(frame[column].cast(str).fill_null("(missing)").to_list(), dtype=object)
        for value in np.unique(values.astype(str)):
            mask = values == value
            rows = int(mask.sum())
            if rows < SLICE_ROWS or (chosen.needs in ("score", "proba") and np.unique(truth[mask]).size < 2):
                continue
            parts.append(Slice(column, str(value), rows, interval(chosen.name, truth[mask], answers[mask])))
    return tuple(sorted(parts, key=lambda p: p.interval.value, reverse=not chosen.higher_is_better))[:WORST_SLICES]
