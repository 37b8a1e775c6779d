"""Points: what a run measured, one value of one metric at a step and a time.

The identity of a point is all of it: an exact repeat is one point, within a request and across requests. The value
of a metric is that of its newest point by (step, time, value), whatever the order of arrival.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from math import isfinite
from typing import NamedTuple, Protocol, overload

__all__ = ["LARGEST", "Logged", "Point", "PointColumns", "Points", "kept_value", "newest"]

LARGEST = 1.7976931348623157e308
"""How ±infinity is kept: neither JSON nor MLflow's clients know it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 1 << 63
_ONE_FLOAT, _ONE_INT = {float}, {int}


class Point(NamedTuple):
    """One value of one metric. `at_ms` is wall time since 1970 in UTC, `step` counts as the caller likes (int64)."""

    key: str
    value: float
    step: int
    at_ms: int

    @property
    def at(self) -> datetime:
        """The time as an instant."""
        return _EPOCH + timedelta(milliseconds=self.at_ms)


class PointColumns(Sequence[Point]):
    """Points column by column: to check and to pack a thousand is several times as quick as with an object for each."""

    def __init__(self, keys: list[str], values: list[float], steps: list[int], ats: list[int]) -> None:
        self.keys, self.values, self.steps, self.ats = keys, values, steps, ats

    @classmethod
    def of(cls, points: Iterable[Point]) -> PointColumns:
        """Return points as columns."""
        if isinstance(points, PointColumns):
            return points
        every = list(points)  # `zip(*every)` would make an iterator for each point, and wake the collector
        return cls([p[0] for p in every], [p[1] for p in every], [p[2] for p in every], [p[3] for p in every])

    @cached_property
    def is_plain(self) -> bool:
        """Whether they are kept as they stand: finite floats, whole steps of 64 bits, times since 1970."""
        if not self.values:
            return True
        return (
            set(map(type, self.values)) == _ONE_FLOAT
            and set(map(type, chain(self.steps, self.ats))) == _ONE_INT
            and min(self.ats) >= 0
            and max(self.ats) < _INT64
            and min(self.steps) >= -_INT64
            and max(self.steps) < _INT64
            and all(map(isfinite, self.values))
        )

    @overload
    def __getitem__(self, place: int) -> Point: ...
    @overload
    def __getitem__(self, place: slice) -> PointColumns: ...
    def __getitem__(self, place: int | slice) -> Point | PointColumns:
        found = self.keys[place], self.values[place], self.steps[place], self.ats[place]
        return PointColumns(*found) if isinstance(place, slice) else Point(*found)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Point]:
        return map(Point._make, zip(self.keys, self.values, self.steps, self.ats, strict=True))

    def __len__(self) -> int:
        return len(self.values)


class Logged(NamedTuple):
    """The points of one request that no run's `latest` holds yet; `number` follows the order of commits."""

    number: int
    run: str
    points: Sequence[Point]


class Points(Protocol):
    """Reads points; `Runs` writes them."""

    def history(self, run: str, key: str) -> list[Point]:
        """Return all points of one metric, by (step, time, value). An unknown run or metric has none."""
        ...

    def page(self, run: str, key: str, limit: int, offset: int = 0) -> tuple[list[Point], bool]:
        """Return at most `limit` points by (time, step, value) after `offset` of them, and whether there are more."""
        ...

    def sample(
        self, runs: Iterable[str], key: str, points: int, first_step: int | None = None, last_step: int | None = None
    ) -> dict[str, list[Point]]:
        """Return at most `points` points of each run, spread evenly over all that it has, by (step, time, value).

        The last one is among them, and the first one where more than one is wanted; only those between `first_step`
        and `last_step` (both included) count. A run without points is left out.
        """
        ...


def kept_value(value: float) -> float:
    """Return a value as it is kept: ±infinity as the largest number, every NaN the same.

    >>> kept_value(float("-inf"))
    -1.7976931348623157e+308
    """
    number = float(value)
    if number != number:
        return math.nan
    return max(min(number, LARGEST), -LARGEST)


def newest(points: Iterable[Point], known: Mapping[str, Point] | None = None) -> dict[str, Point]:
    """Return the newest point of each metric among those and the known; NaN counts as 0, as for MLflow."""
    found = dict(known or {})
    for point in points:
        there = found.get(point.key)
        if there is None:
            found[point.key] = point
            continue
        _, value, step, at = point
        if step > there.step or (step == there.step and (at, _rank(value)) > (there.at_ms, _rank(there.value))):
            found[point.key] = point
    return found


def _rank(value: float) -> float:
    return 0.0 if value != value else value
