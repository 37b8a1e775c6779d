"""Online values: the newest value of a feature view for a key, read inside a request.

A row is when its values became true (`event`), when they arrived (`arrival`, where a view tells the two apart) and the
values themselves as JSON. Of two rows of a key the later event stays, of the same event the later arrival, and of the
same arrival the one written last; so a late or repeated write changes nothing, whichever process makes it.

There are two ways in and two ways out. `put` and `get` take and give Python values. `put_encoded` and `read` move the
bytes as they are kept, without a Python object a value: materialisation writes with the one (`features.encoding` makes
the bytes from a frame), look-ups read with the other, or by `together` where the rows of a request are alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import orjson

from flyball.errors import Corrupt, InvalidInput

__all__ = ["Encoded", "OnlineStore", "OnlineValue", "Together", "check_lengths", "decoded", "instant_of", "micros_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class OnlineValue(NamedTuple):
    """One entity's newest value: when it was true, its features by name, and when it arrived, where that is told."""

    event_time: datetime
    values: Mapping[str, Any]
    known_at: datetime | None = None


# A row as it is kept: event in µs since 1970 UTC, arrival in µs or None, the number of its names (see
# `OnlineStore.names`), the values as bytes of a JSON array in the order of those names. What follows is the store's.
Encoded = tuple[Any, ...]


class Together(NamedTuple):
    """The rows of several keys, their values as one document, in the order of the keys.

    Attributes:
        events: each row's event in µs since 1970 UTC, None where there is none for the key.
        found: how many keys have a row; at least one.
        told: how many rows tell their arrival.
        latest: the latest of these arrivals in µs.
        shape: the number of the names that all rows have, above 0.
        values: JSON array of each row's values, themselves an array, null where there is none for the key.
    """

    events: list[int | None]
    found: int
    told: int
    latest: int | None
    shape: int
    values: bytes | str


class OnlineStore(Protocol):
    """Keeps the newest row for each (view, key)."""

    def put(self, view: str, rows: Iterable[tuple[str, OnlineValue]]) -> int:
        """Write rows of (key, value); visible on return; return how many were newer than what was there."""
        ...

    def put_encoded(
        self,
        view: str,
        names: Sequence[str],
        keys: Sequence[str],
        event_times_us: Sequence[int],
        values: Sequence[bytes],
        arrivals_us: Sequence[int] | None = None,
    ) -> int:
        """Write many rows at once, each visible on return; return how many were newer than what was there.

        Args:
            names: what the values are called, in the order in which each row has them.
            keys: one a row, as `ViewSpec.key_of` makes them; a key may come twice.
            event_times_us: microseconds since 1970 UTC, one a row.
            values: one a row, a JSON array of as many values as there are names, in UTF-8: `[1.5,null,"JFK"]`.
                They are not looked into; `features.encoding.encoded_rows` makes them from a frame.
            arrivals_us: when each row arrived, for views with a `known_at`; None: the view tells no arrival.

        Raises:
            InvalidInput: the lengths differ.
            Unavailable: the store cannot be written now.
        """
        ...

    def get(self, view: str, keys: Sequence[str]) -> list[OnlineValue | None]:
        """Return the values in the order of `keys`, None where there is none."""
        ...

    def read(self, view: str, keys: Sequence[str]) -> list[Encoded | None]:
        """Return the rows as they are kept, in the order of `keys`, None where there is none: one read for all."""
        ...

    def together(self, view: str, keys: Sequence[str]) -> Together | None:
        """Return the rows of keys in a form that is read faster than rows one by one.

        None: the store has no such form, or not for these: none of them has a row, or they have different names. Then
        `read` says what there is.
        """
        ...

    def heads(self, view: str, keys: Sequence[str]) -> list[Encoded | None]:
        """Return what `read` does, but perhaps of each row only event and arrival: for who is about to write."""
        ...

    def names(self, view: str, number: int) -> tuple[str, ...] | None:
        """Return the names that rows of a view with this number have; None: each row is a JSON object of its own."""
        ...

    def delete(self, view: str, keys: Sequence[str] | None = None) -> int:
        """Remove the given keys of a view, or all of it; return how many rows went."""
        ...

    def count(self, view: str) -> int:
        """Return how many keys a view has."""
        ...


def micros_of(instant: datetime) -> int:
    """Return an aware instant as microseconds since 1970 UTC."""
    return (instant - _EPOCH) // _MICROSECOND


def instant_of(micros: int) -> datetime:
    """Return the instant of microseconds since 1970 UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def decoded(store: OnlineStore, view: str, row: Encoded) -> OnlineValue:
    """Return a row as Python values. Raises Corrupt when its bytes cannot be read back."""
    event, arrival, shape, value = row[:4]
    names = store.names(view, shape)
    try:
        found = orjson.loads(value)
        values = found if names is None else dict(zip(names, found, strict=True))
    except (ValueError, TypeError) as error:
        raise Corrupt(f"an online value of {view} cannot be read back; materialise it again") from error
    return OnlineValue(instant_of(event), values, None if arrival is None else instant_of(arrival))


def check_lengths(view: str, rows: int, **columns: Sequence[Any] | None) -> None:
    """Refuse columns that do not have a value for each row. Raises InvalidInput."""
    for name, column in columns.items():
        if column is not None and len(column) != rows:
            raise InvalidInput(f"{name} of rows for {view} are {len(column)}; expected {rows}, one for each key")
