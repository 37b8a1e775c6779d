"""The prediction log in tables: sealed bit by bit, merged, read beside what is not yet sealed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flyball.errors import InvalidInput, Unavailable
from flyball.tracking import sealed
from flyball.tracking.live import LiveTraffic
from flyball.tracking.predictions import Label, LabelLog, PredictionBatch, PredictionLog, new_ids
from flyball.tracking.sealed import Sealed, alone
from flyball.tracking.sealing import Sealer, SealingSettings
from flyball.tracking.traffic import Traffic, TrafficReader

EVENING = datetime(2013, 5, 3, 23, 59, 50, tzinfo=UTC)


def batch(rows: int, second: float = 0, deployment: str = "late", **changes: Any) -> PredictionBatch:
    plain = PredictionBatch(
        deployment=deployment,
        revision=3,
        variant="champion",
        version="late@2",
        at=EVENING + timedelta(seconds=second),
        ids=new_ids(rows),
        inputs={"distance": [float(row) for row in range(rows)], "carrier": ["Zürich ✈"] * rows},
        outputs={"prediction": [1] * rows, "probability": [0.75] * rows},
        latency_us=120,
    )
    return plain._replace(**changes)


def write(folder: Path, *batches: PredictionBatch) -> list[str]:
    log = PredictionLog(folder, "tests", "os")
    for one in batches:
        log.append(one)
    log.close()
    return [id for one in batches for id in one.ids]


def label(folder: Path, values: dict[str, Any], second: float = 100) -> None:
    log = LabelLog(folder, "tests", "os")
    log.append_wait(Label(id, value, EVENING + timedelta(seconds=second)) for id, value in values.items())
    log.close()


def sealer(folder: Path, keep_s: float = 0.0) -> Sealer:
    return Sealer(folder, SealingSettings(keep_segments_s=keep_s))


def test_rows_read_the_same_before_and_after_they_are_sealed(tmp_path: Path) -> None:
    ids = write(tmp_path, *[batch(3, second) for second in range(20)])
    label(tmp_path, dict.fromkeys(ids[::2], 1))
    label(tmp_path, {ids[0]: 0}, 200)
    before = Traffic(tmp_path)
    before.refresh()

    done = sealer(tmp_path).seal()

    assert (done.predictions, done.labels, done.segments) == (60, 31, 3)
    assert not list((tmp_path / "predictions").glob("*.seg"))
    after = Traffic(tmp_path)
    assert after.refresh() == 0
    assert after.count("late") == 60
    assert_frame_equal(after.frame("late"), before.frame("late"), check_column_order=False)
    assert after.frame("late").filter(pl.col("id") == ids[0])["label"].to_list() == [0]


def test_a_day_has_its_own_files_and_other_tools_read_them(tmp_path: Path) -> None:
    ids = write(tmp_path, batch(5, 0), batch(7, 60), batch(2, 60, deployment="churn"))
    sealer(tmp_path).seal()
    found = duckdb.sql(
        f"SELECT count(*), min(id), max(\"input.distance\") FROM read_parquet('{tmp_path}/tables/predictions/late/*/*')"
    ).fetchall()
    assert found == [(12, ids[0], 6.0)]
    assert sorted(p.parent.name for p in (tmp_path / "tables" / "predictions" / "late").glob("*/*.parquet")) == [
        "2013-05-03",
        "2013-05-04",
    ]


def test_what_comes_between_rounds_is_there_once(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, "tests", "os")
    for second in range(30):
        log.append_wait(batch(2, second))
        if second % 3 == 0:
            assert sealer(tmp_path).seal().segments == 0  # its writer is alive
        found = Traffic(tmp_path)
        found.refresh()
        assert (
            found.frame("late")["id"].n_unique() == found.frame("late").height == found.count("late") == 2 * second + 2
        )
    log.close()
    assert sealer(tmp_path).seal().segments == 1


def test_a_reader_that_began_before_a_round_sees_each_row_once(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, "tests", "os")
    log.append_wait(batch(4, 0))
    sealer(tmp_path).seal()
    log.append_wait(batch(4, 1))
    reader = Traffic(tmp_path)
    reader.refresh()
    sealer(tmp_path).seal()  # now the tables hold what the reader has met in the log
    log.append_wait(batch(4, 2))
    reader.refresh()
    assert reader.frame("late")["id"].n_unique() == reader.frame("late").height == reader.count("late") == 12
    log.close()


def test_live_traffic_reads_anew_when_segments_went(tmp_path: Path) -> None:
    live = LiveTraffic(tmp_path)
    write(tmp_path, batch(4, 0))
    sealer(tmp_path).seal()
    write(tmp_path, batch(4, 1))
    sealer(tmp_path).seal()
    live.refresh()
    assert live.count("late") == live.frame("late").height == 8


def test_small_files_of_a_day_are_merged_and_keep_their_rows(tmp_path: Path) -> None:
    written = []
    for second in range(9):
        written += write(
            tmp_path, batch(3, second / 10, inputs={"distance": [second] * 3 if second % 2 else [0.5] * 3})
        )
        merged = sealer(tmp_path).seal().merged
        assert merged == (8 if second == 7 else 0)
    parts = Sealed(tmp_path).parts("predictions", "late")
    assert [part.rows for part in parts] == [24, 3]
    rows = TrafficReader(tmp_path)
    assert all(rows.find(id).inputs["distance"] == (n // 3 if n // 3 % 2 else 0.5) for n, id in enumerate(written))


def test_a_prediction_is_found_by_its_id_wherever_it_is(tmp_path: Path) -> None:
    old = write(tmp_path, batch(3, 0, keys=["a", None, "c"], trace="f" * 32))
    sealer(tmp_path).seal()
    new = write(tmp_path, batch(1, 5))
    reader = TrafficReader(tmp_path)
    found = reader.find(old[2])
    assert (found.key, found.trace, found.inputs) == ("c", "f" * 32, {"distance": 2.0, "carrier": "Zürich ✈"})
    assert found.outputs == {"prediction": 1, "probability": 0.75}
    assert found.at == EVENING
    assert reader.find(new[0]).id == new[0]
    assert reader.find("0" * 32) is None


SEAL_AND_DIE = """
import os, signal, sys
from pathlib import Path
from flyball.tracking.sealed import Sealed
from flyball.tracking.sealing import Sealer

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "before the transaction ends":
    draft = Sealed._draft
    Sealed._draft = lambda *arguments: (draft(*arguments), die())
