"""Tracking over MLflow's protocol: Flyball's server beside MLflow's own, in one run, by the same client.

    .venv/bin/python -m benchmarks.tracking [--runs 10000] [--points 1000000] [--seconds 2] [--no-peers] [--postgresql]

Each figure is the server's CPU for one call (its whole process tree, from the operating system), which is what can be
compared while client and server share the machine; rates are wall time. Requests are prepared by a small asyncio client
that keeps its connections; every metric point is another one. Calls to both servers take turns, round by round, and the
median of the rounds counts. Both servers start from bytecode, as installing a package leaves it, and commit before they
acknowledge. The limit beside a write is the wall time of a bare commit of one row to SQLite in the same folder. MLflow
is filled through its database for the searches, since its server would need an hour; that it answers the same is
checked by the number of runs it returns.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peers import python_of, run
from benchmarks.report import Measure, report

TICKS_S = os.sysconf("SC_CLK_TCK")
ROUNDS = 3
METRICS, PARAMS, TAGS = 10, 10, 3  # of a run that is searched
API = "/api/2.0/mlflow/"
AJAX = "/ajax-api/2.0/mlflow/"
NOW_MS = 1_760_000_000_000
_READY_S = 120.0


@dataclass(frozen=True)
class Server:
    """A tracking server that runs: its address, its first process, and how long it took to answer."""

    host: str
    port: int
    pid: int
    ready_s: float

    def ask(self, verb: str, path: str, body: Any = None) -> Any:
        """Send one request and return its JSON."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=300)
        sent = None if body is None else json.dumps(body).encode()
        connection.request(verb, path, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        assert answer.status == 200, (path, answer.status, raw[:500])
        return json.loads(raw)

    def cpu_s(self) -> float:
        """Return the CPU seconds of all its processes so far."""
        return sum(_cpu_s(pid) for pid in _tree(self.pid))

    def memory_mb(self) -> float:
        """Return the resident memory of all its processes, in megabytes."""
        return sum(_memory_kib(pid) for pid in _tree(self.pid)) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="runs that are searched")
    parser.add_argument("--points", type=int, default=1_000_000, help="points of the long metric")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round of load")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--postgresql", action="store_true", help="both servers on a PostgreSQL made for this")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        root = Path(folder)
        with _databases(root, given.postgresql) as databases, _flyball(root / "home", databases[0]) as ours:
            if given.no_peers:
                report(_measured(ours, None, None, root, given))
                return
            with _mlflow(root / "mlflow", databases[1]) as theirs:
                seed = databases[1] or f"sqlite:///{root / 'mlflow' / 'm.db'}"
                report(_measured(ours, theirs, seed, root, given))


def _measured(ours: Server, theirs: Server | None, seed: str | None, root: Path, given: Any) -> list[Measure]:
    servers = [ours] if theirs is None else [ours, theirs]
    found: list[Measure] = []

    def note(work: str, values: Sequence[float], unit: str, target: float | None = None, **more: Any) -> None:
        peer = ("MLflow", values[1]) if len(values) > 1 else (None, None)
        found.append(Measure(work, values[0], unit, *peer, target=target, **more))

    note("idle memory of the server", [s.memory_mb() for s in servers], "MB", 200.0)
    note("start to ready", [s.ready_s for s in servers], "s", 2.0)
    bare_ms = _bare_commit_ms(root)
    for work, body, connections, cpu, rate in (
        ("log one metric, 1 connection", _point, 1, 0.4, 1_500.0),
        ("log one metric, 8 connections", _point, 8, 0.2, 4_000.0),
        ("a training step of 20 metrics, 8 connections", _step, 8, 0.5, None),
        ("a batch of 1,000 metrics, 1 connection", _batch, 1, 3.0, 250.0),
    ):
        loaded = [_in_turn(servers, body, connections, given.seconds, n) for n in range(ROUNDS)]
        cpus = [statistics.median(one[i][0] for one in loaded) for i in range(len(servers))]
        rates = [statistics.median(one[i][1] for one in loaded) for i in range(len(servers))]
        note(f"{work}: CPU a call", cpus, "ms", cpu, limit=bare_ms)
        note(f"{work}: calls", rates, "1/s", rate, better="higher", limit=1000 / bare_ms)
    lives = [[_lives(s, 20 if s is theirs else 200) for s in servers] for _ in range(ROUNDS)]
    whole = [statistics.median(one[i][0] for one in lives) for i in range(len(servers))]
    note("a run's whole life (3 calls): CPU", whole, "ms", 2.0)
    rates = [statistics.median(one[i][1] for one in lives) for i in range(len(servers))]
    note("a run's whole life: runs", rates, "1/s", 300.0, better="higher")
    if theirs is not None:
        by_client = [
            run("mlflow", _BY_CLIENT, f"http://{s.host}:{s.port}", "40" if s is theirs else "300") for s in servers
        ]
        note("one metric by MLflow's own client: wall", [one["metric_ms"] for one in by_client], "ms")
        note("a run's whole life by MLflow's own client: wall", [one["life_ms"] for one in by_client], "ms")
    _search(servers, seed, given, note)
    _history(servers, seed, given, note)
    return found


