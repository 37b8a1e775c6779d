"""The pages of runs: what each costs the server, of 100,000 runs, 20,000 keys, 200 compared, a million points.

    python -m benchmarks.tracking_pages            SQLite
    python -m benchmarks.tracking_pages --small    a tenth of it

Times are CPU of the server and of the client that asks over HTTP, which share a process; medians of many after
the first.
The first page of all, which makes the process load what it needs, and the first filter, which loads the columns, stand
beside them.
"""

from __future__ import annotations

import argparse
import math
import random
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import httpx2
import uvicorn

from benchmarks.report import Measure, report
from benchmarks.tracking_search import fill, run_row
from flyball.ledger.points import Point
from flyball.ledger.sql.tables import runs
from flyball.platform import Platform

FIRST_PAINT_MS = 200
Params: TypeAlias = dict[str, str] | list[tuple[str, str | int | float | bool | None]]
KEYS, KEYED_RUNS, COMPARED = 20_000, 2_000, 200


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the runs, keys and points")
    part = 10 if parser.parse_args().small else 1
    with TemporaryDirectory() as name, closing(Platform.open(Path(name))) as platform:
        count, points = 100_000 // part, 1_000_000 // part
        fill(platform.ledger, count)  # type: ignore[arg-type]
        keyed = _many_keys(platform, KEYS // part)
        long = _long_run(platform, points)
        with _served(platform) as client:
            report(_measure(client, count, KEYS // part, points, keyed, long))


def _measure(client: httpx2.Client, count: int, keys: int, points: int, keyed: str, long: str) -> list[Measure]:
    compared: list[tuple[str, str | int | float | bool | None]] = [
        ("ref", f"{n * 0x9E3779B97F4A7C15 % 2**128:032x}") for n in range(COMPARED)
    ]
    searched = {"experiment": "0", "filter": "metrics.m3 > 0.5 AND params.p1 = 'adam'", "sort": "-metrics.m0"}
    measures = [
        Measure(f"/runs, of {count:,}, the very first page", _ms(client, "/runs", {}), "ms", target=FIRST_PAINT_MS)
    ]
    asked: Params
    for work, path, asked in (
        (f"/runs, of {count:,}", "/runs", {}),
        ("one experiment", "/runs", {"experiment": "0"}),
        ("deleted runs, of which there are none", "/runs", {"view": "deleted"}),
    ):
        measures.append(Measure(work, _median_ms(client, path, asked), "ms", target=FIRST_PAINT_MS))
    measures.append(Measure("the first filter, which loads the columns", _ms(client, "/runs", searched), "ms"))
    after = {**searched, "after": f"{count // 10}~none"}
    for work, path, asked in (
        ("filter and order", "/runs", searched),
        (f"the same from row {count // 10:,} on", "/runs", after),
        ("sorted by a parameter, every experiment", "/runs", {"sort": "params.p1"}),
        (f"an experiment of {keys:,} keys, sorted by one", "/runs", {"experiment": keyed, "sort": "-metrics.k7"}),
        (
            f"three of {keys:,} keys as columns",
            "/runs",
            {"experiment": keyed, "sort": "-metrics.k7", "col": "metrics.k8"},
        ),
        (f"a page of the list of {keys:,} keys", "/runs/keys", {"experiment": keyed, "start": "10000"}),
        (f"a search among {keys:,} keys", "/runs/keys", {"experiment": keyed, "q": "99"}),
        ("completion of a key", "/runs/complete", {"experiment": keyed, "text": "metrics.k9"}),
        ("completion of a value", "/runs/complete", {"experiment": "0", "text": "params.p1 = 'a"}),
        (f"a run with {points:,} points", f"/runs/{long}", {}),
        (f"its curve, sampled from {points:,}", f"/runs/{long}/series", {"key": "loss"}),
        ("a stretch of the curve, sampled anew", f"/runs/{long}/series", {"key": "loss", "from": "1000", "to": "9000"}),
    ):
        measures.append(Measure(work, _median_ms(client, path, asked), "ms", target=FIRST_PAINT_MS))
    for shown in ("tables", "curves", "parallel", "scatter", "box", "files"):
        took = _median_ms(client, "/runs/compare", [*compared, ("show", shown)])
        measures.append(Measure(f"{COMPARED} runs compared: {shown}", took, "ms", target=FIRST_PAINT_MS))
    return measures


def _many_keys(platform: Platform, keys: int) -> str:
    """Put runs of many keys among them into an experiment of their own; return its id."""
    id = platform.create_experiment("many keys").id
    chance = random.Random(2)
    rows = []
    for n in range(KEYED_RUNS):
        latest = {f"k{k}": [chance.random(), 0, 0] for k in chance.sample(range(keys), 50)}
        row = run_row(n, latest, {}, {})
        rows.append({**row, "id": f"{2**127 + n:032x}", "experiment": int(id)})
    with platform.ledger.engine.begin() as connection:  # type: ignore[attr-defined]
        connection.execute(runs.insert(), rows)
    return id


def _long_run(platform: Platform, count: int) -> str:
    recorder = platform.recorder
    run = recorder.create_run("0", name="long").result()
    for begin in range(0, count, 10_000):
        some = [Point("loss", math.sin(step / 9e4), step, step) for step in range(begin, begin + 10_000)]
        recorder.log(run.id, points=some).result()
    recorder.update_run(run.id, status="succeeded").result()
    return run.id


@contextmanager
def _served(platform: Platform) -> Iterator[httpx2.Client]:
    from flyball.web.pages import mount
    from flyball.wire.native.app import make_app

    app = make_app(platform)
    mount(app, platform)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        yield client
    app.state.changes.close()
    server.should_exit = True
    thread.join(10)


def _ms(client: httpx2.Client, path: str, asked: Params) -> float:
    start = time.process_time()
    answer = client.get(path, params=asked)
    took = (time.process_time() - start) * 1e3
    if answer.status_code != 200:
        raise RuntimeError(f"{path} answered {answer.status_code}")
    return took


def _median_ms(client: httpx2.Client, path: str, asked: Params, times: int = 15) -> float:
    _ms(client, path, asked)
    return statistics.median(_ms(client, path, asked) for _ in range(times))


if __name__ == "__main__":
    main()
