"""What a filter or an order on traces asks of the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from flyball.ledger.traces import NAME_TAG, TraceCondition, TraceOrder
from flyball.tracking.filters import Comparison, holds, judge, parse_filter, parse_order
from flyball.tracking.grammars import TRACES

__all__ = ["conditions_of", "orders_of"]

_FIELDS = {
    "request_id": "id",
    "client_request_id": "client_id",
    "status": "state",
    "timestamp_ms": "at_ms",
    "execution_time_ms": "took_ms",
    "end_time_ms": "end_ms",
    "run_id": "run",
    "experiment_id": "experiment",
}
_ORDERED = frozenset({"<", "<=", ">", ">="})


def conditions_of(filter: str | None) -> tuple[TraceCondition, ...]:
    """Return what a filter asks. Raises InvalidInput when it is none of `tracking.grammars.TRACES`."""
    return tuple(_condition(one) for one in parse_filter(filter, TRACES))


def orders_of(order_by: Sequence[str] | None) -> tuple[TraceOrder, ...]:
    """Return what an order sorts by. Raises InvalidInput when it is none of `tracking.grammars.TRACES`."""
    return tuple(
        TraceOrder(by.kind, _FIELDS.get(by.key, by.key) if by.kind == "attribute" else by.key, by.ascending)
        for by in parse_order(order_by, TRACES)
    )


def _condition(one: Comparison) -> TraceCondition:
    key = _FIELDS.get(one.key, one.key) if one.kind == "attribute" else one.key
    if (one.kind, one.key) == ("tag", NAME_TAG):
        return TraceCondition("attribute", "name", one.operator, one.value, _test(one))
    if one.kind == "span" and one.key.startswith("attributes."):
        key = f"attributes.{one.key.removeprefix('attributes.').strip('`')}"
    is_score = one.kind in ("feedback", "expectation")
    return TraceCondition(one.kind, key, one.operator, one.value, _score(one) if is_score else _test(one))


def _test(one: Comparison) -> Callable[[Any], bool]:
    return (lambda value: holds(value, one)) if one.operator in ("IS NULL", "IS NOT NULL") else judge(one)


def _score(one: Comparison) -> Callable[[Any], bool]:
    """Return a test of the value of an assessment: as its text, or its JSON; ordered, as a number."""
    if one.operator in ("IS NULL", "IS NOT NULL"):
        return lambda _value: True
    test = judge(one)
    if one.operator in _ORDERED:
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and test(value)
    if one.operator != "!=":
        return lambda value: any(test(text) for text in _texts(value))
    return lambda value: all(test(text) for text in _texts(value))


def _texts(value: Any) -> list[str]:
    """Return the spellings under which a value is found: 1.0 also as 1, text without quotes."""
    if isinstance(value, str):
        return [value, json.dumps(value, ensure_ascii=False)]
    spellings = [json.dumps(value, ensure_ascii=False)]
    if isinstance(value, float) and value.is_integer():
        spellings.append(str(int(value)))
    return spellings
