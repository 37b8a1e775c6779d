"""`/traces` and `/traces/ID`: what a language model did with each request, step by step."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request

from flyball.ledger.traces import COST, RUN, SESSION, USAGE, USER, Trace
from flyball.llm.spans import INPUTS, OUTPUTS, REQUEST_ID, Span
from flyball.llm.usage import SPAN_COST, SPAN_USAGE
from flyball.web.pages.site import Page, Site, integer, parameters

__all__ = ["mount"]

SIZE = 50
_SPANS = 500  # that a page shows; the others are counted
_SHOWN = 8_000  # characters of a value
_DEEPEST = 12  # steps of indentation
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS = {"OK": "ok", "ERROR": "failed", "IN_PROGRESS": "running", "STATE_UNSPECIFIED": "unknown", "UNSET": "ok"}
_OWN = frozenset({INPUTS, OUTPUTS, REQUEST_ID, SPAN_COST, SPAN_USAGE, "mlflow.spanType"})


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(request: Request) -> Page:
        given = parameters(request, "filter", "state", "experiment")
        page = max(integer(request, "page", 1) or 1, 1)
        parts = [given.get("filter", "")]
        if "state" in given:
            parts.append("status = '{}'".format(given["state"].replace("'", "''")))
        experiments, _ = platform.search_experiments(limit=1000)
        wanted = [given["experiment"]] if "experiment" in given else [e.id for e in experiments]
        text = " AND ".join(part for part in parts if part.strip())
        found, is_more = platform.search_traces(wanted, text, limit=SIZE, offset=(page - 1) * SIZE)
        values = {
            "title": "Traces",
            "section": "traces",
            "crumbs": [("Traces", None)],
            "rows": [_line(trace) for trace in found],
            "page": page,
            "size": SIZE,
            "total": None if is_more else (page - 1) * SIZE + len(found),
            "fields": [
                {
                    "name": "state",
                    "label": "State",
                    "value": given.get("state"),
                    "options": ("OK", "ERROR", "IN_PROGRESS"),
                },
                {
                    "name": "experiment",
                    "label": "Experiment",
                    "value": given.get("experiment"),
                    "options": [e.id for e in experiments[:200]],
                },
                {
                    "name": "filter",
                    "label": "Filter",
                    "value": given.get("filter"),
                    "hint": "trace.name LIKE 'answer%'",
                },
            ],
            "is_filtered": bool(given),
        }
        return Page("traces.html", values)

    def one(request: Request) -> Page:
        trace = platform.trace(request.path_params["id"])
        spans = platform.trace_spans([trace.id])[trace.id]
        tree = _tree(spans)
        name = trace.name or trace.id
        values = {
            "title": name,
            "section": "traces",
            "crumbs": [("Traces", "/traces"), (name[:60], None)],
            "trace": trace,
            "line": _line(trace),
            "spans": tree[:_SPANS],
            "span_count": len(spans),
            "experiment": platform.experiment(trace.experiment),
            "run": trace.metadata.get(RUN),
            "session": trace.metadata.get(SESSION),
            "user_of_it": trace.metadata.get(USER),
            "tags": [(k, v) for k, v in sorted(trace.tags.items()) if not k.startswith("mlflow.")],
            "said": [(a, _text(a.value), _at(a.created_ms)) for a in trace.assessments],
        }
        return Page("trace.html", values)

    site.page("/traces", listing)
    site.page("/traces/{id}", one)


def _line(trace: Trace) -> dict[str, Any]:
    usage, cost = _read(trace.metadata.get(USAGE)), _read(trace.metadata.get(COST))
    return {
        "id": trace.id,
        "trace": trace,
        "word": _WORDS[trace.state],
        "at": _at(trace.at_ms),
        "took_s": None if trace.took_ms is None else trace.took_ms / 1000,
        "tokens": _number(usage.get("total_tokens")),
        "tokens_in": _number(usage.get("input_tokens")),
        "tokens_out": _number(usage.get("output_tokens")),
        "cost": _number(cost.get("total_cost")),
        "said": len(trace.assessments),
    }


def _tree(spans: list[Span]) -> list[dict[str, Any]]:
    """Return spans as lines, each below the one that it is a part of; those in a circle stand at the end."""
    by_id = {span.id: span for span in spans}
    below: defaultdict[str | None, list[Span]] = defaultdict(list)
    for span in spans:
        below[span.parent if span.parent in by_id else None].append(span)
    begin = min((span.start_ns for span in spans), default=0)
    whole = max((max(span.end_ns, span.start_ns) for span in spans), default=1) - begin or 1
    waiting = [(span, 0) for span in reversed(below[None])]
    lines, seen = [], set()
    while waiting:
        span, depth = waiting.pop()
        seen.add(span.id)
        lines.append(_span_line(span, depth, begin, whole))
        waiting += [(child, depth + 1) for child in reversed(below[span.id]) if child.id not in seen]
    return lines + [_span_line(span, 0, begin, whole) for span in spans if span.id not in seen]


def _span_line(span: Span, depth: int, begin: int, whole: int) -> dict[str, Any]:
    usage, cost = span.attributes.get(SPAN_USAGE), span.attributes.get(SPAN_COST)
    took = span.took_ms
    return {
        "span": span,
        "indent": "\u00a0\u00a0" * min(depth, _DEEPEST) + ("└ " if depth else ""),
        "word": _WORDS[span.status],
        "after_s": (span.start_ns - begin) / 1e9,
        "took_s": None if took is None else took / 1000,
        "left": round(100 * (span.start_ns - begin) / whole, 2),
        "width": max(round(100 * (took or 0) * 1e6 / whole, 2), 0.8),
        "tokens": _number(usage.get("total_tokens")) if isinstance(usage, Mapping) else None,
        "cost": _number(cost.get("total_cost")) if isinstance(cost, Mapping) else None,
        "inputs": _text(span.attributes[INPUTS]) if INPUTS in span.attributes else None,
        "outputs": _text(span.attributes[OUTPUTS]) if OUTPUTS in span.attributes else None,
        "attributes": [(key, _text(value)) for key, value in sorted(span.attributes.items()) if key not in _OWN],
        "events": [(event.name, (event.at_ns - begin) / 1e9, _text(dict(event.attributes))) for event in span.events],
    }


def _at(at_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=at_ms)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def _read(text: str | None) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
