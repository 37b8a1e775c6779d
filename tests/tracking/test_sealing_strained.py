"""The tables of the prediction log under what happens to disks and processes: damage, full disks, `kill -9`."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import string
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from flyball.errors import Corrupt
from flyball.privacy.sealed_traffic import take_out
from flyball.tracking.exploring import Explorer, Slice
from flyball.tracking.predictions import PredictionBatch, PredictionLog, new_ids
from flyball.tracking.sealed import Part, Sealed, alone
from flyball.tracking.sealing import Sealer, SealingSettings
from flyball.tracking.traffic import Traffic, TrafficReader

NOON = datetime(2013, 5, 3, 12, 0, tzinfo=UTC)
KILLS = int(os.environ.get("FLYBALL_SEALING_KILLS", "2"))  # `soak/test_faults.py` kills more often


def batch(rows: int, second: float = 0, deployment: str = "late", **changes: Any) -> PredictionBatch:
    plain = PredictionBatch(
        deployment=deployment,
        revision=3,
        variant="champion",
        version="late@2",
        at=NOON + timedelta(seconds=second),
        ids=new_ids(rows),
        inputs={"distance": [float(row) for row in range(rows)], "carrier": ["Zürich ✈"] * rows},
        outputs={"probability": [0.75] * rows},
    )
    return plain._replace(**changes)


def write(folder: Path, *batches: PredictionBatch) -> list[str]:
    log = PredictionLog(folder, "tests", "os")
    for one in batches:
        log.append(one)
    log.close()
    return [id for one in batches for id in one.ids]


def sealer(folder: Path) -> Sealer:
    return Sealer(folder, SealingSettings(keep_segments_s=0))


def ids_of(folder: Path, deployment: str = "late") -> list[str]:
    reader = Traffic(folder)
    reader.refresh()
    return sorted(reader.frame(deployment)["id"])


def sealed_in_turn(folder: Path, count: int) -> tuple[list[list[str]], list[Part]]:
    """Write and seal several times; return the ids and the file of each time."""
    found = []
    for second in range(count):
        found.append(write(folder, batch(3, second)))
        sealer(folder).seal()
    return found, Sealed(folder).parts("predictions", "late")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 60 : middle + 60] = os.urandom(120)
    path.write_bytes(data)


DAMAGES = {
    "changed bytes": flip,
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": Path.unlink,
    "something else": lambda path: path.write_bytes(b"PAR1 is not enough PAR1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_hides_its_own_rows_only_and_until_it_is_restored(tmp_path: Path, damage: str) -> None:
    ids, parts = sealed_in_turn(tmp_path, 3)
    live = write(tmp_path, batch(2, 10))
    path = Sealed(tmp_path).path(parts[1])
    whole = path.read_bytes()
    explorer = Explorer(tmp_path)
    assert explorer.summary("late").rows == 11
    DAMAGES[damage](path)

    left = sorted([*ids[0], *ids[2], *live])
    assert ids_of(tmp_path) == left
    assert sorted(explorer.rows("late")["id"]) == left
    assert explorer.summary("late", by="input.carrier").groups[0]["rows"] == 8
    assert sorted(Explorer(tmp_path).rows("late", Slice(where="input.distance >= 0"))["id"]) == left
    assert "input.distance" in Explorer(tmp_path).schema("late")
    assert TrafficReader(tmp_path).find(ids[2][0]).id == ids[2][0]  # type: ignore[union-attr]
    with pytest.raises(Corrupt, match="cannot be read back"):  # nobody may say that somebody is in no file
        take_out(tmp_path, [b"nobody"], lambda payload: payload)

    path.write_bytes(whole)
    assert explorer.summary("late").rows == 11
    assert ids_of(tmp_path) == sorted([*chain(*ids), *live])


def test_a_damaged_file_does_not_stop_sealing_merging_and_tidying(tmp_path: Path) -> None:
    ids, parts = sealed_in_turn(tmp_path, 7)
    path = Sealed(tmp_path).path(parts[3])
    flip(path)
    rounds = sealer(tmp_path)
    for second in range(7, 16):
        ids.append(write(tmp_path, batch(3, second)))
        done = rounds.seal()
        assert (done.predictions, done.segments) == (3, 1)
    assert path.exists()
    assert len(Sealed(tmp_path).parts("predictions", "late")) < 10  # of 16: the others were merged
    assert ids_of(tmp_path) == sorted(chain(*ids[:3], *ids[4:]))


def test_a_damaged_catalogue_is_said_and_harms_no_file(tmp_path: Path) -> None:
    sealed_in_turn(tmp_path, 3)
    catalogue = tmp_path / "sealed.sqlite"
    with sqlite3.connect(catalogue) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    opened.close()
    files = sorted((tmp_path / "tables").rglob("*.parquet"))
    for damage in (b"x" * 8192, b"SQLite format 3\0" + b"\xff" * 5000):
        catalogue.write_bytes(damage)
        for suffix in ("-wal", "-shm"):
            catalogue.with_name(catalogue.name + suffix).unlink(missing_ok=True)
        for act in (
            sealer(tmp_path).seal,
            lambda: Explorer(tmp_path).rows("late"),
            lambda: Traffic(tmp_path).refresh(),
        ):
            with pytest.raises(Corrupt, match=r"sealed\.sqlite is damaged .*restore it from a backup"):
                act()
    assert sorted((tmp_path / "tables").rglob("*.parquet")) == files


SEAL_ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from flyball.tracking.sealing import Sealer, SealingSettings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sealer = Sealer(Path(sys.argv[1]), SealingSettings(keep_segments_s=0))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    print(sealer.seal())
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("allowed_bytes", [0, 1000, 5_000, 30_000])
def test_a_full_disk_loses_nothing_and_leaves_no_drafts(tmp_path: Path, allowed_bytes: int) -> None:
    ids = write(tmp_path, batch(4000, 0, inputs={"x": [random.random() for _ in range(4000)]}), batch(5, 86_400))
    command = [sys.executable, "-c", SEAL_ON_A_FULL_DISK, str(tmp_path), str(allowed_bytes)]
    told = subprocess.run(command, timeout=60, check=True, capture_output=True, text=True).stdout
    assert "Sealings(" not in told
    assert ids_of(tmp_path) == ids
    assert sealer(tmp_path).seal().predictions == 4005
    assert ids_of(tmp_path) == ids
    assert not list((tmp_path / "tables").rglob(".*"))


def test_every_allowed_character_may_stand_in_a_deployments_name(tmp_path: Path) -> None:
    allowed = string.ascii_letters + string.digits + "_.-"
    names = [f"_{allowed}", "a..b", "labels", "predictions", "x.parquet", "_" * 128, "2013-05-03", "late.", "A", "a"]
    wanted = {name: write(tmp_path, batch(2, 0, deployment=name)) for name in names}
    sealer(tmp_path).seal()
    assert not list((tmp_path / "predictions").glob("*.seg"))
    for name, ids in wanted.items():
        assert ids_of(tmp_path, name) == ids
        assert sorted(Explorer(tmp_path).rows(name)["id"]) == ids


def test_a_column_may_change_its_type_from_version_to_version(tmp_path: Path) -> None:
    kinds: list[list[Any]] = [
        [1, 2, None], [1.5, -0.0, 3.0], ["UA", "", "3"], [[1, 2], [], None], [True, False, None],
        [{"a": 1}, {}, None], [2**63, 1, 2], [None, None, None], [10**15, 2, 3], ["ü\u0000✈", "NaN", "null"],
    ]  # fmt: skip
    for order in (kinds, kinds[::-1]):
        folder = tmp_path / str(order is kinds)
        for number, values in enumerate(order):
            write(folder, batch(3, number, version=f"late@{number}", inputs={"x": values}, outputs={"y": values[::-1]}))
        before = Traffic(folder)
        before.refresh()
        wanted = before.frame("late")
        sealer(folder).seal()
        assert_frame_equal(Traffic(folder).frame("late"), wanted, check_column_order=False)
        apart = tmp_path / f"apart {order is kinds}"
        for number, values in enumerate(order):  # a file each, merged when there are eight
            write(apart, batch(3, number, version=f"late@{number}", inputs={"x": values}, outputs={"y": values[::-1]}))
            sealer(apart).seal()
        assert sorted(Explorer(apart).rows("late")["at"]) == sorted(wanted["at"])
        assert Explorer(apart).rows("late", Slice(version="late@2")).height == 3
        assert Explorer(apart).summary("late", by="input.x").rows == 30


def test_a_segment_that_a_killed_writer_left_unfinished_is_removed_when_its_rows_are_sealed(tmp_path: Path) -> None:
    ids = write(tmp_path, batch(3, 0))
    (segment,) = (tmp_path / "predictions").glob("*.seg")
    with segment.open("ab") as stream:
        stream.write(segment.read_bytes()[8:40])  # a frame's beginning
    (tmp_path / "predictions" / "tests.0000000000000001-000000.seg").write_bytes(b"flyball1")
    (tmp_path / "predictions" / "tests.0000000000000002-000000.seg").write_bytes(b"")
    assert sealer(tmp_path).seal().segments == 3
    assert ids_of(tmp_path) == ids
    sealer(tmp_path).seal()
    assert Sealed(tmp_path).cursor("predictions") == {}  # of segments that are gone nothing is kept


STRAIN = """
import os, random, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from flyball.errors import FlyballError
from flyball.privacy.traffic import take_out
from flyball.tracking.predictions import PredictionBatch, PredictionLog, new_ids
from flyball.tracking.sealing import Sealer, SealingSettings

