"""Online features: look-ups in the embedded store, in Redis and over HTTP, and writing them, beside Feast.

    .venv/bin/python -m benchmarks.features_online [--entities N] [--no-peers] [--small] [--embedded]

An entity has ten floats. A look-up is the whole way from keys to features: time to live, defaults, arrival. The limit
beside a figure is the same rows by the bare client: one SELECT, one MGET of the bytes, nothing decoded; for HTTP it is
an empty answer. Figures are the best of several rounds, each a median or a percentile over many look-ups of random
keys, because other work on the machine only makes them larger; CPU is that of the process that does the work. Feast
runs in an environment of its own, on fewer entities, since it holds all of them in memory.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks.peers import run
from benchmarks.report import Measure, report
from flyball.features.encoding import encoded_keys, encoded_rows
from flyball.features.lookup import LookUpPlan, ViewSpec
from flyball.serving.snapshot import Snapshot, write
from flyball.storage.online import OnlineStore, micros_of
from flyball.storage.online.places import place_of
from flyball.storage.online.redis import RedisOnline
from flyball.storage.online.sqlite import SqliteOnline

WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = WRITTEN + timedelta(hours=1)
NAMES = tuple(f"f{number}" for number in range(10))
VIEW = ViewSpec("ten_values", ("key",), "at", dict.fromkeys(NAMES, "float64"), ttl_s=172_800.0, defaults={"f9": 0.0})
BATCH = 100_000
ROUNDS = 7

FEAST = """
import json, sys, time
from datetime import timedelta
from pathlib import Path
import numpy as np, pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64
folder, online, count, rounds, sizes = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), 3, (1, 100)
now = pd.Timestamp.now(tz="UTC")
random = np.random.default_rng(1)
frame = pd.DataFrame({"key": np.arange(count), "at": now, **{f"f{i}": random.random(count) for i in range(10)}})
frame.head(10).to_parquet(folder / "rows.parquet")
store = FeatureStore(config=RepoConfig(project="p", provider="local", registry=str(folder / "registry.db"),
    online_store=online, offline_store={"type": "file"}, entity_key_serialization_version=3))
entity = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
view = FeatureView(name="v", entities=[entity], ttl=timedelta(days=2), schema=[Field(name=f"f{i}", dtype=Float64)
    for i in range(10)], source=FileSource(path=str(folder / "rows.parquet"), timestamp_field="at"))
store.apply([entity, view])
wall, cpu = time.perf_counter(), time.process_time()
store.write_to_online_store("v", frame)
found = {"rows": count / (time.perf_counter() - wall)}
names = [f"v:f{i}" for i in range(10)]
for size in sizes:
    medians, p99s = [], []
    for _ in range(rounds):
        spans = []
        for keys in random.integers(0, count, (100, size)).tolist():
            started = time.perf_counter()
            answer = store.get_online_features(features=names, entity_rows=[{"key": k} for k in keys]).to_dict()
            spans.append((time.perf_counter() - started) * 1e6)
        assert answer["f0"][0] is not None, answer
        medians.append(float(np.median(spans))), p99s.append(float(np.quantile(spans, 0.99)))
    found[f"{size} p50"], found[f"{size} p99"] = min(medians), min(p99s)
print(json.dumps(found))
"""


def main() -> None:
    """Measure all and report; or write in this process while another one reads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--small", action="store_true", help="50,000 entities, and 5,000 of the peer")
    parser.add_argument("--embedded", action="store_true", help="the embedded store only, without Feast")
    parser.add_argument("--no-peers", action="store_true", help="without Feast")
    parser.add_argument("--write", nargs=2, metavar=("PATH", "ENTITIES"), help="for this script itself")
    asked = parser.parse_args()
    if asked.write:
        write_on(Path(asked.write[0]), int(asked.write[1]))
        return
    entities = 50_000 if asked.small else asked.entities
    if asked.embedded:
        with TemporaryDirectory() as name:
            measures = embedded(Path(name), entities, {})
        report([*measures, Measure("load average of the machine, 1 minute", os.getloadavg()[0], "processes")])
        return
    with TemporaryDirectory() as name, redis(Path(name)) as url:
        folder = Path(name)
        peers = {} if asked.no_peers else feast(folder, url, 5_000 if asked.small else min(100_000, entities))
        measures = embedded(folder, entities, peers.get("sqlite", {}))
        measures += in_redis(url, entities, peers.get("redis", {}))
        measures += over_http(folder, entities)
        measures.append(Measure("load average of the machine, 1 minute", os.getloadavg()[0], "processes"))
        report(measures)