# -- writing


def _in_turn(
    servers: Sequence[Server], body: Callable[[str, int], bytes], connections: int, seconds: float, number: int
) -> list[tuple[float, float]]:
    """Return CPU ms a call and calls a second of each server under load, one after the other."""
    found = []
    for server in servers:
        runs = [
            server.ask("POST", f"{API}runs/create", {"experiment_id": "0", "start_time": NOW_MS})["run"]["info"]
            for _ in range(connections)
        ]
        path = f"{API}runs/log-metric" if body is _point else f"{API}runs/log-batch"
        before = server.cpu_s()
        requests = [_Bodies(server, path, body, each["run_id"], number) for each in runs]
        count, wall_s = _drive(server, requests, seconds)
        found.append(((server.cpu_s() - before) / count * 1000, count / wall_s))
    return found


def _point(run_id: str, number: int) -> bytes:
    return b'{"run_id":"%b","key":"loss","value":%d.5,"timestamp":%d,"step":%d}' % (
        run_id.encode(), number % 1000, NOW_MS + number, number,
    )  # fmt: skip


def _step(run_id: str, number: int) -> bytes:
    metrics = b",".join(
        b'{"key":"m%d","value":%d.25,"timestamp":%d,"step":%d}' % (m, number, NOW_MS + number, number)
        for m in range(20)
    )
    return b'{"run_id":"%b","metrics":[%b]}' % (run_id.encode(), metrics)


def _batch(run_id: str, number: int) -> bytes:
    first = number * 100
    metrics = b",".join(
        b'{"key":"m%d","value":%d.25,"timestamp":%d,"step":%d}' % (i % 10, i, NOW_MS + first, first + i // 10)
        for i in range(1000)
    )
    return b'{"run_id":"%b","metrics":[%b]}' % (run_id.encode(), metrics)


class _Bodies:
    """The requests of one connection, each another one."""

    def __init__(self, server: Server, path: str, body: Callable[[str, int], bytes], run_id: str, round: int) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: {server.host}:{server.port}\r\nContent-Type: application/json\r\n"
        self._head, self._body, self._run = head.encode(), body, run_id
        self._number = round * 10_000_000

    def next(self) -> bytes:
        self._number += 1
        body = self._body(self._run, self._number)
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)


class _Connection(asyncio.Protocol):
    """Asks, reads the answer, asks again."""

    def __init__(self, bodies: _Bodies) -> None:
        self.bodies = bodies
        self.count = 0
        self.is_running = True
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ready = self.bodies.next()
        self._ask()

    def _ask(self) -> None:
        self.transport.write(self._ready)
        self._ready = self.bodies.next()  # while the server works

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, gap, body = self._buffer.partition(b"\r\n\r\n")
        if not gap:
            return
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        assert head.startswith(b"HTTP/1.1 200"), self._buffer[:500]
        self._buffer = b""
        self.count += 1
        if self.is_running:
            self._ask()


