"""Pushes: new values of a view, checked, visible to look-ups when the call returns.

A feed, a stream's consumer or `materialise` calls this; it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flyball.clock import format_instant, parse_instant
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.features.lookup import Described, ViewSpec
from flyball.storage.online import OnlineStore, OnlineValue

__all__ = ["Row", "keep_newest", "push"]


class Row(NamedTuple):
    """A row of a view as the store takes it: `values` are JSON values by feature."""

    key: str
    event: datetime
    known: datetime
    values: dict[str, Any]


def push(view: ViewSpec | Described, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]], store: OnlineStore) -> int:
    """Write one row or many, in any order, and return how many entities have a new value.

    A row that is older than what is there, by event time and then by arrival, changes nothing, so late and repeated
    rows do no harm. Either all rows are taken or none.

    Args:
        view: the view's description, or a view that was computed before.
        rows: names → values: the entity, the event time (and `known_at` where the view has one) as text or `datetime`
            with a zone, and every feature; None where a feature is unknown.
        store: where look-ups read.

    Raises:
        InvalidInput: an unknown or missing field or a wrong type, named with its row; nothing was written.
    """
    spec = view if isinstance(view, ViewSpec) else view.spec()
    newest: dict[str, Row] = {}
    for number, record in enumerate([rows] if isinstance(rows, Mapping) else rows):
        row = _checked(spec, number, record)
        there = newest.setdefault(row.key, row)
        if (row.event, row.known) >= (there.event, there.known):
            newest[row.key] = row
    return keep_newest(spec, list(newest.values()), store)


def keep_newest(view: ViewSpec, rows: Sequence[Row], store: OnlineStore) -> int:
    """Write rows that were checked, at most one a key; return how many entities have a new value.

    The store keeps the newest event of a key. Where rows may arrive late the arrival is stored beside the features,
    because of two rows with the same event time the one that arrived last must stay, whichever is written first.
    """
    if view.known_at is None:
        return store.put(view.stored_as, [(row.key, OnlineValue(row.event, row.values)) for row in rows])
    later = []
    for row, there in zip(rows, store.get(view.stored_as, [row.key for row in rows]), strict=True):
        arrival = format_instant(row.known)
        if there is None or row.event != there.event_time or arrival >= str(there.values.get(view.known_at, "")):
            later.append((row.key, OnlineValue(row.event, {**row.values, view.known_at: arrival})))
    return store.put(view.stored_as, later)


def _checked(view: ViewSpec, number: int, record: Any) -> Row:
    subject = f"row {number} pushed to {view.name}"
    if not isinstance(record, Mapping):
        raise InvalidInput(f"{subject} is a {type(record).__name__}; expected names with values")
    known_at = view.known_at or view.event_time
    fields = dict.fromkeys((*view.entity, view.event_time, known_at, *view.features))
    for name in record:
        if name not in fields:
            raise InvalidInput(
                f'{subject} has an unknown field "{name}"{did_you_mean(name, fields)} ({_needs(fields)})'
            )
    for name in fields:
        if name not in record:
            raise InvalidInput(f'{subject} lacks "{name}"; {_needs(fields)}')
    key = view.key_of(record[name] for name in view.entity)
    if key is None:
        raise InvalidInput(f"{subject} has a null in its entity ({listed(view.entity)}); a value belongs to one")
    event = _instant(record[view.event_time], f'{subject}: "{view.event_time}"')
    known = event if view.known_at is None else _instant(record[known_at], f'{subject}: "{known_at}"')
    values = {name: _value(record[name], dtype, f'{subject}: "{name}"') for name, dtype in view.features.items()}
    return Row(key, event, known, values)


def _needs(fields: Iterable[str]) -> str:
    return f"it needs {listed(fields, 20)}"


def _instant(value: Any, what: str) -> datetime:
    if isinstance(value, str):
        try:
            return parse_instant(value)
        except InvalidInput as error:
            raise InvalidInput(f"{what}: {error}") from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidInput(f"{what} is {_shown(value)}; expected a time with a zone, such as 2013-05-03T14:00:00Z")
    return value.astimezone(UTC)


def _value(value: Any, dtype: str, what: str) -> Any:
    if hasattr(value, "item") and not isinstance(value, bool | int | float | str):  # a NumPy scalar
        value = value.item()
    if value is None or value != value:  # NaN is how NumPy says that a value is missing
        return None
    kind = type(value)
    if dtype == "datetime":
        return format_instant(_instant(value, what))
    if dtype == "float64" and kind in (int, float):
        number = float(value)
        return number if abs(number) != float("inf") else None
    if dtype == "int64" and kind is float and value.is_integer():
        return int(value)
    if kind is {"bool": bool, "int64": int, "float64": float, "string": str}[dtype]:
        return value
    raise InvalidInput(f"{what} is {_shown(value)}; expected {dtype} or null")


def _shown(value: Any) -> str:
    """Name the type and not the value, which may be personal."""
    return "null" if value is None else f"a {type(value).__name__}"
