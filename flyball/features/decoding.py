"""Online rows read back: what a store keeps for some keys, as columns of values that may be used now.

`lookup` asks it for each view of a plan. Rows that are alike, as those of one materialisation are, come from the store
as one document and are decoded at once; others are looked at one by one. It imports nothing heavy.
"""

from __future__ import annotations

from datetime import datetime
from operator import itemgetter
from typing import Any

import orjson

from flyball.clock import format_instant
from flyball.errors import Corrupt
from flyball.features.freshness import Freshness
from flyball.features.specs import ViewSpec
from flyball.storage.online import Encoded, OnlineStore, instant_of

__all__ = ["Columns", "CompiledView", "Events", "compiled"]

Columns = dict[str, list[Any]]
Events = list[int | None]
"""µs since 1970 UTC, one a row; None: there is no row, or it is not used."""

_EARLIEST_US = -(2**63)
_ROW_BY_ROW = 64  # look-ups without trying again, after the rows of one were not alike
_event_of, _arrival_of, _shape_of, _value_of = map(itemgetter, range(4))


def compiled(view: ViewSpec) -> CompiledView:
    """Return a view's compiled form, kept on the view itself."""
    found: CompiledView | None = vars(view).get("_compiled")
    if found is None:
        found = CompiledView(view)
        object.__setattr__(view, "_compiled", found)  # a memo, like a cached property
    return found


