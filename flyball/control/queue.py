"""The queue of names to look at: each at most once, never twice at the same time, with timers and back-off."""

from __future__ import annotations

import heapq
import random
import threading

from flyball.clock import Clock
from flyball.ledger.refs import Ref

__all__ = ["WakeQueue"]

FIRST_DELAY_S = 0.2  # after the first failure; doubles with each further one
LONGEST_DELAY_S = 60.0


class WakeQueue:
    """Names to look at, for several workers.

    A name that is woken while a worker is busy with it is looked at once more afterwards. A timer never postpones
    an earlier alarm. Failures of a name back off exponentially with jitter; success forgets them.
    """

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        self._clock = clock
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Ref]] = []
        self._due: dict[Ref, float] = {}
        self._busy: set[Ref] = set()
        self._failures: dict[Ref, int] = {}
        self._count = 0
        self._closed = False

    def wake(self, ref: Ref, after_s: float = 0.0) -> None:
        """Look at `ref` after a while; an earlier alarm for it stays."""
        with self._changed:
            due = self._clock.monotonic() + after_s
            if due >= self._due.get(ref, float("inf")):
                return
            self._due[ref] = due
            self._count += 1
            heapq.heappush(self._heap, (due, self._count, ref))
            self._changed.notify()

    def take(self, wait_s: float = 0.0) -> Ref | None:
        """Return the next due name and mark it busy; None when none is due within `wait_s` or when closed."""
        with self._changed:
            deadline = self._clock.monotonic() + wait_s
            while not self._closed:
                ref = self._pop_due()
                if ref is not None:
                    return ref
                now = self._clock.monotonic()
                if now >= deadline:
                    return None
                self._changed.wait(min(deadline, self._next_due()) - now + 0.001)
            return None

    def done(self, ref: Ref) -> None:
        """Say that a worker has finished with `ref` without failing."""
        with self._changed:
            self._busy.discard(ref)
            self._failures.pop(ref, None)
            self._changed.notify()

    def failed(self, ref: Ref) -> float:
        """Say that a worker failed on `ref`; it comes back by itself. Return after how many seconds."""
        with self._changed:
            self._busy.discard(ref)
            failures = self._failures[ref] = self._failures.get(ref, 0) + 1
        delay: float = min(FIRST_DELAY_S * 2 ** (failures - 1), LONGEST_DELAY_S) * self._random.uniform(0.75, 1.25)
        self.wake(ref, delay)
        return delay

    def next_due_s(self) -> float | None:
        """Return in how many seconds the next name falls due (0 when one is), None when the queue is empty."""
        with self._changed:
            due = self._next_due()
            return None if due == float("inf") else max(0.0, due - self._clock.monotonic())

    def is_idle(self) -> bool:
        """Whether nothing is due now and no worker is busy."""
        with self._changed:
            return not self._busy and self._next_due() > self._clock.monotonic()

    def close(self) -> None:
        """Let all waiting workers go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pop_due(self) -> Ref | None:
        now = self._clock.monotonic()
        held: list[tuple[float, int, Ref]] = []
        found: Ref | None = None
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            due, _, ref = entry
            if self._due.get(ref) != due:
                continue  # an earlier alarm has replaced this one
            if ref in self._busy:
                held.append(entry)
                continue
            del self._due[ref]
            self._busy.add(ref)
            found = ref
            break
        for entry in held:
            heapq.heappush(self._heap, entry)
        return found

    def _next_due(self) -> float:
        return min((due for ref, due in self._due.items() if ref not in self._busy), default=float("inf"))
