"""Server-sent events: tells open pages that the journal has grown. One look at the ledger serves all clients.

A page listens to `/api/changes`; each event is named `changed` and carries the journal's newest number. What changed
the page asks for itself. See HTML, 9.2 Server-sent events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from flyball.errors import FlyballError

__all__ = ["Changes"]

log = logging.getLogger("flyball.wire")

LOOK_S = 0.25  # how often the journal's end is looked at while anybody listens
HEARTBEAT_S = 15.0  # proxies cut silent connections after 30 s and more


class Changes:
    """The journal's newest number, for many listeners. Lives on one event loop; `close` may come from any thread."""

    def __init__(self, last: Callable[[], int], look_s: float = LOOK_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._last = last
        self._look_s = look_s
        self._heartbeat_s = heartbeat_s
        self._newest = -1
        self._listeners: set[asyncio.Event] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def close(self) -> None:
        """End all streams, so that a stopping server need not wait for browsers."""
        self._is_closed = True
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop may close between the two lines
                self._loop.call_soon_threadsafe(self._wake)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield events, the first at once with where the journal is, until the client goes or `close` is called."""
        self._loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        self._listeners.add(woken)
        try:
            if self._watcher is None or self._watcher.done():
                self._newest = -1
                self._watcher = self._loop.create_task(self._watch())
            elif self._newest >= 0:
                woken.set()
            seen = -1
            while not self._is_closed:
                try:
                    await asyncio.wait_for(woken.wait(), self._heartbeat_s)
                except TimeoutError:
                    yield b": nothing new\n\n"
                    continue
                woken.clear()
                if self._newest > seen:
                    seen = self._newest
                    yield b"event: changed\nid: %d\ndata: %d\n\n" % (seen, seen)
        finally:
            self._listeners.discard(woken)

    async def _watch(self) -> None:
        """Look while anybody listens."""
        while self._listeners and not self._is_closed:
            try:
                newest = await run_in_threadpool(self._last)
            except FlyballError as error:
                log.warning("the journal could not be looked at: %s", error)
                newest = self._newest
            if newest != self._newest:
                self._newest = newest
                self._wake()
            await asyncio.sleep(self._look_s)

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.set()
