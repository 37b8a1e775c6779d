"""Traces: what one request did, as a tree of spans, and what people and judges said of it.

A trace has an account of the whole (`Trace`), spans that arrive in any number of requests, before or after it, and
assessments. Spans are kept as JSON texts of the form that MLflow stores; what is searched stands beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

__all__ = [
    "COST", "FINALIZED", "LOCATION_TAG", "NAME_TAG", "RUN", "SESSION", "SPANS_TAG", "USAGE", "USER", "Assessment",
    "NewSpans", "SpanMark", "Trace", "TraceCondition", "TraceOrder", "TraceState", "Traces",
]  # fmt: skip

TraceState = Literal["STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS"]

NAME_TAG = "mlflow.traceName"
LOCATION_TAG = "mlflow.artifactLocation"
SPANS_TAG = "mlflow.trace.spansLocation"
RUN = "mlflow.sourceRun"
SESSION = "mlflow.trace.session"
USER = "mlflow.trace.user"
USAGE = "mlflow.trace.tokenUsage"
COST = "mlflow.trace.cost"
FINALIZED = "mlflow.trace.infoFinalized"  # the account was told; spans no longer move its times


@dataclass(frozen=True)
class Assessment:
    """What somebody said of a trace or of one of its spans. `value` is JSON; times are milliseconds since 1970."""

    id: str
    trace: str
    name: str
    kind: Literal["feedback", "expectation", "issue"]
    value: Any
    source_type: str
    source: str | None
    created_ms: int
    updated_ms: int
    error: Mapping[str, str] | None = None
    rationale: str | None = None
    span: str | None = None
    overrides: str | None = None
    is_valid: bool = True
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Trace:
    """The account of one trace; times are milliseconds since 1970, in UTC, and how long it took, in milliseconds."""

    id: str
    experiment: str
    at_ms: int
    took_ms: int | None
    state: TraceState
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    client_id: str | None = None
    request: str | None = None  # how it begins, for lists
    response: str | None = None
    span_count: int = 0
    assessments: tuple[Assessment, ...] = ()

    @property
    def name(self) -> str | None:
        return self.tags.get(NAME_TAG)


class SpanMark(NamedTuple):
    """What is searched of a span without reading it: several spans of a trace may share one."""

    name: str
    type: str
    status: str


class NewSpans(NamedTuple):
    """Spans of one trace that arrived together, and what they say of the trace.

    `texts` are JSON by span id. `merge` gets the account so far (None: there is none yet) and a function that reads
    all texts of the trace, these included, and returns the account as it is then.
    """

    trace: str
    texts: Mapping[str, str]
    marks: frozenset[SpanMark]
    merge: Callable[[Trace | None, Callable[[], list[str]]], Trace]


class TraceCondition(NamedTuple):
    """What a search asks; see `Traces.search`. `holds` tests a value that is there (text, or a number)."""

    kind: str
    key: str
    operator: str
    value: Any
    holds: Callable[[Any], bool]


class TraceOrder(NamedTuple):
    """What a search sorts by: an attribute, a tag or metadata."""

    kind: str
    key: str
    ascending: bool = True


class Traces(Protocol):
    """Keeps traces with their spans and assessments."""

    def keep(self, id: str, make: Callable[[Trace | None], Trace]) -> Trace:
        """Keep the account that `make` returns, given the one that there is (None: there is none yet).

        Raises:
            NotFound: a new trace names an experiment that there is not.
            Conflict: that experiment is deleted.
            Whatever `make` raises.
        """
        ...

    def add_spans(self, spans: NewSpans) -> Trace:
        """Keep spans of a trace, making it when it is not there; one that came before is replaced. Raises as `keep`."""
        ...

    def get(self, id: str) -> Trace:
        """Return a trace. Raises NotFound."""
        ...

    def all(self, ids: Iterable[str], experiments: Iterable[str] | None = None) -> list[Trace]:
        """Return those traces that exist, in the order asked for, once each; only of `experiments` when given."""
        ...

    def spans(self, ids: Iterable[str]) -> dict[str, list[str]]:
        """Return the texts of the spans of traces, in the order of arrival."""
        ...

    def search(
        self,
        experiments: Iterable[str],
        conditions: Sequence[TraceCondition] = (),
        order: Sequence[TraceOrder] = (),
        limit: int = 100,
        offset: int = 0,
        after: tuple[int, str] | None = None,
    ) -> tuple[list[Trace], bool]:
        """Return traces, and whether there are more.

        Args:
            conditions: all must hold. Kinds: attribute (id, client_id, name, state, run, text, prompt, at_ms, took_ms,
                end_ms), tag, metadata, span (name, type, status, content, attributes.x: all on one span), feedback,
                expectation, issue (id).
            order: missing values last, either way; then the newest first, then by id.
            after: time and id of the trace behind which to begin, instead of `offset`; only without `order`.

        Raises:
            InvalidInput: it would read more text than a search may.
        """
        ...

    def count(self, experiments: Iterable[str], conditions: Sequence[TraceCondition] = ()) -> int:
        """Return how many traces a search would find. Raises InvalidInput, as it."""
        ...

    def scan(self, experiments: Iterable[str], first_ms: int | None, last_ms: int | None) -> Iterator[Trace]:
        """Yield the traces of a time, both ends included, without their assessments, in no order."""
        ...

    def delete(
        self,
        experiment: str,
        ids: Iterable[str] | None = None,
        until_ms: int | None = None,
        most: int | None = None,
    ) -> int:
        """Remove traces by id, or the oldest that began at `until_ms` or before; return how many.

        What was said of them and the records of their files go with them; bytes are the sweep's.
        """
        ...

    def until(self, experiment: str, until_ms: int | None = None) -> Iterator[str]:
        """Yield the ids of an experiment's traces that began at a time or before, or of all."""
        ...

    def files_of(self, experiment: str, ids: Iterable[str]) -> dict[str, str]:
        """Return the folders of traces' files at the artifact proxy, with whose each is; none for files elsewhere."""
        ...

    def every(self, after: str = "", limit: int = 200) -> list[Trace]:
        """Return traces of all experiments by id, behind one of them."""
        ...

    def rewrite(self, trace: Trace, texts: Sequence[str] | None, marks: Iterable[SpanMark] = ()) -> None:
        """Replace what is kept of a trace and said of it, because a person's data must leave it; notes nothing.

        Args:
            texts: of all its spans; None: they stay, with their marks.
            marks: of all its spans.
        """
        ...

    def link(self, ids: Iterable[str], kind: Literal["run", "prompt"], target: str) -> None:
        """Note that traces belong to a run, or used a prompt `name/version`; those that are not there are left out."""
        ...

    def assess(self, assessment: Assessment) -> Assessment:
        """Add an assessment; what it overrides is no longer valid. Raises NotFound: of the trace, or of that one."""
        ...

    def assessment(self, trace: str, id: str) -> Assessment:
        """Return an assessment. Raises NotFound."""
        ...

    def revise(self, assessment: Assessment) -> Assessment:
        """Replace an assessment that is there. Raises NotFound."""
        ...

    def withdraw(self, trace: str, id: str) -> None:
        """Remove an assessment, if it is there; what it overrode is valid again. Raises NotFound: of the trace."""
        ...

    def assessments(
        self, experiments: Iterable[str], first_ms: int | None, last_ms: int | None
    ) -> Iterator[tuple[int, Assessment]]:
        """Yield the valid assessments of traces of a time, each with its trace's time."""
        ...
