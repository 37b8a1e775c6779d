"""Append-only streams of small byte strings, read by position.

A payload is acknowledged when it is durable, and from then on nothing loses it. Many processes append to the same
stream, each under a writer's name of its own; any number read, each from its own cursor. A stream knows nothing of
what its payloads mean: predictions and labels (`flyball.tracking.predictions`) are built on top.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from flyball.errors import FlyballError, Unavailable

__all__ = ["Cursor", "OnDone", "StreamReader", "StreamWriter", "Ticket", "is_same"]

Cursor = dict[str, int]
"""Where a reader stands: the next position for each part of the stream; plain JSON, so it can be kept anywhere."""


def is_same(before: Cursor, after: Cursor) -> bool:
    """Whether reading on from `before` and coming to `after` met nothing new; segments may have gone meanwhile."""
    return all(before.get(name) == offset for name, offset in after.items())


OnDone = Callable[[FlyballError | None], None]
"""Called once with None when the payloads are durable, or with the reason why none of them was kept."""


class Ticket:
    """The promise of an acknowledgement; made by a `StreamWriter`, waited for by whoever appended."""

    __slots__ = ("_gate", "error", "is_done", "on_done")

    def __init__(self, on_done: OnDone | None = None) -> None:
        self.is_done = False
        self.error: FlyballError | None = None
        self.on_done = on_done
        self._gate = threading.Lock()  # held until settled: a tenth of the cost of an Event
        self._gate.acquire()

    def wait(self, timeout_s: float = 30.0) -> None:
        """Return when the payloads are durable.

        Raises:
            Unavailable: they were not kept (the reason says why), or nothing was heard within `timeout_s` seconds,
                in which case they may still become durable.
        """
        if not self._gate.acquire(timeout=timeout_s):
            raise Unavailable(f"no acknowledgement within {timeout_s:g} s; the disk may be very slow, try again later")
        self._gate.release()
        if self.error is not None:
            raise self.error

    def settle(self, error: FlyballError | None) -> None:
        """Acknowledge, or refuse with `error`; only the writer calls this, once. `on_done` is the writer's to call."""
        self.error = error
        self.is_done = True
        self._gate.release()


class StreamWriter(Protocol):
    """Appends to a stream under one writer's name; any thread may call it."""

    def append(self, payloads: Sequence[bytes], on_done: OnDone | None = None) -> Ticket:
        """Queue payloads, in order, and return at once; the ticket is settled when all of them are durable.

        Raises:
            Unavailable: too much is waiting already, or the writer is closed; nothing was queued.
            InvalidInput: a payload is larger than can ever be taken.
        """
        ...

    def append_wait(self, payloads: Sequence[bytes], timeout_s: float = 30.0) -> None:
        """Append and wait for the acknowledgement. Raises as `append` and `Ticket.wait` do."""
        ...

    def close(self) -> None:
        """Make everything queued durable, settle its tickets, and stop; may be called twice."""
        ...


class StreamReader(Protocol):
    """Reads a stream; each payload once, in each writer's order."""

    def read(self, cursor: Cursor | None = None, limit_bytes: int = 16 << 20) -> tuple[list[bytes], Cursor]:
        """Return what follows `cursor` (None: from the start), about `limit_bytes` of it, and where to go on.

        An empty list means that there is nothing new yet. What a writer has not finished writing is not there yet.

        Raises:
            Corrupt: the next payload cannot be read back; the message gives its position.
        """
        ...
