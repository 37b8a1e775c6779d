"""Running sums of experiments: at every look equal to all rows read at once, whatever came between two looks."""

from __future__ import annotations

import random
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from flyball.errors import InvalidInput
from flyball.serving.experiments import covered, outcomes, units
from flyball.serving.measuring import Measures
from flyball.serving.tallies import Tallies, Tally
from flyball.storage.streams.rewriting import rewrite
from flyball.tracking.predictions import Label, LabelLog, PredictionBatch, PredictionLog, new_ids
from flyball.tracking.sealed import REWRITTEN, Sealed, alone
from flyball.tracking.sealing import Sealer, SealingSettings
from flyball.tracking.traffic import Traffic

START = datetime(2026, 5, 1, 23, 59, tzinfo=UTC)
METRICS = ("reward", "correct", "squared_error", "latency_ms", "output.profit")


class Log:
    """A prediction log to which anything may happen; seeded, so that what fails fails again."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.ids: list[str] = []
        self.seconds = 0

    def answer(self, count: int = 1, **changes: Any) -> list[str]:
        log = PredictionLog(self.folder, "tests", "os")
        self.seconds += 1
        batch = PredictionBatch(
            deployment="offers",
            revision=self.random.choice([2, 3, 3, 3, 4]),
            variant=self.random.choice(["champion", "canary", "arm2", "shadow"]),
            version="offers@2",
            at=START + timedelta(seconds=self.seconds - self.random.choice([0, 0, 900])),
            ids=new_ids(count),
            inputs={"spent": [self.random.choice([None, self.random.gauss(1e4, 3)]) for _ in range(count)]},
            outputs={
                "prediction": [self.random.randint(0, 1) for _ in range(count)],
                "profit": [self.random.gauss(0, 2) for _ in range(count)],
            },
            keys=[self.random.choice([None, *(f"ü{n}" for n in range(40))]) for _ in range(count)],
            latency_us=self.random.randint(100, 9000),
            is_forced=self.random.random() < 0.1,
        )._replace(**changes)
        log.append(batch)
        log.close()
        self.ids += batch.ids
        return list(batch.ids)

    def label(self, ids: list[str], value: float | None = None) -> None:
        log = LabelLog(self.folder, "tests", "os")
        at = START + timedelta(minutes=self.random.randint(0, 400))  # so that a later one may be older
        given = [Label(id, float(self.random.randint(0, 1)) if value is None else value, at) for id in ids]
        log.append_wait(given)
        log.close()

    def seal(self) -> None:
        Sealer(self.folder, SealingSettings(keep_segments_s=self.random.choice([0.0, 3600.0]))).seal()

    def erase(self, key: str) -> None:
        def without(payload: bytes) -> bytes | None:
            keys = orjson.loads(payload)["keys"]
            return None if key == keys or (isinstance(keys, list) and key in keys) else payload

        with alone(self.folder):
            rewrite(self.folder / "predictions", without)
            tables = Sealed(self.folder)
            for part in tables.parts("predictions"):
                tables.rewrite(part, lambda rows: rows.filter(pl.col("key").is_null() | (pl.col("key") != key)))
            (self.folder / REWRITTEN).write_text(secrets.token_hex(8), encoding="ascii")

    def step(self) -> None:
        what = self.random.random()
        if what < 0.45:
            self.answer(self.random.randint(1, 6))
        elif what < 0.75 and self.ids:
            self.label(self.random.sample(self.ids, min(len(self.ids), 8)))
        elif what < 0.85:
            early = new_ids(2)
            self.label(early)  # the truth overtakes the answer
            self.answer(2, ids=early)
        elif what < 0.9:
            self.answer(3, deployment="other")
        elif what < 0.96:
            self.seal()
        elif self.ids:
            self.erase(f"ü{self.random.randint(0, 39)}")


def all_at_once(folder: Path, measures: Measures) -> Tally:
    traffic = Traffic(folder, keep_rows=1_000_000)
    traffic.refresh()
    rows = traffic.frame("offers")
    rows = rows.filter((pl.col("revision") >= measures.since_revision) & (pl.col("variant") != "shadow"))
    if "forced" in rows.columns:
        rows = rows.filter(pl.col("forced").is_null())
    if rows.is_empty():
        return Tally()
    joined = covered(rows, measures.covariate)
    counts = {str(variant): count for variant, count in rows["variant"].value_counts().iter_rows()}
    return Tally(units(rows), counts, {metric: outcomes(joined, metric) for metric in measures.metrics})


def assert_alike(found: Tally, expected: Tally) -> None:
    assert (found.units, found.rows) == (expected.units, expected.rows)
    for metric, arms in expected.outcomes.items():
        assert found.outcomes[metric].keys() == arms.keys()
        for arm, moments in arms.items():
            for name, value in moments.as_dict().items():
                told = found.outcomes[metric][arm].as_dict()[name]
                assert told == pytest.approx(value, rel=1e-7, abs=1e-6), (metric, arm, name)


@pytest.mark.parametrize("seed", range(8))
def test_every_look_equals_all_rows_at_once_through_restarts_corrections_sealing_and_erasure(
    tmp_path: Path, seed: int
) -> None:
    log = Log(tmp_path, seed)
    measures = Measures(3, METRICS, "spent")
    tallies = Tallies(tmp_path)
    log.answer(5, revision=3, variant="canary", is_forced=False, inputs={"spent": [1.0, 2.0, None, 4.0, 5.0]})
    for _ in range(60):
        log.step()
        if log.random.random() < 0.3:
            tallies = Tallies(tmp_path)  # the control plane begins anew
        if log.random.random() < 0.5:
            assert_alike(tallies.look("offers", measures), all_at_once(tmp_path, measures))
    assert_alike(tallies.look("offers", measures), all_at_once(tmp_path, measures))


def test_a_look_after_which_it_crashed_is_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, measures = Log(tmp_path), Measures(0, ("reward",))
    log.label(log.answer(6, variant="canary", is_forced=False), 1.0)
    Tallies(tmp_path).look("offers", measures)
    log.label(log.answer(6, variant="canary", is_forced=False), 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("flyball.serving.tallies._Fold.keep", lambda _fold: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Tallies(tmp_path).look("offers", measures)
    assert_alike(Tallies(tmp_path).look("offers", measures), all_at_once(tmp_path, measures))


def test_what_is_measured_may_change_and_what_the_log_lacks_is_said(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.label(log.answer(6, variant="canary", revision=3), 1.0)
    tallies = Tallies(tmp_path)
    for measures in (Measures(0, ("reward",)), Measures(0, ("output.profit", "reward"), "spent"), Measures(4, METRICS)):
        assert_alike(tallies.look("offers", measures), all_at_once(tmp_path, measures))
    with pytest.raises(InvalidInput, match=r'did you mean "output.profit"'):
        tallies.look("offers", Measures(0, ("output.profits",)))
    with pytest.raises(InvalidInput, match='did you mean "spent"'):
        tallies.look("offers", Measures(0, ("reward",), "spend"))
    tallies.forget("offers")
    assert list((tmp_path / "experiments").iterdir()) == []


def test_no_key_can_be_read_in_the_file(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.answer(2, keys=["anna@example.org", "zoë"], variant="canary", revision=3)
    Tallies(tmp_path).look("offers", Measures(0, ("reward",)))
    kept = b"".join(path.read_bytes() for path in (tmp_path / "experiments").iterdir())
    assert b"anna" not in kept and "zoë".encode() not in kept


def test_rewards_against_contexts_are_those_of_all_answers_at_once(tmp_path: Path) -> None:
    log, measures = Log(tmp_path, 5), Measures(0, ("reward",), None, ("spent",))
    tallies = Tallies(tmp_path)
    for _ in range(30):
        propensities = [log.random.uniform(0.1, 0.9) for _ in range(3)]
        ids = log.answer(3, variant=log.random.choice(["champion", "canary"]), propensities=propensities)
        log.label(ids)
        log.label(ids[:2])
        tallies.look("offers", measures)
    found = tallies.look("offers", measures).contexts
    traffic = Traffic(tmp_path)
    traffic.refresh()
    rows = traffic.frame("offers").filter(pl.col("label").is_not_null())
    rows = rows.filter(pl.col("forced").is_null()) if "forced" in rows.columns else rows
    for arm in ("champion", "canary"):
        mine = rows.filter(pl.col("variant") == arm)
        x = np.column_stack([np.ones(mine.height), mine["input.spent"].fill_null(0.0).to_numpy()])
        r, p = mine["label"].to_numpy(), mine["propensity"].to_numpy()
        np.testing.assert_allclose(found[arm].gram, x.T @ x, rtol=1e-12)
        np.testing.assert_allclose(found[arm].moment, x.T @ r, rtol=1e-12)
        assert found[arm].odds == pytest.approx(((1 / p).sum(), (r / p).sum(), ((r / p) ** 2).sum()))
        assert found[arm].count == mine.height
