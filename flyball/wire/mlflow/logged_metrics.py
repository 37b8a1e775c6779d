"""The metrics of a request as points: checked in one pass, since a request has up to a thousand of them.

A metric is read here and not by the kit's fields because that would be the dearest part of logging a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from flyball.ledger.logged_models import ModelPoint
from flyball.ledger.points import Point, PointColumns
from flyball.wire.mlflow.fields import Field, message, number, text, whole, wrong
from flyball.wire.mlflow.keys import KEY, check_key, invalid_value, is_fine
from flyball.wire.mlflow.refusals import required

__all__ = ["METRIC", "Logged", "metrics", "read_one"]

_made = partial(tuple.__new__, Point)  # twice as quick as Point(…)
_INT64 = 1 << 63
_EXACT = 1 << 53  # whole numbers up to here are doubles

METRIC = (
    text("key"),
    number("value"),
    whole("timestamp"),
    whole("step"),
    text("model_id"),
    text("dataset_name"),
    text("dataset_digest"),
)
_ONE = message("metric", *METRIC)


class Logged(NamedTuple):
    """The metrics of a request, and those of them that are of a model."""

    points: Sequence[Point]
    of_models: Sequence[ModelPoint] = ()  # their run is not known yet


def metrics(name: str) -> Field:
    """Return the field of a list of metrics; its value is a `Logged`."""
    return Field(name, _read, is_repeated=True)


def read_one(given: Mapping[str, Any], path: str) -> tuple[Point, ModelPoint | None]:
    """Return one metric whose fields were read already; raises Refused, naming `path` where it is not empty."""
    prefix = f"{path}." if path else ""
    for name in ("key", "value", "timestamp"):
        if given.get(name) is None or given[name] == "":
            raise required(prefix + name)
    key, value, at_ms, step = given["key"], given["value"], given["timestamp"], given.get("step", 0)
    if not is_fine(key) and len(key) <= KEY:
        check_key(key, f"{prefix}name", "Metric name")
    if at_ms < 0:
        why = f"metric '{key}' (value={value}). Timestamp must be a nonnegative long (64-bit integer) "
        raise invalid_value(f"{prefix}timestamp", at_ms, why)
    if len(key) > KEY:
        check_key(key, f"{prefix}name", "Metric name")
    point = Point(key, value, step, at_ms)
    model = given.get("model_id")
    if not model:
        return point, None
    on = {"dataset": given.get("dataset_name", ""), "digest": given.get("dataset_digest", "")}
    return point, ModelPoint(model, *point, **on)


def _read(given: Any, path: str) -> Logged:
    if type(given) is not list:
        raise wrong(path, given)
    columns = _columns(given)
    if columns is not None:
        return Logged(columns)
    points: list[Point] = []
    of_models: list[ModelPoint] = []
    append, known = points.append, set[str]()
    for place, item in enumerate(given):
        # What real clients send needs no conversion; anything else takes the long way, which has the words to refuse.
        if type(item) is dict and "model_id" not in item and "modelId" not in item:
            key, value, at_ms, step = item.get("key"), item.get("value"), item.get("timestamp"), item.get("step", 0)
            if type(value) is int and -_EXACT <= value <= _EXACT:
                value = float(value)
            if (
                type(value) is float
                and type(at_ms) is int
                and type(step) is int
                and 0 <= at_ms < _INT64
                and -_INT64 <= step < _INT64
                and type(key) is str
                and (key in known or is_fine(key))
            ):
                known.add(key)
                append(_made((key, value, step, at_ms)))
                continue
        where = f"{path}[{place}]"
        point, of_model = read_one(_message(item, where), where)
        append(point)
        if of_model is not None:
            of_models.append(of_model)
    return Logged(points, of_models)


def _columns(given: list[Any]) -> PointColumns | None:
    """Return metrics as clients send them, each with the same four fields or three; None: they are others."""
    size = len(given[0]) if given and type(given[0]) is dict else 0
    try:
        if size not in (3, 4) or set(map(len, given)) != {size}:
            return None
        keys, values = [m["key"] for m in given], [m["value"] for m in given]
        ats, steps = [m["timestamp"] for m in given], [m["step"] for m in given] if size == 4 else [0] * len(given)
    except (KeyError, TypeError):
        return None
    if set(map(type, keys)) != {str} or not all(map(is_fine, set(keys))):
        return None
    kinds = set(map(type, values))
    if int in kinds:
        if not kinds <= {int, float} or max(values) > _EXACT or min(values) < -_EXACT:
            return None
        values = list(map(float, values))
    columns = PointColumns(keys, values, steps, ats)
    return columns if columns.is_plain else None


def _message(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise wrong(where, item)
    given = {k: v for k, v in item.items() if v != ""}  # empty is missing, also where a number belongs
    found: dict[str, Any] = _ONE.read(given, where)
    return found
