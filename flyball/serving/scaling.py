"""How many worker processes a data plane is to have: by target tracking and by schedule.

`decide` is pure; `Scaler` observes the workers of one data plane and remembers what target tracking must. The same
policy renders to a Kubernetes HorizontalPodAutoscaler, whose formula `decide` follows: ceil(workers × utilisation /
target), left as it is within a tolerance of 10 %, and lower only when all looks of the cool-down agree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import orjson

from flyball.clock import SYSTEM, Clock
from flyball.errors import InvalidInput
from flyball.serving.sharing import MOST_WORKERS

__all__ = ["Decision", "Observed", "Policy", "Scaler", "ScalingSettings", "Window", "decide", "horizontal_autoscaler"]

_TOLERANCE = 0.1
_LOOK_S = 2.0
_LONGEST_PAUSE = timedelta(days=366)  # a schedule that says nothing for so long says nothing


@dataclass(frozen=True)
class ScalingSettings:
    """`[scaling]` in flyball.toml, `FLYBALL_SCALING_…` in the environment: worker processes of the data plane."""

    metric: Literal["cpu", "in_flight"] = "cpu"  # of a worker: share of a core in percent, or requests in flight
    target: float = 0.0  # what a worker should have of it, such as 70; 0: the number of workers is fixed
    minimum: int = 1  # workers
    maximum: int = 4  # workers; there is nothing to gain above the number of cores
    scale_in_after_s: float = 300.0  # as Kubernetes: all looks of so long must want fewer before one goes
    schedule: str = ""  # "CRON MIN-MAX; …", from then until the next: "0 8 * * 1-5 2-4; 0 20 * * * 1-2", in UTC

    def policy(self, workers: int) -> Policy:
        """Return the policy, where `workers` is the number without any scaling.

        Raises:
            InvalidInput: a number is out of bounds, or the schedule cannot be read.
        """
        if not 1 <= workers <= MOST_WORKERS:
            raise InvalidInput(f"[serving] workers is {workers}; expected 1 to {MOST_WORKERS}")
        windows = _windows(self.schedule)
        if not self.target and not windows:
            return Policy(minimum=workers, maximum=workers)
        if not 1 <= self.minimum <= self.maximum <= MOST_WORKERS:
            raise InvalidInput(
                f"[scaling] minimum and maximum are {self.minimum} and {self.maximum}; "
                f"expected 1 to {MOST_WORKERS}, rising"
            )
        if self.target < 0 or self.scale_in_after_s < 0:
            raise InvalidInput("[scaling] target and scale_in_after_s are not negative; 0 turns target tracking off")
        return Policy(self.minimum, self.maximum, self.metric, self.target, self.scale_in_after_s, windows)


@dataclass(frozen=True)
class Window:
    """Bounds that hold from each time that `cron` names until the next time of any window."""

    cron: str
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Policy:
    """How many workers are wanted. Without a target, and between the bounds of a window, as few as may be."""

    minimum: int = 1
    maximum: int = 1
    metric: Literal["cpu", "in_flight"] = "cpu"
    target: float = 0.0  # of a worker: percent of a core, or requests in flight
    scale_in_after_s: float = 300.0
    windows: tuple[Window, ...] = ()

    @property
    def is_fixed(self) -> bool:
        """Whether the number never changes."""
        return not self.windows and (self.minimum == self.maximum or not self.target)

    def bounds(self, now: datetime) -> tuple[int, int]:
        """Return the least and the most workers at a time."""
        newest: tuple[datetime, int, int] | None = None
        for window in self.windows:
            began = _last(window.cron, now)
            if began is not None and (newest is None or began >= newest[0]):
                newest = (began, window.minimum, window.maximum)
        return (self.minimum, self.maximum) if newest is None else newest[1:]


@dataclass(frozen=True)
class Observed:
    """What is seen.

    Attributes:
        workers: that serve.
        utilisation: of the metric, the mean of these workers; None: not known yet.
        recent: what was wanted at the looks within the cool-down, before this one.
    """

    workers: int
    utilisation: float | None = None
    recent: tuple[int, ...] = ()


@dataclass(frozen=True)
class Decision:
    """How many workers there are to be, how many this look alone would have, and why."""

    workers: int
    now: int
    reason: str


def decide(policy: Policy, observed: Observed, now: datetime) -> Decision:
    """Return how many workers there are to be.

    Follows the algorithm of the HorizontalPodAutoscaler (Kubernetes, "Algorithm details"), with its stabilisation
    window for scaling in.
    """
    least, most = policy.bounds(now)
    if not policy.target:
        return Decision(least, least, f"{least} are declared for this time")
    if observed.utilisation is None or not observed.workers:
        kept = min(max(observed.workers, least), most)
        return Decision(kept, kept, "nothing is observed yet")
    ratio = observed.utilisation / policy.target
    raw = observed.workers if abs(ratio - 1) <= _TOLERANCE else math.ceil(observed.workers * ratio)
    wanted = min(max(raw, least), most)
    seen = f"{policy.metric} is {observed.utilisation:.3g} of {policy.target:g}"
    if wanted >= observed.workers:
        return Decision(wanted, wanted, seen)
    held = min(max(wanted, *observed.recent, 0), observed.workers) if observed.recent else wanted
    held = min(max(held, least), most)
    return Decision(held, wanted, seen if held == wanted else f"{seen}; {held} were wanted in the cool-down")


class Scaler:
    """Observes the workers of a data plane and decides every few seconds.

    Arguments:
        monotonic: seconds, for rates and the cool-down; clock: the wall's time, for the schedule.
    """

    def __init__(self, policy: Policy, clock: Clock = SYSTEM, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.policy = policy
        self._clock = clock
        self._monotonic = monotonic
        self._looked = monotonic()
        self._cpu_s: dict[str, float] = {}
        self._recent: list[tuple[float, int]] = []
        self.wanted = policy.bounds(clock.now())[0]
        self.reason = "as declared"

    def look(self, folder: Path, living: set[int]) -> int:
        """Return how many workers there are to be, from what they have written into their folder."""
        now = self._monotonic()
        if self.policy.is_fixed or now - self._looked < _LOOK_S:
            return self.wanted
        told = {str(place): gauges for place in living if (gauges := _gauges(folder / f"{place}.counts")) is not None}
        utilisation = self._utilisation(told, now - self._looked)
        self._looked = now
        self._recent = [(at, n) for at, n in self._recent if now - at <= self.policy.scale_in_after_s]
        # Those that are still starting count too, or each look would start some more.
        workers = max(len(living), self.wanted)
        observed = Observed(workers, utilisation, tuple(n for _, n in self._recent))
        decision = decide(self.policy, observed, self._clock.now())
        self._recent.append((now, decision.now))
        self.wanted, self.reason = decision.workers, decision.reason
        return self.wanted

    def _utilisation(self, told: Mapping[str, Mapping[str, Any]], seconds: float) -> float | None:
        before, self._cpu_s = self._cpu_s, {place: float(gauges["cpu_s"]) for place, gauges in told.items()}
        if self.policy.metric == "in_flight":
            flying = [sum(gauges["in_flight"].values()) for gauges in told.values()]
            return sum(flying) / len(flying) if flying else None
        used = [cpu - before[place] for place, cpu in self._cpu_s.items() if cpu >= before.get(place, math.inf)]
        return 100 * sum(used) / (len(used) * seconds) if used and seconds > 0 else None


def horizontal_autoscaler(policy: Policy, now: datetime, name: str = "flyball-data-plane") -> dict[str, Any]:
    """Return the policy as a manifest of Kubernetes, `autoscaling/v2`, for pods of one worker each.

    A HorizontalPodAutoscaler knows no schedule: its bounds are those of `now`, and the schedule stands in an
    annotation, for what changes the bounds there (such as a CronJob).

    Raises:
        InvalidInput: there is no target, so nothing for it to track.
    """
    if not policy.target:
        raise InvalidInput("an autoscaler tracks a target and there is none; set [scaling] target")
    least, most = policy.bounds(now)
    metadata: dict[str, Any] = {"name": name}
    if policy.windows:
        schedule = "; ".join(f"{w.cron} {w.minimum}-{w.maximum}" for w in policy.windows)
        metadata["annotations"] = {"flyball/schedule": schedule}
    resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": round(policy.target)}}
    pods = {
        "metric": {"name": "flyball_requests_in_flight"},
        "target": {"type": "AverageValue", "averageValue": f"{policy.target:g}"},
    }
    tracked = {"type": "Resource", "resource": resource} if policy.metric == "cpu" else {"type": "Pods", "pods": pods}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [tracked],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": round(policy.scale_in_after_s)}},
        },
    }


def _windows(text: str) -> tuple[Window, ...]:
    """Return the windows of `CRON MIN-MAX; …`. Raises InvalidInput."""
    from cronsim import CronSim, CronSimError

    found = []
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        cron, _, bounds = entry.rpartition(" ")
        least, _, most = bounds.partition("-")
        is_rising = least.isdecimal() and most.isdecimal() and 1 <= int(least) <= int(most) <= MOST_WORKERS
        try:
            CronSim(cron, datetime(2026, 1, 1))
        except CronSimError as error:
            raise InvalidInput(f'[scaling] schedule has "{entry}": {error}') from None
        if not is_rising:
            raise InvalidInput(f'[scaling] schedule has "{entry}"; expected CRON MIN-MAX, such as 0 8 * * 1-5 2-4')
        found.append(Window(cron, int(least), int(most)))
    return tuple(found)


def _last(cron: str, now: datetime) -> datetime | None:
    """Return the last time that an expression names, up to now."""
    from cronsim import CronSim, CronSimError

    try:
        found: datetime = next(CronSim(cron, now + timedelta(minutes=1), reverse=True))
    except (StopIteration, CronSimError):
        return None
    if found > now:
        found = next(CronSim(cron, found, reverse=True))
    return found if now - found <= _LONGEST_PAUSE else None


def _gauges(path: Path) -> dict[str, Any] | None:
    try:
        return dict(orjson.loads(path.read_bytes())["gauges"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
