"""Reading large sources: rows a second, memory, and how far ahead of the usual ways.

    python -m benchmarks.data_sources [--gigabytes 2] [--only csv,ndjson,postgresql]

Each reading happens in a process of its own, which writes what it read to Parquet and tells the CPU seconds that it
took and the most memory that it held (resident, of which pages of files that the kernel may drop are shown apart).
Peers: Polars' own inference (`scan_csv` with types found over all rows), `polars.read_database` over psycopg, and
`fetchmany` of psycopg into Polars. They read a tenth of the rows, and are compared by rows a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.report import Measure, report

_LIMIT_S = 900
_ROWS_A_PART = 500_000
_TOLD = """
import json, resource, time
def told(rows):
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    print(json.dumps({"rows": rows, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024,
                      "wall_s": time.perf_counter() - START}))
START = time.perf_counter()
"""
_OURS = """
import sys
from pathlib import Path
from flyball.data.kinds import Source
from flyball.data.sources import read_source
import polars as pl
out = Path(sys.argv[2])
with read_source(Source.model_validate_json(sys.argv[1])) as reading:
    reading.frame.sink_parquet(out, compression="lz4")
told(pl.scan_parquet(out).select(pl.len()).collect().item())
"""
_POLARS_CSV = """
import sys
import polars as pl
frame = pl.scan_csv(sys.argv[1], infer_schema_length=None, try_parse_dates=True)
frame.sink_parquet(sys.argv[2], compression="lz4")
told(pl.scan_parquet(sys.argv[2]).select(pl.len()).collect().item())
"""
_POLARS_NDJSON = """
import sys
import polars as pl
frame = pl.scan_ndjson(sys.argv[1], infer_schema_length=None)
frame.sink_parquet(sys.argv[2], compression="lz4")
told(pl.scan_parquet(sys.argv[2]).select(pl.len()).collect().item())
"""
_READ_DATABASE = """
import sys
import polars as pl, psycopg
with psycopg.connect(sys.argv[1]) as connection:
    frame = pl.read_database("SELECT * FROM rows LIMIT " + sys.argv[3], connection)
frame.write_parquet(sys.argv[2], compression="lz4")
told(frame.height)
"""
_FETCHMANY = """
import sys
import polars as pl, psycopg
frames = []
with psycopg.connect(sys.argv[1]) as connection, connection.cursor("c") as cursor:
    cursor.execute("SELECT * FROM rows LIMIT " + sys.argv[3])
    while found := cursor.fetchmany(50_000):
        frames.append(pl.DataFrame(found, schema=[c.name for c in cursor.description], orient="row"))
frame = pl.concat(frames)
frame.write_parquet(sys.argv[2], compression="lz4")
told(frame.height)
"""


def main() -> None:
    """Make the data, read it, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of CSV text; the others have as many rows")
    parser.add_argument("--only", default="csv,ndjson,postgresql")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory(prefix="flyball-bench-") as name:
        folder = Path(name)
        if "csv" in wanted:
            measures += _text(folder, "csv", asked.gigabytes, _POLARS_CSV)
        if "ndjson" in wanted:
            measures += _text(folder, "ndjson", asked.gigabytes, _POLARS_NDJSON)
        if "postgresql" in wanted:
            measures += _database(folder, asked.gigabytes)
    report(measures)


def _text(folder: Path, kind: str, gigabytes: float, peer: str) -> list[Measure]:
    large, small = folder / f"large.{kind}", folder / f"small.{kind}"
    rows = _written(large, kind, gigabytes * 2**30)
    _written(small, kind, gigabytes * 2**30 / 10)
    ours = _run(_OURS, json.dumps({"files": str(large)}), str(folder / "out.parquet"))
    theirs = _run(peer, str(small), str(folder / "out.parquet"))
    assert ours["rows"] == rows
    size = large.stat().st_size
    large.unlink(), small.unlink()
    what = f"{kind}, {size / 2**30:.1f} GB, {rows:,} rows"
    return [*_measures(what, ours, "polars", theirs)]


def _database(folder: Path, gigabytes: float) -> list[Measure]:
    from tests.services import postgres_server

    path, home = folder / "rows.csv", folder / "postgres"
    rows = _written(path, "csv", gigabytes * 2**30)
    home.mkdir()
    folder.chmod(0o755)
    with postgres_server(home) as url:
        _loaded(url, path)
        path.unlink()
        ours = _run(_OURS, json.dumps({"sql": f"{url}/postgres", "table": "rows"}), str(folder / "out.parquet"))
        tenth = str(rows // 10)
        frame = _run(_READ_DATABASE, f"{url}/postgres", str(folder / "out.parquet"), tenth)
        many = _run(_FETCHMANY, f"{url}/postgres", str(folder / "out.parquet"), tenth)
    assert ours["rows"] == rows
    what = f"postgresql, {rows:,} rows"
    return [*_measures(what, ours, "read_database", frame), *_measures(what, ours, "fetchmany", many)[:1]]


def _measures(what: str, ours: dict[str, Any], peer: str, theirs: dict[str, Any]) -> list[Measure]:
    def speed(found: dict[str, Any]) -> float:
        return float(found["rows"] / found["cpu_s"])

    share = f" ({theirs['rows']:,} rows)"
    return [
        Measure(what, speed(ours), "rows/CPU s", peer=peer + share, peer_value=speed(theirs), better="higher"),
        Measure(what, ours["peak_mb"], "MB at most", peer=peer + share, peer_value=theirs["peak_mb"], target=1024),
    ]


def _written(path: Path, kind: str, size: float) -> int:
    """Write about `size` bytes as CSV would take; return the number of rows."""
    rows, part = 0, 0
    with path.open("wb") as file:
        written = 0.0
        while written < size:
            numbers = pl.int_range(rows, rows + _ROWS_A_PART, eager=True)
            mixed = numbers.hash(part)
            frame = pl.DataFrame(
                {
                    "id": numbers,
                    "x": (mixed % 1_000_003).cast(pl.Float64) / 997,
                    "name": "n" + (mixed % 10_007).cast(pl.String),
                    "at": pl.from_epoch((mixed % 2_000_000_000).cast(pl.Int64)),
                    "ok": mixed % 3 == 0,
                }
            )
            written += len(frame.head(10_000).write_csv()) * _ROWS_A_PART / 10_000
            frame.write_csv(file, include_header=not rows) if kind == "csv" else frame.write_ndjson(file)
            rows, part = rows + _ROWS_A_PART, part + 1
    return rows


def _loaded(url: str, path: Path) -> None:
    import psycopg

    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE UNLOGGED TABLE rows (id bigint, x double precision, name text, at timestamp, ok boolean)"
        )
        with cursor.copy("COPY rows FROM STDIN (FORMAT csv, HEADER)") as copy, path.open("rb") as file:
            while block := file.read(2**22):
                copy.write(block)


def _run(code: str, *arguments: str) -> dict[str, Any]:
    """Run a reading in a process of its own and return what it told."""
    command = [sys.executable, "-c", _TOLD + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, env=dict(os.environ))
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
