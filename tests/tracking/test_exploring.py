"""The explorer of the prediction log against plain filters of all its rows, sealed in part and in whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flyball.errors import InvalidInput
from flyball.tracking.exploring import Explorer, Slice
from flyball.tracking.predictions import Label, LabelLog, PredictionBatch, PredictionLog, new_ids
from flyball.tracking.sealing import Sealer, SealingSettings
from flyball.tracking.traffic import Traffic

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CARRIERS = ["UA", "DL", 'Zoë\'s "Air" 100 %', None]


def fill(folder: Path, batches: int = 40, seed: int = 1) -> None:
    random = np.random.default_rng(seed)
    log, labels = PredictionLog(folder, "tests", "os"), LabelLog(folder, "tests", "os")
    for number in range(batches):
        rows = int(random.integers(1, 4))
        ids = new_ids(rows)
        log.append(
            PredictionBatch(
                deployment="late",
                revision=1 + number // 20,
                variant="canary" if number % 5 == 0 else "champion",
                version=f"late@{1 + number // 20}",
                at=NOON + timedelta(hours=number),
                ids=ids,
                inputs={
                    "carrier": [CARRIERS[int(random.integers(4))] for _ in range(rows)],
                    "hour": [int(random.integers(24)) for _ in range(rows)]
                    if number < 30
                    else list(random.random(rows)),
                    "is_new": [bool(random.integers(2)) for _ in range(rows)],
                },
                outputs={"probability": list(random.random(rows))},
                latency_us=int(random.integers(100, 2000)),
            )
        )
        if number % 3 == 0:
            labels.append([Label(id, int(random.integers(2)), NOON) for id in ids])
    log.close()
    labels.close()


@pytest.fixture(params=["in the log", "half in tables", "in tables"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if request.param != "in the log":
        fill(tmp_path, seed=1)
        Sealer(tmp_path, SealingSettings(keep_segments_s=0)).seal()
    fill(tmp_path, seed=2)
    if request.param == "in tables":
        Sealer(tmp_path).seal()
    return tmp_path


def everything(folder: Path) -> pl.DataFrame:
    found = Traffic(folder)
    found.refresh()
    return found.frame("late")


TENTH = NOON + timedelta(hours=10)
CARRIER, HOUR, PROBABILITY = pl.col("input.carrier"), pl.col("input.hour"), pl.col("output.probability")


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (Slice(), pl.lit(True)),
        (Slice(version="late@2"), pl.col("version") == "late@2"),
        (Slice(variant="canary", since=TENTH), (pl.col("variant") == "canary") & (pl.col("at") >= TENTH)),
        (Slice(until=TENTH), pl.col("at") < TENTH),
        (Slice(labelled=True), pl.col("label").is_not_null()),
        (Slice(labelled=False), pl.col("label").is_null()),
        (Slice(where="input.carrier = 'UA' AND input.hour >= 12"), (CARRIER == "UA") & (HOUR >= 12)),
        (Slice(where="input.carrier IN ('UA', 'DL')"), CARRIER.is_in(["UA", "DL"])),
        (Slice(where="input.carrier LIKE '%Air\" 100 %'"), CARRIERS[2] == CARRIER),
        (Slice(where="input.carrier ILIKE 'u_'"), CARRIER == "UA"),
        (Slice(where="input.carrier IS NULL"), CARRIER.is_null()),
        (Slice(where="input.is_new = 1 AND label = 1"), pl.col("input.is_new") & (pl.col("label") == 1)),
        (Slice(where="output.probability < 0.25 AND revision = 2"), (PROBABILITY < 0.25) & (pl.col("revision") == 2)),
        (Slice(where="at >= '2026-03-02T00:00:00Z'"), pl.col("at") >= datetime(2026, 3, 2, tzinfo=UTC)),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, Slice) else "",
)  # fmt: skip
def test_a_slice_has_the_rows_that_a_plain_filter_has(folder: Path, wanted: Slice, kept: pl.Expr) -> None:
    expected = everything(folder).filter(kept)
    explorer = Explorer(folder)
    found = explorer.rows("late", wanted, limit=1000)
    assert expected.height > 0
    assert sorted(found["id"]) == sorted(expected["id"])
    assert found["at"].is_sorted(descending=True)
    told = dict(zip(expected["id"], expected["label"], strict=True))
    assert all(told[id] == label for id, label in zip(found["id"], found["label"], strict=True))
    summary = explorer.summary("late", wanted)
    assert (summary.rows, summary.first, summary.last) == (expected.height, expected["at"].min(), expected["at"].max())
    assert summary.latency_ms["p50"] * 1000 == pytest.approx(expected["latency_us"].quantile(0.5))


def test_pages_follow_one_another_without_a_gap(folder: Path) -> None:
    explorer, seen, before = Explorer(folder), [], None
    while (page := explorer.rows("late", Slice(variant="champion"), 7, before)).height:
        seen += page["id"].to_list()
        before = (page["at"][-1], page["id"][-1])
    expected = everything(folder).filter(pl.col("variant") == "champion").sort("at", "id", descending=True)
    assert seen == expected["id"].to_list()


def test_groups_add_up(folder: Path) -> None:
    rows = everything(folder)
    found = Explorer(folder).summary("late", by="input.carrier").groups
    assert {group["value"]: group["rows"] for group in found} == dict(rows["input.carrier"].value_counts().iter_rows())
    assert sum(group["labelled"] for group in found) == rows["label"].count()
    ua = rows.filter(pl.col("input.carrier") == "UA")["output.probability"].mean()
    assert next(g for g in found if g["value"] == "UA")["output.probability"] == pytest.approx(ua)


def test_what_is_answered_meanwhile_is_seen(folder: Path) -> None:
    explorer = Explorer(folder)
    before = explorer.summary("late").rows
    fill(folder, 5, seed=3)
    between = explorer.summary("late").rows
    Sealer(folder, SealingSettings(keep_segments_s=0)).seal()
    assert before < between == explorer.summary("late").rows == everything(folder).height


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Slice(where="carrier = 'UA'"), 'did you mean "input.carrier"'),
        (Slice(where="input.hour = 'noon'"), "which 'noon' is not"),
        (Slice(where="input.is_new = 'maybe'"), "Boolean"),
        (Slice(where="input.hour ~ 3"), "does not compare"),
        (Slice(where="; DROP TABLE x"), "filter"),
        (Slice(where="x" * 200_000), "characters"),
        (Slice(variant="blue"), "no variant"),
    ],
)
def test_what_cannot_be_looked_for_is_said(folder: Path, wanted: Slice, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Explorer(folder).rows("late", wanted)


def test_a_deployment_that_was_never_asked_has_no_rows(tmp_path: Path) -> None:
    assert Explorer(tmp_path).rows("late").is_empty()
    assert Explorer(tmp_path).summary("late", by="version").groups == []


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="without a zone"):
        Slice(since=datetime(2026, 3, 1))


def test_how_many_rows_and_which_versions_is_known_without_reading_them(folder: Path) -> None:
    rows = everything(folder)
    assert Explorer(folder).known("late") == (rows.height, sorted(rows["version"].unique()))
    assert Explorer(folder).known("nobody") == (0, [])
