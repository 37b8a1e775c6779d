"""The machine and Flyball on it (`make bench`): writes, checks, start, memory, one prediction.

    python -m benchmarks.system

Times are wall clock, medians of many, except `import flyball`, which is CPU time: other work on the machine does not
count against it. The limit beside a figure is the same work without Flyball: a bare commit, the model alone.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from benchmarks.report import Measure, report

ROOT = Path(__file__).resolve().parent.parent
ROWS = 1_000_000
REQUESTS = 3_000
MODEL_INPUTS = 20
CARRIERS = ["AA", "B6", "DL", "UA"]


def main() -> None:
    """Measure all and report."""
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in (importing, installed, resource_change, contract, starting, predicting):
            print(f"{part.__name__.replace('_', ' ')} …", file=sys.stderr, flush=True)
            measures += part(Path(folder) / part.__name__)
    report(measures)


def importing(_: Path, times: int = 15) -> list[Measure]:
    """`import flyball` in a fresh interpreter, beside the interpreter alone."""
    pairs = [(_cpu_ms("pass"), _cpu_ms("import flyball")) for _ in range(times)]  # in turn: the machine changes
    alone, found = (statistics.median(values) for values in zip(*pairs, strict=True))
    return [
        Measure(
            "import flyball, interpreter included, CPU (limit: the interpreter alone)",
            found,
            "ms",
            limit=alone,
            target=150,
        )
    ]


def installed(_: Path) -> list[Measure]:
    """The files of the core's packages and of Flyball itself, without byte code (pip writes that as it likes)."""
    pins = (ROOT / "requirements" / "core.txt").read_text(encoding="utf-8").splitlines()
    names = [pin.partition("==")[0] for pin in pins if "==" in pin]
    sizes = {name: sum(_size(Path(str(f.locate()))) for f in distribution(name).files or ()) for name in names}
    sizes["flyball"] = sum(_size(path) for path in (ROOT / "flyball").rglob("*"))
    largest = max(sizes, key=lambda name: sizes[name])
    limit = sizes[largest] / 1e6
    return [
        Measure(f"core installation (limit: {largest} alone)", sum(sizes.values()) / 1e6, "MB", limit=limit, target=300)
    ]


def resource_change(home: Path, times: int = 300) -> list[Measure]:
    """A changed spec with its journal event, durable; beside a bare SQLite commit of two rows."""
    from flyball.platform import Platform

    with sqlite3.connect(home.with_suffix(".db"), isolation_level=None) as bare:
        bare.execute("PRAGMA journal_mode=WAL")
        bare.execute("PRAGMA synchronous=FULL")
        bare.execute("CREATE TABLE resources (name TEXT PRIMARY KEY, spec TEXT)")
        bare.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, detail TEXT)")

        def commit(number: int) -> None:
            bare.execute("BEGIN IMMEDIATE")
            bare.execute("REPLACE INTO resources VALUES ('x', ?)", (f"version {number}",))
            bare.execute("INSERT INTO events (detail) VALUES (?)", (f"changed {number}",))
            bare.execute("COMMIT")

        limit = _median_ms(commit, times)
    at = Platform.open(home)
    try:
        found = _median_ms(lambda number: at.declare("dataset", "x", description=f"version {number}"), times)
    finally:
        at.close()
    return [Measure("a resource change with its journal event", found, "ms", limit=limit)]


def contract(_: Path) -> list[Measure]:
    """A contract of nine rules over a million rows in memory; beside reading every value once."""
    import numpy as np
    import polars as pl

    from flyball.data.checking import check
    from flyball.data.contracts import read_contract

    random = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "id": np.arange(ROWS),
            "carrier": random.choice(CARRIERS, ROWS),
            "distance": random.uniform(80, 5000, ROWS),
            "hour": random.integers(0, 24, ROWS),
            "delay": random.normal(5, 30, ROWS),
        }
    )
    properties = [
        {"name": "id", "logicalType": "integer", "required": True, "unique": True},
        {"name": "carrier", "logicalType": "string", "required": True, "enum": [{"value": c} for c in CARRIERS]},
        {"name": "distance", "logicalType": "number", "logicalTypeOptions": {"minimum": 0, "maximum": 10000}},
        {"name": "hour", "logicalType": "integer", "logicalTypeOptions": {"minimum": 0, "maximum": 23}},
        {"name": "delay", "logicalType": "number"},
    ]
    document = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "bench", "version": "1.0.0", "status": "active"}
    found = read_contract({**document, "schema": [{"name": "flights", "properties": properties}]})
    outcome = check(frame.lazy(), found)
    assert outcome.passed, outcome
    taken = _median_ms(lambda _: check(frame.lazy(), found), 5)
    reading = _median_ms(lambda _: frame.lazy().select(pl.all().hash().sum()).collect(), 5)
    work = f"a contract of {len(found.rules)} rules over {ROWS:,} rows (limit: hashing every value)"
    return [Measure(work, ROWS / taken * 1e3, "rows/s", limit=ROWS / reading * 1e3, better="higher")]


