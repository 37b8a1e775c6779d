"""Contracts: sixteen checks over ten million orders, beside other validators; errors found in dirty tables.

    python -m benchmarks.data_contracts                    10,000,000 rows; the peers on the same file
    python -m benchmarks.data_contracts --rows 1000000     fewer
    python -m benchmarks.data_contracts --hundred-million  ours alone on 10 and on 100 million: is memory flat?
    python -m benchmarks.data_contracts --dirty            precision and recall by cell against the clean twins

The checks: types, nulls, a unique key, a foreign key, three ranges, a regular expression, two sets, two times in order,
a mean, a deviation, the number of rows. Ten rows in a million break each row rule, six rows share a key. Each part runs
in a process of its own, so its peak memory is its own. The limit beside our figures is the same expressions written out
over record batches in plain Polars, without reports and samples. Great Expectations runs on 1,000,000 rows at most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks import peers
from benchmarks.data_contracts_peers import PEERS
from benchmarks.report import Measure, report
from flyball.data.checking import FAILED_COLUMN, check, explained
from flyball.data.contracts import read_contract
from flyball.data.inference import infer_contract
from flyball.data.reports import ContractReport
from flyball.data.sources import open_source
from flyball.data.terms import Contract

CUSTOMERS = 100_000
COUNTRIES = ["DE", "FR", "US", "GB", "IT", "ES"]
STATES = ["new", "paid", "packed", "shipped", "returned"]
EMAIL = r"^[^@\s]+@[^@\s]+\.[a-z]+$"
PART_ROWS = 1_000_000
FAILING = 10  # rows in a million that break each rule
PEER_ROWS = 1_000_000  # of Great Expectations
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure and report, or do one part in this process for the one that reports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--times", type=int, default=3, help="runs of ours and of the limit; the median counts")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--hundred-million", action="store_true")
    parser.add_argument("--dirty", action="store_true")
    parser.add_argument("--part", nargs=2, metavar=("WORK", "PATH"), help="for this script itself")
    asked = parser.parse_args()
    if asked.part:
        work, path = asked.part
        print(json.dumps(measured(work, Path(path))))
    elif asked.dirty:
        report(dirty())
    elif asked.hundred_million:
        report(flat())
    else:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "orders.parquet"
            orders(path, asked.rows)
            report(
                [
                    *speed(path, asked.rows, asked.times),
                    *([] if asked.no_peers else beside(path, asked.rows, asked.times)),
                ]
            )


def speed(path: Path, rows: int, times: int) -> list[Measure]:
    """Ours and the limit, by turns."""
    mine, bare = by_turns(path, times)
    scale = rows / 10_000_000
    what = f"16 checks, {rows:,} rows"
    return [
        Measure(what, mine["seconds"], "s", limit=bare["seconds"], target=2.5 * scale),
        Measure(f"{what}, CPU", mine["cpu_s"], "CPU s", limit=bare["cpu_s"]),
        Measure(f"{what}, peak memory", mine["memory_mb"], "MB", limit=bare["memory_mb"], target=600),
    ]


def beside(path: Path, rows: int, times: int) -> list[Measure]:
    """Ours against each peer on the same file: seconds and CPU from file to answer, and memory."""
    mine = by_turns(path, times)[0]
    found = []
    for peer, code in PEERS.items():
        fewer = min(rows, PEER_ROWS) if peer == "great expectations" else rows
        told = peers.run("contracts", code, str(path), str(fewer))
        if "error" in told:
            print(f"{peer}: {told['error']}", file=sys.stderr)
            continue
        against = mine
        if fewer != rows:
            with TemporaryDirectory() as folder:
                part = Path(folder) / "orders.parquet"
                orders(part, fewer)
                against = by_turns(part, times)[0]
        of = f"{fewer:,} rows, {told['failing']} rules failing there"
        found += [
            Measure(f"beside {peer} ({of})", against["seconds"], "s", peer, told["seconds"]),
            Measure(f"beside {peer}, CPU", against["cpu_s"], "CPU s", peer, told["cpu_s"]),
            Measure(f"beside {peer}, memory", against["memory_mb"], "MB", peer, told["memory_mb"]),
        ]
    return found


def flat() -> list[Measure]:
    """Ours on ten and on a hundred million rows."""
    found = []
    for rows in (10_000_000, 100_000_000):
        with TemporaryDirectory() as folder:
            path = Path(folder) / "orders.parquet"
            orders(path, rows)
            told = part("ours", path)
            found += [
                Measure(f"16 checks, {rows:,} rows", told["seconds"], "s"),
                Measure(f"16 checks, {rows:,} rows, CPU", told["cpu_s"], "CPU s"),
                Measure(f"16 checks, {rows:,} rows, peak memory", told["memory_mb"], "MB", target=600),
            ]
    return found


def by_turns(path: Path, times: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the medians of ours and of the limit, run one after the other so that both meet the same machine."""
    turns = [(part("ours", path), part("limit", path)) for _ in range(times)]
    mine, bare = zip(*turns, strict=True)
    return _medians(mine), _medians(bare)


