"""Profiles and drift: 1,000,000 rows × 20 columns against Evidently, the profile's error, what profiling costs.

    python -m benchmarks.data_profiles                    1,000,000 rows; memory at 10,000,000
    python -m benchmarks.data_profiles --rows 1e5         a small run
    python -m benchmarks.data_profiles --no-peer          without Evidently

14 numeric columns (bell curves, heavy tails, cents, whole numbers) and 6 of text (3 to 20,000 values); the current rows
are the reference's moved by a little. Evidently runs its default drift preset on --peer-rows rows, in an environment of
its own. From profiles means: profiles of ten parts, kept at publishing, are read, merged and compared.

Profiling is measured beside writing the same rows as Parquet (zstd) in the same process, in CPU seconds, the median of
several turns, as other work on the machine lengthens the wall's seconds of both.
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
from typing import TypeVar

import numpy as np
import polars as pl

from benchmarks import peers
from benchmarks.report import Measure, report
from flyball.data.drift import ColumnDrift, drift
from flyball.data.profiles import PROFILER, TableProfile, profile_frame

T = TypeVar("T")
CARDINALITIES = (3, 12, 50, 365, 4_000, 20_000)
PARTS = 10
TURNS = 5
EXACT_RATIO, PROFILE_RATIO, OVERHEAD = 35, 150, 0.25  # aimed at

EVIDENTLY = """
import json, sys, time
import pandas
from evidently import Dataset, DataDefinition, Report
from evidently.presets import DataDriftPreset
frames = [pandas.read_parquet(path) for path in sys.argv[1:3]]
texts = [name for name in frames[0].columns if name.startswith("text")]
kinds = DataDefinition(numerical_columns=[n for n in frames[0].columns if n not in texts], categorical_columns=texts)
wall, cpu = time.perf_counter(), time.process_time()
sides = [Dataset.from_pandas(frame, data_definition=kinds) for frame in frames]
Report([DataDriftPreset()]).run(sides[1], sides[0]).dict()
print(json.dumps({"s": time.perf_counter() - wall, "CPU s": time.process_time() - cpu}))
"""


def main() -> None:
    """Measure all and report, or do one part in this process for the one that reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=float, default=1e6, help="rows of each side")
    parser.add_argument("--peer-rows", type=float, default=1e6, help="rows of each side for Evidently, at most --rows")
    parser.add_argument(
        "--large", type=float, default=10, help="times --rows: the table whose profiling memory is told"
    )
    parser.add_argument("--no-peer", action="store_true", help="leave Evidently out")
    parser.add_argument("--part", nargs=2, metavar=("FOLDER", "WORK"), help="for this script itself")
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(WORKS[asked.part[1]](Path(asked.part[0]))))
        return
    rows = int(asked.rows)
    with TemporaryDirectory() as name:
        folder = Path(name)
        sides = [folder / f"{side}.parquet" for side in ("reference", "current")]
        for seed, path in enumerate(sides):
            table(rows, seed).write_parquet(path)
        peer_rows = min(int(asked.peer_rows), rows)
        peer = None if asked.no_peer else evidently(folder, sides, peer_rows)
        found = {work: part(folder, work) for work in ("exact", "profiles", "overhead", "stream")}
        large = folder / "large.parquet"
        pl.concat([pl.scan_parquet(sides[0])] * int(asked.large)).sink_parquet(large)
        found["large"] = part(folder, "large")
    report([*speed(found, rows, peer, peer_rows), *errors(found), *costs(found, rows, int(asked.large))])


def table(rows: int, seed: int) -> pl.DataFrame:
    """Return one side; the second is moved by a hundredth of its spread or so."""
    rng = np.random.default_rng(seed)
    move = 0.01 * seed
    made: dict[str, object] = {}
    for at in range(4):
        made[f"bell {at}"] = rng.normal(100 * at + 15 * move, 15, rows)
    for at in range(3):
        made[f"tail {at}"] = rng.lognormal(move, 1 + at / 2, rows)
    for at in range(3):
        made[f"cents {at}"] = np.round(rng.normal(50 + 10 * move, 10 * (at + 1), rows), 2)
    for at in range(4):
        made[f"whole {at}"] = rng.poisson(10.0 ** (at + 1) * (1 + move / 10), rows)
    for distinct in CARDINALITIES:
        which = (distinct * rng.random(rows) ** (1.5 + move)).astype(np.int64)
        made[f"text of {distinct}"] = pl.Series(np.arange(distinct).astype(str)).gather(which) + "-value"
    return pl.DataFrame(made)


def exact(folder: Path) -> dict[str, object]:
    """Compare the rows of both sides."""
    sides = [pl.read_parquet(folder / f"{side}.parquet") for side in ("reference", "current")]
    drift(*sides)
    found, wall, cpu = timed(lambda: drift(*sides), 3)
    return {"s": wall, "CPU s": cpu, "drift": [column.to_dict() for column in found], "MB": peak()}