folder, role = Path(sys.argv[1]), sys.argv[2]
NOON = datetime(2013, 5, 3, 12, 0, tzinfo=UTC)
print("ready", flush=True)
if role == "write":
    log = PredictionLog(folder, "writer", "os")
    while True:
        ids = new_ids(3)
        log.append_wait(PredictionBatch("late", 1, "champion", "late@1", NOON, ids,
            {"who": ["keep", "forget me", "keep"]}, {"y": [1, 2, 3]}))
        os.write(1, (" ".join(ids) + "\\n").encode())
        time.sleep(0.002)
elif role == "seal":
    while True:
        Sealer(folder, SealingSettings(keep_segments_s=0)).seal()
elif role == "erase":
    while True:
        try:
            ERASE
        except FlyballError:
            pass
"""


def test_killed_again_and_again_every_acknowledged_row_is_there_once(tmp_path: Path) -> None:
    """A writer, two that seal and one that rewrites segments and tables, each killed at random points."""
    rewriting = (
        "from flyball.storage.streams.rewriting import rewrite; from flyball.tracking.sealed import alone\n"
        "            from flyball.privacy.sealed_traffic import take_out as take_sealed\n"
        "            def change(payload): return payload.replace(b'forget me', b'*********')\n"
        "            with alone(folder):\n"
        "                rewrite(folder / 'predictions', change); take_sealed(folder, [b'forget me'], change)"
    )
    code = STRAIN.replace("from flyball.privacy.traffic import take_out\n", "").replace("ERASE", rewriting)
    draw = random.Random(7)
    written: list[str] = []
    for _ in range(KILLS):
        processes = [
            subprocess.Popen([sys.executable, "-c", code, str(tmp_path), role], stdout=subprocess.PIPE, text=True)
            for role in ("write", "seal", "seal", "erase")
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        time.sleep(0.3 + draw.random() * 0.7)  # the point of the kill is what is drawn
        for process in draw.sample(processes, len(processes)):
            process.send_signal(signal.SIGKILL)
        for process in processes:
            lines = process.communicate(timeout=20)[0].splitlines(keepends=True)
            written += [id for line in lines if line.endswith("\n") for id in line.split() if len(id) == 32]
    sealer(tmp_path).seal()
    with alone(tmp_path):  # what was killed each time, once to its end
        take_out(tmp_path, [b"forget me"], lambda payload: payload.replace(b"forget me", b"*********"))
    reader = Traffic(tmp_path, keep_rows=10_000_000)
    reader.refresh()
    found = reader.frame("late")
    assert len(written) > 10 * KILLS
    assert set(written) <= set(found["id"])
    assert found["id"].n_unique() == found.height == reader.count("late")
    assert found.group_by("output.y").len()["len"].n_unique() == 1
    assert not list((tmp_path / "tables").rglob(".*"))
    assert set(found["input.who"]) == {"*********", "keep"}
