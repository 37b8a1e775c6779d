"""Where work runs: a process of its own on this machine (`local`), and a pool of processes that are ready (`pool`).

A runner starts a command and can say later whether it still runs; it knows nothing of what the command does. It lives
below the rooms that have work to be run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Process", "Runner"]


@dataclass(frozen=True)
class Process:
    """A process as it can be found again later, also by another process: `born` tells it from one that got its id."""

    host: str
    pid: int
    born: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return what a run's record keeps."""
        return {"host": self.host, "pid": self.pid, "born": self.born}


class Runner(Protocol):
    """Starts commands that outlive whoever started them."""

    def start(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> Process:
        """Start a command; what it prints is appended to `log`. Raises Unavailable when it cannot be started."""
        ...

    def is_running(self, process: Process) -> bool | None:
        """Whether it still runs; None when that cannot be told from here."""
        ...

    def stop(self, process: Process) -> None:
        """Kill it and what it started; nothing happens when it is gone."""
        ...
