"""Joining what arrives of a trace with what is known: its account, or some of its spans, in any order.

Until the account was told, spans say when a trace began, how long it took, how it ended, and how it is called; what the
account said stays. Tokens and cost are those of all spans, unless the account has its own. Source: PROTOCOLS.md §2.8.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flyball.ledger.traces import (
    COST,
    FINALIZED,
    NAME_TAG,
    SESSION,
    SPANS_TAG,
    USAGE,
    USER,
    NewSpans,
    SpanMark,
    Trace,
    TraceState,
)
from flyball.llm.conventions import in_our_words
from flyball.llm.previews import preview
from flyball.llm.spans import INPUTS, OUTPUTS, REQUEST_ID, Span, read_span
from flyball.llm.usage import SPAN_COST, SPAN_USAGE, cost_of, usage_of

__all__ = ["LONGEST_TAG_KEY", "LONGEST_TAG_VALUE", "account", "arrived", "kept_text"]

LONGEST_TAG_KEY = 250
LONGEST_TAG_VALUE = 8000
_LONGEST_METADATA = 250
_TAG_PREFIX = "mlflow.traceTag."
_OWN = ("telemetry.sdk.", "mlflow.")  # what a resource may not set as tags
_OPEN = frozenset({"IN_PROGRESS", "STATE_UNSPECIFIED"})


def account(told: Trace) -> Callable[[Trace | None], Trace]:
    """Return what makes of the account so far the one that was told: told values win, tags and metadata are joined."""

    def make(known: Trace | None) -> Trace:
        metadata = {**told.metadata, FINALIZED: "true"}
        if known is None:
            return replace(told, metadata=metadata, assessments=())
        return replace(
            told,
            tags={**known.tags, **told.tags},
            metadata={**known.metadata, **metadata},
            request=known.request if told.request is None else told.request,
            response=known.response if told.response is None else told.response,
            span_count=known.span_count,
            assessments=(),
        )

    return make


def arrived(experiment: str, spans: Iterable[Span], resources: Mapping[str, Mapping[str, Any]]) -> list[NewSpans]:
    """Return spans by trace, ready to be kept.

    Args:
        experiment: where a trace belongs that is not there yet.
        resources: by trace, the attributes of what made its spans.
    """
    by_trace: defaultdict[str, dict[str, Span]] = defaultdict(dict)
    for span in spans:
        trace = f"tr-{span.trace}"
        attributes = in_our_words({**span.attributes, REQUEST_ID: trace})
        by_trace[trace][span.id] = replace(span, attributes=attributes)
    return [
        NewSpans(
            trace,
            {id: span.text() for id, span in found.items()},
            frozenset(SpanMark(kept_text(s.name), kept_text(s.type), s.status) for s in found.values()),
            _Merging(trace, experiment, list(found.values()), resources.get(trace, {})),
        )
        for trace, found in sorted(by_trace.items())
    ]


@dataclass(frozen=True)
class _Merging:
    trace: str
    experiment: str
    spans: list[Span]
    resource: Mapping[str, Any]

    def __call__(self, known: Trace | None, read: Callable[[], list[str]]) -> Trace:
        root = next((span for span in self.spans if span.parent is None), None)
        so_far = known or Trace(self.trace, self.experiment, self._begin_ms(), None, "IN_PROGRESS")
        at_ms, took_ms = self._times(so_far, known)
        state: TraceState = so_far.state
        if root is not None and state in _OPEN:
            state = "ERROR" if root.status == "ERROR" else "OK"
        return replace(
            so_far,
            at_ms=at_ms,
            took_ms=took_ms,
            state=state,
            request=_begin(so_far.request, root, INPUTS, "user"),
            response=_begin(so_far.response, root, OUTPUTS, "assistant"),
            tags=self._tags(so_far, root),
            metadata=self._metadata(so_far, None if known is None else read),
            span_count=so_far.span_count + len(self.spans),
            assessments=(),
        )

    def _begin_ms(self) -> int:
        return min(span.start_ns for span in self.spans) // 1_000_000

    def _times(self, so_far: Trace, known: Trace | None) -> tuple[int, int | None]:
        if known is not None and FINALIZED in known.metadata:
            return known.at_ms, known.took_ms
        at_ms = min(so_far.at_ms, self._begin_ms())
        ends = [span.end_ns // 1_000_000 for span in self.spans if span.end_ns]
        if so_far.took_ms is not None:
            ends.append(so_far.at_ms + so_far.took_ms)
        return at_ms, max(ends) - at_ms if ends else None

    def _tags(self, so_far: Trace, root: Span | None) -> dict[str, str]:
        tags = {**so_far.tags, SPANS_TAG: "TRACKING_STORE"}
        for key, value in self.resource.items():
            if not key.startswith(_OWN):
                _put(tags, key, value)
        if root is not None:
            tags.setdefault(NAME_TAG, kept_text(root.name)[:LONGEST_TAG_VALUE])
            for key, value in root.attributes.items():
                if key.startswith(_TAG_PREFIX):
                    _put(tags, key.removeprefix(_TAG_PREFIX), value)
        return tags

    def _metadata(self, so_far: Trace, read: Callable[[], list[str]] | None) -> dict[str, str]:
        metadata = dict(so_far.metadata)
        for key, names in ((SESSION, ("session.id", "gen_ai.conversation.id")), (USER, ("user.id",))):
            found = (span.attributes.get(name) for span in self.spans for name in names)
            if key not in metadata and (value := next((v for v in found if isinstance(v, str) and v), None)):
                metadata[key] = kept_text(value)[:_LONGEST_METADATA]
        is_told = FINALIZED in metadata
        wanted = [
            (key, sum_of)
            for key, attribute, sum_of in ((USAGE, SPAN_USAGE, usage_of), (COST, SPAN_COST, cost_of))
            if any(attribute in span.attributes for span in self.spans) and not (is_told and key in metadata)
        ]
        if wanted:
            everything = self.spans if read is None else [read_span(text) for text in read()]
            for key, sum_of in wanted:
                total = sum_of(everything)
                if total is not None:
                    metadata[key] = json.dumps(total)
        return metadata


def kept_text(text: str) -> str:
    """Return a text as every database keeps it in a column: PostgreSQL refuses NUL."""
    return text.replace("\0", "\ufffd")


def _begin(known: str | None, root: Span | None, key: str, role: str) -> str | None:
    if known is not None or root is None or root.attributes.get(key) is None:
        return known
    return kept_text(preview(root.attributes[key], role))


def _put(tags: dict[str, str], key: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if 0 < len(key) <= LONGEST_TAG_KEY:
        tags[kept_text(key)] = kept_text(text)[:LONGEST_TAG_VALUE]
