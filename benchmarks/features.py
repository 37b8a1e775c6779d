"""Features: training sets at scale A of the reference figures, look-ups and materialisation of a million entities.

    python benchmarks/features.py           scale A, 1,000,000 entities
    python benchmarks/features.py --small   a tenth of both

Each join runs in a process of its own, so that its peak memory is its own. Peers' figures are those measured once on
the machine of PERFORMANCE.md: Feast with DuckDB does not finish at scale A, so the peer of the joins is DuckDB itself.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

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
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--join", nargs=2, metavar=("FOLDER", "FORM"), help="run one join; for this script itself")
    asked = parser.parse_args()
    if asked.join:
        print(json.dumps(join(Path(asked.join[0]), asked.join[1])))
        return
    scale = 10 if asked.small else 1
    with TemporaryDirectory() as folder:
        results = [*joins(Path(folder), scale), *online(Path(folder), 1_000_000 // scale)]
    print(f"{'work':58} {'value':>12} {'peer':>10} {'target':>10}")
    for r in results:
        print(
            f"{r['work']:58} {r['value']:>9.4g} {r['unit']:5} {r['peer_value'] or '-':>7} {r['target'] or '-':>10} {mark(r)}"
        )
    print(json.dumps(results))


def mark(result: dict[str, Any]) -> str:
    return "" if result["met"] is None else "met" if result["met"] else "missed"


def joins(folder: Path, scale: int) -> list[dict[str, Any]]:
    write_tables(folder, scale)
    found: dict[str, dict[str, float]] = {}
    for form in FORMS:
        command = [sys.executable, __file__, "--join", str(folder), form]
        done = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)]
        found[form] = {unit: min(d[unit] for d in done) for unit in done[0]}
    results = []
    for form in FORMS:
        limits = {"s": 1.0, "GB": 1.0} if form == "plain, sorted" and scale == 1 else {}
        for unit, figure in found[form].items():
            peer = {"s": 2.5, "CPU s": 3.4, "GB": 0.7}[unit] if scale == 1 and not form.startswith("bi") else None
            results.append(entry(f"training set A, 3 views: {form}", figure, unit, "DuckDB", peer, limits.get(unit)))
    for order in ("sorted", "shuffled"):
        ratio = found[f"bitemporal, {order}"]["CPU s"] / found[f"plain, {order}"]["CPU s"]
        results.append(entry(f"bitemporal against plain, {order}, CPU", ratio, "times", None, None, 2.0))
    return results


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
    kind, order = form.split(", ")

    def view(number: int, ttl: str) -> FeatureView:
        known_at = "known" if kind == "bitemporal" else None

        def values(frame: pl.LazyFrame) -> pl.LazyFrame:
            return frame if known_at else frame.drop("known")

        declare = feature_view(
            entity="key", event_time="event", known_at=known_at, ttl=ttl, name=f"v{number}", source=f"{number}"
        )
        return declare(values)

    views = [view(number, ttl) for number, (_, ttl) in enumerate(VIEWS)]
    sources = {f"{number}": pl.scan_parquet(folder / f"{order}{number}.parquet") for number in range(len(VIEWS))}
    wall, cpu = time.perf_counter(), time.process_time()
    made = training_set(pl.scan_parquet(folder / "rows.parquet"), views, sources=sources).collect(engine="streaming")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert made.width == 2 + 3 * len(VIEWS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"s": round(wall, 3), "CPU s": round(cpu, 3), "GB": round(peak, 3)}


def online(folder: Path, entities: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(1)
    columns = {f"f{i}": random.random(entities) for i in range(10)}
    frame = pl.LazyFrame({"key": np.arange(entities), **columns}).with_columns(at=pl.lit(NOW))
    frame.collect().write_parquet(folder / "values.parquet")
    view = feature_view(entity="key", event_time="at", ttl="2d", name="ten_values")(lambda values: values)
    store = SqliteOnline(folder / "online.sqlite")
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = materialise(view, pl.scan_parquet(folder / "values.parquet"), store)
    rate = done.rows / (time.perf_counter() - started)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    spec, now = view.spec(), NOW + timedelta(hours=1)
    results = [
        entry("materialise, 10 values", rate, "rows/s", "Feast, SQLite", 10_300, 200_000, is_least=True),
        entry("materialise: memory grown by", grown, "MB", "Feast, SQLite", None, 400),
    ]
    for count, peer, target in ((1, 112, 15), (100, 4590, 300)):
        keys = random.integers(0, entities, (2_000, count)).tolist()
        texts = [[str(k) for k in row] for row in keys]
        for name, read in (
            ("look-up", lambda i, keys=keys: look_up(store, [spec], {"key": keys[i]}, now)),
            ("store alone", lambda i, texts=texts: store.get(spec.stored_as, texts[i])),
        ):
            spans = np.array([timed(read, i) for i in range(len(keys))]) * 1e6
            limit = target if name == "look-up" else None
            what = f"{name}, {count} key{'s' if count > 1 else ''}"
            against = peer if name == "look-up" else None
            results.append(entry(f"{what}, p50", float(np.median(spans)), "µs", "Feast, SQLite", against, limit))
            results.append(entry(f"{what}, p99", float(np.quantile(spans, 0.99)), "µs", None, None, None))
    return results


def timed(act: Any, number: int) -> float:
    started = time.perf_counter()
    act(number)
    return time.perf_counter() - started


def entry(
    work: str,
    value: float,
    unit: str,
    peer: str | None,
    peer_value: float | None,
    target: float | None,
    is_least: bool = False,
) -> dict[str, Any]:
    ratio = None if peer_value is None else round(value / peer_value if is_least else peer_value / value, 2)
    met = None if target is None else bool(value >= target if is_least else value <= target)
    return {
        "work": work,
        "value": round(value, 3),
        "unit": unit,
        "peer": peer if peer_value is not None else None,
        "peer_value": peer_value,
        "ratio": ratio,
        "limit": None,
        "target": target,
        "met": met,
    }


if __name__ == "__main__":
    main()
