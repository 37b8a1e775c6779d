"""Curves of metrics for charts: sampled by the ledger, over steps, time or seconds since the start, maybe smoothed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from flyball.errors import InvalidInput
from flyball.ledger.points import Point
from flyball.platform import Platform
from flyball.web.pages.site import parameters

__all__ = ["AXES", "View", "curves", "smoothed", "view_of"]

AXES = ("step", "time", "relative")
_POINTS = 1200  # of all runs of a chart that has one; a screen has about as many columns
_ALL_POINTS = 24_000  # of all runs of a chart together


@dataclass(frozen=True)
class View:
    """How curves are looked at; all of it stands in the address."""

    axis: str = "step"
    smooth: float = 0.0
    log: bool = False
    first: int | None = None
    last: int | None = None

    @property
    def query(self) -> dict[str, str]:
        """The parameters of an address that differ from the default, without the range."""
        found = {"x": self.axis} if self.axis != "step" else {}
        if self.smooth:
            found["smooth"] = f"{self.smooth:g}"
        return found | ({"log": "1"} if self.log else {})


def view_of(request: Request) -> View:
    """Return how an address asks to look at curves. Raises InvalidInput."""
    given = parameters(request, "x", "smooth", "log", "from", "to")
    axis = given.get("x", "step")
    if axis not in AXES:
        raise InvalidInput(f'"x" in the address is {axis[:40]!r}; expected step, time or relative')
    smooth = _number(given.get("smooth", "0"), "smooth")
    if not 0 <= smooth < 1:
        raise InvalidInput(f'"smooth" in the address is {smooth:g}; expected 0 (none) up to 0.99')
    first = math.floor(_number(given["from"], "from")) if "from" in given else None
    last = math.ceil(_number(given["to"], "to")) if "to" in given else None
    return View(axis, smooth, given.get("log") == "1", first, last)


def curves(platform: Platform, runs: Sequence[tuple[str, str]], key: str, view: View) -> dict[str, Any]:
    """Return one metric of runs, given by id and name, as `<fb-line>` draws it; runs without it are left out.

    A run's colour is its place, so it is the same in every chart of a page.
    """
    most = max(min(_POINTS, _ALL_POINTS // max(len(runs), 1)), 60)
    is_step = view.axis == "step"
    found = platform.metric_sample(
        [id for id, _ in runs], key, view.first if is_step else None, view.last if is_step else None, most
    )
    series = [
        {"name": name, "arm": place % 8, **_over(found[id], view)}
        for place, (id, name) in enumerate(runs)
        if found.get(id)
    ]
    x = "time" if view.axis == "time" else "step"
    return {"x": x, "xName": {"relative": "after s"}.get(view.axis, "step"), "log": view.log, "series": series}


def smoothed(values: Sequence[float | None], weight: float) -> list[float | None]:
    """Return the exponential mean of values, corrected for its start; gaps stay gaps.

    >>> smoothed([1.0, None, 3.0], 0.5)
    [1.0, None, 2.3333333333333335]
    """
    found: list[float | None] = []
    mean, mass = 0.0, 0.0
    for value in values:
        if value is None:
            found.append(None)
            continue
        mean = weight * mean + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        found.append(mean / mass)
    return found


def _over(points: Sequence[Point], view: View) -> Mapping[str, Any]:
    xs: list[float]
    if view.axis == "step":
        by_x = {float(point.step): point.value for point in points}
        if len(by_x) == 1 and len(points) > 1:  # nobody counted steps: the order of arrival does
            ordered = sorted(points, key=lambda point: point.at_ms)
            by_x = {float(at): point.value for at, point in enumerate(ordered)}
    else:
        start = min(point.at_ms for point in points) if view.axis == "relative" else 0
        by_x = {(p.at_ms - start) / 1000: p.value for p in sorted(points, key=lambda p: (p.at_ms, p.step))}
    xs = list(by_x)
    ys = [_drawn(value, view.log) for value in by_x.values()]
    return {"xs": xs, "ys": smoothed(ys, view.smooth) if view.smooth else ys}


def _drawn(value: float, is_log: bool) -> float | None:
    if not math.isfinite(value) or abs(value) > 1e300 or (is_log and value <= 0):
        return None
    return value


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 2**63:
        raise InvalidInput(f'"{name}" in the address is {text[:40]!r}; expected a number')
    return value
