"""Look-ups: the features of a request's entities, read from the online store inside the request.

The data plane makes one `LookUpPlan` for the views of a deployment and asks it for each request, so this file imports
nothing heavy: it knows views by their light description, `ViewSpec`. A look-up is one read of the store a view, and one
decoding of all rows found, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import orjson

from flyball.clock import SYSTEM, format_instant
from flyball.errors import Corrupt, InvalidInput, did_you_mean, listed
from flyball.features.freshness import Freshness
from flyball.features.specs import DTYPES, Described, ViewSpec
from flyball.storage.online import Encoded, OnlineStore, instant_of, micros_of

__all__ = ["DTYPES", "Described", "LookUpPlan", "ViewSpec", "look_up"]

_EARLIEST_US = -(2**63)
_Columns = dict[str, list[Any]]
_event_of, _arrival_of, _shape_of, _value_of = map(itemgetter, range(4))


def look_up(
    store: OnlineStore,
    views: Sequence[ViewSpec],
    keys: Mapping[str, Any],
    now: datetime | None = None,
    *,
    ages: bool = False,
) -> dict[str, list[Any]]:
    """Return the features of entities as of `now`; see `LookUpPlan.look_up`, which is the faster where views stay."""
    return LookUpPlan(views).look_up(store, keys, now, ages=ages)


class LookUpPlan:
    """The views that are looked up together, with all that does not change from request to request worked out.

    May be used by several threads.

    Raises:
        InvalidInput: two views have a feature of the same name.
    """

    def __init__(self, views: Iterable[ViewSpec]) -> None:
        self.views = tuple(views)
        self._compiled = [_compiled(view) for view in self.views]
        if len(self.views) > 1:
            seen: set[str] = set()
            for view in self.views:
                _refuse_repeated(view, seen)

    def look_up(
        self,
        store: OnlineStore,
        keys: Mapping[str, Any],
        now: datetime | None = None,
        *,
        ages: bool = False,
        freshness: Freshness | None = None,
    ) -> dict[str, list[Any]]:
        """Return the features of entities as of `now`: one read of the store a view, however many rows.

        Args:
            store: where values were pushed or materialised.
            keys: by name, a value for every row or a sequence of values, one a row. Other names are ignored.
            now: with a zone; the request's own time where it has one, so that a replay sees what was true then. A
                value that is from after it, or arrived after it, is not used.
            ages: add `<view>_age_s`, float seconds since the value became true.
            freshness: where to count ages and misses.

        Returns:
            name → list, one element a row; None, or the view's default, where no value is known, is fresh enough, or
            where a key is missing.

        Raises:
            InvalidInput: a key is not given or of a wrong type, or lengths differ.
            Corrupt: a stored value cannot be read back.
            Unavailable: the store does not answer.
        """
        instant = SYSTEM.now() if now is None else now
        if instant.tzinfo is None:
            raise InvalidInput(f"the time {instant.isoformat()} of a look-up has no zone; give it one")
        now_us = micros_of(instant)
        rows = _row_count(self.views, keys)
        columns: _Columns = {}
        for compiled in self._compiled:
            found = compiled.read(store, keys, rows)
            usable = compiled.usable(store, found, now_us)
            columns.update(compiled.columns(store, usable))
            if ages:
                columns[compiled.view.age_column] = [None if r is None else (now_us - r[0]) / 1e6 for r in usable]
            if freshness is not None:
                compiled.count(freshness, found, usable, now_us)
        return columns


class _CompiledView:
    """One view of a plan."""

    def __init__(self, view: ViewSpec) -> None:
        self.view = view
        self.stored_as = view.stored_as
        self.ttl_us = None if view.ttl_s is None else round(view.ttl_s * 1e6)
        self.features = tuple(view.features)
        self.defaults = [(name, view.defaults[name]) for name in self.features if view.defaults.get(name) is not None]
        self.moments = [name for name, dtype in view.features.items() if dtype == "datetime"]
        self._places: dict[tuple[str, ...], list[int | None] | None] = {self.features: None}

    def read(self, store: OnlineStore, keys: Mapping[str, Any], rows: int) -> list[Encoded | None]:
        """Return what the store keeps for each row's key, None where a key is missing."""
        wanted = _keys(self.view, keys, rows)
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

    def columns(self, store: OnlineStore, rows: list[Encoded | None]) -> _Columns:
        """Return each feature's values, in the order of the rows."""
        present: list[Any] = [row for row in rows if row is not None] if None in rows else rows
        if not present:
            columns: _Columns = {name: [None] * len(rows) for name in self.features}
        else:
            shape = present[0][2]
            is_alike = shape and (len(present) == 1 or set(map(_shape_of, present)) == {shape})
            columns = self._alike(store, present) if is_alike else self._unlike(store, present)
            if len(present) < len(rows):
                for name, values in columns.items():
                    following = iter(values)
                    columns[name] = [None if row is None else next(following) for row in rows]
        for name in self.moments:
            columns[name] = [None if text is None else self._moment(text, name) for text in columns[name]]
        for name, default in self.defaults:
            columns[name] = [default if value is None else value for value in columns[name]]
        return columns

    def _alike(self, store: OnlineStore, rows: list[Encoded]) -> _Columns:
        """Decode rows that all have the same names: one document of arrays, turned by 90 degrees."""
        names = store.names(self.stored_as, rows[0][2])
        assert names is not None
        if len(rows) == 1:
            table: list[Any] = [[value] for value in self._values(rows[0][3])]
        else:
            document = self._values(b"[" + b",".join(map(_value_of, rows)) + b"]")
            try:
                table = list(map(list, zip(*document, strict=True)))
            except (TypeError, ValueError) as error:
                raise self._corrupt() from error
        if len(table) != len(names):
            raise self._corrupt()
        places = self._places.get(names, ())
        if places == ():
            places = self._places[names] = [names.index(n) if n in names else None for n in self.features]
        if places is None:
            return dict(zip(self.features, table, strict=True))
        nothing = [None] * len(rows)
        return {
            name: list(nothing) if place is None else table[place]
            for name, place in zip(self.features, places, strict=True)
        }

    def _unlike(self, store: OnlineStore, rows: list[Encoded]) -> _Columns:
        """Decode rows written under different names: a view's features may have changed, or its store's format."""
        by_name = []
        for row in rows:
            names, values = store.names(self.stored_as, row[2]), self._values(row[3])
            try:
                by_name.append(values if names is None else dict(zip(names, values, strict=True)))
            except (TypeError, ValueError) as error:
                raise self._corrupt() from error
        return {name: [values.get(name) for values in by_name] for name in self.features}

    def count(
        self, freshness: Freshness, found: list[Encoded | None], usable: list[Encoded | None], now_us: int
    ) -> None:
        events = [row[0] for row in usable if row is not None]
        missing = stale = early = 0
        if len(events) < len(found):
            oldest_us = _EARLIEST_US if self.ttl_us is None else now_us - self.ttl_us
            missing = found.count(None)
            stale = sum(1 for row in found if row is not None and row[0] < oldest_us)
            early = len(found) - len(events) - missing - stale
        freshness.observe(self.view.name, now_us, events, missing, stale, early)

    def _values(self, value: bytes) -> Any:
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


def _compiled(view: ViewSpec) -> _CompiledView:
    """Return a view's compiled form, kept on the view itself."""
    found: _CompiledView | None = vars(view).get("_compiled")
    if found is None:
        found = _CompiledView(view)
        object.__setattr__(view, "_compiled", found)  # a memo, like a cached property
    return found


def _refuse_repeated(view: ViewSpec, seen: set[str]) -> None:
    for name in view.features:
        if name in seen:
            raise InvalidInput(f'two of the views have a feature "{name}"; look them up one after the other')
        seen.add(name)


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
            return [view.key_part(name, values)] * rows
        kinds = set(map(type, values))
        if kinds == {str}:
            return list(values)
        if kinds == {int}:
            return list(map(str, values))
        return [view.key_part(name, value) for value in values]
    columns = [[v] * rows if _is_single(v) else v for v in (keys[name] for name in view.entity)]
    return [view.key_of(values) for values in zip(*columns, strict=True)]


def _is_single(value: Any) -> bool:
    return isinstance(value, str) or not hasattr(value, "__len__")