class CompiledView:
    """One view of a plan of look-ups, with what does not change from request to request worked out."""

    def __init__(self, view: ViewSpec) -> None:
        self.view = view
        self.stored_as = view.stored_as
        self.ttl_us = None if view.ttl_s is None else round(view.ttl_s * 1e6)
        self.features = tuple(view.features)
        self.defaults = [(name, view.defaults[name]) for name in self.features if view.defaults.get(name) is not None]
        self.moments = [name for name, dtype in view.features.items() if dtype == "datetime"]
        self._places: dict[tuple[str, ...], list[int | None] | None] = {self.features: None}
        self._row_by_row = 0

    def alike(self, store: OnlineStore, wanted: list[str | None], now_us: int) -> tuple[Events, Events, Columns] | None:
        """Return each row's event, the events of those that are used, and the columns; None: look row by row.

        It is for rows that all have the same names and of which none arrived after `now_us`.
        """
        if self._row_by_row or None in wanted:
            self._row_by_row = max(self._row_by_row - 1, 0)
            return None
        together = store.together(self.stored_as, wanted)  # type: ignore[arg-type]
        told = 0 if together is None or self.view.known_at is None else together.found
        if together is None or together.told < told or (together.latest is not None and together.latest > now_us):
            self._row_by_row = _ROW_BY_ROW
            return None
        events, rows = together.events, self._values(together.values)
        used = self._usable_events(events, together.found, now_us)
        if used is not events or together.found < len(events):
            names = store.names(self.stored_as, together.shape)
            nothing = [None] * len(names or ())
            rows = [nothing if at is None else row for at, row in zip(used, rows, strict=True)]
        columns = self._finished(self._turned(store, together.shape, rows))
        return events, used, columns

    def _usable_events(self, events: Events, found: int, now_us: int) -> Events:
        """Return the events with None for rows that are not true yet or too old; the list itself if there is none."""
        oldest_us = _EARLIEST_US if self.ttl_us is None else now_us - self.ttl_us
        told: Any = events if found == len(events) else [at for at in events if at is not None]
        if oldest_us <= min(told) and max(told) <= now_us:
            return events
        return [at if at is not None and oldest_us <= at <= now_us else None for at in events]

    def read(self, store: OnlineStore, wanted: list[str | None]) -> list[Encoded | None]:
        """Return what the store keeps for each row's key, None where a key is missing."""
        if None not in wanted:
            return store.read(self.stored_as, wanted)  # type: ignore[arg-type]
        present = [key for key in wanted if key is not None]
        read = iter(store.read(self.stored_as, present) if present else ())
        return [None if key is None else next(read) for key in wanted]

    def usable(self, store: OnlineStore, found: list[Encoded | None], now_us: int) -> list[Encoded | None]:
        """Return the rows with None for those that are not true yet, not known yet, or too old."""
        oldest_us = _EARLIEST_US if self.ttl_us is None else now_us - self.ttl_us
        if self.view.known_at is None and len(found) > 1 and None not in found:
            whole: list[Any] = found
            events = list(map(_event_of, whole))
            if oldest_us <= min(events) and max(events) <= now_us and set(map(_arrival_of, whole)) == {None}:
                return found  # all of them, as it mostly is: found out in a third of the time
        usable = [
            row if row is not None and oldest_us <= row[0] <= now_us and (row[1] is None or row[1] <= now_us) else None
            for row in found
        ]
        if self.view.known_at is not None:
            self._drop_unknown(store, usable, now_us)
        return usable

    def _drop_unknown(self, store: OnlineStore, rows: list[Encoded | None], now_us: int) -> None:
        """Drop rows whose arrival stands among their values, as the first format kept it, and is after now."""
        known_at, latest = self.view.known_at, ""
        for number, row in enumerate(rows):
            if row is None or row[1] is not None:
                continue
            names = store.names(self.stored_as, row[2])
            if names is not None and known_at not in names:
                continue
            latest = latest or format_instant(instant_of(now_us))
            values = self._values(row[3])
            told = values.get(known_at) if names is None else values[names.index(str(known_at))]
            if isinstance(told, str) and told > latest:  # the stored text sorts as time does
                rows[number] = None

    def columns(self, store: OnlineStore, rows: list[Encoded | None]) -> Columns:
        """Return each feature's values, in the order of the rows."""
        present: list[Any] = [row for row in rows if row is not None] if None in rows else rows
        if not present:
            columns: Columns = {name: [None] * len(rows) for name in self.features}
        else:
            shape = present[0][2]
            is_alike = shape and (len(present) == 1 or set(map(_shape_of, present)) == {shape})
            columns = self._alike(store, present) if is_alike else self._unlike(store, present)
            if len(present) < len(rows):
                for name, values in columns.items():
                    following = iter(values)
                    columns[name] = [None if row is None else next(following) for row in rows]
        return self._finished(columns)

    def _finished(self, columns: Columns) -> Columns:
        """Read times back and put defaults where there is no value."""
        for name in self.moments:
            columns[name] = [None if text is None else self._moment(text, name) for text in columns[name]]
        for name, default in self.defaults:
            columns[name] = [default if value is None else value for value in columns[name]]
        return columns

    def _alike(self, store: OnlineStore, rows: list[Encoded]) -> Columns:
        """Decode rows that all have the same names: one document of arrays, turned by 90 degrees."""
        if len(rows) == 1:
            return self._named(store, rows[0][2], [[value] for value in self._values(rows[0][3])], 1)
        return self._turned(store, rows[0][2], self._values(b"[" + b",".join(map(_value_of, rows)) + b"]"))

    def _turned(self, store: OnlineStore, shape: int, rows: list[Any]) -> Columns:
        """Return rows of values as columns by name."""
        try:
            return self._named(store, shape, list(map(list, zip(*rows, strict=True))), len(rows))
        except (TypeError, ValueError) as error:
            raise self._corrupt() from error

    def _named(self, store: OnlineStore, shape: int, table: list[list[Any]], rows: int) -> Columns:
        names = store.names(self.stored_as, shape)
        assert names is not None
        if len(table) != len(names):
            raise self._corrupt()
        places = self._places.get(names, ())
        if places == ():
            places = self._places[names] = [names.index(n) if n in names else None for n in self.features]
        if places is None:
            return dict(zip(self.features, table, strict=True))
        nothing = [None] * rows
        return {
            name: list(nothing) if place is None else table[place]
            for name, place in zip(self.features, places, strict=True)
        }

    def _unlike(self, store: OnlineStore, rows: list[Encoded]) -> Columns:
        """Decode rows written under different names: a view's features may have changed, or its store's format."""
        by_name = []
        for row in rows:
            names, values = store.names(self.stored_as, row[2]), self._values(row[3])
            try:
                by_name.append(values if names is None else dict(zip(names, values, strict=True)))
            except (TypeError, ValueError) as error:
                raise self._corrupt() from error
        return {name: [values.get(name) for values in by_name] for name in self.features}

    def count(self, freshness: Freshness, found: Events, used: Events, now_us: int) -> None:
        """Tell what the ages of the rows that are used are, and why others are not."""
        events = [at for at in used if at is not None]
        missing = stale = early = 0
        if len(events) < len(found):
            oldest_us = _EARLIEST_US if self.ttl_us is None else now_us - self.ttl_us
            missing = found.count(None)
            stale = sum(1 for at in found if at is not None and at < oldest_us)
            early = len(found) - len(events) - missing - stale
        freshness.observe(self.view.name, now_us, events, missing, stale, early)

    def _values(self, value: bytes | str) -> Any:
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise self._corrupt() from error

    def _moment(self, text: Any, name: str) -> datetime:
        try:
            return datetime.fromisoformat(text)
        except (TypeError, ValueError) as error:
            raise Corrupt(
                f"{self.view.name}.{name} cannot be read back as a time; materialise the view again"
            ) from error

    def _corrupt(self) -> Corrupt:
        return Corrupt(f"an online value of the view {self.view.name} cannot be read back; materialise it again")
