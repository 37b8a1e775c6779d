"""Live traffic for several readers in one process: the monitors, the rollouts and the pages share one copy.

`Traffic` may be used by one thread at a time; this wraps it in a lock and reads the log at most every so often.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.clock import SYSTEM, Clock
from flyball.tracking.sealed import REWRITTEN
from flyball.tracking.traffic import Traffic

if TYPE_CHECKING:
    import polars as pl

__all__ = ["LiveTraffic"]

_FRESH_S = 0.2  # a copy this old is fresh enough


class LiveTraffic:
    """The last rows of each deployment with their labels, brought up to date on reading."""

    def __init__(self, folder: Path, clock: Clock = SYSTEM, keep_rows: int = 200_000) -> None:
        self._folder = folder
        self._keep_rows = keep_rows
        self._traffic = Traffic(folder, keep_rows)
        self._rewritten = self._last_rewriting()
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at = float("-inf")

    @property
    def folder(self) -> Path:
        """Where the log is."""
        return self._folder

    def frame(self, deployment: str) -> pl.DataFrame:
        """Return the kept rows of a deployment, oldest first, with `label` and `label_at` (null where unknown)."""
        with self._lock:
            self._refresh()
            return self._traffic.frame(deployment)

    def count(self, deployment: str) -> int:
        """Return how many rows of a deployment the log holds."""
        with self._lock:
            self._refresh()
            return self._traffic.count(deployment)

    def deployments(self) -> list[str]:
        """Return the names of the deployments that were ever asked."""
        with self._lock:
            self._refresh()
            return self._traffic.deployments()

    def refresh(self) -> None:
        """Read the log now, however fresh the copy is."""
        with self._lock:
            self._read_at = float("-inf")
            self._refresh()

    def _refresh(self) -> None:
        now = self._clock.monotonic()
        if now - self._read_at >= _FRESH_S:
            rewritten = self._last_rewriting()
            if rewritten != self._rewritten:  # what was erased must leave this copy too
                self._rewritten, self._traffic = rewritten, Traffic(self._folder, self._keep_rows)
            self._traffic.refresh()
            self._read_at = now

    def _last_rewriting(self) -> str:
        try:
            return (self._folder / REWRITTEN).read_text(encoding="ascii")
        except FileNotFoundError:
            return ""
