"""The controller that keeps retention: rows leave when they are older than they may be, without anybody asking.

One run takes care of all datasets, so a dataset that wakes it soon after another has nothing left to do.
"""

from __future__ import annotations

from collections.abc import Callable

from flyball.control import Outcome, Retry, World
from flyball.privacy.guard import Guard
from flyball.privacy.retention import Expired

__all__ = ["RetentionController"]

_EVERY_S = 3600.0  # rows may stay so much longer than they should; a run reads what may hold old rows


class RetentionController:
    """Controller of the kind `dataset`.

    Args:
        run: takes out what has expired, in the name of the control plane.
    """

    kind = "dataset"

    def __init__(self, guard: Guard, run: Callable[[], list[Expired]]) -> None:
        self._guard = guard
        self._run = run
        self._next: float | None = None  # of the clock that only goes forward

    def reconcile(self, name: str, world: World) -> Outcome:
        if self._guard.retention(name) is None:
            return None
        now = world.clock.monotonic()
        if self._next is None or now >= self._next:
            self._run()
            self._next = now + _EVERY_S
        return Retry(self._next - now)
