"""Look-ups: the features of a request's entities, read from the online store inside the request.

The data plane makes one `LookUpPlan` for the views of a deployment and asks it for each request, so this file imports
nothing heavy: it knows views by their light description, `ViewSpec`. A look-up is one read of the store a view, and one
decoding of all rows found, whatever their number. Where a store can say many rows at once (`OnlineStore.together`) and
they are alike, as rows of one materialisation are, no Python object is made for a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from flyball.clock import SYSTEM
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.features.decoding import Columns, compiled
from flyball.features.freshness import Freshness
from flyball.features.specs import DTYPES, Described, ViewSpec
from flyball.storage.online import OnlineStore, micros_of

__all__ = ["DTYPES", "Described", "LookUpPlan", "ViewSpec", "look_up"]

_FEWEST_TOGETHER = 8  # keys; fewer are read faster row by row


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
        self._compiled = [compiled(view) for view in self.views]
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
        columns: Columns = {}
        for one in self._compiled:
            wanted = _keys(one.view, keys, rows)
            alike = one.alike(store, wanted, now_us) if rows >= _FEWEST_TOGETHER else None
            if alike is None:
                found = one.read(store, wanted)
                usable = one.usable(store, found, now_us)
                columns.update(one.columns(store, usable))
                events = [None if row is None else row[0] for row in found]
                used = [None if row is None else row[0] for row in usable]
            else:
                events, used, values = alike
                columns.update(values)
            if ages:
                columns[one.view.age_column] = [None if at is None else (now_us - at) / 1e6 for at in used]
            if freshness is not None:
                one.count(freshness, events, used, now_us)
        return columns


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
