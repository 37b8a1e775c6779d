"""Tables larger than memory: how much of it publishing holds, from a stream, from CSV and from Parquet, and reading.

    python -m benchmarks.data_streaming                                     1 GB from each source
    python -m benchmarks.data_streaming --gigabytes 20 --sources stream     needs as much room on the disk

Events are published under a contract (types, a primary key, a range, a set, a pattern, a mean) and profiled; each work
is a process of its own, whose largest resident size is told, pages of files that the kernel may drop with it. The size
is that of the rows in memory; hardly any of them can be compressed, so the table takes nearly as much room on the disk.
A stream is made while it is read, twice (once for the contract, once for the table), so it takes no room at all.
What was published is read back lazily by a grouped aggregate, and compared with what was made.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from benchmarks.report import Measure, report
from flyball.delivery.documents import Document
from flyball.platform import Platform

SOURCES = ("stream", "csv", "parquet")
LIMIT_MB = 1000.0
KINDS = ["view", "click", "cart", "order", "return", "search"]
CHUNK = 250_000  # rows made at once
SCHEMA: dict[str, pl.DataType] = {
    "id": pl.Int64(),
    "at": pl.Datetime("us"),
    "customer": pl.Int64(),
    "amount": pl.Float64(),
    "score": pl.Float64(),
    "kind": pl.String(),
    "session": pl.String(),
}
ROW_BYTES = 5 * 8 + 5 + 19  # numbers and times, and the bytes of the texts
CONTRACT = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "events",
    "name": "events",
    "version": "1.0.0",
    "schema": [
        {
            "name": "events",
            "properties": [
                {"name": "id", "logicalType": "integer", "primaryKey": True},
                {"name": "at", "logicalType": "timestamp", "required": True},
                {"name": "amount", "logicalType": "number", "logicalTypeOptions": {"minimum": 0}},
                {
                    "name": "kind",
                    "logicalType": "string",
                    "quality": [{"metric": "invalidValues", "arguments": {"validValues": KINDS}, "mustBe": 0}],
                },
                {"name": "session", "logicalType": "string", "logicalTypeOptions": {"pattern": "^s[0-9]+$"}},
            ],
            "quality": [
                {
                    "type": "custom",
                    "engine": "flyball",
                    "implementation": {"aggregate": "mean", "column": "amount", "mustBeBetween": [1, 1000]},
                }
            ],
        }
    ],
}
Figures = dict[str, float]


def main() -> None:
    """Measure all and report, or do one part in this process for the one that reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1, help="of rows in memory, from each source")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--part", nargs=3, metavar=("FOLDER", "WORK", "ROWS"), help="for this script itself")
    asked = parser.parse_args()
    if asked.part:
        folder, work, rows = asked.part
        print(json.dumps(WORKS[work](Path(folder), int(rows))))
        return
    rows = int(asked.gigabytes * 1e9 / ROW_BYTES)
    found: list[Measure] = []
    for source in asked.sources:
        with TemporaryDirectory(dir=asked.folder) as name:
            check_room(Path(name), asked.gigabytes * (1 if source == "stream" else 2.5))
            found += measures(Path(name), source, rows)
    report(found)


def check_room(folder: Path, gigabytes: float) -> None:
    """Stop before a disk is filled that others write to as well."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes + 10:
        sys.exit(f"{folder} has {free:.0f} GB free; this needs {gigabytes:.0f} GB, and leaves 10 GB to others")


def measures(folder: Path, source: str, rows: int) -> list[Measure]:
    """Publish from one source and read what was published, each in a process of its own."""
    if source != "stream":
        part(folder, f"make {source}", rows)
    published, read = part(folder, f"publish {source}", rows), part(folder, "read", rows)
    named = f"{rows * ROW_BYTES / 1e9:,.3g} GB ({rows:,} rows) from {source}"
    return [
        Measure(f"publish {named}: peak memory", published["MB"], "MB", target=LIMIT_MB),
        Measure(f"publish {named}", published["s"], "s"),
        Measure(f"publish {named}: CPU", published["CPU s"], "CPU s"),
        Measure("  the table on the disk", published["disk GB"], "GB"),
        Measure("  read back, grouped: peak memory", read["MB"], "MB", target=LIMIT_MB),
        Measure("  read back, grouped: CPU", read["CPU s"], "CPU s"),
    ]


def part(folder: Path, work: str, rows: int) -> Figures:
    """Do one work in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_streaming", "--part", str(folder), work, str(rows)]
    done: Figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return done