def embedded(folder: Path, entities: int, peer: dict[str, Any]) -> list[Measure]:
    """Measure the embedded store, alone and while another process writes."""
    path = folder / "online.sqlite"
    store = SqliteOnline(path)
    measures = [
        Measure(
            "write, embedded, in order", fill(store, entities), "rows/CPU s", better="higher", target=200_000,
            peer="Feast SQLite, rows/s" if peer else None, peer_value=peer.get("rows"),
        ),
        Measure(
            "write again, embedded, in random order", fill(store, entities, 1), "rows/CPU s", better="higher"
        ),
    ]  # fmt: skip
    bare = sqlite3.connect(path, isolation_level=None)
    for setting in ("mmap_size=2147418112", "cache_size=-32000"):
        bare.execute(f"PRAGMA {setting}").fetchall()

    def select(keys: list[int]) -> object:
        places = places_of[id(keys)]
        marks = ",".join("?" * len(places))
        return bare.execute(f"SELECT key, event, value FROM numbered_1 WHERE key IN ({marks})", places).fetchall()

    for size, target in ((1, 15), (100, 300)):
        asked = random_keys(entities, size)
        places_of = {id(keys): [place_of(str(key)) for key in keys] for keys in asked}
        limit, _ = rounds(select, asked)
        measures += looked_up("embedded", store, asked, target, limit, "Feast SQLite", peer)
    text_view = ViewSpec("texts", ("key",), "at", VIEW.features, ttl_s=VIEW.ttl_s)
    fill(store, entities, text_view=text_view)
    for size, target in ((1, 15), (100, 300)):
        asked_texts = [[customer(key) for key in keys] for keys in random_keys(entities, size)]
        measures += looked_up("embedded, long keys of text", store, asked_texts, target, None, None, {}, text_view)
    writer = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.features_online", "--write", str(path), str(entities)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        asked = random_keys(entities, 1)
        plan = LookUpPlan([VIEW])
        median, p99 = rounds(lambda keys: plan.look_up(store, {"key": keys}, NOW), asked)
    finally:
        writer.kill()
        writer.wait()
    measures.append(Measure("look-up, embedded, 1 key, while another process writes, p50", median, "µs"))
    measures.append(Measure("look-up, embedded, 1 key, while another process writes, p99", p99, "µs", target=50))
    return measures


def in_redis(url: str, entities: int, peer: dict[str, Any]) -> list[Measure]:
    """Measure the store in Redis."""
    import redis as client

    store, bare = RedisOnline(url, timeout_s=30), client.Redis.from_url(url)
    measures = [
        Measure(
            "write, Redis", fill(store, entities), "rows/CPU s", better="higher",
            peer="Feast Redis, rows/s" if peer else None, peer_value=peer.get("rows"),
        )
    ]  # fmt: skip
    for start in range(0, entities, 10_000):
        keys = range(start, min(start + 10_000, entities))
        bare.mset({f"bare:{key}": b"x" * 215 for key in keys})
    for size, target in ((1, 60), (100, 400)):
        asked = random_keys(entities, size, 300)
        limit, _ = rounds(lambda keys: bare.mget([f"bare:{key}" for key in keys]), asked)
        measures += looked_up("Redis", store, asked, target, limit, "Feast Redis", peer)
    return measures


