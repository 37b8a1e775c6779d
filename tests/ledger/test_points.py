"""Points read back against brute force, however they came: in requests of all sizes, sealed or not, out of order."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.ledger.points import Point, newest
from flyball.ledger.sql import open_ledger, sealing
from flyball.ledger.sql.database import SqlLedger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    opened = open_ledger(tmp_path)
    yield opened
    opened.close()


def _key(point: Point) -> tuple[float, ...]:
    return point.at_ms, point.step, 0.0 if point.value != point.value else point.value, point.value != point.value


def _brute(points: list[Point], key: str) -> list[tuple[float, ...]]:
    return sorted({_key(p) for p in points if p.key == key})


def _rows(ledger: SqlLedger, query: str) -> int:
    with ledger.engine.connect() as connection:
        return int(connection.exec_driver_sql(query).scalar_one())


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_requests_reads_as_brute_force(
    ledger: SqlLedger, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "_SEAL_POINTS": 200,
        "_MOST_ROWS": 12,
        "_FULL": 100,
        "_LOOK": 2,
        "_TO_CHUNK": 20,
        "_JOINED": 3,
    }.items():
        monkeypatch.setattr(sealing, name, value)
    rng = random.Random(seed)
    keys = [f"m{n}" for n in range(6)]
    with ledger.write("user/a") as tx:
        run, other = (tx.runs.start("training", "x").id for _ in range(2))
    logged: list[Point] = []
    for request in range(120):
        some = rng.sample(keys, rng.randint(1, 5))
        points = [
            Point(
                rng.choice(some),
                rng.choice([rng.random(), math.nan, 0.0, -0.0, 1.5]),
                rng.randint(-5, request),
                rng.choice([7, request * 10, rng.randint(0, 2000)]),
            )
            for _ in range(rng.choice([1, 1, 2, 5, 30, 90]))
        ]
        points += rng.choices(logged, k=3) if logged else []
        with ledger.write("user/a") as tx:
            tx.runs.record(run, points=points)
            tx.runs.record(other, points=[Point("m0", 9.0, request, request)])
        logged += points
        if request == 70:
            with ledger.write("user/a") as tx:
                tx.runs.revise(run, status="succeeded")
    with ledger.read() as tx:
        latest = tx.runs.get(run).latest
        for key in keys:
            wanted = _brute(logged, key)
            found: list[Point] = []
            is_more = True
            while is_more:
                size = rng.randint(1, 40)
                page, is_more = tx.points.page(run, key, size, len(found))
                assert is_more is (len(found) + len(page) < len(wanted))
                found += page
            assert [_key(p) for p in found] == wanted
            assert [p.step for p in tx.points.history(run, key)] == sorted(int(w[1]) for w in wanted)
            sampled = {_key(p) for p in tx.points.sample([run], key, 10_000)[run]}
            assert sampled == set(wanted)
        best = newest(p for p in logged)
        assert {k: (p.step, p.at_ms) for k, p in latest.items()} == {k: (p.step, p.at_ms) for k, p in best.items()}
        assert len(tx.points.history(other, "m0")) == 120
    assert _rows(ledger, "SELECT count(*) FROM point_chunks") > 0
    assert _rows(ledger, f"SELECT count(*) FROM point_journal WHERE run = '{run}'") < 120  # some were packed together


def test_a_long_run_of_single_points_stays_in_few_rows(ledger: SqlLedger) -> None:
    with ledger.write("user/a") as tx:
        run = tx.runs.start("training", "x").id
        for step in range(12_000):
            tx.runs.record(run, points=[Point(f"m{step % 3}", step / 7, step, step)])
    rows = _rows(ledger, "SELECT count(*) FROM point_journal")
    assert rows < 1000
    assert _rows(ledger, "SELECT max(size) FROM (SELECT length(data) AS size FROM point_journal)") < 300_000
    with ledger.write("user/a") as tx:
        tx.runs.finish(run, "succeeded")
        assert [len(tx.points.history(run, f"m{n}")) for n in range(3)] == [4000] * 3
        assert tx.runs.get(run).metrics == {"m0": 11_997 / 7, "m1": 11_998 / 7, "m2": 11_999 / 7}
    assert _rows(ledger, "SELECT count(*) FROM point_journal") <= 2


def test_twenty_thousand_metrics_of_one_run_are_kept(ledger: SqlLedger) -> None:
    keys = [f"layer.{n}.weight ☃" for n in range(20_000)]
    with ledger.write("user/a") as tx:
        run = tx.runs.start("training", "x").id
        for step in range(3):
            tx.runs.record(run, points=[Point(key, float(step), step, 5) for key in keys])
    with ledger.read() as tx:
        assert set(tx.runs.get(run).metrics.values()) == {2.0}
        assert [p.value for p in tx.points.history(run, keys[19_999])] == [0.0, 1.0, 2.0]


def test_many_small_chunks_of_a_metric_become_few_large_ones(ledger: SqlLedger) -> None:
    with ledger.write("user/a") as tx:
        run = tx.runs.start("training", "x").id
        for start in range(0, 100_000, 100):
            tx.runs.record(run, points=[Point("loss", n / 7, n, n) for n in range(start, start + 100)])
    assert _rows(ledger, "SELECT count(*) FROM point_chunks") < 150
    with ledger.read() as tx:
        assert tx.points.page(run, "loss", 5, 54_321)[0] == [Point("loss", n / 7, n, n) for n in range(54_321, 54_326)]
        assert len(tx.points.history(run, "loss")) == 100_000
