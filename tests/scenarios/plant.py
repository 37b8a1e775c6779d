"""A running `flyball up`: started on free ports, killed as rudely as a test likes, started again."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from flyball.control.lease import is_alive
from flyball.serving.status import read_status

__all__ = ["Plant", "plant", "wait_for"]


def wait_for(what: str, holds: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until `holds()` is true; fail with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come about within {timeout_s:g} s"
        time.sleep(0.05)


class Plant:
    """`flyball up` on one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pages = self.predictions = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Plant:
        """Start it and wait for the line that says it is ready."""
        command = [sys.executable, "-m", "flyball.cli", "up", "--home", str(self.home)]
        self._process = subprocess.Popen(
            [*command, "--port", "0", "--serve-port", "0"],
            stdout=subprocess.PIPE,
            stderr=(self.home.parent / "up.log").open("a"),
            text=True,
        )
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], 60)
        line = self._process.stdout.readline() if readable else ""
        found = re.findall(r"http://\S+", line)
        assert len(found) >= 2, f"not ready: {line!r} {(self.home.parent / 'up.log').read_text()[-2000:]}"
        self.pages, self.predictions = found[0], found[1]
        return self

    @property
    def pid(self) -> int:
        """The control plane's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def data_plane(self) -> int:
        """The data plane's process."""
        return read_status(self.home / "serving" / "status.json").pid

    def kill_control_plane(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def kill_data_plane(self) -> int:
        """kill -9; return which process that was."""
        pid = self.data_plane
        os.kill(pid, signal.SIGKILL)
        wait_for("the end of the data plane", lambda: not is_alive(pid))
        return pid

    def stop(self) -> None:
        """Stop everything, whatever state it is in."""
        data_plane = None
        if (self.home / "serving" / "status.json").exists():
            data_plane = self.data_plane
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        if data_plane is not None and is_alive(data_plane):
            os.kill(data_plane, signal.SIGKILL)

    def predict(self, name: str, record: dict[str, object]) -> dict[str, object]:
        """Ask over HTTP; return the first answer."""
        import httpx2

        address = read_status(self.home / "serving" / "status.json").address
        response = httpx2.post(f"{address}/v1/models/{name}:predict", content=orjson.dumps(record), timeout=30)
        assert response.status_code == 200, response.text
        answer: dict[str, object] = response.json()["predictions"][0]
        return answer


@contextmanager
def plant(home: Path) -> Iterator[Plant]:
    """Run a plant and leave no process behind."""
    started = Plant(home)
    try:
        yield started.start()
    finally:
        started.stop()
