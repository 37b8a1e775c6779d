"""A home with small real models, a data plane as a real process, and raw HTTP to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from flyball.models import bundle
from flyball.serving.snapshot import ServedDeployment, Snapshot, Variant, write
from flyball.storage.blobs.files import FileBlobs

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("distance", "hour")


class Home:
    """A home whose deployment `late` can serve two versions, with the real models as oracles."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = FileBlobs(path / "blobs")
        self.snapshot = path / "serving" / "snapshot.json"
        self.status = path / "serving" / "status.json"
        self.traffic = path / "traffic"
        self.generation = 0
        self.models: dict[str, Any] = {}
        self.digests: dict[str, str] = {}
        for version, sign in (("late@1", 1), ("late@2", -1)):
            self._add(version, sign)

    def _add(self, version: str, sign: int) -> None:
        import polars as pl

        random = np.random.default_rng(3)
        rows = random.normal(size=(200, 2))
        frame = pl.DataFrame(rows, schema=list(NAMES))
        model = LogisticRegression().fit(frame, (sign * rows[:, 0] + rows[:, 1] > 0).astype(int))
        self.models[version] = model
        self.digests[version] = bundle.save(self.blobs, model, example=frame[:3]).digest

    def probability(self, version: str, distance: float, hour: float) -> float:
        """What scikit-learn itself answers."""
        import polars as pl

        frame = pl.DataFrame({"distance": [distance], "hour": [hour]})
        return float(self.models[version].predict_proba(frame)[0, 1])

    def variant(self, name: str, version: str, weight: float = 100.0) -> Variant:
        return Variant(name, version, self.digests[version], weight)

    def deploy(self, *variants: Variant, **settings: Any) -> int:
        """Write the next snapshot and return its generation."""
        self.generation += 1
        served = ServedDeployment(
            self.generation, "late", variants or (self.variant("champion", "late@1"),), **settings
        )
        write(self.snapshot, Snapshot(self.generation, {"late": served}))
        return self.generation

    def told(self) -> dict[str, Any]:
        """Return `status.json`."""
        return json.loads(self.status.read_bytes()) if self.status.exists() else {"generation": 0, "deployments": {}}


class Plane:
    """A running data plane."""

    def __init__(self, home: Path, *options: str, **settings: str) -> None:
        command = [sys.executable, "-m", "flyball.wire.oip", "--home", str(home), "--port", "0", *options]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore", **settings}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "://" in line, self.process.communicate()[1]
        self.port = int(line.rsplit(":", 1)[1])

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Send one request on its own connection."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = {"Host": "test", "Content-Length": str(len(data)), "Connection": "close", **(headers or {})}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
        return parse_replies(self.raw(head.encode() + data))[0]

    def raw(self, data: bytes) -> bytes:
        """Send bytes and return everything until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            found = b""
            while part := connection.recv(1 << 16):
                found += part
        return found

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


class Reply:
    """One HTTP answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def parse_replies(data: bytes) -> list[Reply]:
    """Split a byte stream into its answers; interim ones (100) too."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        found.append(Reply(int(first.split(" ")[1]), headers, data[:length]))
        data = data[length:]
    return found


def until(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.01)
    return found