def _drive(server: Server, bodies: Sequence[_Bodies], seconds: float) -> tuple[int, float]:
    import uvloop

    async def work() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        made = [await loop.create_connection(lambda b=b: _Connection(b), server.host, server.port) for b in bodies]
        await asyncio.sleep(seconds)
        count, wall_s = sum(c.count for _, c in made), time.perf_counter() - began
        for _, connection in made:
            connection.is_running = False
        await asyncio.sleep(0.3)
        for transport, _ in made:
            transport.close()
        return max(count, 1), wall_s

    return uvloop.run(work())


def _lives(server: Server, count: int) -> tuple[float, float]:
    """Return CPU ms and rate of whole lives of runs: create, one batch, update."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    before, began = server.cpu_s(), time.perf_counter()
    for number in range(count):
        _live(connection, number, "0")
    wall_s = time.perf_counter() - began
    connection.close()
    return (server.cpu_s() - before) / count * 1000, count / wall_s


def _live(connection: http.client.HTTPConnection, number: int, experiment: str) -> None:
    created = _post(connection, "runs/create", {"experiment_id": experiment, "start_time": NOW_MS + number})
    run_id = created["run"]["info"]["run_id"]
    _post(connection, "runs/log-batch", {"run_id": run_id, **_data(number)})
    _post(connection, "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": NOW_MS + number + 5})


def _data(number: int) -> dict[str, Any]:
    return {
        "metrics": [
            {"key": f"m{m}", "value": (number * 7919 + m) % 10007 / 10007, "timestamp": NOW_MS, "step": 1}
            for m in range(METRICS)
        ],
        "params": [{"key": f"p{p}", "value": str((number + p) % 50)} for p in range(PARAMS)],
        "tags": [{"key": f"t{t}", "value": f"v{(number + t) % 7}"} for t in range(TAGS)],
    }


def _post(connection: http.client.HTTPConnection, path: str, body: Any) -> Any:
    connection.request("POST", API + path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    raw = answer.read()
    assert answer.status == 200, raw[:500]
    return json.loads(raw)


# -- reading


def _search(servers: Sequence[Server], seed: str | None, given: Any, note: Callable[..., None]) -> None:
    ours = servers[0]
    experiment = ours.ask("POST", f"{API}experiments/create", {"name": "searched"})["experiment_id"]
    connection = http.client.HTTPConnection(ours.host, ours.port, timeout=60)
    for number in range(given.runs):
        _live(connection, number, experiment)
    connection.close()
    ids = [experiment]
    if len(servers) > 1:
        assert seed is not None
        ids.append(servers[1].ask("POST", f"{API}experiments/create", {"name": "searched"})["experiment_id"])
        _seed_runs(seed, ids[1], given.runs)
    hard = 50.0 if given.runs > 10_000 else 15.0
    for work, asked, target in (
        (
            "filter and order, 100 of them",
            {"filter": "metrics.m3 > 0.5 and params.p2 = '7'", "order_by": ["metrics.m1 DESC"], "max_results": 100},
            hard,
        ),
        ("the first 100", {"max_results": 100}, 4.0),
        ("a page of 1,000", {"max_results": 1000}, 45.0),
    ):
        values, counts = [], []
        for server, each in zip(servers, ids, strict=True):
            cpu_ms, answer = _reads(server, "POST", f"{API}runs/search", {"experiment_ids": [each], **asked})
            values.append(cpu_ms)
            counts.append(len(answer.get("runs", [])))
        assert len(set(counts)) == 1, f"{work}: both servers should find as many runs: {counts}"
        note(f"search of {given.runs:,} runs, {work}: CPU", values, "ms", target)


def _history(servers: Sequence[Server], seed: str | None, given: Any, note: Callable[..., None]) -> None:
    ids, loads = [], []
    for server in servers:
        run_id = server.ask("POST", f"{API}runs/create", {"experiment_id": "0", "start_time": NOW_MS})["run"]["info"]
        ids.append(run_id["run_id"])
    began = time.perf_counter()
    connection = http.client.HTTPConnection(servers[0].host, servers[0].port, timeout=60)
    for first in range(0, given.points, 1000):
        metrics = [
            {"key": "long", "value": (i * 7919) % 10007 / 10007, "timestamp": NOW_MS + i, "step": i}
            for i in range(first, min(first + 1000, given.points))
        ]
        _post(connection, "runs/log-batch", {"run_id": ids[0], "metrics": metrics})
    loads.append(given.points / (time.perf_counter() - began))
    connection.close()
    if len(servers) > 1:
        assert seed is not None
        _seed_points(seed, ids[1], given.points)
    note(f"loading {given.points:,} points: points, client included", loads, "1/s", better="higher")
    for work, path, target in (
        ("a page of 25,000 points", API + "metrics/get-history?run_id={0}&metric_key=long&max_results=25000", 25.0),
        (
            "320 sampled points",
            AJAX + "metrics/get-history-bulk-interval?run_ids={0}&metric_key=long&max_results=320",
            60.0,
        ),
    ):
        values = [_reads(s, "GET", path.format(each))[0] for s, each in zip(servers, ids, strict=True)]
        note(f"{work} of {given.points:,}: CPU", values, "ms", target)


def _reads(server: Server, verb: str, path: str, body: Any = None) -> tuple[float, Any]:
    """Return the server's CPU ms for one of many equal reads, and the answer; the first ones are not counted."""
    answer = server.ask(verb, path, body)
    server.ask(verb, path, body)
    count, before, began = 0, server.cpu_s(), time.perf_counter()
    while count < 3 or time.perf_counter() - began < 2.0:
        server.ask(verb, path, body)
        count += 1
    return (server.cpu_s() - before) / count * 1000, answer