def from_profiles(folder: Path) -> dict[str, object]:
    """Read the profiles of the parts of both sides, merge and compare them."""
    kept = []
    for side in ("reference", "current"):
        frame = pl.read_parquet(folder / f"{side}.parquet")
        kept.append([PROFILER.of(part) for part in frame.iter_slices(-(-frame.height // PARTS))])
        del frame

    def compared() -> list[ColumnDrift]:
        return drift(*(TableProfile.from_bytes(PROFILER.merged(parts)) for parts in kept), method="profile")

    found, wall, cpu = timed(compared, TURNS)
    sizes = [len(PROFILER.merged(parts)) for parts in kept]
    return {"s": wall, "CPU s": cpu, "drift": [column.to_dict() for column in found], "bytes": max(sizes)}


def overhead(folder: Path) -> dict[str, object]:
    """Write and profile the reference in turns."""
    frame = pl.read_parquet(folder / "reference.parquet").rechunk()
    target = folder / "written.parquet"
    spans: dict[str, list[float]] = {"write": [], "profile": []}
    for _ in range(TURNS + 1):
        spans["write"].append(timed(lambda: frame.write_parquet(target, compression="zstd", statistics=True), 1)[2])
        spans["profile"].append(timed(lambda: PROFILER.of(frame), 1)[2])
    target.unlink()
    small = frame.head(1000)
    _, _, append = timed(lambda: PROFILER.of(small), 20)
    return {name: statistics.median(times[1:]) for name, times in spans.items()} | {"small": append}


def streamed(path: Path) -> dict[str, object]:
    """Profile a file that is not published, in batches."""
    started = peak()
    _, wall, cpu = timed(lambda: profile_frame(pl.scan_parquet(path)), 1)
    return {"s": wall, "CPU s": cpu, "MB": peak(), "before MB": started}


WORKS: dict[str, Callable[[Path], dict[str, object]]] = {
    "exact": exact,
    "profiles": from_profiles,
    "overhead": overhead,
    "stream": lambda folder: streamed(folder / "reference.parquet"),
    "large": lambda folder: streamed(folder / "large.parquet"),
}


def evidently(folder: Path, sides: list[Path], rows: int) -> dict[str, object]:
    """Run Evidently's preset on the first rows of each side."""
    cut = [folder / f"peer-{path.name}" for path in sides]
    for path, target in zip(sides, cut, strict=True):
        pl.scan_parquet(path).head(rows).sink_parquet(target)
    return peers.run("drift", EVIDENTLY, *map(str, cut))


def speed(
    found: dict[str, dict[str, object]], rows: int, peer: dict[str, object] | None, peer_rows: int
) -> list[Measure]:
    """Return the seconds of both ways. Evidently's of fewer rows are of those rows: it is then the faster for it."""
    value = number(peer, "s") if peer and "error" not in peer else None
    if peer and "error" in peer:
        print(f"Evidently: {peer['error']}", file=sys.stderr)
    name = f"Evidently, {peer_rows:,} rows"
    measures = []
    for work, said, ratio in (
        ("exact", "drift of the rows, exact", EXACT_RATIO),
        ("profiles", f"drift from profiles of {PARTS} parts", PROFILE_RATIO),
    ):
        target = value / ratio if value else None
        took = number(found[work], "s")
        measures.append(Measure(f"{said}, {rows:,} × 20", took, "s", name if value else None, value, target=target))
        spent = number(peer, "CPU s") if peer and value else None
        target = spent / ratio if spent else None
        cpu = number(found[work], "CPU s")
        measures.append(Measure(f"{said}: CPU", cpu, "s", name if spent else None, spent, target=target))
    return measures


def errors(found: dict[str, dict[str, object]]) -> list[Measure]:
    """Return the largest difference of the profiles' figures from the exact ones."""
    rows: dict[str, list[dict[str, object]]] = {work: list(found[work]["drift"]) for work in ("exact", "profiles")}  # type: ignore[call-overload]
    pairs = list(zip(rows["exact"], rows["profiles"], strict=True))
    numbers = [(a, b) for a, b in pairs if a["ks"] is not None]
    names = [(a, b) for a, b in pairs if a["ks"] is None]

    def worst(chosen: list[tuple[dict[str, object], dict[str, object]]], test: str) -> float:
        return max(abs(number(a, test) - number(b, test)) for a, b in chosen)

    return [
        *(Measure(f"largest error of {test}, numbers", worst(numbers, test), "") for test in ("ks", "w1", "psi", "js")),
        *(Measure(f"largest error of {test}, texts", worst(names, test), "") for test in ("psi", "js")),
        Measure("the same, texts of up to 4,000 values", worst(names[:-1], "psi"), ""),
    ]


def costs(found: dict[str, dict[str, object]], rows: int, times: int) -> list[Measure]:
    """Return what profiling adds to writing, and its memory."""
    write, profile = number(found["overhead"], "write"), number(found["overhead"], "profile")
    return [
        Measure(f"write {rows:,} × 20 as Parquet: CPU", write, "s"),
        Measure("profile the same: CPU", profile, "s", target=write * OVERHEAD),
        Measure("profile, share of writing", profile / write, "", target=OVERHEAD),
        Measure("profile 1,000 rows × 20: CPU", number(found["overhead"], "small") * 1000, "ms"),
        Measure("a profile", number(found["profiles"], "bytes") / 1000, "KB"),
        Measure(f"profile a file of {rows:,} rows: peak", number(found["stream"], "MB"), "MB"),
        Measure(f"profile a file of {rows * times:,} rows: peak", number(found["large"], "MB"), "MB"),
        Measure(f"profile a file of {rows * times:,} rows", number(found["large"], "s"), "s"),
        Measure("exact drift: peak, both sides in memory", number(found["exact"], "MB"), "MB"),
    ]


def part(folder: Path, work: str) -> dict[str, object]:
    """Do one part in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "benchmarks.data_profiles", "--part", str(folder), work]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=1200)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def timed(work: Callable[[], T], turns: int) -> tuple[T, float, float]:
    """Return the last result, and the medians of wall's and CPU seconds."""
    walls, spans = [], []
    for _ in range(turns):
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        walls.append(time.perf_counter() - wall)
        spans.append(time.process_time() - cpu)
    return found, statistics.median(walls), statistics.median(spans)


def number(values: dict[str, object], name: str) -> float:
    """Return a figure of a part."""
    value = values[name]
    assert isinstance(value, float | int), f"{name} is {value}"
    return float(value)


def peak() -> float:
    """Return the largest resident size of this process so far, in MB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1000


if __name__ == "__main__":
    main()
