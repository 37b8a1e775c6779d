"""What several workers of one home share: who lives and how many clients each has, and what each has counted.

Whoever starts the workers makes a `Board` before it forks. Each worker has a `Place`, a number from 1 that its
successor takes over when it is killed, so that counters go on.
"""

from __future__ import annotations

import logging
import mmap
import os
import secrets
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from flyball.features.freshness import ViewFreshness
from flyball.serving.metrics import Counters, Gauges, prometheus

__all__ = ["MOST_WORKERS", "Board", "Place"]

MOST_WORKERS = 64
_COUNT = struct.Struct("<q")
_log = logging.getLogger("flyball.serving")


class Board:
    """Shared memory with a number a place: the open connections of its worker, −1 where there is none that accepts."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _COUNT.size * (MOST_WORKERS + 1))
        for place in range(MOST_WORKERS + 1):
            self.leave(place)

    def leave(self, place: int) -> None:
        """Note that nobody accepts at a place."""
        self.tell(place, -1)

    def tell(self, place: int, connections: int) -> None:
        """Note how many connections a place has."""
        _COUNT.pack_into(self._memory, place * _COUNT.size, connections)

    def living(self) -> dict[int, int]:
        """Return the connections by place, of those that accept."""
        counts = struct.unpack_from(f"<{MOST_WORKERS + 1}q", self._memory)
        return {place: count for place, count in enumerate(counts) if count >= 0}


class Place:
    """What one worker writes for the others, and reads of them.

    Arguments:
        folder: of all workers of the home.
        number: from 1.
    """

    def __init__(self, folder: Path, number: int, board: Board) -> None:
        self.number = number
        self.board = board
        self.status = folder / f"{number}.json"
        self._folder = folder
        self._counts = folder / f"{number}.counts"
        self._written: bytes = b""

    def begin(self, counters: Counters) -> None:
        """Go on with what the worker before at this place has counted."""
        found = _read(self._counts)
        if found is not None:
            counters.add(found["counters"])

    def write(self, counters: Counters, views: dict[str, ViewFreshness], gauges: Gauges) -> None:
        """Let the others know. A full disk must not stop predictions, so a failure is only logged."""
        document = orjson.dumps({"counters": counters.document(views), "gauges": asdict(gauges)})
        if document == self._written:
            return
        partial = self._folder / f".{self.number}.{secrets.token_hex(4)}.part"
        try:
            partial.write_bytes(document)
            partial.replace(self._counts)
            self._written = document
        except OSError as error:
            _log.error("the counters could not be written: %s", os.strerror(error.errno or 0))

    def metrics(self) -> str:
        """Return what all workers have written as Prometheus text; this one's own as written too, so no sum falls."""
        counters, living = Counters(), self.board.living()
        workers: dict[str, Gauges] = {}
        for path in sorted(self._folder.glob("[0-9]*.counts")):
            found = _read(path)
            if found is None:
                continue
            counters.add(found["counters"])
            if int(path.stem) in living:
                workers[path.stem] = Gauges(**found["gauges"])
        return prometheus(counters, {}, workers)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        _log.error("%s cannot be read: %s", path, error)
        return None
