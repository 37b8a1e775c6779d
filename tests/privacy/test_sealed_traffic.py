"""Erasure and retention reach the tables of the prediction log as they reach its segments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from flyball.privacy.sealed_traffic import drop_ids, drop_older, matching_rows
from flyball.privacy.subjects import subject
from flyball.privacy.traffic import erase_traffic
from flyball.tracking.predictions import Label, LabelLog, PredictionBatch, PredictionLog, new_ids
from flyball.tracking.sealed import Sealed
from flyball.tracking.sealing import Sealer, SealingSettings
from flyball.tracking.traffic import Traffic

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def log(folder: Path, users: list[object], *, mask: bool = False, key: bool = False) -> list[str]:
    masks = {"late": frozenset({"user"})} if mask else None
    writing = PredictionLog(folder, "tests", "os", masks)
    ids = []
    for second, user in enumerate(users):
        batch = PredictionBatch(
            deployment="late",
            revision=1,
            variant="champion",
            version="late@1",
            at=NOON + timedelta(seconds=second),
            ids=new_ids(1),
            inputs={"user": [user], "note": [f'said by "{user}"'], "distance": [1.0]},
            outputs={"prediction": [1]},
            keys=[str(user)] if key else None,
        )
        writing.append(batch)
        ids += batch.ids
    writing.close()
    labels = LabelLog(folder, "tests", "os")
    labels.append_wait(Label(id, 1, NOON) for id in ids)
    labels.close()
    return ids


def seal(folder: Path) -> None:
    Sealer(folder, SealingSettings(keep_segments_s=0)).seal()


def rows_of(folder: Path) -> pl.DataFrame:
    found = Traffic(folder)
    found.refresh()
    return found.frame("late")


@pytest.mark.parametrize("user", [42, 'Zoë "ß" ✈', "https://example.org/u/7"])
@pytest.mark.parametrize("is_masked", [False, True], ids=["clear", "masked"])
def test_a_subject_goes_out_of_tables_and_segments_and_is_counted_once(
    tmp_path: Path, user: int | str, is_masked: bool
) -> None:
    others = ["anna", 4, 420, "bob"]
    log(tmp_path, [user, *others, user], mask=is_masked, key=True)
    seal(tmp_path)
    log(tmp_path, [others[0], user], mask=is_masked, key=True)
    Sealer(tmp_path).seal()  # in both: the segment stays for an hour
    log(tmp_path, [user], mask=is_masked, key=True)
    who = subject(user, ["user"], tmp_path / "mask.key")

    counted = erase_traffic(tmp_path, who, {"late": "user"}, dry_run=True)
    done = erase_traffic(tmp_path, who, {"late": "user"})

    assert {name: one.rows for name, one in counted.items()} == {"predictions": 4, "labels": 4}
    assert done == counted
    rows = rows_of(tmp_path)
    assert rows.height == 5
    assert rows["label"].null_count() == 0
    kept = pl.concat([pl.read_parquet(Sealed(tmp_path).path(p)) for p in Sealed(tmp_path).parts("predictions")])
    assert kept.height == 5
    hidden = {str(user), *who.hashes}
    assert not hidden & set(kept["input.user"].cast(pl.String)) | hidden & set(kept["key"])


def test_a_subject_told_of_in_the_row_of_another_is_taken_out_of_the_text(tmp_path: Path) -> None:
    log(tmp_path, ["anna", "wilhelmina"])
    writing = PredictionLog(tmp_path, "tests", "os")
    writing.append_wait(
        PredictionBatch(
            "late",
            1,
            "champion",
            "late@1",
            NOON,
            new_ids(1),
            {"user": ["bob"], "note": ["wilhelmina"]},
            {"prediction": [0]},
        )
    )
    writing.close()
    seal(tmp_path)
    erase_traffic(tmp_path, subject("wilhelmina", ["user"]), {})
    rows = rows_of(tmp_path)
    assert sorted(rows["input.user"]) == ["anna", "bob"]


def test_rows_too_old_go_with_their_labels(tmp_path: Path) -> None:
    ids = log(tmp_path, ["a", "b", "c", "d"])
    seal(tmp_path)
    border = int((NOON + timedelta(seconds=2)).timestamp() * 1e6)
    assert drop_older(tmp_path, {"late"}, border, dry_run=True) == set(ids[:2])
    assert {id for id, _ in drop_ids(tmp_path, ids[:2])} == set(ids[:2])
    assert drop_older(tmp_path, {"late"}, border) == set(ids[:2])
    assert sorted(rows_of(tmp_path)["id"]) == ids[2:]
    assert sum(part.rows for part in Sealed(tmp_path).parts("labels")) == 2
    assert drop_older(tmp_path, {"other"}, border + 10**9) == set()


def test_a_subject_is_found_again_by_what_tells_it(tmp_path: Path) -> None:
    log(tmp_path, ["anna", 42.0])
    seal(tmp_path)
    assert matching_rows(tmp_path, ["user"], lambda text: text == "anna") == "anna"
    assert matching_rows(tmp_path, ["distance"], lambda text: text == "1") == "1"
    assert matching_rows(tmp_path, ["user", "nothing"], lambda text: text == "zoe") is None
