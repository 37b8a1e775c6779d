"""Server-sent events: tells open pages what has changed. One look at the journal serves all listeners.

A page listens to `/api/changes`. The first event, named `now`, says where the journal is; after it each message is
`{"last": 812, "refs": ["run/41f3…", "model/late@2"]}`: the newest number, and what the events since were about. What
changed the page asks for itself. Source: HTML, section 9.2, Server-sent events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from flyball.errors import FlyballError
from flyball.ledger.journal import Event
from flyball.wire.native.values import encode

__all__ = ["Changes"]

log = logging.getLogger("flyball.wire")

LOOK_S = 0.25  # how often the journal is looked at while anybody listens
HEARTBEAT_S = 15.0  # proxies cut silent connections after 30 s and more
MOST_REFS = 200  # in one message; of a larger burst each kind is still named


@dataclass(eq=False)
class _Listener:
    """One open stream: what it has not been told yet."""

    woken: asyncio.Event = field(default_factory=asyncio.Event)
    refs: dict[str, None] = field(default_factory=dict)  # in order, each once


class Changes:
    """The journal's growth, for many listeners. Lives on one event loop; `close` may come from any thread.

    Args:
        last: returns the newest event's number.
        since: returns the events after a number, oldest first.
        look_s: seconds between two looks.
        heartbeat_s: seconds of silence after which a listener is sent a comment.
    """

    def __init__(
        self,
        last: Callable[[], int],
        since: Callable[[int], Sequence[Event]],
        look_s: float = LOOK_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._last = last
        self._since = since
        self._look_s = look_s
        self._heartbeat_s = heartbeat_s
        self._newest = 0
        self._listeners: set[_Listener] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def close(self) -> None:
        """End all streams, so that a stopping server need not wait for browsers."""
        self._is_closed = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._wake, ())

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield events until the client goes or `close` is called."""
        self._loop = asyncio.get_running_loop()
        listener = _Listener()
        newest = self._newest if self._is_watching() else await run_in_threadpool(self._last)
        self._listeners.add(listener)
        try:
            if not self._is_watching():
                self._newest = newest
                self._watcher = self._loop.create_task(self._watch())
            yield b"event: now\ndata: %d\n\n" % self._newest
            while not self._is_closed:
                try:
                    await asyncio.wait_for(listener.woken.wait(), self._heartbeat_s)
                except TimeoutError:
                    yield b": nothing new\n\n"
                    continue
                listener.woken.clear()
                if listener.refs:
                    refs, listener.refs = _cut(listener.refs), {}
                    yield b"id: %d\ndata: %b\n\n" % (self._newest, encode({"last": self._newest, "refs": refs}))
        finally:
            self._listeners.discard(listener)

    def _is_watching(self) -> bool:
        return self._watcher is not None and not self._watcher.done()

    async def _watch(self) -> None:
        """Look while anybody listens."""
        while self._listeners and not self._is_closed:
            await asyncio.sleep(self._look_s)
            try:
                events = await run_in_threadpool(self._since, self._newest)
            except FlyballError as error:
                log.warning("the journal could not be looked at: %s", error)
                continue
            if events:
                self._newest = events[-1].seq
                self._wake([event.ref for event in events])

    def _wake(self, refs: Sequence[str]) -> None:
        for listener in self._listeners:
            listener.refs.update(dict.fromkeys(refs))
            listener.woken.set()


def _cut(refs: dict[str, None]) -> list[str]:
    """Return the first references, and one of every kind that has none among them."""
    kept = dict.fromkeys(list(refs)[:MOST_REFS])
    kinds = {ref.partition("/")[0] for ref in kept}
    for ref in refs:
        kind = ref.partition("/")[0]
        if kind not in kinds:
            kinds.add(kind)
            kept[ref] = None
    return list(kept)
