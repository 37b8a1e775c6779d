"""Versioned tables: publishing, appending, reading, upserting, comparing, against plain Parquet and Delta.

    python -m benchmarks.data_versions                              10,000,000 rows, 10,000 appends of 1,000 rows
    python -m benchmarks.data_versions --rows 1e6 --appends 500     a small run

Each work runs in a process of its own, so its peak memory is its own. Rows are published as users publish them, through
the platform: profiled, looked at for personal data and erased subjects, noted and indexed. The limit beside a figure is
plain Parquet: the same rows written by Polars to one file, without version, digest or ledger.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from benchmarks import peers
from benchmarks.report import Measure, report
from flyball.data.datasets import Datasets
from flyball.delivery.documents import Document
from flyball.platform import Platform
from flyball.storage.tables.parquet import ParquetTables

CONTRACT = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "orders",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "orders",
            "properties": [
                {"name": "id", "logicalType": "integer", "required": True},
                {"name": "at", "logicalType": "timestamp", "required": True},
                {"name": "amount", "logicalType": "number", "logicalTypeOptions": {"minimum": 0}},
                {"name": "country", "logicalType": "string", "required": True},
            ],
        }
    ],
}
APPENDED = 1_000  # rows of one append
CHUNK = 500_000  # rows made at once
Figures = dict[str, float]

DELTA = """
import json, statistics, sys, time
from pathlib import Path
import polars as pl
from deltalake import write_deltalake
source, target, appends = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1000
frame = pl.read_parquet(source)
wall, cpu = time.perf_counter(), time.process_time()
write_deltalake(target, frame.to_arrow())
found = {"s": time.perf_counter() - wall, "CPU s": time.process_time() - cpu, "MB": peak()}
small, spans = frame.head(1000).to_arrow(), []
for _ in range(appends):
    started = time.perf_counter()
    write_deltalake(target + "-appended", small, mode="append")
    spans.append((time.perf_counter() - started) * 1000)
found |= {"first ms": statistics.median(spans[:10]), "last ms": statistics.median(spans[-10:])}
print(json.dumps(found))
"""


def main() -> None:
    """Measure all and report, or do one part in this process for the one that reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=float, default=1e7, help="rows of the published table")
    parser.add_argument("--appends", type=float, default=1e4, help=f"appends of {APPENDED:,} rows")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--no-peer", action="store_true", help="leave Delta out")
    parser.add_argument("--part", nargs=2, metavar=("FOLDER", "WORK"), help="for this script itself")
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(WORKS[asked.part[1]](Path(asked.part[0]), int(asked.appends))))
        return
    with TemporaryDirectory(dir=asked.folder) as name:
        report(measures(Path(name), int(asked.rows), int(asked.appends), with_peer=not asked.no_peer))


