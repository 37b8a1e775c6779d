"""The fields of a request, declared beside its route, and how JSON or a query becomes their values.

The rules are those of protobuf's JSON mapping as MLflow uses it: names in snake_case or camelCase but not both, int64
as number or text, NaN and the infinities as text, null as absent; fields that nobody declared are ignored. What is
absent stays absent in the values, since an empty text and no text mean different things.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flyball.wire.mlflow.refusals import Refused, invalid, required

__all__ = [
    "Field",
    "choice",
    "flag",
    "mapping",
    "message",
    "messages",
    "number",
    "read",
    "read_query",
    "text",
    "texts",
    "value",
    "whole",
    "wrong",
]

_INT64 = 1 << 63
_DOUBLES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SHOWN = 200  # characters of a wrong value that its refusal repeats


@dataclass(frozen=True)
class Field:
    """One field of a message: its name in snake_case, how its value is read, and how it is spelt otherwise."""

    name: str
    read: Callable[[Any, str], Any]
    is_required: bool = False
    is_repeated: bool = False
    aka: str | None = None  # an older name, which counts when the field itself is absent

    @cached_property
    def camel(self) -> str:
        head, *rest = self.name.split("_")
        return head + "".join(part.capitalize() for part in rest)


def text(name: str, required: bool = False, aka: str | None = None) -> Field:
    """A text."""
    return Field(name, _text, required, aka=aka)


def whole(name: str, required: bool = False) -> Field:
    """An int64."""
    return Field(name, _whole, required)


def number(name: str, required: bool = False) -> Field:
    """A double."""
    return Field(name, _double, required)


def flag(name: str) -> Field:
    """A truth value."""
    return Field(name, _flag)


def choice(name: str, values: Sequence[str], required: bool = False) -> Field:
    """One of an enumeration's names, or its number; what is neither is read as absent, as protobuf's parser does."""

    def read(given: Any, _path: str) -> Any:
        if isinstance(given, bool):
            return None
        if isinstance(given, str) and given in values:
            return given
        if isinstance(given, str) and given.isdecimal():
            given = int(given)
        return values[given - 1] if isinstance(given, int) and 1 <= given <= len(values) else None

    return Field(name, read, required)


def texts(name: str, required: bool = False) -> Field:
    """A list of texts."""
    return Field(name, _many(_text), required, is_repeated=True)


def value(name: str, required: bool = False) -> Field:
    """Any JSON value, as it stands."""
    return Field(name, _anything, required)


def mapping(name: str, required: bool = False) -> Field:
    """A map from text to text."""

    def read(given: Any, path: str) -> dict[str, str]:
        if not isinstance(given, dict):
            raise wrong(path, given)
        return {_text(k, path): _text(v, f"{path}.{k}") for k, v in given.items()}

    return Field(name, read, required)


def message(name: str, *fields: Field, required: bool = False) -> Field:
    """A message within the message."""
    return Field(name, lambda given, path: _message(fields, given, path), required)


def messages(name: str, *fields: Field, required: bool = False) -> Field:
    """A list of messages."""
    return Field(name, _many(lambda given, path: _message(fields, given, path)), required, is_repeated=True)


def wrong(path: str, given: Any) -> Refused:
    """Return the refusal of a value of the wrong type or range."""
    shown = json.dumps(given, sort_keys=True, separators=(",", ":"), default=str)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return invalid(
        f"Invalid value {shown} for parameter '{path}' supplied:  "
        f"Hint: Value was of type '{type(given).__name__}'. "
        "See the API docs for more information about request parameters."
    )


def read(fields: Sequence[Field], given: Any) -> dict[str, Any]:
    """Return the values of a JSON body.

    Raises:
        Refused: a required field is absent or empty, one has the wrong type, or one is spelt two ways.
    """
    found = _message(fields, {} if given is None else given, "")
    _check_required(fields, found)
    return found


def read_query(fields: Sequence[Field], given: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the values of a query, in which a list is a name repeated; raises as `read`."""
    found: dict[str, Any] = {}
    for field in fields:
        values = given.get(field.name) or (given.get(field.aka) if field.aka else None)
        if values is None:
            continue
        if field.read is _flag:
            if values[-1].lower() not in ("true", "false"):
                raise invalid(f"Invalid boolean value: {values[-1][:_SHOWN]}, must be 'true' or 'false'.")
            found[field.name] = values[-1].lower() == "true"
            continue
        kept = field.read(values if field.is_repeated else values[0], field.name)
        if kept is not None:
            found[field.name] = kept
    _check_required(fields, found)
    return found


def _check_required(fields: Sequence[Field], found: Mapping[str, Any]) -> None:
    for field in fields:
        if field.is_required and found.get(field.name) in (None, ""):
            raise required(field.name)


def _message(fields: Sequence[Field], given: Any, path: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        if path:
            raise wrong(path, given)
        raise Refused("BAD_REQUEST", "The request body must be a JSON object.")
    found: dict[str, Any] = {}
    prefix = f"{path}." if path else ""
    for field in fields:
        raw = given.get(field.name)
        if field.camel != field.name and field.camel in given:
            if field.name in given:
                raise invalid(f"Request specifies both '{field.name}' and '{field.camel}'; provide only one of them.")
            raw = given[field.camel]
        if raw is None and field.aka is not None:
            raw = given.get(field.aka)
        if raw is None or (raw == "" and field.is_required):  # empty is missing, also where a number belongs
            continue
        kept = field.read(raw, prefix + field.name)
        if kept is not None:
            found[field.name] = kept
    return found


def _many(read_one: Callable[[Any, str], Any]) -> Callable[[Any, str], list[Any]]:
    def read(given: Any, path: str) -> list[Any]:
        if not isinstance(given, list):
            raise wrong(path, given)
        return [read_one(item, f"{path}[{number}]") for number, item in enumerate(given)]

    return read


def _text(given: Any, path: str) -> str:
    if not isinstance(given, str):
        raise wrong(path, given)
    # Neither can be kept by every database: PostgreSQL refuses NUL, and a lone surrogate is no UTF-8.
    if "\x00" in given or (not given.isascii() and any("\ud800" <= c <= "\udfff" for c in given)):
        raise wrong(path, given.encode("unicode_escape").decode("ascii"))
    return given


def _whole(given: Any, path: str) -> int:
    if isinstance(given, bool):
        raise wrong(path, given)
    try:
        if isinstance(given, float):
            if not given.is_integer():
                raise wrong(path, given)
            found = int(given)
        elif isinstance(given, int):
            found = given
        elif isinstance(given, str) and len(given) <= 40 and given.strip() == given:
            found = int(given)
        else:
            raise wrong(path, given)
    except (ValueError, OverflowError):
        raise wrong(path, given) from None
    if not -_INT64 <= found < _INT64:
        raise wrong(path, given)
    return found


def _double(given: Any, path: str) -> float:
    if isinstance(given, int | float):
        try:
            return float(given)
        except OverflowError:
            raise wrong(path, given) from None
    if isinstance(given, str):
        if given in _DOUBLES:
            return _DOUBLES[given]
        try:
            return float(given)
        except ValueError:
            pass
    raise wrong(path, given)


def _flag(given: Any, path: str) -> bool:
    if isinstance(given, bool):
        return given
    raise wrong(path, given)


def _anything(given: Any, _path: str) -> Any:
    return given
