"""Which rows of the log an experiment counts, and what each gives: the metric of one row, with its label where known.

Used by `tallies`, a batch of rows at a time; `experiments` says what the metrics are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from flyball.errors import InvalidInput, did_you_mean

if TYPE_CHECKING:
    import polars as pl

__all__ = ["OF_LABEL", "Measures", "Row", "number", "value_of"]

OF_LABEL = frozenset({"reward", "correct", "absolute_error", "squared_error"})
_ANSWERS = ("output.prediction", "output.probability")


@dataclass(frozen=True)
class Measures:
    """What an experiment measures.

    Attributes:
        since_revision: rows answered from this revision of the deployment on count.
        metrics: the rollout's own first, then those of its guardrails.
        covariate: an input or feature; None: the outcomes are not adjusted.
        context: the inputs by which an arm is chosen, in the order of the policy's weights; empty: it is not.
    """

    since_revision: int
    metrics: tuple[str, ...]
    covariate: str | None = None
    context: tuple[str, ...] = ()

    @property
    def needs_labels(self) -> bool:
        """Whether a label can change what a row gives."""
        return any(metric in OF_LABEL for metric in self.metrics)

    def rows(self, frame: pl.DataFrame) -> list[Row]:
        """Return the rows of a frame (columns of `tracking.traffic`) that count."""
        import polars as pl

        kept = frame.filter((pl.col("revision") >= self.since_revision) & (pl.col("variant") != "shadow"))
        if "forced" in kept.columns:
            kept = kept.filter(~pl.col("forced").fill_null(False))
        if kept.is_empty():
            return []

        def values(*names: str) -> list[Any]:
            found = [kept[name].to_list() for name in names if name in kept.columns]
            if not found:
                return [None] * kept.height
            return found[0] if len(found) == 1 else [_first(row) for row in zip(*found, strict=True)]

        covariates = values(f"input.{self.covariate}", f"feature.{self.covariate}") if self.covariate else None
        contexts = [values(f"input.{name}", f"feature.{name}") for name in self.context]
        propensities = values("propensity")
        outputs = {name: values(name) for name in {*_ANSWERS, *(m for m in self.metrics if m.startswith("output."))}}
        micros = kept["at"].cast(pl.Int64).to_list()
        latencies = kept["latency_us"].to_list()
        keys = values("key")
        return [
            Row(
                id,
                variant,
                keys[place],
                micros[place],
                number(covariates[place]) if covariates else None,
                latencies[place] / 1000,
                {name: column[place] for name, column in outputs.items()},
                tuple(number(column[place]) or 0.0 for column in contexts) if contexts else None,
                propensities[place],
            )
            for place, (id, variant) in enumerate(kept.select("id", "variant").iter_rows())
        ]

    def check(self, columns: Iterable[str], texts: Iterable[str]) -> None:
        """Raise InvalidInput unless the log has what is measured; `texts` are the columns that are no numbers."""
        known = list(columns)
        for metric in self.metrics:
            if metric.startswith("output.") and metric not in known:
                outputs = [name for name in known if name.startswith("output.")]
                raise InvalidInput(f'the model has no "{metric}"{did_you_mean(metric, outputs)}')
            if metric == "correct" and "output.prediction" not in known:
                raise InvalidInput("the model has no output prediction, which the metric correct needs")
        for name in (*self.context, *((self.covariate,) if self.covariate else ())):
            found = [column for column in (f"input.{name}", f"feature.{name}") if column in known]
            if not found:
                near = [column.partition(".")[2] for column in known if column.startswith(("input.", "feature."))]
                raise InvalidInput(f'the log has no input or feature "{name}"{did_you_mean(name, near)}')
            if found[0] in texts:
                raise InvalidInput(f'"{name}" is text; expected a number known before a key met an arm')


@dataclass(frozen=True, slots=True)
class Row:
    """An answer: what is measured of it but for its label. `at` is in microseconds, the latency in milliseconds."""

    id: str
    arm: str
    key: str | None = None
    at: int = 0
    covariate: float | None = None
    latency_ms: float = 0.0
    outputs: dict[str, Any] | None = None
    context: tuple[float, ...] | None = None
    propensity: float | None = None

    def packed(self) -> str:
        """Return what a later label needs, as JSON text."""
        answers = [(self.outputs or {}).get(name) for name in _ANSWERS]
        return orjson.dumps([*answers, self.context, self.propensity]).decode()

    @classmethod
    def unpacked(cls, id: str, arm: str, text: str) -> Row:
        """Return what `packed` gave."""
        prediction, probability, context, propensity = orjson.loads(text)
        outputs = dict(zip(_ANSWERS, (prediction, probability), strict=True))
        return cls(id, arm, outputs=outputs, context=tuple(context) if context else None, propensity=propensity)


def value_of(metric: str, row: Row, label: str | None) -> float | None:
    """Return a metric of a row, None where it is unknown; `label` is the truth as JSON text."""
    if metric == "latency_ms":
        return row.latency_ms
    outputs = row.outputs or {}
    if metric.startswith("output."):
        return number(outputs.get(metric))
    if label is None:
        return None
    truth = orjson.loads(label)
    if metric == "reward":
        return number(truth)
    prediction = outputs.get("output.prediction")
    if metric == "correct":
        if prediction is None:
            return None
        if isinstance(truth, str) or isinstance(prediction, str):
            return float(_text(truth) == _text(prediction))
        return float(float(truth) == float(prediction))
    probability = outputs.get("output.probability")
    answer, value = number(prediction if probability is None else probability), number(truth)
    if answer is None or value is None:
        return None
    return abs(answer - value) if metric == "absolute_error" else (answer - value) ** 2


def number(value: Any) -> float | None:
    """Return a value as a finite number, None where it is none; true is 1."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _text(value: Any) -> str:
    return orjson.dumps(value).decode() if isinstance(value, bool) else str(value)