def measures(folder: Path, rows: int, appends: int, *, with_peer: bool) -> list[Measure]:
    """Do all works, each in its own process, and return their figures."""
    make_source(folder / "source.parquet", rows)
    works = ("plain", "publish bare", "publish", "publish contract")
    found = {work: part(folder, work, appends) for work in works}
    delta = peers.run("delta", DELTA, str(folder / "source.parquet"), str(folder / "delta"), "100") if with_peer else {}
    if "error" in delta:
        print(f"Delta: {delta['error']}", file=sys.stderr)
    for work in ("append", "read grown", "read whole", "upsert", "diff shared", "diff"):
        found[work] = part(folder, work, appends)
    named = f"{rows:,} rows"
    lines = []
    for work, title in (
        ("publish bare", " without profile"),
        ("publish", ""),
        ("publish contract", " under a contract"),
    ):
        for unit in ("s", "CPU s", "MB"):
            limit = found["plain"][unit]
            target = {"s": 1.5 * limit, "MB": 1000.0}.get(unit)
            peer = ("Delta", delta[unit]) if unit in delta else (None, None)
            lines.append(Measure(f"publish {named}{title}", found[work][unit], unit, peer[0], peer[1], limit, target))
    bare, whole = found["publish bare"]["CPU s"], found["publish"]["CPU s"]
    lines.append(Measure("profile, share of publishing without: CPU", whole / bare - 1, "", target=0.25))
    for which, title in (("first", "commits 1 to 10"), ("last", f"the last 100 of {appends:,} commits")):
        peer = ("Delta", delta[f"{which} ms"]) if which in delta or f"{which} ms" in delta else (None, None)
        value = found["append"][f"{which} ms"]
        lines.append(Measure(f"append {APPENDED:,} rows, p50 of {title}", value, "ms", peer[0], peer[1], target=10.0))
        lines.append(Measure(f"append {APPENDED:,} rows, p50 of {title}", found["append"][f"{which} CPU ms"], "CPU ms"))
    grown = found["append"]
    lines += [
        Measure(f"append {APPENDED:,} rows, mean of all, merging with it", grown["mean CPU ms"], "CPU ms"),
        Measure(f"append {APPENDED:,} rows, slowest", grown["slowest ms"], "ms"),
        Measure("profile of what was appended, when first asked", grown["profile ms"], "ms"),
        Measure("the same again", grown["profile again ms"], "ms"),
        Measure("parts after all appends", grown["parts"], "files", target=100.0),
        Measure("bytes kept for all versions, against those of the last", grown["bytes"], "times"),
        Measure("append: peak memory of the process", grown["MB"], "MB"),
    ]
    for unit in ("s", "CPU s"):
        value, limit = found["read grown"][unit], found["read whole"][unit]
        lines.append(Measure("read what was appended; limit: written at once", value, unit, limit=limit))
    for work, title in (
        ("upsert", "upsert 10,000 keys in one hundredth of the rows"),
        ("diff shared", "diff of the versions before and after that"),
        ("diff", "diff by key without a shared part"),
    ):
        lines += [Measure(title, found[work][unit], unit) for unit in ("s", "CPU s", "MB")]
    return lines


def part(folder: Path, work: str, appends: int) -> Figures:
    """Do one work in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_versions", "--appends", str(appends), "--part", str(folder), work]
    done: Figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return done


def make_source(path: Path, rows: int) -> None:
    """Write orders in the order of their time: a key, a time, numbers, and texts of few and of many values."""
    random = np.random.default_rng(0)

    def chunks() -> list[pl.LazyFrame]:
        return [made(start, min(CHUNK, rows - start)).lazy() for start in range(0, rows, CHUNK)]

    def made(start: int, count: int) -> pl.DataFrame:
        ids = np.arange(start, start + count)
        return pl.DataFrame(
            {
                "id": ids,
                "at": pl.Series(1_600_000_000_000_000 + ids * 1_000_000).cast(pl.Datetime("us", "UTC")),
                "customer": random.integers(0, 500_000, count),
                "amount": np.round(random.lognormal(3, 1, count), 2),
                "score": random.random(count),
                "items": random.integers(1, 50, count).astype(np.int32),
                "paid": random.random(count) < 0.9,
                "country": pl.Series(["DE", "FR", "US", "GB", "IT", "ES"])[random.integers(0, 6, count)],
                "session": pl.Series(random.integers(0, 2**62, count)).cast(pl.String),
            }
        )

    pl.concat(chunks()).sink_parquet(path)


def opened(folder: Path, name: str, **spec: object) -> Platform:
    """Return the home of the benchmark, with a dataset of this name."""
    platform = Platform.open(folder / "home")
    platform.apply([Document("dataset", name, {"key": ["id"], "event_time": "at", **spec})])
    return platform


def measured(act: Callable[[], object]) -> Figures:
    """Return wall and processor seconds of an act, and the peak memory of this process after it."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return {"s": time.perf_counter() - wall, "CPU s": time.process_time() - cpu, "MB": peak_mb()}


def plain(folder: Path, _appends: int) -> Figures:
    """Write the rows as one Parquet file."""
    return measured(lambda: pl.scan_parquet(folder / "source.parquet").sink_parquet(folder / "plain.parquet"))


def publish(folder: Path, _appends: int) -> Figures:
    """Publish the rows."""
    platform, source = opened(folder, "orders"), pl.scan_parquet(folder / "source.parquet")
    return measured(lambda: platform.publish("orders", source))


def publish_bare(folder: Path, _appends: int) -> Figures:
    """Publish the rows without profile, and without asking whether they may be."""
    platform, source = opened(folder / "bare", "orders"), pl.scan_parquet(folder / "source.parquet")
    datasets = Datasets(platform.ledger, ParquetTables(platform.blobs), folder)
    return measured(lambda: datasets.publish("orders", source, actor="user/benchmark"))


