"""Training sets and materialisation, beside Feast (`make bench-features`).

    python -m benchmarks.features_training                     both scales, Feast, materialisation
    python -m benchmarks.features_training --small             a hundredth of the rows, without Feast
    python -m benchmarks.features_training --no-feast
    python -m benchmarks.features_training --materialisation   without the training sets
    python -m benchmarks.features_training --hundred-million   a view of 100,000,000 rows besides; needs 8 GB of disk

Scale A: 100,000 rows of 1,000 entities, views of 1, 2 and 5 million rows. Scale B: 1,000,000 rows of 100,000 entities,
views of 1, 5 and 10 million. Times to live are 1, 7 and 30 days; 2 % of a view's rows share key and event time with a
later arrival, some keys are null. Each part runs in a process of its own, so its CPU and its peak memory are its own;
the best of three counts for us, one run for Feast. Feast does not finish scale A in 12 GB, so both do 10,000 of its
rows for the comparison. What Feast returns is compared with ours row by row. Flyball's views are stored before, as
Feast's Parquet files are; how long storing takes is a row of its own. The limit beside a figure is the same joins
written out in Polars on sorted files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks import peers
from benchmarks.features_peers import FEAST_JOIN, FEAST_MATERIALISE
from benchmarks.report import Measure, report
from flyball.features.materialise import materialise_stored
from flyball.features.offline import StoredView
from flyball.features.training_set import StoredRows, training_set
from flyball.features.views import FeatureView, feature_view
from flyball.features.writing import add_rows, store_view
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.online.sqlite import SqliteOnline
from flyball.storage.tables.parquet import ParquetTables

START, DAY_US = 1_600_000_000_000_000, 86_400_000_000
SPAN_DAYS = 60
TTL = ("1d", "7d", "30d")
SCALES = {
    "A": (100_000, 1_000, (1_000_000, 2_000_000, 5_000_000)),
    "B": (1_000_000, 100_000, (1_000_000, 5_000_000, 10_000_000)),
}
FEAST_ROWS = {"A": 10_000, "B": 1_000_000}
HUNDRED_MILLION = 100_000_000
FEATURES = 3


def main() -> None:
    """Measure all and report, or do one part in this process for the one that reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a hundredth of the rows, without Feast")
    parser.add_argument("--no-feast", action="store_true", help="leave the peer out")
    parser.add_argument("--hundred-million", action="store_true", help="a view of 100,000,000 rows besides")
    parser.add_argument("--materialisation", action="store_true", help="materialisation only")
    parser.add_argument("--scale", choices=[*SCALES], help="one of the two scales only")
    parser.add_argument("--part", nargs="+", metavar=("NAME", "ARGUMENT"), help="for this script itself")
    asked = parser.parse_args()
    if asked.part:
        name, folder, *rest = asked.part
        print(json.dumps(PARTS[name](Path(folder), *rest)))
        return
    share = 100 if asked.small else 1
    with_feast = not (asked.small or asked.no_feast)
    measures: list[Measure] = []
    scales = [asked.scale] if asked.scale else list(SCALES)
    for scale in [] if asked.materialisation else scales:
        with TemporaryDirectory() as folder:
            measures += joins(Path(folder), scale, share, with_feast)
    with TemporaryDirectory() as folder:
        measures += materialisation(Path(folder), share, with_feast)
    if asked.hundred_million:
        with TemporaryDirectory() as folder:
            measures += hundred_million(Path(folder), share)
    report(measures)


def joins(folder: Path, scale: str, share: int, with_feast: bool) -> list[Measure]:
    """Measure one scale in the plain and the bitemporal form."""
    write_tables(folder, scale, share)
    stored = {form: run(1, "store", folder, form) for form in ("plain", "bitemporal")}
    rows = SCALES[scale][0] // share
    ceiling = run(3, "engine", folder)
    found = {form: run(3, "join", folder, form, str(rows)) for form in ("plain", "bitemporal")}
    what = f"{scale}: {rows:,} rows, views of " + ", ".join(f"{count // share:,}" for count in SCALES[scale][2])
    targets = {"A": {"s": 1.0, "GB": 1.0}, "B": {"GB": 1.5}}[scale]
    measures = []
    for form, figures in found.items():
        for unit, value in figures.items():
            aim = targets.get(unit) if form == "plain" else None
            limit = ceiling[unit] if form == "plain" else None
            measures.append(Measure(f"{what}: {form}", value, unit, limit=limit, target=aim))
    times = found["bitemporal"]["CPU s"] / found["plain"]["CPU s"]
    measures.append(Measure(f"{scale}: bitemporal against plain, CPU", times, "times", target=2.0))
    every = sum(SCALES[scale][2]) // share
    rate = every / stored["plain"]["s"]
    measures.append(Measure(f"{scale}: storing the views", rate, "rows/s", better="higher"))
    measures.append(Measure(f"{scale}: storing the views, peak memory", stored["plain"]["GB"], "GB"))
    if with_feast:
        measures += beside_feast(folder, scale)
    return measures


