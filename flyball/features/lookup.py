"""Look-ups: the features of a request's entities, read from the online store inside the request.

The data plane calls `look_up` for each request, so this file imports nothing heavy: it knows views by their light
description, `ViewSpec`, which a deployment's snapshot carries as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

import orjson

from flyball.clock import SYSTEM, format_instant
from flyball.errors import Corrupt, InvalidInput, did_you_mean, listed
from flyball.storage.online import OnlineStore

__all__ = ["DTYPES", "Described", "ViewSpec", "look_up"]

DTYPES = ("bool", "int64", "float64", "string", "datetime")  # the words of a model's signature
_FIELDS = ("name", "entity", "event_time", "features", "known_at", "ttl_s", "defaults", "version")


@dataclass(frozen=True)
class ViewSpec:
    """What a look-up or a push needs to know of a feature view.

    Attributes:
        name: the view's.
        entity: the names of the keys, in order.
        event_time: the field of a pushed row that says when its values became true.
        features: name → one of `DTYPES`. A datetime is UTC in microseconds.
        known_at: the field that says when a row arrived, if that is another than `event_time`.
        ttl_s: age in seconds after which a value is not used; None: never.
        defaults: what stands for a feature without a value; None where nothing is said.
        version: of the definition. Values of two versions never mix.
    """

    name: str
    entity: tuple[str, ...]
    event_time: str
    features: Mapping[str, str]
    known_at: str | None = None
    ttl_s: float | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    def __post_init__(self) -> None:
        if not self.entity or not self.features:
            raise InvalidInput(f"the view {self.name} has no {'features' if self.entity else 'entity'}; give it one")
        for feature, dtype in self.features.items():
            if dtype not in DTYPES:
                near = did_you_mean(dtype, DTYPES)
                raise InvalidInput(f"{self.name}.{feature} has the type {dtype!r}{near} (known: {listed(DTYPES)})")
        for feature in self.defaults:
            if feature not in self.features:
                near = did_you_mean(feature, self.features)
                raise InvalidInput(
                    f'the view {self.name} has a default for "{feature}"{near} (its features are '
                    f"{listed(self.features)})"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "entity": list(self.entity),
            "event_time": self.event_time,
            "features": dict(self.features),
            "known_at": self.known_at,
            "ttl_s": self.ttl_s,
            "defaults": dict(self.defaults),
            "version": self.version,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ViewSpec:
        """Read what `to_dict` wrote. Raises InvalidInput on anything else."""
        unknown = [key for key in document if key not in _FIELDS]
        missing = [key for key in _FIELDS[:4] if key not in document]
        if unknown or missing:
            which = f'an unknown field "{unknown[0]}"' if unknown else f'no "{missing[0]}"'
            near = did_you_mean(unknown[0], _FIELDS) if unknown else ""
            raise InvalidInput(f"a view's description has {which}{near} (known: {listed(_FIELDS)})")
        return cls(**{**document, "entity": tuple(document["entity"])})

    @property
    def stored_as(self) -> str:
        """The name of its values in the online store: `previous_leg@1`."""
        return f"{self.name}@{self.version}"

    @property
    def age_column(self) -> str:
        """What the age of its values is called where ages are asked for; in seconds."""
        return f"{self.name}_age_s"

    def key_of(self, values: Iterable[Any]) -> str | None:
        """Return the online key of an entity's values, None when one of them is missing.

        A single text is its own key and a whole number is its digits; several make a JSON list.

        Raises:
            InvalidInput: a value is neither text nor a whole number.
        """
        parts = [self._part(name, value) for name, value in zip(self.entity, values, strict=True)]
        if None in parts:
            return None
        return parts[0] if len(parts) == 1 else orjson.dumps(parts).decode()

    def _part(self, name: str, value: Any) -> str | None:
        kind = type(value)
        if kind is str:
            return str(value)
        if kind is int:
            return str(value)
        if value is None:
            return None
        if isinstance(value, float):
            if math.isnan(value):
                return None
            if value.is_integer():
                return str(int(value))
        elif isinstance(value, str):
            return str(value)
        elif hasattr(value, "item") and not isinstance(value.item(), type(value)):  # a NumPy scalar
            return self._part(name, value.item())
        raise InvalidInput(
            f"the key {name} of the view {self.name} is a {kind.__name__}; expected text or a whole number"
        )

    @cached_property
    def _plan(self) -> list[tuple[str, Any, bool]]:
        return [(name, self.defaults.get(name), dtype == "datetime") for name, dtype in self.features.items()]

    @cached_property
    def _ttl(self) -> timedelta:
        return timedelta.max if self.ttl_s is None else timedelta(seconds=self.ttl_s)


class Described(Protocol):
    """What has a light description: a feature view that was computed before."""

    def spec(self) -> ViewSpec:
        """Return the description."""
        ...


def look_up(
    store: OnlineStore,
    views: Sequence[ViewSpec],
    keys: Mapping[str, Any],
    now: datetime | None = None,
    *,
    ages: bool = False,
) -> dict[str, list[Any]]:
    """Return the features of entities as of `now`: one read of the store a view, however many rows.

    Args:
        store: where values were pushed or materialised.
        views: whose features are wanted.
        keys: by name, a value for every row or a sequence of values, one a row. Other names are ignored.
        now: with a zone; the request's own time where it has one, so that a replay sees what was true then. A value
            that is from after it, or arrived after it, is not used.
        ages: add `<view>_age_s`, float seconds since the value became true.

    Returns:
        name → list, one element a row; None, or the view's default, where no value is known, is fresh enough, or
        where a key is missing.

    Raises:
        InvalidInput: a key is not given or of a wrong type, lengths differ, two views have a feature of the same name.
        Corrupt: a stored value cannot be read back.
    """
    instant = SYSTEM.now() if now is None else now
    if instant.tzinfo is None:
        raise InvalidInput(f"the time {instant.isoformat()} of a look-up has no zone; give it one")
    columns: dict[str, list[Any]] = {}
    rows = _row_count(views, keys)
    for view in views:
        wanted = _keys(view, keys, rows)
        if None in wanted:
            present = [key for key in wanted if key is not None]
            read = iter(store.get(view.stored_as, present) if present else ())
            found = [None if key is None else next(read) for key in wanted]
        else:
            found = store.get(view.stored_as, wanted)  # type: ignore[arg-type]
        ttl, arrival = view._ttl, view.known_at
        latest = "" if arrival is None else format_instant(instant)
        fresh: list[Mapping[str, Any] | None] = []
        seconds: list[float | None] = []
        for value in found:
            age = None if value is None else instant - value.event_time
            usable = age is not None and _NO_TIME <= age <= ttl
            if usable and arrival is not None:  # the stored text sorts as time does
                usable = value.values.get(arrival, "") <= latest  # type: ignore[union-attr]
            fresh.append(value.values if usable else None)  # type: ignore[union-attr]
            seconds.append(age.total_seconds() if usable else None)  # type: ignore[union-attr]
        for name, default, is_datetime in view._plan:
            if name in columns:
                raise InvalidInput(f'two of the views have a feature "{name}"; look them up one after the other')
            column = [None if values is None else values.get(name) for values in fresh]
            if is_datetime:
                column = [None if text is None else _moment(text, view, name) for text in column]
            columns[name] = column if default is None else [default if v is None else v for v in column]
        if ages:
            columns[view.age_column] = seconds
    return columns


_NO_TIME = timedelta(0)


def _row_count(views: Sequence[ViewSpec], keys: Mapping[str, Any]) -> int:
    count: int | None = None
    for view in views:
        for name in view.entity:
            if name not in keys:
                raise InvalidInput(
                    f'the view {view.name} needs the key "{name}"{did_you_mean(name, keys)} (given: {listed(keys)})'
                )
            value = keys[name]
            if not _is_single(value):
                if count is not None and count != len(value):
                    raise InvalidInput(f'the key "{name}" has {len(value)} values, another has {count}')
                count = len(value)
    return 1 if count is None else count


def _keys(view: ViewSpec, keys: Mapping[str, Any], rows: int) -> list[str | None]:
    if len(view.entity) == 1:
        name = view.entity[0]
        values = keys[name]
        if _is_single(values):
            return [view._part(name, values)] * rows
        return [value if type(value) is str else view._part(name, value) for value in values]
    columns = [[v] * rows if _is_single(v) else v for v in (keys[name] for name in view.entity)]
    return [view.key_of(values) for values in zip(*columns, strict=True)]


def _is_single(value: Any) -> bool:
    return isinstance(value, str) or not hasattr(value, "__len__")


def _moment(text: Any, view: ViewSpec, name: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise Corrupt(f"{view.name}.{name} cannot be read back as a time; materialise the view again") from error