def over_http(folder: Path, entities: int) -> list[Measure]:
    """Measure the feature server of a data plane on the embedded store."""
    write(folder / "serving" / "snapshot.json", Snapshot(1, features={VIEW.name: VIEW.to_dict()}))
    plane = subprocess.Popen(
        [sys.executable, "-m", "flyball.wire.oip", "--home", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    measures = []
    try:
        assert plane.stdout is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(plane.stdout.readline().rsplit(":", 1)[1]))
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = NOW.isoformat()
        for size, target in ((1, 250), (100, 600)):
            bodies = [
                json.dumps({"features": [VIEW.name], "entities": {"key": keys}, "at": at}).encode()
                for keys in random_keys(entities, size, 300)
            ]
            ask = asker(connection.sock, b"POST /features HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n%b")
            ask_nothing = asker(connection.sock, b"GET /v2/health/live HTTP/1.1\r\nHost: b\r\n\r\n")
            limit, _ = rounds(ask_nothing, [None] * len(bodies))
            before = cpu_s(plane.pid)
            median, p99 = rounds(ask, bodies)
            spent = (cpu_s(plane.pid) - before) / (ROUNDS * len(bodies)) * 1e6
            what = f"feature server, {keys_word(size)}"
            measures += [
                Measure(f"{what}, p50", median, "µs", limit=limit, target=target),
                Measure(f"{what}, p99", p99, "µs"),
                Measure(f"{what}, CPU of the server", spent, "µs"),
            ]
    finally:
        plane.kill()
        plane.wait()
    return measures


def asker(connection: socket.socket, request: bytes) -> Callable[[bytes | None], bytes]:
    """Return a function that sends a request on a kept connection and reads its answer, and does little else."""

    def ask(body: bytes | None) -> bytes:
        connection.sendall(request if body is None else request % (len(body), body))
        data = connection.recv(1 << 18)
        head = data.index(b"\r\n\r\n") + 4
        assert data.startswith(b"HTTP/1.1 200"), data
        length = int(data[:head].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(data) < head + length:
            data += connection.recv(1 << 18)
        return data

    return ask


def looked_up(
    where: str,
    store: OnlineStore,
    asked: Sequence[Sequence[Any]],
    target: float | None,
    limit: float | None,
    name: str | None,
    peer: dict[str, Any],
    view: ViewSpec = VIEW,
) -> list[Measure]:
    """Measure look-ups through a plan."""
    plan, size = LookUpPlan([view]), len(asked[0])
    answer = plan.look_up(store, {"key": asked[0]}, NOW)
    assert None not in answer["f0"] and len(answer["f0"]) == size
    median, p99 = rounds(lambda keys: plan.look_up(store, {"key": keys}, NOW), asked)
    named = name if f"{size} p50" in peer else None
    what = f"look-up, {where}, {keys_word(size)}"
    return [
        Measure(f"{what}, p50", median, "µs", named, peer.get(f"{size} p50"), limit, target),
        Measure(f"{what}, p99", p99, "µs", named, peer.get(f"{size} p99")),
        Measure(f"{what}, CPU", cpu_us(lambda keys: plan.look_up(store, {"key": keys}, NOW), asked), "µs"),
    ]


def cpu_us(act: Callable[[Any], object], asked: Sequence[Any]) -> float:
    """Return the CPU time of one call, in µs: the least mean of some rounds. Waiting for the processor is not in it."""
    means = []
    for _ in range(ROUNDS):
        started = time.thread_time_ns()
        for keys in asked:
            act(keys)
        means.append((time.thread_time_ns() - started) / len(asked) / 1e3)
    return min(means)


def rounds(act: Callable[[Any], object], asked: Sequence[Any]) -> tuple[float, float]:
    """Return the best median and the best 99th percentile of some rounds, in µs."""
    medians, p99s = [], []
    for _ in range(ROUNDS):
        spans = []
        for keys in asked:
            started = time.perf_counter_ns()
            act(keys)
            spans.append((time.perf_counter_ns() - started) / 1e3)
        medians.append(float(np.median(spans)))
        p99s.append(float(np.quantile(spans, 0.99)))
    return min(medians), min(p99s)


def fill(
    store: OnlineStore, entities: int, turn: int = 0, text_view: ViewSpec | None = None, *, is_in_order: bool = False
) -> float:
    """Write every entity from frames, as materialisation does; return rows a second of this process's CPU."""
    random = np.random.default_rng(turn)
    order = np.arange(entities) if turn == 0 or is_in_order else random.permutation(entities)
    started = time.process_time()
    for start in range(0, entities, BATCH):
        keys = order[start : start + BATCH]
        columns: dict[str, Any] = {name: random.random(len(keys)) for name in NAMES}
        frame = pl.DataFrame({"key": keys, **columns})
        if text_view is not None:
            frame = frame.with_columns(key="customer-" + pl.col("key").cast(pl.String).str.zfill(9))
        times = [micros_of(WRITTEN) + turn] * frame.height
        view = text_view or VIEW
        store.put_encoded(
            view.stored_as, NAMES, encoded_keys(frame, ["key"]), times, encoded_rows(frame, view.features)
        )
    return entities / (time.process_time() - started)


def customer(key: int) -> str:
    """Return a key of text that is too long to be a number."""
    return f"customer-{key:09d}"


def write_on(path: Path, entities: int) -> None:
    """Write newer values of all entities in the order of their keys, as materialisation does, until it is killed."""
    store, turn = SqliteOnline(path), 2
    print("writing", flush=True)
    while True:
        fill(store, entities, turn, is_in_order=True)
        turn += 1


def feast(folder: Path, url: str, entities: int) -> dict[str, dict[str, Any]]:
    """Measure Feast on both stores, in its own environment."""
    host = url.removeprefix("redis://").partition("/")[0]
    stores = {
        "sqlite": {"type": "sqlite", "path": str(folder / "feast.db")},
        "redis": {"type": "redis", "connection_string": f"{host},db=1"},
    }
    found = {}
    for name, settings in stores.items():
        (folder / name).mkdir()
        found[name] = run("feast", FEAST, str(folder / name), json.dumps(settings), str(entities), timeout_s=1800)
        if "error" in found[name]:
            print(f"Feast on {name}: {found[name]['error']}", file=sys.stderr)
    return found


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis server that keeps nothing on disk; yield its URL."""
    binary = shutil.which("redis-server")
    assert binary, "Redis is not installed; `make services` installs it"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "Ready to accept connections" in line:
                break
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def random_keys(entities: int, size: int, count: int = 1_000) -> list[list[int]]:
    """Return `count` lists of `size` keys."""
    keys: list[list[int]] = np.random.default_rng(size).integers(0, entities, (count, size)).tolist()
    return keys


def keys_word(size: int) -> str:
    """Return `1 key` or `100 keys`."""
    return f"{size} key{'s' if size > 1 else ''}"


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
