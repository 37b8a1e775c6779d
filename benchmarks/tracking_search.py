"""Searching runs: 100,000 runs of ten metrics, ten parameters and three tags, loaded, filtered, sorted and kept up.

    python -m benchmarks.tracking_search            SQLite
    python -m benchmarks.tracking_search --small    a tenth of it

Times are CPU of this process, medians of many; the ledger is asked for changes before each search, as always.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.report import Measure, report
from flyball.clock import format_instant
from flyball.ledger.points import Point
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.ledger.sql.tables import runs
from flyball.tracking.filters import parse_filter, parse_order
from flyball.tracking.grammars import RUNS
from flyball.tracking.runs_index import RunsIndex

START = datetime(2026, 1, 1, tzinfo=UTC)
METRICS, PARAMS = 10, 10
SEARCHES: dict[str, tuple[str, list[str], int, int, float | None]] = {
    "filter and order, first 100": ("metrics.m3 > 0.5 AND params.p1 = 'adam'", ["metrics.m0 DESC"], 100, 0, 5),
    "the same, two keys to sort by": ("metrics.m3 > 0.5", ["params.p1 ASC", "metrics.m0 DESC"], 100, 0, 5),
    "newest 100": ("", [], 100, 0, 5),
    "a page of 1,000": ("", [], 1000, 0, 5),
    "a page of 1,000 after 50,000": ("", ["metrics.m0 ASC"], 1000, 50_000, None),
    "text like": ("tags.`note` LIKE '%9a%'", [], 100, 0, None),
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the runs")
    count = 10_000 if parser.parse_args().small else 100_000
    with TemporaryDirectory() as name:
        ledger = open_ledger(Path(name), LedgerSettings(synchronous="NORMAL"))
        fill(ledger, count)
        measures = [*loading(ledger, count), *searching(ledger, count), *keeping_up(ledger, count)]
        measures += many_keys(Path(name) / "keys")
        ledger.close()
    report(measures)


def loading(ledger: SqlLedger, count: int) -> list[Measure]:
    """The first search of an experiment, and what its columns take."""
    index = RunsIndex(ledger)
    taken = cpu_ms(lambda: index.search(["0"], limit=1)) / 1000
    index.forget()
    gc.collect()
    tracemalloc.start()
    index.search(["0"], limit=1)
    gc.collect()
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return [
        Measure(f"load {count:,} runs", taken, "s", target=3),
        Measure("memory of the columns", size / 1e6, "MB", target=150),
        Measure("the most memory while loading", peak / 1e6, "MB"),
    ]


def searching(ledger: SqlLedger, count: int) -> list[Measure]:
    """Searches, the first time and again; beside the time that NumPy takes to compare and sort the bare numbers."""
    index = RunsIndex(ledger)
    index.search(["0"], limit=1)
    measures = []
    for work, (text, order, limit, offset, target) in SEARCHES.items():
        comparisons, orders = parse_filter(text, RUNS), parse_order(order, RUNS)

        def ask(c: Any = comparisons, o: Any = orders, n: int = limit, after: int = offset) -> Any:
            return index.search(["0"], c, o, limit=n, offset=after)

        first = cpu_ms(ask)
        measures.append(Measure(f"{work}, of {count:,}, the first time", first, "ms"))
        measures.append(Measure(f"{work}, of {count:,}", median_ms(ask), "ms", target=target))
    fresh = iter(range(10**9))

    def another_filter() -> Any:
        text = f"metrics.m3 > {next(fresh) / 1e6} AND params.p1 = 'adam'"
        return index.search(["0"], parse_filter(text, RUNS), parse_order(["metrics.m0 DESC"], RUNS), limit=100)

    numbers = np.random.default_rng(1).random((2, count))
    limit_ms = median_ms(lambda: np.flatnonzero((numbers[0] > 0.5) & (numbers[1] > 0.2))[:100])
    measures.append(
        Measure("another filter each time, parsed too", median_ms(another_filter), "ms", limit=limit_ms, target=5)
    )
    measures.append(Measure("keys of all runs", median_ms(lambda: index.keys(["0"])), "ms", target=50))
    return measures


def keeping_up(ledger: SqlLedger, count: int) -> list[Measure]:
    """What a search costs beside writers: 8 runs log 20 metrics each before it."""
    index = RunsIndex(ledger)
    orders = parse_order(["metrics.m0 DESC"], RUNS)
    comparisons = parse_filter("metrics.m3 > 0.5", RUNS)
    with ledger.write("user/a") as world:
        live = [world.runs.start("training", f"live-{n}", experiment="0").id for n in range(8)]
    index.search(["0"], comparisons, orders, limit=100)
    taken = []
    for step in range(100):
        with ledger.write("user/a") as world:
            for run in live:
                world.runs.record(run, points=[Point(f"m{n}", n / 20 + step / 100, step, step) for n in range(20)])
        taken.append(cpu_ms(lambda: index.search(["0"], comparisons, orders, limit=100)))
    return [
        Measure(
            f"filter and order, of {count:,}, after 8 runs logged 20 metrics", statistics.median(taken), "ms", target=15
        )
    ]


def many_keys(home: Path, keys: int = 20_000, count: int = 2_000) -> list[Measure]:
    """Runs that have twenty thousand keys among them."""
    ledger = open_ledger(home, LedgerSettings(synchronous="NORMAL"))
    chance = random.Random(2)
    rows = [
        run_row(n, {f"k{k}": [chance.random(), 0, 0] for k in chance.sample(range(keys), 50)}, {}, {})
        for n in range(count)
    ]
    with ledger.engine.begin() as connection:
        connection.execute(runs.insert(), rows)
    index = RunsIndex(ledger)
    loaded = cpu_ms(lambda: index.search(["0"], limit=1))
    orders = parse_order(["metrics.k7 DESC"], RUNS)
    search = median_ms(lambda: index.search(["0"], parse_filter("metrics.k8 != 0", RUNS), orders, limit=100))
    asked = median_ms(lambda: index.keys(["0"]))
    ledger.close()
    return [
        Measure(f"load {count:,} runs of {keys:,} keys", loaded, "ms"),
        Measure("filter and order among them", search, "ms", target=5),
        Measure("the keys of them, with counts", asked, "ms", target=100),
    ]


def fill(ledger: SqlLedger, count: int) -> None:
    """Put runs into the table past the ledger's methods, which would note an event for each."""
    chance = random.Random(1)
    optimisers = ["adam", "sgd", "lamb", "adagrad"]
    for begin in range(0, count, 5000):
        rows = []
        for n in range(begin, min(count, begin + 5000)):
            latest = {f"m{k}": [chance.random(), 100, n] for k in range(METRICS)}
            params = {"p0": str(chance.random()), "p1": chance.choice(optimisers)}
            params |= {f"p{k}": str(chance.randrange(50)) for k in range(2, PARAMS)}
            rows.append(
                run_row(n, latest, params, {"mlflow.runName": f"run-{n}", "team": f"t{n % 7}", "note": f"{n:x}"})
            )
        with ledger.engine.begin() as connection:
            connection.execute(runs.insert(), rows)


def run_row(number: int, latest: dict[str, Any], params: dict[str, str], tags: dict[str, str]) -> dict[str, Any]:
    """Return a run as its table holds it."""
    at = format_instant(START + timedelta(seconds=number))
    return {
        "id": f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}", "kind": "training", "name": f"run-{number}",
        "actor": "user/a", "status": "succeeded", "started_at": at, "finished_at": at, "params": params,
        "latest": latest, "tags": tags, "source": {}, "environment": {}, "result": {}, "experiment": 0, "user": "a",
        "inputs": [], "outputs": [], "revision": 0, "folded": 0,
    }  # fmt: skip


def cpu_ms(act: Callable[[], Any]) -> float:
    """Return the CPU time of an act in milliseconds."""
    start = time.process_time()
    act()
    return (time.process_time() - start) * 1e3


def median_ms(act: Callable[[], Any], times: int = 50) -> float:
    """Return the median time of an act in milliseconds."""
    return statistics.median(cpu_ms(act) for _ in range(times))


if __name__ == "__main__":
    main()
