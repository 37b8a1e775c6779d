"""Whole tables scored, beside the model's own `predict` on all rows at once; and models inside SQL.

`python -m benchmarks.scoring [--rows N]` writes a table of N rows to a temporary home, trains gradient boosting on
eight inputs, scores the table into a data set, and prints CPU seconds a million rows and the memory that it took:
reading, checking, answering, ids, checkpoints on disk, and publishing with its profile, in a process of its own that
has scored a thousand rows before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Measure, report

_INPUTS = 8
_BLOCK = 250_000

_SCORES = """
import json, sys, time
from pathlib import Path
from flyball.platform import Platform
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
at = Platform.open(sys.argv[1])
few = at.frame("rows").head(1000).collect()
at.score_into("model/late@1", few, "warm")
at.sql("SELECT sum(predict('model/late@1').probability) FROM few")
began, before = time.process_time(), peak()
{act}
print(json.dumps([time.process_time() - began, before, peak()]))
"""
_TABLE = "at.score_into('model/late@1', 'rows', 'scored')"
_NO_PUBLISHING = """
job, _, _ = at._job('model/late@1', 'rows', 'x', (), 'refuse', None, 1, None)
sum(part.height for part in job.answers())
"""
_SQL = "at.sql(\"SELECT sum(predict('model/late@1').probability) FROM rows\")"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as folder:
        home = Path(folder) / ".flyball"
        own_s = _prepare(home, rows)
        own = own_s / rows * 1e6
        measures = []
        for work, act in (("answers alone", _NO_PUBLISHING), ("a table into a data set", _TABLE), ("in SQL", _SQL)):
            command = [sys.executable, "-c", _SCORES.format(act=act), str(home)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            took_s, before, most = json.loads(done.stdout.splitlines()[-1])
            name = f"{work}, {rows:,} rows: CPU of a million rows"
            measures.append(Measure(name, took_s / rows * 1e6, "s", "the model's own predict", own, limit=own))
            measures.append(Measure(f"{work}, {rows:,} rows: memory beyond a few rows", (most - before) / 1024, "MB"))
    report(measures)


def _prepare(home: Path, rows: int) -> float:
    """Make the home; return the CPU seconds of `predict` on the whole table as arrays."""
    import numpy as np
    import polars as pl
    from sklearn.ensemble import HistGradientBoostingClassifier

    from flyball.platform import Platform

    names = [f"x{number}" for number in range(_INPUTS)]
    random = np.random.default_rng(1)

    path = home.parent / "rows"
    path.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, _BLOCK)):
        block = random.normal(size=(min(_BLOCK, rows - start), _INPUTS))
        pl.DataFrame(block, schema=names).write_parquet(path / f"{number:05d}.parquet")
    at = Platform.open(home)
    first = pl.read_parquet(path / "00000.parquet").head(50_000)
    model = HistGradientBoostingClassifier(max_iter=100).fit(first, (first["x0"] * first["x1"] > 0).cast(pl.Int64))
    at.declare("model", "late")
    at.declare("dataset", "rows")
    at.register("late", model, example=first[:5])
    at.declare("dataset", "few")
    at.publish("rows", str(path / "*.parquet"))
    at.publish("few", first[:1000])
    loaded = at.load("late@1")
    some = pl.read_parquet(path / "00000.parquet")
    columns = {name: some[name].to_numpy() for name in names}
    loaded.predict(columns)
    began = time.process_time()
    loaded.predict(columns)
    took_s = time.process_time() - began
    at.close()
    return took_s * rows / some.height


if __name__ == "__main__":
    main()
