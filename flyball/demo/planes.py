"""`flyball up` as a child process: started, waited for, and always ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from flyball.errors import Corrupt, NotFound, Unavailable
from flyball.serving.status import read_status

__all__ = ["Planes"]

_READY = re.compile(r"pages (?P<pages>http://\S+)\s+predictions (?P<predictions>http://\S+)")
_READY_S = 60.0
_STOP_S = 15.0
_COMMAND = (sys.executable, "-m", "flyball.cli", "up")


class Planes:
    """Control plane and data plane of a home. Started at once; `wait` returns when they are ready."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pages = ""
        self.predictions = ""
        self._log_path = home / "logs" / "up.log"
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*_COMMAND, "--home", str(home), "--port", "0", "--serve-port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C reaches the demo, which then ends the child in order
            )
        self._is_ready = threading.Event()
        threading.Thread(target=self._read, name="demo-planes", daemon=True).start()

    def wait(self) -> None:
        """Wait until both planes answer. Raises Unavailable with what `flyball up` said when they do not."""
        deadline = time.monotonic() + _READY_S
        while not self._is_ready.wait(0.05):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise Unavailable(f"flyball up did not start: {said[-1] if said else 'it said nothing'}")

    def check(self) -> None:
        """Raise Unavailable when `flyball up` has ended."""
        if self._process.poll() is not None:
            raise Unavailable(f"flyball up ended with code {self._process.returncode}; see {self._log_path}")

    def stop(self) -> None:
        """End both planes: kindly, then by force."""
        data_plane = self._data_plane()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if data_plane:
            _end(data_plane, _STOP_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = _READY.search(line)
            if found:
                self.pages, self.predictions = found["pages"], found["predictions"]
                self._is_ready.set()

    def _data_plane(self) -> int:
        try:
            return read_status(self.home / "serving" / "status.json").pid
        except (NotFound, Corrupt):
            return 0


def _end(pid: int, within_s: float) -> None:
    """End a process that is not our child, unless it has ended already."""
    for number, patience_s in ((0, within_s / 5), (signal.SIGTERM, within_s), (signal.SIGKILL, within_s)):
        if _is_gone(pid):
            return
        with contextlib.suppress(ProcessLookupError):
            if number:
                os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if _is_gone(pid):
                return
            time.sleep(0.05)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return True
    return False
