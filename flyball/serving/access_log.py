"""The access log: one JSON line a request, for those who look for a request by its trace.

Off unless `[serving] access_log` names a file. Lines are written by a thread of their own, so a slow disk delays no
answer; when more wait than fit, further ones are counted and left out. What was predicted stands in the prediction log,
which loses nothing; here are neither inputs nor addresses nor secrets.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections import deque
from pathlib import Path
from typing import Any

import orjson

from flyball.clock import SYSTEM, Clock, format_instant

__all__ = ["AccessLog"]

_MOST_WAITING = 20_000  # lines; a quarter of a second at a rate that no machine reaches
_WRITE_S = 0.25
_log = logging.getLogger("flyball.serving")


class AccessLog:
    """Writes lines to a file; `note` may be called on any thread.

    Arguments:
        path: appended to; made with its folder when it is not there.
        share: of the lines with a status below 400 that are written; the others always are.
        most_bytes: of the file; a longer one becomes `….1`, in the place of the one before.
    """

    def __init__(self, path: Path, share: float = 1.0, most_bytes: int = 100 << 20, clock: Clock = SYSTEM) -> None:
        self.left_out = 0  # lines that found no room
        self._path = path
        self._share = share
        self._most_bytes = most_bytes
        self._clock = clock
        self._waiting: deque[dict[str, Any]] = deque()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def note(self, *, status: int, **fields: Any) -> None:
        """Note one request; fields that are None are left out of its line."""
        if status < 400 and self._share < 1 and random.random() >= self._share:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self.left_out += 1
            return
        told = {name: value for name, value in fields.items() if value is not None}
        self._waiting.append({"time": format_instant(self._clock.now()), "status": status, **told})

    def close(self) -> None:
        """Write what waits."""
        self._is_closing.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_closing.wait(_WRITE_S)
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if not lines:
                continue
            try:
                self._write(b"".join(orjson.dumps(line, default=str) + b"\n" for line in lines))
            except OSError as error:
                self.left_out += len(lines)
                _log.error("the access log %s cannot be written: %s", self._path, error.strerror)

    def _write(self, block: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size + len(block) > self._most_bytes:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        # Opened anew each time, so that it may be moved away by whoever rotates logs.
        with self._path.open("ab") as stream:
            stream.write(block)
