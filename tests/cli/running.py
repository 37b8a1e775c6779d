"""`flyball up` as a real process on free ports, and a home with something to serve."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from flyball.control.lease import is_alive
from flyball.platform import Platform

ROOT = Path(__file__).resolve().parents[2]
RECORD = {"distance": 0.4, "hour": -1.2}


class Up:
    """A running `flyball up`."""

    def __init__(
        self, home: Path, *options: str, ports: tuple[str, ...] = ("--port", "0", "--serve-port", "0")
    ) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flyball.cli", "up", "--home", str(home), *ports, *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().strip()
        self.pages = self.predictions = ""
        if self.line:
            words = self.line.split()
            self.pages, self.predictions = words[words.index("pages") + 1], words[words.index("predictions") + 1]

    def told(self) -> dict[str, Any]:
        """Return the data plane's `status.json`."""
        return json.loads((self.home / "serving" / "status.json").read_bytes())

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; return exit code and what was printed besides the first line."""
        self.process.send_signal(number)
        out, error = self.process.communicate(timeout=20)
        return self.process.returncode, out, error


@contextmanager
def up(home: Path, *options: str, **more: Any) -> Iterator[Up]:
    """Run `flyball up`; whatever it left running is killed at the end."""
    running = Up(home, *options, **more)
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.process.kill()
        running.process.communicate(timeout=20)
        kill_data_plane(home)


def kill_data_plane(home: Path) -> None:
    """Kill the data plane of a home, if one runs."""
    path = home / "serving" / "status.json"
    if path.exists():
        pid = json.loads(path.read_bytes())["pid"]
        if is_alive(pid) and b"flyball.wire.oip" in Path(f"/proc/{pid}/cmdline").read_bytes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def declare_late(home: Path) -> None:
    """Make a home in which `late` has a model, registered and not yet served by anybody."""
    with contextlib.closing(Platform.open(home)) as platform:
        random = np.random.default_rng(3)
        frame = pl.DataFrame(random.normal(size=(200, 2)), schema=list(RECORD))
        target = (frame["distance"] + frame["hour"] > 0).cast(int).to_numpy()
        platform.declare("model", "late")
        platform.declare("deployment", "late", model="late")
        platform.register("late", LogisticRegression().fit(frame, target), example=frame.head(3))


def ask(address: str) -> httpx2.Response:
    """Ask the data plane for one prediction."""
    return httpx2.post(f"{address}/v1/models/late:predict", json=RECORD, timeout=10)


def serves_late(address: str) -> bool:
    """Whether the data plane answers for `late`."""
    with contextlib.suppress(httpx2.HTTPError):
        return ask(address).status_code == 200
    return False


def is_listening(address: str) -> bool:
    """Whether anybody answers at an address."""
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(f"{address}/health", timeout=5).status_code == 200
    return False


def until(holds: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.02)
    return found
