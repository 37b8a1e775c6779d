"""How fresh the values are that look-ups find: ages, misses and values too old, counted while serving.

The data plane shows the counts as metrics: a feed that has stopped is seen here before a model suffers from it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field

__all__ = ["AGE_BOUNDS_S", "Freshness", "ViewFreshness"]

# 1 s, 10 s, 1 min, 5 min, 15 min, 1 h, 3 h, 6 h, 12 h, 1 d, 2 d, 7 d, 30 d
AGE_BOUNDS_S = (1, 10, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000)
_BOUNDS_US = tuple(bound * 1_000_000 for bound in AGE_BOUNDS_S)


@dataclass
class ViewFreshness:
    """The counts of one view since the start.

    Attributes:
        rows: entities looked up; those without a key count too.
        missing: of them, without a value at all.
        stale: with a value older than the view's time to live.
        early: with a value from after the time that was asked about, or that arrived after it.
        age_counts: ages of the values used, between `AGE_BOUNDS_S` and one beyond; at most a bound belongs below it.
        age_sum_s: their sum.
    """

    rows: int = 0
    missing: int = 0
    stale: int = 0
    early: int = 0
    age_counts: list[int] = field(default_factory=lambda: [0] * (len(AGE_BOUNDS_S) + 1))
    age_sum_s: float = 0.0


class Freshness:
    """Counts of all views by name; may be written by several threads."""

    def __init__(self) -> None:
        self.views: dict[str, ViewFreshness] = {}
        self._lock = threading.Lock()

    def observe(self, view: str, now_us: int, events_us: list[int], missing: int, stale: int, early: int) -> None:
        """Count one look-up of a view.

        Args:
            events_us: when each value that was used became true, in any order, none after `now_us`.
        """
        with self._lock:
            counts = self.views.get(view)
            if counts is None:
                counts = self.views[view] = ViewFreshness()
            counts.rows += len(events_us) + missing + stale + early
            counts.missing += missing
            counts.stale += stale
            counts.early += early
            if len(events_us) == 1:
                age_us = now_us - events_us[0]
                counts.age_counts[bisect_left(_BOUNDS_US, age_us)] += 1
                counts.age_sum_s += age_us / 1e6
                return
            # Sorted once and searched a bound at a time: a search for each value would cost as much as reading it.
            ordered = sorted(events_us)
            counts.age_sum_s += (now_us * len(ordered) - sum(ordered)) / 1e6
            older = len(ordered)
            for place, bound in enumerate(_BOUNDS_US):
                if not older:
                    return
                beyond = bisect_left(ordered, now_us - bound, 0, older)
                counts.age_counts[place] += older - beyond
                older = beyond
            counts.age_counts[-1] += older
