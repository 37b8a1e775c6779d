"""The light description of a feature view: what a look-up or a push needs to know of it.

It travels with models and in the data plane's snapshot as JSON, so this file imports nothing heavy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from flyball.errors import InvalidInput, did_you_mean, listed

__all__ = ["DTYPES", "Described", "ViewSpec"]

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
        parts = [self.key_part(name, value) for name, value in zip(self.entity, values, strict=True)]
        if None in parts:
            return None
        return parts[0] if len(parts) == 1 else orjson.dumps(parts).decode()

    def key_part(self, name: str, value: Any) -> str | None:
        """Return one value of an entity as text, None when it is missing. Raises InvalidInput as `key_of`."""
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
            return self.key_part(name, value.item())
        raise InvalidInput(
            f"the key {name} of the view {self.name} is a {kind.__name__}; expected text or a whole number"
        )


class Described(Protocol):
    """What has a light description: a feature view that was computed before."""

    def spec(self) -> ViewSpec:
        """Return the description."""
        ...