# -- servers


@contextmanager
def _flyball(home: Path, database: str | None) -> Iterator[Server]:
    package = Path(__file__).resolve().parent.parent / "flyball"
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(package)], check=True)
    environment = {**os.environ, **({"FLYBALL_LEDGER_URL": database} if database else {})}
    command = [sys.executable, "-m", "flyball.cli", "up", "--home", str(home), "--port", "0", "--serve-port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        parts = urllib.parse.urlsplit(words[words.index("pages") + 1])
        host, port = parts.hostname or "", parts.port or 0
        yield Server(host, port, process.pid, _ready(host, port, process, began))
    finally:
        _stop(process)


@contextmanager
def _mlflow(folder: Path, database: str | None) -> Iterator[Server]:
    folder.mkdir()
    port = _free_port()
    command = [str(python_of("mlflow").parent / "mlflow"), "server", "--port", str(port), "--workers", "1"]
    address = database or f"sqlite:///{folder / 'm.db'}"
    command += ["--backend-store-uri", address.replace("postgresql:", "postgresql+psycopg2:")]  # the driver it has
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    began = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=folder)
    try:
        yield Server("127.0.0.1", port, process.pid, _ready("127.0.0.1", port, process, began))
    finally:
        _stop(process)


def _ready(host: str, port: int, process: subprocess.Popen[Any], began: float) -> float:
    while time.perf_counter() - began < _READY_S:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            connection = http.client.HTTPConnection(host, port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return time.perf_counter() - began
        except OSError:
            time.sleep(0.02)
    raise TimeoutError("the server did not become ready")


def _stop(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@contextmanager
def _databases(root: Path, is_postgresql: bool) -> Iterator[tuple[str | None, str | None]]:
    """Yield the databases of both servers; None stands for SQLite in their own folder."""
    if not is_postgresql:
        yield None, None
        return
    import psycopg

    from tests.services import postgres_server

    (root / "postgresql").mkdir()
    with postgres_server(root / "postgresql") as url:
        for name in ("flyball", "mlflow"):
            with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        yield f"{url}/flyball", f"{url}/mlflow"


def _seed_runs(database: str, experiment: str, count: int) -> None:
    """Put runs into MLflow's database as its server would have."""
    ids = [f"{number:032x}" for number in range(count)]
    tables: dict[str, list[tuple[Any, ...]]] = {
        name: [] for name in ("runs", "metrics", "latest_metrics", "params", "tags")
    }
    for number, run_id in enumerate(ids):
        uri, data = f"mlflow-artifacts:/{experiment}/{run_id}/artifacts", _data(number)
        start, end = NOW_MS + number, NOW_MS + number + 5
        tables["runs"].append(
            (run_id, f"run-{number}", "UNKNOWN", "", "", "", "FINISHED", start, end, "", "active", uri, int(experiment))
        )
        for m in data["metrics"]:
            tables["metrics"].append((m["key"], m["value"], NOW_MS, run_id, 1, False))
            tables["latest_metrics"].append((m["key"], m["value"], NOW_MS, 1, False, run_id))
        tables["params"] += [(p["key"], p["value"], run_id) for p in data["params"]]
        tables["tags"] += [(t["key"], t["value"], run_id) for t in data["tags"]]
        tables["tags"].append(("mlflow.runName", f"run-{number}", run_id))
    _insert(database, tables)


def _seed_points(database: str, run_id: str, count: int) -> None:
    points = [("long", (i * 7919) % 10007 / 10007, NOW_MS + i, run_id, i, False) for i in range(count)]
    last = points[-1]
    _insert(database, {"metrics": points, "latest_metrics": [("long", last[1], last[2], last[4], False, run_id)]})


_COLUMNS = {
    "runs": "run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, "
    "source_version, lifecycle_stage, artifact_uri, experiment_id",
    "metrics": "key, value, timestamp, run_uuid, step, is_nan",
    "latest_metrics": "key, value, timestamp, step, is_nan, run_uuid",
    "params": "key, value, run_uuid",
    "tags": "key, value, run_uuid",
}


def _insert(database: str, tables: dict[str, list[tuple[Any, ...]]]) -> None:
    if database.startswith("sqlite"):
        connection: Any = sqlite3.connect(database.removeprefix("sqlite:///"), timeout=60)
        for table, rows in tables.items():
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} ({_COLUMNS[table]}) VALUES ({marks})", rows)
    else:
        import psycopg

        connection = psycopg.connect(database)
        for table, rows in tables.items():
            with connection.cursor().copy(f"COPY {table} ({_COLUMNS[table]}) FROM STDIN") as copy:  # type: ignore[arg-type]
                for row in rows:
                    copy.write_row(row)
    connection.commit()
    connection.close()


# -- the machine


_BY_CLIENT = """
import json, os, sys, time
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
import mlflow
from mlflow.entities import Metric, Param
address, count = sys.argv[1], int(sys.argv[2])
client = mlflow.MlflowClient(address)
run = client.create_run("0").info.run_id
client.log_metric(run, "m", 0.0)
began = time.perf_counter()
for number in range(count):
    client.log_metric(run, "m", number, step=number)
metric = (time.perf_counter() - began) / count
began = time.perf_counter()
for number in range(count // 4):
    each = client.create_run("0").info.run_id
    metrics = [Metric(f"m{i}", i, 1, 1) for i in range(10)]
    client.log_batch(each, metrics, [Param(f"p{i}", str(i)) for i in range(10)], [])
    client.set_terminated(each)
life = (time.perf_counter() - began) / (count // 4)
print(json.dumps({"metric_ms": metric * 1000, "life_ms": life * 1000}))
"""


def _bare_commit_ms(root: Path) -> float:
    connection = sqlite3.connect(root / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
    times = []
    for number in range(300):
        began = time.perf_counter()
        connection.execute("INSERT INTO t VALUES (?, ?)", (number, b"x" * 40))
        times.append(time.perf_counter() - began)
    connection.close()
    return statistics.median(times) * 1000


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tree(pid: int) -> list[int]:
    """Return a process and all that it started, but not Flyball's data plane, which answers no tracking."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                is_data_plane = b"flyball.wire.oip" in (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if not is_data_plane:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += parents.get(found[-1], [])
    return found


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS_S


def _memory_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


if __name__ == "__main__":
    main()
