"""Load on the data plane: CPU per request, latency, memory and time to ready, for a HistGradientBoosting model.

    python benchmarks/serving_load.py [--seconds 3] [--form records|oip]

The client is a small asyncio protocol that sends prepared bodies, each row another one (a tree model that sees one row
again and again is four times too fast). CPU is the server process's own, from the operating system; it is the figure
to compare, because client and server share the machine. The last line is a JSON list of measurements.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flyball.models import bundle
from flyball.serving.snapshot import ServedDeployment, Snapshot, Variant, write
from flyball.storage.blobs.files import FileBlobs

COLUMNS = 20
BODIES = 1000
TICKS_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--form", choices=["records", "oip"], default="records")
    given = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        empty, home = Path(folder) / "empty", Path(folder) / "home"
        rows = make_home(home)
        for name, where in (("no model", empty), ("one HistGB model", home)):
            process, address, ready_s = start(where)
            found.append(measured(f"ready, {name}", ready_s, "s"))
            found.append(measured(f"memory at idle, {name}", memory_mib(process.pid), "MiB"))
            if where == home:
                bodies = [body_of(row, given.form) for row in rows[:BODIES]]
                path = "/v1/models/m1:predict" if given.form == "records" else "/v2/models/m1/infer"
                for connections in (1, 16, 64):
                    found += under_load(process.pid, address, path, bodies, connections, given.seconds)
                found.append(measured("memory after load", memory_mib(process.pid), "MiB"))
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    for row in found:
        print(f"{row['work']:<45}{row['value']:>12.4f} {row['unit']}")
    print(json.dumps(found))


def make_home(home: Path) -> np.ndarray[Any, Any]:
    """Store and deploy m1 (100 trees on 20 columns), m1plain (m1 in a way that is not compiled) and m2 (linear).

    Returns:
        Rows to ask for; what they were trained to answer is kept as `truth.npy`.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    random = np.random.default_rng(7)
    rows = random.normal(size=(20_000, COLUMNS))
    truth = (rows[:, 0] + rows[:, 1] * rows[:, 2] + random.normal(size=len(rows)) > 0).astype(int)
    frame = pl.DataFrame(rows, schema=[f"f{i}" for i in range(COLUMNS)])
    trees = HistGradientBoostingClassifier(max_iter=100, random_state=7)
    models = {
        "m1": trees,
        "m1plain": make_pipeline(FunctionTransformer(np.positive), trees),
        "m2": make_pipeline(StandardScaler(), LogisticRegression()),
    }
    deployed = {}
    for name, model in models.items():
        saved = bundle.save(FileBlobs(home / "blobs"), model.fit(frame, truth), example=frame[:5])
        deployed[name] = ServedDeployment(1, name, (Variant("champion", f"{name}@1", saved.digest),))
    write(home / "serving" / "snapshot.json", Snapshot(1, deployed))
    np.save(home / "truth.npy", truth)
    return rows


def body_of(row: np.ndarray[Any, Any], form: str) -> bytes:
    """Return one row as a request's body."""
    values = {f"f{i}": round(float(value), 6) for i, value in enumerate(row)}
    if form == "records":
        return json.dumps(values).encode()
    inputs = [{"name": n, "shape": [1], "datatype": "FP64", "data": [v]} for n, v in values.items()]
    return json.dumps({"inputs": inputs}).encode()


def start(home: Path) -> tuple[subprocess.Popen[str], tuple[str, int], float]:
    """Start a data plane; return it, its address and how many seconds it took to be ready."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "flyball.wire.oip", "--home", str(home), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    host, _, port = line.rsplit("//", 1)[1].strip().rpartition(":")
    with urllib.request.urlopen(f"http://{host}:{port}/v2/health/ready") as answer:
        assert answer.status == 200
    return process, (host, int(port)), time.perf_counter() - began


def under_load(
    pid: int, address: tuple[str, int], path: str, bodies: Sequence[bytes], connections: int, seconds: float
) -> list[dict[str, Any]]:
    """Ask from so many connections, each one request at a time; return CPU per request, rate and latencies."""
    requests = [
        b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        for body in bodies
    ]
    run(drive(address, requests, connections, 0.5))  # warm up
    before = cpu_s(pid)
    latencies, wall_s = run(drive(address, requests, connections, seconds))
    cpu_ms = (cpu_s(pid) - before) / len(latencies) * 1000
    p50, p99 = (float(np.percentile(latencies, q)) * 1000 for q in (50, 99))
    where = f"c{connections}"
    return [
        measured(f"CPU per request, {where}", cpu_ms, "ms"),
        measured(f"requests, {where}", len(latencies) / wall_s, "1/s"),
        measured(f"latency p50, {where}", p50, "ms"),
        measured(f"latency p99, {where}", p99, "ms"),
    ]


class Client(asyncio.Protocol):
    """One connection that asks, reads the answer, and asks again."""

    def __init__(self, requests: Sequence[bytes], offset: int, latencies: list[float]) -> None:
        self.requests = requests
        self.turn = offset
        self.latencies = latencies
        self.buffer = b""
        self.is_running = True
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None:
        assert self.transport is not None
        self.turn += 1
        self.asked = time.perf_counter()
        self.transport.write(self.requests[self.turn % len(self.requests)])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, gap, body = self.buffer.partition(b"\r\n\r\n")
        if not gap:
            return
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        assert head.startswith(b"HTTP/1.1 200"), self.buffer[:500]
        self.latencies.append(time.perf_counter() - self.asked)
        self.buffer = b""
        if self.is_running:
            self.ask()


async def drive(
    address: tuple[str, int], requests: Sequence[bytes], connections: int, seconds: float
) -> tuple[list[float], float]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    began = time.perf_counter()
    clients = []
    for index in range(connections):
        _, client = await loop.create_connection(lambda i=index: Client(requests, i * 13, latencies), *address)
        clients.append(client)
    await asyncio.sleep(seconds)
    for client in clients:
        client.is_running = False
    await asyncio.sleep(0.1)
    for client in clients:
        assert client.transport is not None
        client.transport.close()
    return latencies, time.perf_counter() - began - 0.1


def run(work: Any) -> Any:
    import uvloop

    return uvloop.run(work)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process (Linux)."""
    line = next(s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def measured(work: str, value: float, unit: str) -> dict[str, Any]:
    return {
        "work": work, "value": round(value, 5), "unit": unit, "peer": None, "peer_value": None, "ratio": None,
        "limit": None, "target": None, "met": None,
    }  # fmt: skip


if __name__ == "__main__":
    main()
