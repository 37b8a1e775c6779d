"""The catalogue: 100,000 things indexed and searched, what the index adds to a write, and the log of reads.

    python -m benchmarks.data_catalogue              SQLite
    python -m benchmarks.data_catalogue --postgres   a PostgreSQL server of its own besides, if it is installed
    python -m benchmarks.data_catalogue --small      a tenth of it

Times are CPU seconds of this process for SQLite (whose work is in it) and wall clock for PostgreSQL (whose work is
not); medians of many.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import text

import flyball.data.kinds  # the kinds must be known to be applied
import flyball.pipelines.kinds  # noqa: F401
from benchmarks.report import Measure, report
from flyball.clock import format_instant
from flyball.data.usage import Usage
from flyball.ledger.refs import Ref
from flyball.ledger.sql import LedgerSettings, open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.ledger.sql.reindexing import reindex
from flyball.ledger.sql.tables import resources, runs, versions

WORDS = [
    f"{a}{b}" for a in ("dep", "arr", "tail", "wind", "sale", "cost", "user", "shop") for b in map(str, range(250))
]
START = datetime(2026, 1, 1, tzinfo=UTC)
QUERIES = {
    "a rare word": "dep77",
    "a word of every entry": "flights",
    "two words and a filter": "flights dep7 kind:run",
    "a prefix of one letter with a word of every entry": "flights d*",
    "a phrase": '"late flights"',
    "words of no entry together": "dep1 dep2 arr3 sale4",
    "a tag, by time": "tag:gold after:2026-01-02",
    "everything but a common word": "-flights",
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the entries")
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL too")
    asked = parser.parse_args()
    count = 10_000 if asked.small else 100_000
    with TemporaryDirectory() as name:
        folder = Path(name)
        measures = [*searching(folder / "home", "", count, time.process_time), *recording(folder / "usage")]
        if asked.postgres:
            from tests.services import postgres_server

            (folder / "postgres").mkdir()
            with postgres_server(folder / "postgres") as url:
                measures += searching(folder / "other", f"{url}/postgres", count, time.perf_counter)
    report(measures)


def searching(home: Path, url: str, count: int, clock: Callable[[], float]) -> list[Measure]:
    """Index `count` things, search them, and write some more."""
    ledger = open_ledger(home, LedgerSettings(url=url, synchronous="NORMAL"))
    where = "PostgreSQL" if url else "SQLite"
    fill(ledger, count)
    with ledger.engine.begin() as connection:
        connection.execute(text("UPDATE search_format SET format = 0"))
    start = clock()
    reindex(ledger.engine)
    measures = [Measure(f"index {count:,} things, {where}", clock() - start, "s", target=60)]
    if url:
        with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE search_text, search_entries"))
    with ledger.read() as tx:
        for work, query in QUERIES.items():
            taken = median_ms(lambda query=query: tx.search.find(query, limit=50), clock)  # type: ignore[misc]
            measures.append(Measure(f"search, {work}, {where}", taken, "ms", target=50))
        page = tx.search.find("flights", limit=50)
        taken = median_ms(lambda: tx.search.find("flights", limit=50, after=page.next), clock)
        measures.append(Measure(f"search, the next page, {where}", taken, "ms", target=50))
    measures.append(writing(ledger, where, clock))
    ledger.close()
    return measures


def writing(ledger: SqlLedger, where: str, clock: Callable[[], float]) -> Measure:
    """What a run costs that is started, beside the same without the index."""
    with ledger.write("user/a") as tx:
        kept = tx.search.keep_run

        def start(number: int) -> None:
            tx.runs.start("training", f"late-{number}", tags={"team": "blue"})

        with_index = median_ms(lambda: start(1), clock, times=300)
        tx.search.keep_run = lambda *_, **__: None  # type: ignore[method-assign]
        without = median_ms(lambda: start(2), clock, times=300)
        tx.search.keep_run = kept  # type: ignore[method-assign]
    return Measure(f"start a run, commit aside (limit: without the index), {where}", with_index, "ms", limit=without)


def recording(folder: Path, times: int = 20_000) -> list[Measure]:
    """What a read pays for being told of."""
    usage = Usage(folder)
    ref, columns = Ref("dataset", "flights", "12"), ("dep_delay", "carrier", "origin")
    start = time.process_time()
    for _ in range(times):
        usage.record("user/alice", ref, "training", columns)
    again = (time.process_time() - start) / times * 1e6
    start = time.process_time()
    for number in range(times):
        usage.record(f"user/u{number}", ref, "training", columns)
    first = (time.process_time() - start) / times * 1e6
    usage.close()
    return [
        Measure("tell of a read, the same again, CPU", again, "µs", target=50),
        Measure("tell of a read by somebody new, CPU of all threads", first, "µs", target=50),
    ]


def median_ms(act: Callable[[], Any], clock: Callable[[], float], times: int = 20) -> float:
    """Return the median time of an act in milliseconds."""
    taken = []
    for _ in range(times):
        start = clock()
        act()
        taken.append((clock() - start) * 1e3)
    return statistics.median(taken)


def fill(ledger: SqlLedger, count: int) -> None:
    """Put rows into the ledger's tables past its methods, which would note an event for each."""
    chance = random.Random(1)

    def told(size: int) -> str:
        return "late flights of " + " ".join(chance.choices(WORDS, k=size))

    def at(number: int) -> str:
        return format_instant(START + timedelta(seconds=number))

    plain: dict[str, Any] = {"params": {}, "metrics": {}, "source": {}, "environment": {}, "result": {}}
    run_rows = [
        {
            **plain, "id": f"{n:032x}", "kind": "training", "name": f"{chance.choice(WORDS)}-flights",
            "actor": "user/a", "status": "succeeded", "started_at": at(n),
            "tags": {"note": told(12), "tier": "gold" if n % 9 else "raw"},
        }
        for n in range(count * 9 // 10)
    ]  # fmt: skip
    version_rows = [
        {
            "kind": "dataset", "name": f"{WORDS[n % 900]}-flights", "number": n // 900 + 1, "digest": f"{n:064x}",
            "created_at": at(n), "actor": "user/a",
            "metadata": {"schema": dict.fromkeys(chance.choices(WORDS, k=20), "Int64"), "note": told(8)},
        }
        for n in range(count * 9 // 100)
    ]  # fmt: skip
    resource_rows = [
        {
            "kind": "dataset", "name": f"{WORDS[n % 900]}-flights-{n}", "status": {}, "labels": {}, "generation": 1,
            "revision": 1, "created_at": at(n), "updated_at": at(n),
            "spec": {"description": told(30), "owner": "team/x", "domain": "travel", "tags": ["gold"]},
        }
        for n in range(count // 100)
    ]  # fmt: skip
    with ledger.engine.begin() as connection:
        for table, rows in ((runs, run_rows), (versions, version_rows), (resources, resource_rows)):
            for begin in range(0, len(rows), 5000):
                connection.execute(table.insert(), rows[begin : begin + 5000])


if __name__ == "__main__":
    main()
