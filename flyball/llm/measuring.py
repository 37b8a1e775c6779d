"""Figures of many traces: counts, times, tokens, cost and scores, by time and by what they share.

One pass over what the ledger yields, holding one list of numbers a group; percentiles are interpolated linearly
(Hyndman and Fan, 1996, definition 7).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flyball.errors import InvalidInput
from flyball.ledger import Transaction
from flyball.ledger.traces import SESSION, USAGE, Assessment, Trace
from flyball.llm.conventions import MODEL, PROVIDER
from flyball.llm.spans import Span, finite, read_span
from flyball.llm.usage import SPAN_COST

__all__ = ["Aggregation", "Figure", "Question", "figures"]

_NUMERIC = ("SUM", "AVG", "MIN", "MAX", "PERCENTILE")
_TIMED = _NUMERIC[1:]
_BUCKET = "time_bucket"
_MOST_BUCKETS = 100_000
_READ_TOGETHER = 100  # traces whose spans are in memory at once


class _Metric(NamedTuple):
    aggregations: tuple[str, ...]
    dimensions: tuple[str, ...]


_TOKENS = ("input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_MODELLED = ("span_model_name", "span_model_provider")
METRICS: Mapping[str, Mapping[str, _Metric]] = {
    "TRACES": {
        "trace_count": _Metric(("COUNT",), ("trace_name", "trace_status")),
        "session_count": _Metric(("COUNT",), ()),
        "latency": _Metric(_TIMED, ("trace_name",)),
        **{name: _Metric(_NUMERIC, ("trace_name",)) for name in _TOKENS},
    },
    "SPANS": {
        "span_count": _Metric(("COUNT",), ("span_name", "span_type", "span_status", *_MODELLED)),
        "latency": _Metric(_TIMED, ("span_name", "span_status")),
        **{name: _Metric(_NUMERIC, _MODELLED) for name in ("input_cost", "output_cost", "total_cost")},
    },
    "ASSESSMENTS": {
        "assessment_count": _Metric(("COUNT",), ("assessment_name", "assessment_value")),
        "assessment_value": _Metric(_TIMED, ("assessment_name",)),
    },
}


class Aggregation(NamedTuple):
    """COUNT, SUM, AVG, MIN, MAX, or PERCENTILE with its percentile, 0 to 100."""

    kind: str
    percentile: float | None = None

    @property
    def label(self) -> str:
        return self.kind if self.percentile is None else f"P{self.percentile}"


class Figure(NamedTuple):
    """What was measured of one group."""

    dimensions: dict[str, str]
    values: dict[str, float]


@dataclass(frozen=True)
class Question:
    """What is asked; times are milliseconds since 1970, both ends included.

    `filters` are (view, what, key, value): only what has this value counts; view is trace, span or assessment.
    """

    view: str
    metric: str
    aggregations: Sequence[Aggregation]
    dimensions: Sequence[str] = ()
    filters: Sequence[tuple[str, str, str | None, str]] = ()
    interval_s: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None

    def check(self) -> None:
        """Raise InvalidInput where something is asked that is not measured."""
        if self.view not in METRICS:
            raise InvalidInput(f"view_type must be one of {list(METRICS)}, got '{self.view}'")
        metrics = METRICS[self.view]
        if self.metric not in metrics:
            raise InvalidInput(f"metric_name must be one of {list(metrics)}, got '{self.metric}'")
        known = metrics[self.metric]
        wrong = sorted({one.kind for one in self.aggregations} - set(known.aggregations))
        if wrong:
            allowed = sorted(known.aggregations)
            raise InvalidInput(f"Found invalid aggregation_type(s): {wrong}. Supported aggregation types: {allowed}")
        wrong = sorted(set(self.dimensions) - set(known.dimensions))
        if wrong:
            raise InvalidInput(f"Found invalid dimension(s): {wrong}. Supported dimensions: {sorted(known.dimensions)}")
        for one in self.aggregations:
            if one.percentile is not None and not 0 <= one.percentile <= 100:
                raise InvalidInput(f"the percentile is {one.percentile}; expected 0 to 100")
        if self.interval_s is not None:
            self._check_interval(self.interval_s)
        for view, *_ in self.filters:
            if view != "trace" and view.upper() + "S" != self.view:
                raise InvalidInput(
                    f"Filtering by {view} is only supported for {view.upper()}S view type, got {self.view}"
                )

    def _check_interval(self, interval_s: int) -> None:
        if interval_s < 1:
            raise InvalidInput(f"time_interval_seconds is {interval_s}; expected at least 1")
        if self.first_ms is None or self.last_ms is None:
            raise InvalidInput("start_time_ms and end_time_ms are required if time_interval_seconds is set")


def figures(world: Transaction, experiments: Sequence[str], question: Question, most: int = 1000) -> list[Figure]:
    """Return what was measured, by time and then by dimension, at most `most` groups.

    Raises:
        InvalidInput: something is asked that is not measured, or over more than 100,000 intervals.
    """
    question.check()
    rows = {"TRACES": _of_traces, "SPANS": _of_spans, "ASSESSMENTS": _of_assessments}[question.view]
    groups: defaultdict[tuple[Any, ...], list[Any]] = defaultdict(list)
    for at_ms, shared, value in rows(world, experiments, question):
        if value is None or any(shared(name) is None for name in question.dimensions):
            continue
        bucket: tuple[Any, ...] = ()
        if question.interval_s:
            bucket = (at_ms // (question.interval_s * 1000) * question.interval_s * 1000,)
        groups[*bucket, *(shared(name) for name in question.dimensions)].append(value)
        if len(groups) > _MOST_BUCKETS:
            raise InvalidInput("more than 100,000 groups were measured; take a longer interval or fewer dimensions")
    names = [*([_BUCKET] if question.interval_s else []), *question.dimensions]
    found = []
    for key in sorted(groups)[:most]:
        dimensions = dict(zip(names, key, strict=True))
        if _BUCKET in dimensions:
            dimensions[_BUCKET] = datetime.fromtimestamp(dimensions[_BUCKET] / 1000, tz=UTC).isoformat()
        numbers = groups[key]
        if question.metric == "session_count":
            numbers = list(set(numbers))
        found.append(Figure(dimensions, {one.label: _aggregated(one, numbers) for one in question.aggregations}))
    return found


_Row = tuple[int, Callable[[str], str | None], Any]


def _of_traces(world: Transaction, experiments: Sequence[str], question: Question) -> Iterator[_Row]:
    for trace in _chosen(world, experiments, question):
        shared = {"trace_name": trace.name, "trace_status": trace.state}
        value: Any
        if question.metric == "trace_count":
            value = 1
        elif question.metric == "session_count":
            value = trace.metadata.get(SESSION)
        elif question.metric == "latency":
            value = trace.took_ms
        else:
            value = finite(_usage(trace).get(question.metric))
        yield trace.at_ms, shared.get, value


def _of_spans(world: Transaction, experiments: Sequence[str], question: Question) -> Iterator[_Row]:
    wanted = {what: value for view, what, _, value in question.filters if view == "span"}
    for some in _together(_chosen(world, experiments, question)):
        texts = world.traces.spans([trace.id for trace in some])
        for trace in some:
            for span in {s.id: s for s in map(read_span, texts[trace.id])}.values():
                shared = _of_span(span)
                if any(shared.get(f"span_{what}") != value for what, value in wanted.items()):
                    continue
                yield span.start_ns // 1_000_000, shared.get, _span_value(span, question.metric)


def _of_assessments(world: Transaction, experiments: Sequence[str], question: Question) -> Iterator[_Row]:
    said = [f for f in question.filters if f[0] == "assessment"]
    of_traces = [f for f in question.filters if f[0] == "trace"]
    allowed = {trace.id for trace in _chosen(world, experiments, question)} if of_traces else None
    for at_ms, one in world.traces.assessments(experiments, question.first_ms, question.last_ms):
        if allowed is not None and one.trace not in allowed:
            continue
        if any({"name": one.name, "type": one.kind}.get(what) != value for _, what, _, value in said):
            continue
        shared = {"assessment_name": one.name, "assessment_value": json.dumps(one.value)}
        yield at_ms, shared.get, 1 if question.metric == "assessment_count" else _score(one)


def _chosen(world: Transaction, experiments: Sequence[str], question: Question) -> Iterator[Trace]:
    wanted = [(what, key, value) for view, what, key, value in question.filters if view == "trace"]
    for trace in world.traces.scan(experiments, question.first_ms, question.last_ms):
        if all(_has(trace, what, key, value) for what, key, value in wanted):
            yield trace


def _has(trace: Trace, what: str, key: str | None, value: str) -> bool:
    if what == "status":
        return trace.state == value
    return (trace.tags if what == "tag" else trace.metadata).get(str(key)) == value


def _together(traces: Iterable[Trace]) -> Iterator[list[Trace]]:
    some: list[Trace] = []
    for trace in traces:
        some.append(trace)
        if len(some) == _READ_TOGETHER:
            yield some
            some = []
    if some:
        yield some


def _of_span(span: Span) -> dict[str, str | None]:
    model, provider = span.attributes.get(MODEL), span.attributes.get(PROVIDER)
    return {
        "span_name": span.name,
        "span_type": span.type,
        "span_status": span.status,
        "span_model_name": model if isinstance(model, str) else None,
        "span_model_provider": provider if isinstance(provider, str) else None,
    }


def _span_value(span: Span, metric: str) -> float | None:
    if metric == "span_count":
        return 1
    if metric == "latency":
        return None if not span.end_ns else (span.end_ns - span.start_ns) // 1_000_000
    cost = span.attributes.get(SPAN_COST)
    return finite(cost.get(metric)) if isinstance(cost, Mapping) else None


def _usage(trace: Trace) -> Mapping[str, Any]:
    try:
        found = json.loads(trace.metadata.get(USAGE, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _score(one: Assessment) -> float | None:
    if isinstance(one.value, bool):
        return float(one.value)
    if isinstance(one.value, str):
        return {"yes": 1.0, "no": 0.0}.get(one.value.strip().lower())
    return finite(one.value)


def _aggregated(aggregation: Aggregation, numbers: list[Any]) -> float:
    kind = aggregation.kind
    if kind == "COUNT":
        return float(len(numbers))
    if kind in ("SUM", "AVG"):
        total = float(sum(numbers))
        return total if kind == "SUM" else total / len(numbers)
    if kind in ("MIN", "MAX"):
        return float(min(numbers) if kind == "MIN" else max(numbers))
    ordered = sorted(numbers)
    place = (aggregation.percentile or 0.0) / 100 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