else:
    Path.replace = die
Sealer(Path(sys.argv[1])).seal()
"""


@pytest.mark.parametrize("at", ["before the transaction ends", "before the file has its name"])
def test_killed_in_the_middle_nothing_is_lost_or_doubled(tmp_path: Path, at: str) -> None:
    ids = write(tmp_path, batch(5, 0), batch(5, 60))
    killed = subprocess.run([sys.executable, "-c", SEAL_AND_DIE, str(tmp_path), at], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL

    halfway = Traffic(tmp_path)
    halfway.refresh()
    assert sorted(halfway.frame("late")["id"]) == ids
    sealer(tmp_path).seal()
    assert sorted(Traffic(tmp_path).frame("late")["id"]) == ids
    assert not list((tmp_path / "tables").rglob(".*"))
    assert len(list((tmp_path / "tables").rglob("*.parquet"))) == 2


def test_rows_written_while_rounds_go_on_are_all_there(tmp_path: Path) -> None:
    stop, written = threading.Event(), []

    def rounds() -> None:
        while not stop.is_set():
            sealer(tmp_path).seal()

    thread = threading.Thread(target=rounds)
    thread.start()
    for second in range(40):
        written += write(tmp_path, batch(5, second))
    reader = Traffic(tmp_path)
    reader.refresh()
    assert reader.frame("late").height == 200
    stop.set()
    thread.join(30)
    sealer(tmp_path).seal()
    assert sorted(Traffic(tmp_path).frame("late")["id"]) == written


def test_one_process_changes_the_tables_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "_LOCK_S", 0.1)
    write(tmp_path, batch(5, 0))
    with alone(tmp_path):
        assert sealer(tmp_path).seal().predictions == 0
        with pytest.raises(Unavailable, match="another process"), alone(tmp_path):
            pass
    assert sealer(tmp_path).seal().predictions == 5


def test_segments_stay_as_long_as_the_settings_say(tmp_path: Path) -> None:
    write(tmp_path, batch(5, 0))
    assert sealer(tmp_path, keep_s=3600).seal().segments == 0
    assert sealer(tmp_path).seal().segments == 1


def test_a_row_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    ids = write(tmp_path, batch(1, 0), batch(1, 1), batch(1, 2))
    segment = next((tmp_path / "predictions").glob("*.seg"))
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    segment.write_bytes(damaged)
    assert sealer(tmp_path).seal().predictions == 2
    assert sorted(Traffic(tmp_path).frame("late")["id"]) == [ids[0], ids[2]]


def test_negative_times_are_refused() -> None:
    with pytest.raises(InvalidInput, match="seal_every_s"):
        SealingSettings(seal_every_s=-1)
