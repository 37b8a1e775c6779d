"""Requests for features: what a body or a query asks for, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import orjson

from flyball.clock import parse_instant
from flyball.errors import InvalidInput, did_you_mean, listed

__all__ = ["MOST_ROWS", "Wanted", "parse_body", "parse_query"]

MOST_ROWS = 10_000  # entities of a request: reading that many takes some tens of milliseconds of the event loop
_MOST_FEATURES = 100
_FIELDS = ("features", "service", "entities", "at", "ages")
_PLAIN = frozenset((str, int, float, bool, type(None)))


@dataclass(frozen=True)
class Wanted:
    """Features of entities.

    Attributes:
        features: names of views and request-time functions; empty where a service is asked.
        service: the name of a feature service, or None.
        entities: field → a value for each row, all of one length.
        rows: that length.
        at: the instant as of which values are wanted; None: now.
        ages: whether the age of each view's values is wanted too.
    """

    features: tuple[str, ...]
    service: str | None
    entities: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    rows: int = 1
    at: datetime | None = None
    ages: bool = False


def parse_body(body: bytes) -> Wanted:
    """Read `{"features": […] or "service": …, "entities": {name: [values]}, "at"?: RFC 3339, "ages"?: bool}`.

    A value that is not in a list stands for one row.

    Raises:
        InvalidInput: it is none, with what was wrong.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInput('the request is not an object; send {"features": […], "entities": {…}}')
    for name in document:
        if name not in _FIELDS:
            raise InvalidInput(
                f'the request has an unknown field "{name[:60]}"{did_you_mean(name, _FIELDS)} '
                f"(known: {listed(_FIELDS)})"
            )
    features, service = document.get("features"), document.get("service")
    if (features is None) == (service is None):
        raise InvalidInput(
            'the request needs either "features" or "service"; send {"features": ["…"], "entities": {…}}'
        )
    if service is not None and not isinstance(service, str):
        raise InvalidInput('"service" is not the name of a feature service')
    ages, at = document.get("ages", False), document.get("at")
    if not isinstance(ages, bool):
        raise InvalidInput('"ages" is neither true nor false')
    if at is not None and not isinstance(at, str):
        raise InvalidInput('"at" is not a text; send a time such as "2013-05-03T14:00:00Z"')
    entities, rows = _entities(document.get("entities"))
    return Wanted(_names(features), service, entities, rows, None if at is None else parse_instant(at), ages)


def parse_query(features: tuple[str, ...], query: bytes) -> Wanted:
    """Read the query of a GET for one row: `?tailnum=N13914&at=…&ages=true`; each other name is a field, as text.

    Raises:
        InvalidInput: a name comes twice, or `at` or `ages` is wrong.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), max_num_fields=64)
    except ValueError:
        raise InvalidInput("the query is not one; write ?name=value&other=value, percent-encoded") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given:
            raise InvalidInput(f'the query has "{name[:60]}" twice; for several entities use POST features')
        if "\ufffd" in value or "\ufffd" in name:
            raise InvalidInput("the query is not UTF-8")
        given[name] = value
    at, ages = given.pop("at", None), given.pop("ages", "false")
    if ages not in ("true", "false"):
        raise InvalidInput(f'"ages" is {ages[:40]!r}; expected true or false')
    return Wanted(
        features,
        None,
        {name: [value] for name, value in given.items()},
        1,
        None if at is None else parse_instant(at),
        ages == "true",
    )


def _names(features: Any) -> tuple[str, ...]:
    if features is None:
        return ()
    if not isinstance(features, list) or not features or not all(isinstance(name, str) for name in features):
        raise InvalidInput('"features" is not a list of names of feature views; send ["previous_leg"]')
    if len(features) > _MOST_FEATURES:
        raise InvalidInput(f"{len(features)} features are asked for; at most {_MOST_FEATURES} are answered at once")
    if len(set(features)) < len(features):
        twice = next(name for name in features if features.count(name) > 1)
        raise InvalidInput(f'"{twice[:60]}" is asked for twice; name each feature view once')
    return tuple(features)


def _entities(entities: Any) -> tuple[dict[str, list[Any]], int]:
    if not isinstance(entities, dict) or not entities:
        raise InvalidInput('"entities" is not an object of keys; send {"entities": {"tailnum": ["N13914"]}}')
    found: dict[str, list[Any]] = {}
    rows: int | None = None
    for name, given in entities.items():
        values = given if isinstance(given, list) else [given]
        if not _PLAIN.issuperset(map(type, values)):
            raise InvalidInput(f'the values of "{name[:60]}" are not all text, numbers or null')
        if rows is not None and len(values) != rows:
            raise InvalidInput(f'"{name[:60]}" has {len(values)} values, another has {rows}; send one for each row')
        found[name], rows = values, len(values)
    if not rows:
        raise InvalidInput("there are no entities in the request; expected at least one")
    if rows > MOST_ROWS:
        raise InvalidInput(
            f"{rows} entities are asked for; at most {MOST_ROWS} are answered at once, send them in parts"
        )
    return found, rows
