"""Pushes: new values of a view, checked, visible to look-ups when the call returns, kept for training.

A feed or a stream's consumer calls this; it imports nothing heavy. Where a log is given, the rows are durable in it
before they are visible, and `folding` later adds them to the view's stored rows, from which training sets are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from flyball.clock import SYSTEM, Clock, format_instant, parse_instant
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.features.specs import Described, ViewSpec
from flyball.storage.online import OnlineStore, OnlineValue
from flyball.storage.streams import StreamWriter

__all__ = ["LOG_FORMAT", "Row", "push"]

LOG_FORMAT = 1
_LOGGED_AT_ONCE = 5_000  # rows of one payload, so that none outgrows what a log takes


class Row(NamedTuple):
    """A checked row: `entity` as text, `values` JSON values by feature."""

    key: str
    event: datetime
    known: datetime
    values: dict[str, Any]
    entity: tuple[str, ...]


def push(
    view: ViewSpec | Described,
    rows: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    store: OnlineStore,
    log: StreamWriter | None = None,
    clock: Clock = SYSTEM,
) -> int:
    """Write one row or many, in any order, and return how many entities have a new value.

    A row that is older than what is there, by event time and then by arrival, changes nothing online, so late and
    repeated rows do no harm. Either all rows are taken or none.

    Args:
        view: the view's description, or a view that was computed before.
        rows: names → values: the entity, the event time (and `known_at` where the view has one) as text or `datetime`
            with a zone, and every feature; None where a feature is unknown.
        store: where look-ups read.
        log: where the rows are kept for training: the log of this view and version. None: they are not.
        clock: says when they arrived.

    Raises:
        InvalidInput: an unknown or missing field or a wrong type, named with its row; nothing was written.
        Unavailable: the log or the store cannot be written now. Rows that the log had taken will be trained on, and
            become visible with the next materialisation; pushing them again does no harm.
    """
    spec = view if isinstance(view, ViewSpec) else view.spec()
    checked = [_checked(spec, number, record) for number, record in enumerate(_listed(rows))]
    newest: dict[str, Row] = {}
    for row in checked:
        there = newest.setdefault(row.key, row)
        if (row.event, row.known) >= (there.event, there.known):
            newest[row.key] = row
    if log is not None and checked:
        log.append_wait(_payloads(spec, checked, clock.now()))
    return store.put(spec.stored_as, [(row.key, _value_of(spec, row)) for row in newest.values()])


def _listed(rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return [rows] if isinstance(rows, Mapping) else rows


def _value_of(spec: ViewSpec, row: Row) -> OnlineValue:
    return OnlineValue(row.event, row.values, None if spec.known_at is None else row.known)


def _payloads(spec: ViewSpec, rows: Sequence[Row], now: datetime) -> list[bytes]:
    """Return rows as the log keeps them: a JSON document for every few thousand."""
    head = {"format": LOG_FORMAT, "view": spec.stored_as, "at": format_instant(now), "names": list(spec.features)}
    made = []
    for start in range(0, len(rows), _LOGGED_AT_ONCE):
        part = rows[start : start + _LOGGED_AT_ONCE]
        columns = {
            "entity": [list(values) for values in zip(*(row.entity for row in part), strict=True)],
            "event": [format_instant(row.event) for row in part],
            "known": [format_instant(row.known) for row in part],
            "values": [list(values) for values in zip(*(row.values.values() for row in part), strict=True)],
        }
        made.append(orjson.dumps({**head, **columns}))
    return made


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
    entity = tuple(str(view.key_part(name, record[name])) for name in view.entity)
    return Row(key, event, known, values, entity)


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
