"""Threads for calls, of which those that wait for a client do not keep others from being answered.

grpcio's synchronous server gives each call a thread before its message is there. A client that opens calls and sends
nothing would so hold every thread of an ordinary pool. Here a thread that has waited for a message for a moment no
longer counts, another takes its place, and `sweep` ends calls whose message does not come at all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple, ParamSpec, TypeVar

__all__ = ["Threads"]

_PATIENCE_S = 0.1  # a message that follows its call at once is there much earlier
_MOST_STALLED = 1024  # more calls at a time that send nothing make others wait until they are ended
_log = logging.getLogger("flyball.serving")

P = ParamSpec("P")
T = TypeVar("T")


class _Stalled(NamedTuple):
    since: float
    end: Callable[[], object]


class Threads(ThreadPoolExecutor):
    """An executor of `most` threads, and one more for each that waits for a client.

    A `ThreadPoolExecutor` by name only: grpcio takes nothing else for the threads of one method.

    Arguments:
        patience_s: how long a call may wait for its message before `sweep` ends it, in seconds.
    """

    def __init__(self, most: int, name: str, patience_s: float) -> None:
        super().__init__(most)
        self._most = most
        self._name = name
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._free = self._count = 0
        self._waiting: dict[int, _Stalled] = {}  # by thread

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a call made on one of the threads."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        self._tasks.put(work)
        self._grow()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 (as Executor's)
        """Let every thread end after its call."""
        with self._lock:
            count, self._most = self._count, 0
        for _ in range(count):
            self._tasks.put(None)

    def await_message(self, receive: Callable[[], T], end: Callable[[], object]) -> T:
        """Return what `receive` returns; while it waits, the calling thread does not count.

        Args:
            end: makes `receive` give up; called on another thread.
        """
        own = threading.get_ident()
        self._waiting[own] = _Stalled(time.monotonic(), end)
        try:
            return receive()
        finally:
            del self._waiting[own]

    def sweep(self) -> None:
        """End calls that have waited too long, and see that there are threads for the others; call it often."""
        now = time.monotonic()
        for stalled in list(self._waiting.values()):
            if now - stalled.since > self._patience_s:
                try:
                    stalled.end()
                except Exception:
                    _log.exception("a call without a message could not be ended")
        for _ in range(self._tasks.qsize()):
            self._grow()

    def _grow(self) -> None:
        with self._lock:
            if self._tasks.qsize() <= self._free or self._count >= self._allowed():
                return
            self._count += 1
        threading.Thread(target=self._run, name=f"{self._name}_{self._count}", daemon=True).start()

    def _allowed(self) -> int:
        before = time.monotonic() - _PATIENCE_S
        stalled = sum(waiting.since < before for waiting in list(self._waiting.values()))
        return self._most + min(stalled, _MOST_STALLED)

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._count > self._allowed():
                    self._count -= 1
                    return
                self._free += 1
            task = self._tasks.get()
            with self._lock:
                self._free -= 1
                if task is None:
                    self._count -= 1
                    return
            task()