def starting(home: Path, times: int = 3) -> list[Measure]:
    """From `flyball up` on a new home to its ready line, and the memory of both processes when nothing happens."""
    seconds, control, data = [], 0.0, 0.0
    for number in range(times):
        with _up(home.with_name(f"{home.name}-{number}")) as up:
            seconds.append(up["seconds"])
            time.sleep(2.0)  # let what was read at the start be given back
            control, data = _memory_mb(up["pid"]), _memory_mb(up["data_plane"])
    return [
        Measure("from `flyball up` to ready", statistics.median(seconds), "s", target=3),
        Measure("memory of the control plane at idle (RSS)", control, "MB"),
        Measure("memory of the data plane at idle (RSS)", data, "MB"),
        Measure("memory of both together at idle (RSS)", control + data, "MB", target=250),
    ]


def predicting(home: Path) -> list[Measure]:
    """One record a request over one connection: HTTP, look-up of the deployment, the model, the log; rows rotate."""
    rows, alone = _deploy(home)
    bodies = [json.dumps(row) for row in rows]
    with _up(home) as up:
        host = up["predictions"].removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=30)
        try:
            for body in bodies[:200]:
                _ask(connection, body)
            taken = sorted(_timed(lambda i: _ask(connection, bodies[i % len(bodies)]), n) for n in range(REQUESTS))
        finally:
            connection.close()
        memory = _memory_mb(up["data_plane"])
    p50, p99 = taken[REQUESTS // 2], taken[REQUESTS * 99 // 100]
    return [
        Measure(
            "one prediction through the data plane, client included, p50 (limit: the model alone)",
            p50,
            "ms",
            limit=alone,
        ),
        Measure("one prediction through the data plane, client included, p99", p99, "ms"),
        Measure("memory of the data plane that serves this model (RSS)", memory, "MB"),
    ]


def _deploy(home: Path) -> tuple[list[dict[str, float]], float]:
    """Serve a model of 100 trees on 20 inputs; return rows to ask, and what the model alone takes (ms)."""
    import numpy as np
    import polars as pl
    from sklearn.ensemble import HistGradientBoostingClassifier

    import flyball as fb

    random = np.random.default_rng(0)
    X = random.normal(size=(4000, MODEL_INPUTS))
    y = (X[:, 0] + X[:, 1] * X[:, 2] + random.normal(size=4000) > 0).astype(int)
    names = [f"x{i}" for i in range(MODEL_INPUTS)]
    at = fb.open_home(home)
    data = fb.dataset("rows", target="y")
    data.publish(pl.DataFrame(X, schema=names).with_columns(y=pl.Series(y)))
    train, test = data.split()
    with fb.run("bench") as run:
        model = HistGradientBoostingClassifier(max_iter=100).fit(train.X, train.y)
        run.evaluate(model, test)
        run.register("bench", model)
    fb.deploy("bench", monitor=False)
    rows = test.X.to_dicts()
    loaded = at.load("bench")
    columns = [loaded.signature.columns_from({n: [row[n]] for n in names}) for row in rows[:500]]
    alone = _median_ms(lambda i: loaded.predict(columns[i % len(columns)]), 500)
    fb.open_home(home.with_name("elsewhere"))  # closes the home, so that `up` has it for itself
    return rows, alone


@contextmanager
def _up(home: Path) -> Iterator[dict[str, Any]]:
    """Run `flyball up` on free ports; yield its seconds to ready, addresses and process ids."""
    command = [sys.executable, "-m", "flyball.cli", "up", "--home", str(home), "--port", "0", "--serve-port", "0"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - begun
        words = line.split()
        assert "ready:" in words, f"flyball up did not get ready: {line!r}"
        plane = json.loads((home / "serving" / "status.json").read_text(encoding="utf-8"))
        yield {
            "seconds": seconds,
            "pid": process.pid,
            "pages": words[words.index("pages") + 1],
            "predictions": words[words.index("predictions") + 1],
            "data_plane": plane["pid"],
        }
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _ask(connection: http.client.HTTPConnection, body: str) -> None:
    connection.request("POST", "/v1/models/bench:predict", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text


def _cpu_ms(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def _timed(act: Callable[[int], object], number: int) -> float:
    begun = time.perf_counter()
    act(number)
    return (time.perf_counter() - begun) * 1e3


def _median_ms(act: Callable[[int], object], times: int) -> float:
    return statistics.median([_timed(act, number) for number in range(times)])


def _memory_mb(pid: int) -> float:
    """Return the resident memory of a process, in units of 10⁶ bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() and path.suffix != ".pyc" else 0


if __name__ == "__main__":
    main()