def made(start: int, rows: int) -> pl.DataFrame:
    """Return events `start`, `start + 1`, …: the same whenever they are asked for."""
    random = np.random.default_rng(start)
    ids = np.arange(start, start + rows)
    sessions = pl.Series(random.integers(10**17, 10**18, rows)).cast(pl.String)
    return pl.DataFrame(
        {
            "id": ids,
            "at": pl.Series(1_600_000_000_000_000 + ids * 1_000_000).cast(pl.Datetime("us")),
            "customer": random.integers(0, 2**62, rows),
            "amount": random.lognormal(3, 1, rows),
            "score": random.random(rows),
            "kind": pl.Series(KINDS).gather(random.integers(0, len(KINDS), rows)),
            "session": pl.select("s" + sessions).to_series(),
        },
        schema=SCHEMA,
    )


def chunks(rows: int) -> Iterator[pl.DataFrame]:
    """Yield all events, some at a time."""
    for start in range(0, rows, CHUNK):
        yield made(start, min(CHUNK, rows - start))


def stream(rows: int) -> pl.LazyFrame:
    """Return the events as a lazy table that makes them whenever it is read."""
    from polars.io.plugins import register_io_source

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        for frame in chunks(rows if limit is None else min(rows, limit)):
            chosen = frame if predicate is None else frame.filter(predicate)
            yield chosen if columns is None else chosen.select(columns)

    return register_io_source(source, schema=SCHEMA)


def make(folder: Path, rows: int, kind: str) -> Figures:
    """Write the events as a file of some kind."""
    if kind == "csv":
        with (folder / "events.csv").open("wb") as file:
            for at, frame in enumerate(chunks(rows)):
                frame.write_csv(file, include_header=at == 0, datetime_format="%Y-%m-%dT%H:%M:%S%.6f")
    else:
        stream(rows).sink_parquet(folder / "events.parquet", row_group_size=CHUNK)
    return {}


def publish(folder: Path, rows: int, kind: str) -> Figures:
    """Publish the events under the contract."""
    platform = Platform.open(folder / "home")
    platform.apply([Document("dataset", "events", {"key": ["id"], "event_time": "at", "contract": CONTRACT})])
    wall, cpu = time.perf_counter(), time.process_time()
    published = platform.publish("events", stream(rows) if kind == "stream" else folder / f"events.{kind}")
    spent = {"s": time.perf_counter() - wall, "CPU s": time.process_time() - cpu}
    assert published.report is not None and published.report.passed
    assert published.version.metadata["rows"] == rows
    assert platform.profile("events").columns["kind"].distinct == len(KINDS)
    return {**spent, "MB": peak_mb(), "disk GB": platform.datasets.table("events").size_bytes / 1e9}


def read(folder: Path, rows: int) -> Figures:
    """Aggregate the published events by their kind, lazily."""
    frame = Platform.open(folder / "home").frame("events")
    wall, cpu = time.perf_counter(), time.process_time()
    sums = frame.group_by("kind").agg(pl.len(), pl.col("id").sum(), pl.col("amount").mean(), pl.col("session").max())
    found = sums.collect(engine="streaming")
    spent = {"s": time.perf_counter() - wall, "CPU s": time.process_time() - cpu}
    assert sorted(found["kind"]) == sorted(KINDS)
    assert (found["len"].sum(), found["id"].sum()) == (rows, rows * (rows - 1) // 2)
    return {**spent, "MB": peak_mb()}


def peak_mb() -> float:
    """Return the largest resident size of this process, in MB; `ru_maxrss` would count that of its parent as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


WORKS: dict[str, Callable[[Path, int], Figures]] = {
    "make csv": lambda folder, rows: make(folder, rows, "csv"),
    "make parquet": lambda folder, rows: make(folder, rows, "parquet"),
    "publish stream": lambda folder, rows: publish(folder, rows, "stream"),
    "publish csv": lambda folder, rows: publish(folder, rows, "csv"),
    "publish parquet": lambda folder, rows: publish(folder, rows, "parquet"),
    "read": read,
}

if __name__ == "__main__":
    main()