def beside_feast(folder: Path, scale: str) -> list[Measure]:
    """Measure the plain form beside Feast's DuckDB engine, its faster one, and compare the rows."""
    rows = FEAST_ROWS[scale]
    theirs = peers.run("feast", FEAST_JOIN, str(folder), str(rows))
    if "error" in theirs:
        print(f"Feast on scale {scale}: {theirs['error']}", file=sys.stderr)
        return []
    ours = run(3, "join", folder, "plain", str(rows))
    keys = ["key", "asked_at"]
    pair = [pl.read_parquet(folder / f"{name}.parquet") for name in ("feast", "flyball")]
    columns = pair[1].columns
    first, second = (frame.select(columns).cast(pair[1].schema).sort(keys) for frame in pair)
    alike = (first == second).fill_null(True) if first.height == second.height else first.head(0)
    nulls_alike = first.height == second.height and first.null_count().equals(second.null_count())
    equal = int(alike.select(pl.all_horizontal(pl.all())).sum().item()) if nulls_alike else 0
    measures = [
        Measure(
            f"{scale}: {rows:,} rows, {unit}",
            ours[unit],
            unit,
            peer="Feast, DuckDB",
            peer_value=theirs[unit],
            target=theirs[unit] / 10 if unit == "CPU s" and scale == "B" else None,
        )
        for unit in ("s", "CPU s", "GB")
    ]
    share = equal / rows
    return [*measures, Measure(f"{scale}: rows equal to Feast's", share, "share", target=1.0, better="higher")]


