"""Run a command on this machine, in a session of its own: it outlives the process that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

from flyball.errors import Unavailable
from flyball.runners import Process

__all__ = ["LocalRunner", "this_process"]


class LocalRunner:
    """A `Runner` on this machine. Children that end are reaped, so that none stays behind as a zombie."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    def start(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> Process:
        self._reap()
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as stream:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                )
        except OSError as error:
            raise Unavailable(f"{command[0]} cannot be started: {error}") from error
        with self._lock:
            self._children.append(child)
        return Process(socket.gethostname(), child.pid, _born(child.pid))

    def is_running(self, process: Process) -> bool | None:
        if process.host != socket.gethostname():
            return None
        self._reap()
        born = _born(process.pid)
        if not born or not process.born:
            return _exists(process.pid)
        return born == process.born

    def stop(self, process: Process) -> None:
        if self.is_running(process):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the leader's id is that of its session and group
        self._reap()

    def _reap(self) -> None:
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]


def this_process() -> Process:
    """Return the calling process."""
    return Process(socket.gethostname(), os.getpid(), _born(os.getpid()))


def _born(pid: int) -> str:
    """Return when a process was started, in ticks since the machine was; '' when it is gone, dead or cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]  # proc(5): state is field 3, starttime field 22


def _exists(pid: int) -> bool:
    if Path("/proc/self").exists():
        return bool(_born(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
