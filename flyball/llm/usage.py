"""Tokens and cost of a whole trace, from those of its spans.

Some makers tell of an agent's span what its children used together, others tell of the leaves alone: so a span counts
unless one above it has been counted. Source: PROTOCOLS.md §2.8.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from flyball.llm.spans import Span, finite

__all__ = ["COSTS", "SPAN_COST", "SPAN_USAGE", "TOKENS", "cost_of", "usage_of", "whole"]

SPAN_USAGE = "mlflow.chat.tokenUsage"
SPAN_COST = "mlflow.llm.cost"
TOKENS = ("input_tokens", "output_tokens", "total_tokens")
CACHED = (
    "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation_input_tokens_above_1hr",
)  # fmt: skip
COSTS = ("input_cost", "output_cost", "total_cost")

_INT64 = 1 << 63


def usage_of(spans: Iterable[Span]) -> dict[str, int] | None:
    """Return the tokens that a trace's spans used; None when none says."""
    counted = _counted(spans, SPAN_USAGE)
    if not counted:
        return None
    totals = dict.fromkeys(TOKENS, 0)
    for usage in counted:
        for key in (*TOKENS, *CACHED):
            tokens = whole(usage.get(key))
            if tokens is not None:
                totals[key] = totals.get(key, 0) + tokens
    return totals


def cost_of(spans: Iterable[Span]) -> dict[str, float] | None:
    """Return what a trace's spans cost, in the currency that they say it in; None when none says."""
    counted = _counted(spans, SPAN_COST)
    if not counted:
        return None
    return {key: sum(finite(cost.get(key)) or 0.0 for cost in counted) for key in COSTS}


def whole(value: Any) -> int | None:
    """Return a count as an int64, also one that is written as text; None when it is none."""
    if isinstance(value, str) and len(value) <= 20:
        value = int(value) if value.strip().lstrip("-").isdecimal() else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -_INT64 <= value < _INT64 else None


def _counted(spans: Iterable[Span], key: str) -> list[Mapping[str, Any]]:
    """Return what spans say under a key, without those below a span that says it as well."""
    by_id = {span.id: span for span in spans}
    children: defaultdict[str, list[Span]] = defaultdict(list)
    waiting: list[Span] = []
    for span in by_id.values():
        if span.parent in by_id and span.parent != span.id:
            children[str(span.parent)].append(span)
        else:
            waiting.append(span)
    found = []
    while waiting:
        span = waiting.pop()
        said = span.attributes.get(key)
        if isinstance(said, Mapping):
            found.append(said)
        else:
            waiting += children[span.id]
    return found