def part(work: str, path: Path) -> dict[str, float]:
    """Do one part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_contracts", "--part", work, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT, timeout=1800)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(work: str, path: Path) -> dict[str, float]:
    """Return what a part took in this process, imports and the reading of the contract left out."""
    rules = contract()
    began, cpu = time.perf_counter(), time.process_time()
    if work == "ours":
        told = check(pl.scan_parquet(path), rules, resolve=lambda _: customers().lazy())
    else:
        limit(path)
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    if work == "ours":
        verify(told)
    return {"seconds": seconds, "cpu_s": used, "memory_mb": _peak_mb()}


def verify(told: ContractReport) -> None:
    """Compare every count with what was put in."""
    failed = {r.id: r.failed for r in told.results if r.failed}
    wrong = FAILING * max(1, told.rows // PART_ROWS)
    expected = dict.fromkeys(("country.enum", "email.pattern", "price.range", "table.cross_field"), wrong)
    expected |= {"customer_id.reference": wrong, "order_id.primary_key": 6}
    assert failed == expected, failed
    assert all(r.passed or len(r.sample) == 5 for r in told.results), "samples are missing"


def limit(path: Path) -> None:
    """The same expressions over record batches, keys sorted at the end."""
    column, known = pl.col, customers()["customer_id"]
    fails = {
        "order": column("order_id").is_null(),
        "customer": column("customer_id").is_null(),
        "total": column("total").is_null(),
        "quantity": (column("quantity") < 1) | (column("quantity") > 100),
        "price": (column("price") < 0) | (column("price") > 10_000),
        "sum": (column("total") < 0) | (column("total") > 1_000_000),
        "email": ~column("email").str.contains(EMAIL),
        "country": ~column("country").is_in(COUNTRIES),
        "status": ~column("status").is_in(STATES),
        "times": column("shipped_at") < column("placed_at"),
        "reference": ~column("customer_id").is_in(pl.lit(known).implode()),
    }
    sums = {name: mask.sum() for name, mask in fails.items()}
    sums |= {"mean": column("total").sum(), "squares": (column("price") ** 2).sum(), "rows": pl.len()}
    counts: dict[str, float] = dict.fromkeys(sums, 0)
    keys = []
    for batch in pl.scan_parquet(path).collect_batches(chunk_size=500_000, maintain_order=True):
        for name, value in batch.select(**sums).row(0, named=True).items():
            counts[name] += value
        keys.append(batch["order_id"].to_numpy())
    ordered = np.concatenate(keys)
    ordered.sort()
    assert (ordered[1:] == ordered[:-1]).sum() == 3


def contract() -> Contract:
    """Return the sixteen checks as a contract."""

    def of(name: str, logical: str, **said: Any) -> dict[str, Any]:
        return {"name": name, "logicalType": logical, **said}

    def limits(low: float, high: float) -> dict[str, Any]:
        return {"logicalTypeOptions": {"minimum": low, "maximum": high}}

    def one_of(values: list[str]) -> dict[str, Any]:
        return {"quality": [{"metric": "invalidValues", "arguments": {"validValues": values}, "mustBe": 0}]}

    properties = [
        of("order_id", "integer", primaryKey=True),
        of("customer_id", "integer", required=True, relationships=[{"to": "customers.customer_id"}]),
        of("country", "string", **one_of(COUNTRIES)),
        of("status", "string", **one_of(STATES)),
        of("email", "string", logicalTypeOptions={"pattern": EMAIL}),
        of("quantity", "integer", **limits(1, 100)),
        of("price", "number", **limits(0, 10_000)),
        of("total", "number", required=True, **limits(0, 1_000_000)),
        of("placed_at", "timestamp"),
        of("shipped_at", "timestamp"),
    ]
    aggregates = [("mean", "total", 100, 1000), ("standard_deviation", "price", 1, 100)]
    quality: list[dict[str, Any]] = [
        {"type": "custom", "engine": "flyball", "implementation": "shipped_at >= placed_at"},
        {"metric": "rowCount", "mustBeGreaterThan": 0},
    ]
    for aggregate, column, low, high in aggregates:
        how = {"aggregate": aggregate, "column": column, "mustBeBetween": [low, high]}
        quality.append({"type": "custom", "engine": "flyball", "implementation": how})
    table = {"name": "orders", "properties": properties, "quality": quality}
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "orders", "name": "orders", "version": "1.0.0"}
    return read_contract({**head, "schema": [table]})


def customers() -> pl.DataFrame:
    """Return the customers that there are."""
    return pl.DataFrame({"customer_id": np.arange(CUSTOMERS)})


def orders(path: Path, rows: int) -> None:
    """Write orders as one Parquet file; the keys are shuffled within a million."""
    import pyarrow.parquet

    writer = None
    for start in range(0, rows, PART_ROWS):
        frame = _orders(start, min(PART_ROWS, rows - start)).to_arrow()
        writer = writer or pyarrow.parquet.ParquetWriter(path, frame.schema, compression="zstd")
        writer.write_table(frame, row_group_size=PART_ROWS // 2)
    assert writer is not None
    writer.close()


def _orders(start: int, rows: int) -> pl.DataFrame:
    rng = np.random.default_rng(start)
    ids = start + rng.permutation(rows)
    placed = np.datetime64("2024-01-01", "us") + rng.integers(0, 86_400 * 365, rows) * np.timedelta64(1, "s")
    shipped = placed + rng.integers(3_600, 86_400 * 5, rows) * np.timedelta64(1, "s")
    quantity, price = rng.integers(1, 20, rows), np.round(rng.gamma(2.0, 20.0, rows) + 0.5, 2)
    total = np.round(quantity * price, 2)
    customer = rng.integers(0, CUSTOMERS, rows)
    country, status = rng.choice(COUNTRIES, rows), np.array(STATES)[rng.integers(0, len(STATES), rows)]
    email = rng.integers(0, 1_000_000, rows).astype(str).astype(object) + "@example.com"
    bad = rng.permutation(rows)[: 5 * FAILING].reshape(5, FAILING)
    country[bad[0]], email[bad[1]], price[bad[2]] = "XX", "nobody", -1.0
    shipped[bad[3]] = placed[bad[3]] - np.timedelta64(1, "h")
    customer[bad[4]] = CUSTOMERS + 7
    if start == 0:
        ids[rng.permutation(rows)[:3]] = ids[np.setdiff1d(np.arange(rows), bad)[:3]]
    return pl.DataFrame(
        {
            "order_id": ids,
            "customer_id": customer,
            "country": country,
            "status": status,
            "email": pl.Series(email, dtype=pl.String),
            "quantity": quantity.astype(np.int32),
            "price": price,
            "total": total,
            "placed_at": placed,
            "shipped_at": shipped,
        }
    )


def dirty() -> list[Measure]:
    """Precision and recall by cell of what column rules find in the dirty tables, errors and warnings together."""
    shared = Path(os.environ.get("FLYBALL_SHARED_DATA") or ROOT.parent / "shared" / "data") / "dirty"
    found = []
    for name in ("hospital", "beers"):
        clean, bad = (open_source(shared / name / f"{twin}.csv", as_text=True).collect() for twin in ("clean", "dirty"))
        half = clean.height // 2
        written = ROOT / "tests" / "data" / "contracts" / f"{name}.odcs.yaml"
        contracts = {
            "written by hand": read_contract(written),
            "inferred from all clean rows": read_contract(infer_contract(clean, name)),
            "inferred from every second row": read_contract(infer_contract(clean[::2], name)),
            "inferred from the first half": read_contract(infer_contract(clean[:half], name)),
        }
        for how, rules in contracts.items():
            precision, recall = cells(rules, bad, clean)
            found += [
                Measure(f"{name}, {how}: precision", precision, "", better="higher"),
                Measure(f"{name}, {how}: recall", recall, "", better="higher"),
            ]
    return found


def cells(rules: Contract, bad: pl.DataFrame, clean: pl.DataFrame) -> tuple[float, float]:
    """Return precision and recall by cell of the row rules of one column, warnings too, against the clean twin."""
    strict = tuple(replace(r, severity="error") if r.scope == "row" else r for r in rules.rules)
    told = explained(bad.lazy(), replace(rules, rules=strict)).with_row_index("\0at").collect()
    columns = {rule.id: rule.column for rule in strict}
    blamed = {(at, columns[i]) for at, ids in told.select("\0at", FAILED_COLUMN).iter_rows() for i in ids if columns[i]}
    wrong = {(at, n) for n in clean.columns for at in bad[n].ne_missing(clean[n]).arg_true().to_list()}
    hit = len(blamed & wrong)
    return hit / len(blamed) if blamed else 0.0, hit / len(wrong)


def _peak_mb() -> float:
    """Return the peak memory of this program; what `getrusage` tells starts at that of its parent."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def _medians(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.median([turn[name] for turn in turns])) for name in turns[0]}


if __name__ == "__main__":
    main()
