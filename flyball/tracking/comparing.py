"""Compare a run with one made again: metrics point by point, files by their bytes, environments by packages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from flyball.ledger.points import Point, kept_value

__all__ = ["Likeness", "PackageChange", "Reproduction", "compared_metric", "environment_changes", "package_changes"]

Verdict = Literal["identical", "within tolerance", "different", "missing", "new"]


@dataclass(frozen=True)
class Likeness:
    """How one metric or file compares. `difference` is the largest |a − b| / max(|a|, |b|) over the points."""

    name: str
    verdict: Verdict
    detail: str = ""
    difference: float | None = None


@dataclass(frozen=True)
class PackageChange:
    """A package, or Python itself, that is another here than the run recorded; None: it is not there."""

    package: str
    recorded: str | None
    here: str | None


@dataclass
class Reproduction:
    """What came of making a run again. `reasons` say why it may differ, likeliest first."""

    run: str
    status: str
    metrics: list[Likeness] = field(default_factory=list)
    files: list[Likeness] = field(default_factory=list)
    params: list[Likeness] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    output: str = ""
    environment: list[PackageChange] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        """Whether it ended as then, and every metric and parameter is the same, or within the tolerance."""
        return self.status == "succeeded" and all(
            one.verdict in ("identical", "within tolerance") for one in (*self.metrics, *self.params)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "is_same": self.is_same}


def compared_metric(name: str, then: Iterable[Point], now: Iterable[Point], tolerance: float) -> Likeness:
    """Compare the points of a metric in their order by step; when each was measured does not count.

    Args:
        tolerance: the largest relative difference that is no difference; not a number equals not a number.
    """
    before, after = (sorted((p.step, p.at_ms, kept_value(p.value)) for p in points) for points in (then, now))
    if not after:
        return Likeness(name, "missing", f"{len(before)} points then, none now")
    if not before:
        return Likeness(name, "new", f"{len(after)} points now, none then")
    if [p[0] for p in before] != [p[0] for p in after]:
        return Likeness(name, "different", f"{len(before)} points then, {len(after)} now, at other steps")
    largest, where = 0.0, 0
    for (step, _, old), (_, _, new) in zip(before, after, strict=True):
        apart = _apart(old, new)
        if apart > largest:
            largest, where = apart, step
    if largest == 0:
        return Likeness(name, "identical", f"{len(before)} points", 0.0)
    verdict: Verdict = "within tolerance" if largest <= tolerance else "different"
    last = f"last value {before[-1][2]:.10g} then, {after[-1][2]:.10g} now"
    return Likeness(name, verdict, f"{last}; furthest apart at step {where}", largest)


def environment_changes(then: Mapping[str, Any], now: Mapping[str, Any], most: int = 12) -> list[str]:
    """Return in sentences what is different between two environments, as `runs.environment` tells them."""
    found = []
    for key, words in (("python", "Python"), ("platform", "the platform"), ("cores", "the number of cores")):
        if then.get(key) is not None and then.get(key) != now.get(key):
            found.append(f"{words} was {then[key]}, and is {now.get(key)}")
    old, new = then.get("packages") or {}, now.get("packages") or {}
    moved = sorted(name for name in old if name in new and old[name] != new[name])
    gone = sorted(name for name in old if name not in new)
    told = [f"{name} {old[name]} → {new[name]}" for name in moved] + [
        f"{name} {old[name]} is not here" for name in gone
    ]
    if told:
        more = f", and {len(told) - most} more" if len(told) > most else ""
        found.append(f"packages: {', '.join(told[:most])}{more}")
    return found


def package_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[PackageChange]:
    """Return what is another in one environment than in the other, as `runs.environment` tells them, by name.

    What is only here is left out: a run is not different because something else was installed beside it.
    """
    old = {"python": then.get("python"), **(then.get("packages") or {})}
    new = {"python": now.get("python"), **(now.get("packages") or {})}
    return [PackageChange(name, old[name], new.get(name)) for name in old if old[name] and old[name] != new.get(name)]


def _apart(old: float, new: float) -> float:
    if old == new or (math.isnan(old) and math.isnan(new)):
        return 0.0
    if math.isnan(old) or math.isnan(new):
        return math.inf
    return min(abs(old / 2 - new / 2) / (max(abs(old), abs(new)) / 2), 2.0)
