"""What monitors found, window by window: rows in a stream, for the charts and for going on after a restart."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from flyball.storage.streams import Cursor
from flyball.storage.streams.log import Log, Reader

__all__ = ["Results"]

_KEPT = 2000  # newest results of a monitor that stay in memory


class Results:
    """Appends results and keeps the newest of each monitor; several threads may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "monitors"
        self._reader = Reader(self._folder)
        self._cursor: Cursor | None = None
        self._by_monitor: dict[str, list[Mapping[str, Any]]] = {}
        self._references: dict[tuple[str, str], Mapping[str, Any]] = {}  # by monitor and version
        self._lock = threading.Lock()
        self._log: Log | None = None

    def append(self, result: Mapping[str, Any]) -> None:
        """Keep one result; durable on return. It names its `monitor`, `what` and `number`."""
        with self._lock:
            if self._log is None:
                self._log = Log(self._folder, "control")
            self._log.append_wait([orjson.dumps(dict(result), option=orjson.OPT_SERIALIZE_NUMPY)])

    def of(self, monitor: str, what: str | None = None) -> list[Mapping[str, Any]]:
        """Return the newest results of a monitor, oldest first; `what` is drift or quality."""
        with self._lock:
            self._refresh()
            found = self._by_monitor.get(monitor, [])
        return [r for r in found if what is None or r["what"] == what]

    def reference(self, monitor: str, version: str) -> Mapping[str, Any] | None:
        """Return what a monitor compares the windows of a version with: `columns` holds a profile by name."""
        with self._lock:
            self._refresh()
            return self._references.get((monitor, version))

    def close(self) -> None:
        """Close the stream."""
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def _refresh(self) -> None:
        if not self._folder.exists():
            return
        while True:
            payloads, after = self._reader.read(self._cursor)
            for payload in payloads:
                result = orjson.loads(payload)
                if result["what"] == "reference":  # one a version, which newer results never push out
                    self._references[result["monitor"], result["version"]] = result
                    continue
                kept = self._by_monitor.setdefault(result["monitor"], [])
                kept.append(result)
                del kept[:-_KEPT]
            if after == self._cursor:
                return
            self._cursor = after
