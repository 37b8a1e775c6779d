"""The sweep by itself: every so often the control plane removes what was deleted long ago, some at a time.

It runs beside the loop, not in it: a sweep of much takes minutes, and the loop's workers are for what takes little.
That no two sweep at once is the sweep's own lease; a control plane that stands by finds it taken, or nothing to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from flyball.clock import Clock, parse_duration
from flyball.errors import FlyballError, InvalidInput
from flyball.tracking.sweeping import Swept

__all__ = ["SweepTimer"]

log = logging.getLogger("flyball.sweep")

MOST = 10_000  # things and traces of one round
_PAUSE_S = 30.0  # between two rounds while there is more
_FIRST_S = 300.0  # from the start of the control plane, which has other things to do first
_AGAIN_S = 3600.0  # after one that failed, unless it is sooner anyway
_LOOK_S = 1.0


class SweepTimer:
    """Sweeps whenever it is time.

    Args:
        sweep: called with how many things may go and what tells it to end.
        every: how often, such as `1d`; 0: never.

    Raises:
        InvalidInput: `every` is no duration.
    """

    def __init__(self, sweep: Callable[[int, threading.Event], Swept], every: str, clock: Clock) -> None:
        self._sweep = sweep
        self._clock = clock
        try:
            self._every_s = 0.0 if every.strip() == "0" else parse_duration(every).total_seconds()
        except InvalidInput as error:
            raise InvalidInput(f"[sweep] every: {error}; or write 0 for never") from None
        self.next_at = clock.monotonic() + min(_FIRST_S, self._every_s)

    def run(self, stopping: threading.Event) -> None:
        """Sweep every so often until `stopping` is set."""
        while self._every_s and not stopping.is_set():
            self.look(stopping)
            stopping.wait(_LOOK_S)

    def look(self, stopping: threading.Event) -> Swept | None:
        """Do a round if it is time, and say when the next is; None: it is not time, or it failed."""
        if not self._every_s or self._clock.monotonic() < self.next_at:
            return None
        wait, swept = self._every_s, None
        try:
            swept = self._sweep(MOST, stopping)
        except FlyballError as error:
            wait = min(_AGAIN_S, wait)
            log.warning("the sweep was put off: %s", error)
        except Exception:
            wait = min(_AGAIN_S, wait)
            log.exception("the sweep failed; it is tried again")
        if swept is not None:
            for sentence in swept.problems:
                log.warning("%s", sentence)
            if swept.removed or swept.traces or swept.blobs:
                counted = len(swept.removed), swept.traces, swept.blobs, swept.blob_bytes
                log.info("swept %d things, %d traces, %d blobs with %d bytes", *counted)
            if swept.is_more:
                wait = min(_PAUSE_S, wait)
        self.next_at = self._clock.monotonic() + wait
        return swept
