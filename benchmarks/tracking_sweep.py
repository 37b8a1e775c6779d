"""The sweep of a large home: what it costs, and how long it keeps who logs beside it waiting.

    python -m benchmarks.tracking_sweep           100,000 runs with points and a file each, 10,000 of them deleted
    python -m benchmarks.tracking_sweep --small   a tenth of that

The home is filled by the shortest way, not through the recorder. CPU is that of this process; beside the sweep a thread
of it logs points one after the other, and its longest wait is told, first without a sweep. Waits are walls: other work
on the machine makes them longer. FLYBALL_LEDGER_URL may name an empty PostgreSQL database.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from sqlalchemy import insert

from benchmarks.report import Measure, report
from flyball.ledger.points import Point
from flyball.ledger.sql import tables
from flyball.ledger.sql.database import SqlLedger
from flyball.ledger.sql.entries import of_run
from flyball.ledger.sql.packing import pack
from flyball.ledger.sql.search import insert_entries
from flyball.ledger.sql.tracking_tables import point_journal
from flyball.platform import Platform

T = TypeVar("T")

AT = 1_790_000_000_000
_BATCH = 2000
_LONG_AGO = "2020-01-01T00:00:00.000000Z"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tenth of the runs")
    runs = 10_000 if parser.parse_args().small else 100_000
    os.environ["FLYBALL_SWEEP_GRACE_S"] = "0"
    with TemporaryDirectory() as name, closing(Platform.open(Path(name) / "home")) as platform:
        _fill(platform, runs)
        report(_measure(platform, runs))


def _measure(platform: Platform, runs: int) -> list[Measure]:
    before = _peak_mb()
    alone, _, _ = _beside(platform, lambda: time.sleep(2))
    began = time.process_time()
    told = platform.sweep(dry_run=True)
    dry = time.process_time() - began
    waited, took, done = _beside(platform, lambda: platform.sweep(dry_run=False))
    assert (len(done.removed), done.blobs) == (len(told.removed), told.blobs) == (runs // 10, runs // 10)
    began = time.process_time()
    assert not platform.sweep(dry_run=False).removed
    empty = time.process_time() - began
    return [
        Measure(f"list what would go: {runs // 10:,} of {runs:,} runs", dry, "CPU s"),
        Measure(f"sweep {runs // 10:,} of {runs:,} runs", took, "CPU s, with the writer beside it"),
        Measure("sweep with nothing to remove", empty, "CPU s"),
        Measure("memory that the sweeps added", _peak_mb() - before, "MB at the most"),
        Measure("longest wait of a writer, no sweep", alone * 1000, "ms"),
        Measure("longest wait of a writer beside the sweep", waited * 1000, "ms"),
    ]


def _beside(platform: Platform, act: Callable[[], T]) -> tuple[float, float, T]:
    """Do something while a thread logs points; return the longest wait of the thread, CPU seconds, and the result."""
    run = platform.recorder.create_run("0", "beside").result().id
    stopping, longest = threading.Event(), 0.0

    def log() -> None:
        nonlocal longest
        step = 0
        while not stopping.wait(0.005):
            step += 1
            began = time.monotonic()
            platform.recorder.log(run, [Point("loss", 0.5, step, AT + step)]).result()
            longest = max(longest, time.monotonic() - began)

    thread = threading.Thread(target=log)
    thread.start()
    began = time.process_time()
    try:
        found = act()
    finally:
        took = time.process_time() - began
        stopping.set()
        thread.join()
    return longest, took, found


def _fill(platform: Platform, count: int) -> None:
    ledger = platform.ledger
    assert isinstance(ledger, SqlLedger)
    made = platform.recorder.create_run("0", "template", tags={"team": "a"}).result()
    root = platform.home / "blobs"
    for number in range(256):
        (root / f"{number:02x}").mkdir(parents=True, exist_ok=True)
    with ledger.engine.connect() as connection:
        row = connection.execute(tables.runs.select()).one()._mapping
    for start in range(0, count, _BATCH):
        ids = [hashlib.sha256(f"run {n}".encode()).hexdigest()[:32] for n in range(start, min(start + _BATCH, count))]
        digests = [_blob(root, b"model %d" % n) for n in range(start, start + len(ids))]
        with ledger.write("user/bench") as world:
            connection = world.session.connection
            numbers = [world.session.take() for _ in ids]
            rows = [
                {**row, "id": id, "revision": n, "deleted_at": _LONG_AGO if place % 10 == 0 else None}
                for place, (id, n) in enumerate(zip(ids, numbers, strict=True))
            ]
            connection.execute(insert(tables.runs), rows)
            files = [
                {"run": id, "path": "model/model.bin", "digest": digest, "size_bytes": 20}
                for id, digest in zip(ids, digests, strict=True)
            ]
            connection.execute(insert(tables.artifacts), files)
            data = pack([Point(f"metric_{n}", 0.5, step, AT + step) for n in range(5) for step in range(20)])
            points = [{"id": n, "run": id, "count": 100, "data": data} for id, n in zip(ids, numbers, strict=True)]
            connection.execute(insert(point_journal), points)
            entry = of_run(made)
            insert_entries(connection, [type(entry)(**{**entry.__dict__, "ref": f"run/{id}"}) for id in ids])


def _blob(root: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    path = root / digest[:2] / digest[2:]
    path.write_bytes(data)
    os.utime(path, (1000, 1000))
    return digest


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