def materialisation(folder: Path, share: int, with_feast: bool) -> list[Measure]:
    """Measure materialisation: a million entities, five rows of each, and a hundred thousand beside Feast."""
    measures = []
    for entities, each in ((1_000_000 // share, 1), (1_000_000 // share, 5), (100_000 // share, 1)):
        write_values(folder, entities, each)
        run(1, "store-values", folder)
        found = run(1, "materialise", folder, "values")
        theirs: dict[str, Any] = {}
        if with_feast and entities == 100_000:
            theirs = peers.run("feast", FEAST_MATERIALISE, str(folder))
        rate = entities / theirs["s"] if "s" in theirs else None
        peer = "Feast, SQLite" if rate else None
        rows = f"{entities * each:,} rows of " if each > 1 else ""
        what = f"materialise {rows}{entities:,} entities, 10 values"
        measures += [
            Measure(what, found["rows/s"], "rows/s", peer, rate, target=200_000, better="higher"),
            Measure(f"{what}, CPU", found["rows/CPU s"], "rows/CPU s", target=200_000, better="higher"),
            Measure(f"{what}, all of them again, CPU", found["rows/CPU s again"], "rows/CPU s", better="higher"),
            Measure(f"{what}: peak memory", found["MB"], "MB", peer, theirs.get("MB"), target=400),
            Measure(f"{what}: peak memory without mapped files", found["own MB"], "MB", target=400),
        ]
    return [*measures, Measure("load average of the machine, 1 minute", os.getloadavg()[0], "processes")]


def write_values(folder: Path, entities: int, each: int) -> None:
    """Write `each` rows of ten numbers of every entity, a day apart, within a day in random order."""
    random = np.random.default_rng(1)
    at = pl.lit("2021-01-01T00:00:00Z").str.to_datetime(time_zone="UTC")
    days = [
        pl.DataFrame(
            {"key": random.permutation(entities), **{f"f{i}": random.random(entities) for i in range(10)}}
        ).with_columns(at=at + pl.duration(days=day))
        for day in range(each)
    ]
    pl.concat(days).write_parquet(folder / "values.parquet")


def hundred_million(folder: Path, share: int) -> list[Measure]:
    """Measure a view larger than memory should be: storing it in ten additions, and joining 100,000 rows with it."""
    total = HUNDRED_MILLION // share
    kept = run(1, "store-large", folder, str(total))
    found = run(1, "join-large", folder)
    online = run(1, "materialise", folder, "large")
    what = f"{total:,} rows"
    return [
        Measure(f"storing a view of {what}, in ten additions", total / kept["s"], "rows/s", better="higher"),
        Measure(f"storing a view of {what}: peak memory", kept["GB"], "GB", target=2.0),
        Measure(f"100,000 rows joined with {what}, no time to live", found["s"], "s"),
        Measure(f"100,000 rows joined with {what}: CPU", found["CPU s"], "CPU s"),
        Measure(f"100,000 rows joined with {what}: peak memory", found["GB"], "GB", target=2.0),
        Measure(f"materialise {what}", online["rows/s"], "rows/s", target=200_000, better="higher"),
        Measure(f"materialise {what}: peak memory", online["MB"], "MB", target=400),
    ]


def run(times: int, name: str, folder: Path, *rest: str) -> dict[str, float]:
    """Do a part in processes of their own and return the least of each figure, the most of a rate."""
    command = [sys.executable, "-m", "benchmarks.features_training", "--part", name, str(folder), *rest]
    done = [json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) for _ in range(times)]
    return {unit: min(each[unit] for each in done) for unit in done[0]}


def write_tables(folder: Path, scale: str, share: int) -> None:
    """Write the rows and the views' sources, sorted by event time; `feast<n>` without null keys, which it refuses."""
    rows, entities, counts = SCALES[scale]
    entities = max(entities // share, 10)
    random = np.random.default_rng(0)
    for number, count in enumerate(counts):
        frame = table(random, number, count // share, entities)
        frame.write_parquet(folder / f"sorted{number}.parquet")
        frame.drop_nulls("key").write_parquet(folder / f"feast{number}.parquet")
    at = pl.Series(START + random.integers(0, SPAN_DAYS * DAY_US, rows // share)).cast(pl.Datetime("us", "UTC"))
    asked = pl.DataFrame({"key": random.integers(0, entities, rows // share), "asked_at": at})
    asked.write_parquet(folder / "rows.parquet")


def table(random: np.random.Generator, number: int, count: int, entities: int) -> pl.DataFrame:
    """Return a view's source."""
    event = np.sort(START + random.integers(0, SPAN_DAYS * DAY_US, count))
    key = random.integers(0, entities, count)
    again = np.flatnonzero(random.random(count) < 0.02)
    again = again[again > 0]
    event[again], key[again] = event[again - 1], key[again - 1]
    columns: dict[str, Any] = {"key": key, "event": event, "known": event + random.integers(1, 3_600_000_000, count)}
    columns |= {f"f{number}_{i}": random.random(count) for i in range(FEATURES)}
    frame = pl.DataFrame(columns).with_columns(
        pl.col("event", "known").cast(pl.Datetime("us", "UTC")),
        key=pl.when(pl.Series(random.random(count) > 0.001)).then("key"),
    )
    return frame.sort("event", "known", maintain_order=True)


def view(number: int, form: str) -> FeatureView:
    """Return the view of one table; `known` is a column of the bitemporal form only."""
    known_at = "known" if form == "bitemporal" else None
    declare = feature_view(
        entity="key", event_time="event", known_at=known_at, ttl=TTL[number], name=f"v{number}", source=f"{number}"
    )
    return declare(lambda frame: frame if known_at else frame.drop("known"))


def store(folder: Path, form: str) -> dict[str, float]:
    """Store the three views and note where they are."""
    tables, kept, started = tables_in(folder), [], time.perf_counter()
    for number in range(len(TTL)):
        stored = store_view(view(number, form), pl.scan_parquet(folder / f"sorted{number}.parquet"), tables)
        kept.append([stored.table, stored.to_dict()])
    spent = time.perf_counter() - started
    (folder / f"{form}.json").write_text(json.dumps(kept))
    return {"s": spent, "GB": peak_gb()}


def join(folder: Path, form: str, rows: str) -> dict[str, float]:
    """Make the training set of so many rows from the stored views."""
    kept = [StoredView.from_dict(*each) for each in json.loads((folder / f"{form}.json").read_text())]
    tables = tables_in(folder)
    stored = {each.spec.name: StoredRows(each, tables) for each in kept}
    views = [view(number, form) for number in range(len(TTL))]
    asked = pl.scan_parquet(folder / "rows.parquet").head(int(rows))
    figures, made = measured(lambda: training_set(asked, views, stored=stored).collect())
    assert made.shape == (int(rows), 2 + FEATURES * len(TTL)), made.shape
    if form == "plain":
        made.write_parquet(folder / "flyball.parquet")
    return figures


def engine(folder: Path) -> dict[str, float]:
    """Make the plain training set with the engine alone, on sorted files."""

    def made() -> pl.DataFrame:
        plan = pl.scan_parquet(folder / "rows.parquet").with_row_index().sort("asked_at")
        for number in range(len(TTL)):
            right = pl.scan_parquet(folder / f"sorted{number}.parquet").drop("known").drop_nulls("key")
            plan = plan.join_asof(right, left_on="asked_at", right_on="event", by="key", check_sortedness=False)
            plan = plan.drop("event", strict=False)
        return plan.sort("index").drop("index").collect(engine="streaming")

    return measured(made)[0]


@feature_view(entity="key", event_time="at", ttl="2d", incremental=True)
def ten_values(values: pl.LazyFrame) -> pl.LazyFrame:
    """Ten numbers an entity."""
    return values


def store_values(folder: Path) -> dict[str, float]:
    """Store the values of every entity."""
    stored = store_view(ten_values, pl.scan_parquet(folder / "values.parquet"), tables_in(folder))
    (folder / "values.json").write_text(json.dumps([stored.table, stored.to_dict()]))
    return {"GB": peak_gb()}


def materialise_values(folder: Path, name: str) -> dict[str, float]:
    """Materialise the stored values of every entity, then all of them again.

    The largest resident size counts mapped files, whose pages the system may take back at any time; what the process
    itself needs is its anonymous memory, which is asked for after every write.
    """
    online = SqliteOnline(folder / f"online-{time.time_ns()}.sqlite")
    stored = StoredView.from_dict(*json.loads((folder / f"{name}.json").read_text()))
    own: list[float] = [0.0]
    found: dict[str, float] = {}
    for turn in ("", " again"):
        wall, cpu = time.perf_counter(), time.process_time()
        done = materialise_stored(
            stored, tables_in(folder), online, on_write=lambda _: own.append(memory_mb("RssAnon"))
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        found |= {f"rows/s{turn}": done.rows / wall, f"rows/CPU s{turn}": done.rows / cpu}
    assert done.written == online.count(stored.spec.stored_as)
    return {**found, "MB": memory_mb("VmHWM"), "own MB": max(own)}


@feature_view(entity="key", event_time="event", incremental=True)
def large(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Two numbers an entity, without a time to live."""
    return rows


def store_large(folder: Path, total: str) -> dict[str, float]:
    """Store a view in ten additions, each of rows from the whole of its time, in no order."""
    random, tables, part = np.random.default_rng(2), tables_in(folder), int(total) // 10
    spent, stored = 0.0, None
    for number in range(10):
        path = folder / "part.parquet"
        begin = START + number * SPAN_DAYS * DAY_US // 10
        pieces = pl.DataFrame(
            {
                "key": random.integers(0, 1_000_000, part),
                "event": pl.Series(begin + random.integers(0, SPAN_DAYS * DAY_US // 5, part)).cast(
                    pl.Datetime("us", "UTC")
                ),
                "x": random.random(part, dtype=np.float32),
                "y": random.random(part, dtype=np.float32),
            }
        )
        pieces.write_parquet(path)
        del pieces
        started = time.perf_counter()
        if stored is None:
            stored = store_view(large, pl.scan_parquet(path), tables)
        else:
            stored = add_rows(stored, large.compute(pl.scan_parquet(path)), tables)
        spent += time.perf_counter() - started
    assert stored is not None and stored.rows == part * 10
    (folder / "large.json").write_text(json.dumps([stored.table, stored.to_dict()]))
    return {"s": spent, "GB": peak_gb()}


def join_large(folder: Path) -> dict[str, float]:
    """Join 100,000 rows with the large view, which has no time to live."""
    random = np.random.default_rng(3)
    stored = StoredView.from_dict(*json.loads((folder / "large.json").read_text()))
    at = pl.Series(START + random.integers(0, SPAN_DAYS * DAY_US, 100_000)).cast(pl.Datetime("us", "UTC"))
    asked = pl.DataFrame({"key": random.integers(0, 1_000_000, 100_000), "asked_at": at})
    there = {"large": StoredRows(stored, tables_in(folder))}
    figures, made = measured(lambda: training_set(asked, [large], stored=there).collect())
    assert made.height == 100_000
    return figures


def tables_in(folder: Path) -> ParquetTables:
    """Return the table store of a benchmark's folder."""
    return ParquetTables(FileBlobs(folder / "blobs"))


def measured(act: Callable[[], pl.DataFrame]) -> tuple[dict[str, float], pl.DataFrame]:
    """Return seconds, CPU seconds and the peak memory of this process so far, and what came of it."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = act()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"s": wall, "CPU s": cpu, "GB": peak_gb()}, made


def peak_gb() -> float:
    """Return the largest resident size of this process; `ru_maxrss` would count that of its parent as well."""
    return memory_mb("VmHWM") / 1000


def memory_mb(what: str) -> float:
    """Return a line of this process's status in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1000


PARTS: dict[str, Callable[..., dict[str, float]]] = {
    "store": store,
    "join": join,
    "engine": engine,
    "store-values": store_values,
    "materialise": materialise_values,
    "store-large": store_large,
    "join-large": join_large,
}


if __name__ == "__main__":
    main()
