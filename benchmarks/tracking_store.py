"""Recording runs and reading points, without HTTP: what a server spends on them beside its wire.

    python -m benchmarks.tracking_store           SQLite
    python -m benchmarks.tracking_store --small   a tenth of the points

With FLYBALL_LEDGER_URL set, the same again in the PostgreSQL database that it names, which should be empty.

Figures are CPU milliseconds of this process for each call (PostgreSQL works in other processes: add its own), the best
of several rounds; calls come from as many threads as the figure says, and each waits until its change is on disk.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.report import Measure, report
from flyball.ledger.points import Point
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.tracking.recording import Recorder, Writer

ROUNDS = 8  # other work on the machine makes single rounds dearer, never cheaper
AT = 1_790_000_000_000


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the points")
    points = 100_000 if parser.parse_args().small else 1_000_000
    url = os.environ.get("FLYBALL_LEDGER_URL", "")
    with TemporaryDirectory() as name:
        measures = _measure(Path(name) / "sqlite", "", points)
        if url:
            measures += _measure(Path(name) / "postgres", url, points)
    report(measures)


def _measure(home: Path, url: str, points: int) -> list[Measure]:
    ledger = open_ledger(home, LedgerSettings(url=url))
    writer = Writer(ledger)
    recorder = Recorder(writer, "user/bench")
    where = "PostgreSQL" if url else "SQLite"
    try:
        return [*_writing(recorder, where, home), *_reading(ledger, recorder, where, points)]
    finally:
        writer.close()
        ledger.close()


def _writing(recorder: Recorder, where: str, home: Path) -> list[Measure]:
    limit = _bare_commit(home) if where == "SQLite" else None
    runs = [recorder.create_run(name=f"r{n}").result().id for n in range(8)]
    step = [0] * 8

    def point(thread: int) -> None:
        step[thread] += 1
        recorder.log(runs[thread], [Point("loss", random.random(), step[thread], AT + step[thread])]).result()

    def twenty(thread: int) -> None:
        step[thread] += 1
        at = AT + step[thread]
        recorder.log(
            runs[thread], [Point(f"metric_{n}", random.random(), step[thread], at) for n in range(20)]
        ).result()

    def thousand(keys: int) -> Callable[[int], None]:
        def act(thread: int) -> None:
            step[thread] += 1
            first = step[thread] * 1000
            points = [Point(f"batch_{n % keys}", random.random(), first + n, AT + first + n) for n in range(1000)]
            recorder.log(runs[thread], points).result()

        return act

    params = {f"param_{n}": str(n * 0.37) for n in range(10)}
    tags = {f"tag_{n}": f"value {n}" for n in range(3)}

    def life(_thread: int) -> None:
        run = recorder.create_run(tags={"mlflow.user": "bench", "mlflow.source.name": "train.py"}).result().id
        points = [Point(f"metric_{n}", random.random(), 0, AT) for n in range(10)]
        recorder.log(run, points, params, tags).result()
        recorder.update_run(run, status="succeeded").result()

    return [
        Measure(f"log one point, 1 caller, {where}", _calls(point, 1, 500), "CPU ms", limit=limit, target=0.2),
        Measure(f"log one point, 8 callers, {where}", _calls(point, 8, 400), "CPU ms", target=0.1),
        Measure(f"a step of 20 points, 1 caller, {where}", _calls(twenty, 1, 400), "CPU ms"),
        Measure(f"a step of 20 points, 8 callers, {where}", _calls(twenty, 8, 300), "CPU ms", target=0.2),
        Measure(f"1,000 points of 1 metric, {where}", _calls(thousand(1), 1, 40), "CPU ms", target=2),
        Measure(f"1,000 points of 50 metrics, {where}", _calls(thousand(50), 1, 40), "CPU ms", target=2),
        Measure(f"a run's whole life, 1 caller, {where}", _calls(life, 1, 100), "CPU ms", target=1.5),
        Measure(f"a run's whole life, 4 callers, {where}", _calls(life, 4, 50), "CPU ms", target=1.5),
    ]


def _reading(ledger: SqlLedger, recorder: Recorder, where: str, points: int) -> list[Measure]:
    run = recorder.create_run(name="long").result().id
    began = time.process_time()
    for start in range(0, points, 1000):
        batch = [Point("loss", random.random(), n, AT + n * 37) for n in range(start, start + 1000)]
        written = recorder.log(run, batch)
    written.result()
    took = time.process_time() - began
    recorder.update_run(run, status="succeeded").result()

    def page(offset: int) -> Callable[[int], None]:
        def act(_thread: int) -> None:
            with ledger.read() as world:
                assert len(world.points.page(run, "loss", 25_000, offset)[0]) == 25_000

        return act

    def sample(_thread: int) -> None:
        with ledger.read() as world:
            assert len(world.points.sample([run], "loss", 320)[run]) == 320

    return [
        Measure(f"load points of 1 metric, {where}", points / took, "/CPU s", target=250_000, better="higher"),
        Measure(f"the first 25,000 points, {where}", _calls(page(0), 1, 3), "CPU ms", target=15),
        Measure(f"25,000 points in the middle, {where}", _calls(page(points // 2), 1, 3), "CPU ms", target=15),
        Measure(f"320 sampled of {points:,} points, {where}", _calls(sample, 1, 3), "CPU ms", target=40),
    ]


def _calls(act: Callable[[int], None], threads: int, count: int) -> float:
    """Return CPU milliseconds a call when `threads` call at once, `count` times each."""
    act(0)
    return min(_round(act, threads, count) for _ in range(ROUNDS))


def _round(act: Callable[[int], None], threads: int, count: int) -> float:
    def work(thread: int) -> None:
        for _ in range(count):
            act(thread)

    callers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    start = time.process_time()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return (time.process_time() - start) * 1000 / (threads * count)


def _bare_commit(home: Path) -> float:
    """Return CPU milliseconds of one row and its commit, by the driver alone."""
    connection = sqlite3.connect(home / "bare.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE points (id INTEGER PRIMARY KEY, run TEXT, data BLOB)")

    def commit(_thread: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO points (run, data) VALUES ('r', x'00112233445566778899')")
        connection.execute("COMMIT")

    try:
        return _calls(commit, 1, 500)
    finally:
        connection.close()


if __name__ == "__main__":
    main()
