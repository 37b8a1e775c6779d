"""Features: training sets, look-ups and materialisation (`make bench-features`).

    python -m benchmarks.features           100,000 rows × views of 1, 2 and 5 million; 1,000,000 entities
    python -m benchmarks.features --small   a tenth of it

Each join runs in a process of its own, so its peak memory is its own; the best of three counts. The limit beside a
figure is the same work without Flyball: the joins written out in Polars, the store alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks.report import Measure, report
from flyball.features.lookup import look_up
from flyball.features.materialise import materialise
from flyball.features.training_set import training_set
from flyball.features.views import FeatureView, feature_view
from flyball.storage.online.sqlite import SqliteOnline

START, DAY_US = 1_600_000_000_000_000, 86_400_000_000
NOW = datetime(2021, 1, 1, tzinfo=UTC)
VIEWS = ((1_000_000, "1d"), (2_000_000, "7d"), (5_000_000, "30d"))  # rows and time to live
FORMS = ("plain, sorted", "plain, shuffled", "bitemporal, sorted", "bitemporal, shuffled")


def main() -> None:
    """Measure all and report, or do one part in this process for the one that reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the rows and entities")
    parser.add_argument("--part", nargs=2, metavar=("FOLDER", "WORK"), help="for this script itself")
    asked = parser.parse_args()
    if asked.part:
        folder, work = Path(asked.part[0]), asked.part[1]
        print(json.dumps(materialised(folder) if work == "materialise" else join(folder, work)))
        return
    scale = 10 if asked.small else 1
    with TemporaryDirectory() as name:
        report([*joins(Path(name), scale), *online(Path(name), 1_000_000 // scale)])


def part(folder: Path, work: str) -> dict[str, float]:
    """Do one part in a process of its own: the best of three for the joins."""
    command = [sys.executable, "-m", "benchmarks.features", "--part", str(folder), work]
    times = 1 if work == "materialise" else 3
    done = [json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) for _ in range(times)]
    return {unit: min(d[unit] for d in done) for unit in done[0]}


def joins(folder: Path, scale: int) -> list[Measure]:
    """Measure the training set in all forms."""
    write_tables(folder, scale)
    ceiling = part(folder, "engine, sorted")
    found = {form: part(folder, form) for form in FORMS}
    measures = []
    for form, figures in found.items():
        targets = {"s": 1.0, "GB": 1.0} if form == "plain, sorted" else {}
        for unit, value in figures.items():
            limit = ceiling[unit] if form == "plain, sorted" else None
            measures.append(
                Measure(f"training set, 3 views: {form}", value, unit, limit=limit, target=targets.get(unit))
            )
    for order in ("sorted", "shuffled"):
        times = found[f"bitemporal, {order}"]["CPU s"] / found[f"plain, {order}"]["CPU s"]
        measures.append(Measure(f"bitemporal against plain, {order}, CPU", times, "times", target=2.0))
    return measures


def write_tables(folder: Path, scale: int) -> None:
    """Write scale A: 2 % of a view's rows share key and event time with a later arrival, some keys are null."""
    random = np.random.default_rng(0)
    for number, (count, _) in enumerate(VIEWS):
        count //= scale
        event = np.sort(START + random.integers(0, 60 * DAY_US, count))
        key = random.integers(0, 1_000, count)
        again = np.flatnonzero(random.random(count) < 0.02)
        again = again[again > 0]
        event[again], key[again] = event[again - 1], key[again - 1]
        known = event + random.integers(1, 3_600_000_000, count)
        columns: dict[str, Any] = {"key": key, "event": event, "known": known}
        columns |= {f"f{number}_{i}": random.random(count) for i in range(3)}
        frame = pl.DataFrame(columns).with_columns(
            pl.col("event", "known").cast(pl.Datetime("us", "UTC")),
            key=pl.when(pl.Series(random.random(count) > 0.001)).then("key"),
        )
        frame = frame.sort("event", "known", maintain_order=True)
        frame.write_parquet(folder / f"sorted{number}.parquet")
        frame.sample(fraction=1, shuffle=True, seed=number).write_parquet(folder / f"shuffled{number}.parquet")
    count = 100_000 // scale
    at = pl.Series(START + random.integers(0, 60 * DAY_US, count)).cast(pl.Datetime("us", "UTC"))
    pl.DataFrame({"key": random.integers(0, 1_000, count), "asked_at": at}).write_parquet(folder / "rows.parquet")


def join(folder: Path, form: str) -> dict[str, float]:
    """Make the training set in one form; the form "engine" is the same joins written out in Polars."""
    kind, order = form.split(", ")
    sources = {f"{number}": pl.scan_parquet(folder / f"{order}{number}.parquet") for number in range(len(VIEWS))}
    rows = pl.scan_parquet(folder / "rows.parquet")
    wall, cpu = time.perf_counter(), time.process_time()
    if kind == "engine":
        plan = rows.with_row_index().sort("asked_at")
        for frame in sources.values():
            right = frame.drop("known").filter(pl.col("key").is_not_null())
            plan = plan.join_asof(right, left_on="asked_at", right_on="event", by="key", check_sortedness=False)
            plan = plan.drop("event", strict=False)
        plan = plan.sort("index").drop("index")
    else:
        plan = training_set(rows, [view(n, ttl, kind) for n, (_, ttl) in enumerate(VIEWS)], sources=sources)
    made = plan.collect(engine="streaming")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert made.width == 2 + 3 * len(VIEWS), made.columns
    return {"s": wall, "CPU s": cpu, "GB": peak_mb() / 1000}


def view(number: int, ttl: str, kind: str) -> FeatureView:
    """Return the view of one table."""
    known_at = "known" if kind == "bitemporal" else None
    declare = feature_view(
        entity="key", event_time="event", known_at=known_at, ttl=ttl, name=f"v{number}", source=f"{number}"
    )
    return declare(lambda frame: frame if known_at else frame.drop("known"))


@feature_view(entity="key", event_time="at", ttl="2d")
def ten_values(values: pl.LazyFrame) -> pl.LazyFrame:
    """Ten numbers an entity."""
    return values


def materialised(folder: Path) -> dict[str, float]:
    """Materialise the ten values of every entity."""
    store = SqliteOnline(folder / "online.sqlite")
    started = time.perf_counter()
    done = materialise(ten_values, pl.scan_parquet(folder / "values.parquet"), store)
    return {"rows/s": done.rows / (time.perf_counter() - started), "MB": peak_mb()}


def online(folder: Path, entities: int) -> list[Measure]:
    """Measure materialisation and look-ups."""
    random = np.random.default_rng(1)
    columns = {f"f{i}": random.random(entities) for i in range(10)}
    frame = pl.DataFrame({"key": np.arange(entities), **columns}).with_columns(at=pl.lit(NOW))
    frame.write_parquet(folder / "values.parquet")
    figures = part(folder, "materialise")
    measures = [
        Measure("materialise, 10 values an entity", figures["rows/s"], "rows/s", target=200_000, better="higher"),
        Measure("materialise: peak memory of the process", figures["MB"], "MB", target=400),
    ]
    store, spec, now = SqliteOnline(folder / "online.sqlite"), ten_values.spec(frame), NOW + timedelta(hours=1)
    for count, target in ((1, 15), (100, 300)):
        keys = random.integers(0, entities, (2_000, count)).tolist()
        texts = [[str(key) for key in row] for row in keys]
        alone = spans_us(lambda row: store.get(spec.stored_as, row), texts)
        whole = spans_us(lambda row: look_up(store, [spec], {"key": row}, now), keys)
        for name, share, aim in (("p50", 0.5, target), ("p99", 0.99, None)):
            what = f"look-up, {count} key{'s' if count > 1 else ''}, {name}"
            limit = float(np.quantile(alone, share))
            measures.append(Measure(what, float(np.quantile(whole, share)), "µs", limit=limit, target=aim))
    return measures


def spans_us(act: Callable[[Any], object], items: Sequence[Any]) -> list[float]:
    """Return how long each call took, in microseconds."""
    spans = []
    for item in items:
        started = time.perf_counter()
        act(item)
        spans.append((time.perf_counter() - started) * 1e6)
    return spans


def peak_mb() -> float:
    """Return the largest resident size of this process, in MB; `ru_maxrss` would count that of its parent as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


if __name__ == "__main__":
    main()