def publish_contract(folder: Path, _appends: int) -> Figures:
    """Publish the rows under a contract."""
    platform = opened(folder / "agreed", "orders", contract=CONTRACT)
    source = pl.scan_parquet(folder / "source.parquet")
    return measured(lambda: platform.publish("orders", source))


def append(folder: Path, appends: int) -> Figures:
    """Append again and again, through the ledger each time."""
    platform = opened(folder, "grown")
    source = pl.scan_parquet(folder / "source.parquet").head(1_000_000).collect()
    spans, used, cpu = [], [], time.process_time()
    for number in range(appends):
        batch = source.slice(number * APPENDED % source.height, APPENDED)
        rows = batch.with_columns(id=pl.int_range(pl.len()) + number * APPENDED)
        done = measured(lambda rows=rows: platform.publish("grown", rows, mode="append"))  # type: ignore[misc]
        spans.append(done["s"] * 1000)
        used.append(done["CPU s"] * 1000)
    table = platform.datasets.table("grown")
    spent = (time.process_time() - cpu) * 1000 / appends
    summaries = [measured(lambda: platform.profile("grown"))["s"] * 1000 for _ in range(2)]
    kept = sum(path.stat().st_size for path in (folder / "home/blobs").rglob("*") if path.is_file())
    before = platform.datasets.table("orders").size_bytes
    return {
        "first ms": statistics.median(spans[:10]),
        "last ms": statistics.median(spans[-100:]),
        "first CPU ms": statistics.median(used[:10]),
        "last CPU ms": statistics.median(used[-100:]),
        "slowest ms": max(spans),
        "mean CPU ms": spent,
        "profile ms": summaries[0],
        "profile again ms": summaries[1],
        "parts": len(table.parts),
        "bytes": (kept - before) / table.size_bytes,
        "MB": peak_mb(),
    }


def read_grown(folder: Path, _appends: int) -> Figures:
    """Read all that was appended."""
    frame = opened(folder, "grown").frame("grown")
    return measured(lambda: read(frame))


def read_whole(folder: Path, _appends: int) -> Figures:
    """Read the same rows from one file."""
    opened(folder, "grown").frame("grown").sink_parquet(folder / "whole.parquet")
    return measured(lambda: read(pl.scan_parquet(folder / "whole.parquet")))


def read(frame: pl.LazyFrame) -> None:
    """Read every value of a table."""
    for _batch in frame.collect_batches(maintain_order=True):
        pass


def upsert(folder: Path, _appends: int) -> Figures:
    """Update half of 10,000 keys near the end and insert the rest."""
    platform = opened(folder, "orders")
    rows = platform.datasets.table("orders").rows
    few = platform.frame("orders").tail(max(1, rows // 100)).collect().sample(min(5_000, rows // 100), seed=0)
    batch = pl.concat([few.with_columns(amount=-1.0), few.with_columns(pl.col("id") + rows)])
    return measured(lambda: platform.publish("orders", batch, mode="upsert"))


def diff_shared(folder: Path, _appends: int) -> Figures:
    """Compare the versions before and after the upsert, which share most parts."""
    return measured(lambda: opened(folder, "orders").diff("orders", 1, 2))


def diff_all(folder: Path, _appends: int) -> Figures:
    """Compare with a version of which every part is another."""
    platform = opened(folder, "orders")
    moved = pl.scan_parquet(folder / "source.parquet").with_columns(amount=pl.col("amount").round(1))
    platform.publish("orders", moved)
    return measured(lambda: platform.diff("orders", 1, "latest"))


def peak_mb() -> float:
    """Return the largest resident size of this process, in MB; `ru_maxrss` would count that of its parent as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


WORKS: dict[str, Callable[[Path, int], Figures]] = {
    "plain": plain,
    "publish": publish,
    "publish bare": publish_bare,
    "publish contract": publish_contract,
    "append": append,
    "read grown": read_grown,
    "read whole": read_whole,
    "upsert": upsert,
    "diff shared": diff_shared,
    "diff": diff_all,
}

if __name__ == "__main__":
    main()
