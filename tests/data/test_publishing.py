"""Publishing in every mode: upsert and append, many writers at once, kill at every step, any version or time read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flyball.data.kinds  # noqa: F401 (registers Dataset)
from flyball.clock import SYSTEM
from flyball.data.datasets import Datasets
from flyball.errors import Conflict, InvalidInput, NotFound
from flyball.ledger.sql import open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.parquet import ParquetTables
from flyball.testing.clock import FakeClock

ALICE = "user/alice"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: FakeClock) -> Iterator[SqlLedger]:
    opened = open_ledger(tmp_path, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def tables(tmp_path: Path) -> ParquetTables:
    return ParquetTables(FileBlobs(tmp_path / "blobs"))


@pytest.fixture
def datasets(ledger: SqlLedger, tables: ParquetTables, tmp_path: Path) -> Datasets:
    declare(ledger, key=["id"])
    return Datasets(ledger, tables, tmp_path, SYSTEM)


def declare(ledger: SqlLedger, **spec: Any) -> None:
    with ledger.write(ALICE) as world:
        world.resources.apply("dataset", "people", spec)


def rows(datasets: Datasets, **options: Any) -> list[tuple[Any, ...]]:
    return datasets.frame("people", **options).collect().rows()


# -- modes


def test_an_upsert_replaces_where_it_stands_and_puts_the_rest_behind(datasets: Datasets) -> None:
    datasets.publish("people", {"id": [1, 2, 3], "x": ["a", "b", "c"]}, actor=ALICE)
    batch = {"id": [2, 9, 3, 9], "x": ["B", "no", "c", "z"]}
    done = datasets.publish("people", batch, actor=ALICE, mode="upsert")
    assert rows(datasets) == [(1, "a"), (2, "B"), (3, "c"), (9, "z")]
    assert dict(done.changes) == {"inserted": 1, "updated": 1, "unchanged": 1, "repeats": 1}
    assert done.version.metadata["changes"] == dict(done.changes)
    assert (done.version.metadata["mode"], done.version.metadata["rows"]) == ("upsert", 4)
    again = datasets.publish("people", batch, actor=ALICE, mode="upsert")
    assert again.version.number == done.version.number == 2, "an upsert that changes nothing makes no version"
    assert rows(datasets, version=1) == [(1, "a"), (2, "b"), (3, "c")]


def test_a_first_upsert_makes_the_first_version(datasets: Datasets) -> None:
    datasets.publish("people", {"id": [1, 1], "x": ["a", "b"]}, actor=ALICE, mode="upsert")
    assert rows(datasets) == [(1, "b")]


def test_a_key_given_by_hand_overrides_the_dataset_s(datasets: Datasets) -> None:
    datasets.publish("people", {"id": [1, 2], "x": ["a", "b"]}, actor=ALICE)
    datasets.publish("people", {"id": [7], "x": ["b"]}, actor=ALICE, mode="upsert", key="x")
    assert rows(datasets) == [(1, "a"), (7, "b")]


def test_appended_rows_are_fitted_or_refused_with_what_differs(datasets: Datasets) -> None:
    datasets.publish("people", {"id": [1], "x": ["a"]}, actor=ALICE)
    more = pl.DataFrame({"x": [None], "id": pl.Series([2], dtype=pl.Int8)})
    done = datasets.publish("people", more, actor=ALICE, mode="append")
    assert dict(done.changes) == {"appended": 1}
    assert rows(datasets) == [(1, "a"), (2, None)]
    wrong = {"id": [1.5], "y": [1]}
    for mode in ("append", "upsert"):
        with pytest.raises(InvalidInput, match=r'schema drift.*"x" is missing; "y" is new; "id" is Float64, not Int64'):
            datasets.publish("people", wrong, actor=ALICE, mode=mode)  # type: ignore[arg-type]
    assert rows(datasets) == [(1, "a"), (2, None)]


@pytest.mark.parametrize(
    ("batch", "options", "sentence"),
    [
        ({"id": [1, None], "x": ["a", "b"]}, {}, r"1 of 2 rows have no value in the key \(id\)"),
        ({"idd": [1]}, {}, 'no column "id", which is in the key; did you mean "idd"'),
        ({"id": [1]}, {"key": ["id", "id"]}, "names a column twice"),
        ({"id": []}, {}, "has no rows"),
        ({"id": [1]}, {"mode": "append", "key": "id"}, 'a key is for mode="upsert"'),
        ({"id": [1]}, {"mode": "upsrt"}, 'mode is "upsrt"; did you mean "upsert"'),
        ({"id": []}, {"mode": "append"}, "has no rows"),
    ],
)
def test_a_batch_that_cannot_be_put_in_changes_nothing(
    datasets: Datasets, batch: Any, options: dict[str, Any], sentence: str
) -> None:
    datasets.publish("people", {"id": [5], "x": ["a"]}, actor=ALICE)
    with pytest.raises(InvalidInput, match=sentence):
        datasets.publish("people", batch, actor=ALICE, **{"mode": "upsert", **options})
    assert rows(datasets) == [(5, "a")]


def test_an_upsert_without_a_key_says_where_to_name_one(datasets: Datasets, ledger: SqlLedger) -> None:
    declare(ledger)
    with pytest.raises(InvalidInput, match="no key to go by; name its columns in the dataset's field key"):
        datasets.publish("people", {"id": [1]}, actor=ALICE, mode="upsert")


# -- reading any version or time


def test_a_version_is_read_by_number_alias_or_time(datasets: Datasets, ledger: SqlLedger, clock: FakeClock) -> None:
    start = clock.now()
    for number in (1, 2, 3):
        clock.advance(60)
        datasets.publish("people", {"id": [number]}, actor=ALICE)
        with ledger.write(ALICE) as world:
            world.versions.set_alias("dataset", "people", "good", max(1, number - 1))
    assert rows(datasets, version=2) == [(2,)]
    assert rows(datasets, version="good") == [(2,)]
    assert rows(datasets, at=start + timedelta(seconds=60)) == [(1,)]
    assert rows(datasets, at=start + timedelta(seconds=179)) == [(2,)]
    assert rows(datasets, version="good", at=start + timedelta(seconds=179)) == [(1,)]
    assert rows(datasets, at=start + timedelta(days=9)) == [(3,)]
    with pytest.raises(NotFound, match="had no version yet at"):
        rows(datasets, at=start)
    with pytest.raises(InvalidInput, match="has no zone"):
        rows(datasets, at=start.replace(tzinfo=None))
    with pytest.raises(InvalidInput, match="give a number or a time"):
        rows(datasets, version=2, at=start)
    with pytest.raises(NotFound, match=r'no alias "good".*it had at'):
        rows(datasets, version="good", at=start)


def test_two_versions_are_compared_by_the_dataset_s_key(datasets: Datasets) -> None:
    datasets.publish("people", {"id": [1, 2], "x": ["a", "b"]}, actor=ALICE)
    datasets.publish("people", {"id": [2, 3], "x": ["B", "c"]}, actor=ALICE)
    made = datasets.diff("people", 1)
    assert (made.before, made.after, made.key) == ("dataset/people@1", "dataset/people@2", ("id",))
    assert (made.added, made.removed, made.changed) == (1, 1, 1)
    assert datasets.diff("people", 1, 2, key=[]).removed == 2
    assert datasets.table("people").rows == 2
    assert datasets.summary("people") is None


# -- many at once


def test_a_version_that_came_in_between_is_put_under_and_none_is_lost(
    datasets: Datasets, tables: ParquetTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.publish("people", {"id": [0], "x": [0]}, actor=ALICE)
    join, came = tables.join, iter(range(1, 3))

    def interrupted(before: str | None, more: Any) -> Any:
        made = join(before, more)
        number = next(came, None)
        if number is not None:  # another writer publishes after this one has looked
            monkeypatch.setattr(tables, "join", join)
            datasets.publish("people", {"id": [number], "x": [number]}, actor=ALICE, mode="append")
            monkeypatch.setattr(tables, "join", interrupted)
        return made

    monkeypatch.setattr(tables, "join", interrupted)
    datasets.publish("people", {"id": [9], "x": [9]}, actor=ALICE, mode="append")
    assert rows(datasets) == [(0, 0), (1, 1), (2, 2), (9, 9)]


def test_who_never_comes_first_gives_up_after_a_bound(
    datasets: Datasets, tables: ParquetTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.publish("people", {"id": [0]}, actor=ALICE)
    monkeypatch.setattr("flyball.data.publishing._HOLDING_S", -1.0)
    join, numbers = tables.join, iter(range(1, 100))

    def overtaken(before: str | None, more: Any) -> Any:
        datasets.publish("people", {"id": [next(numbers)]}, actor=ALICE, mode="upsert")
        return join(before, more)

    batch = tables.stage([pl.DataFrame({"id": [-1]})])
    monkeypatch.setattr(
        tables, "join", lambda before, more: (overtaken if more.parts == batch.parts else join)(before, more)
    )
    with pytest.raises(Conflict, match="others published 20 times"):
        datasets.publish("people", {"id": [-1]}, actor=ALICE, mode="append")
    assert len(rows(datasets)) == 21


def test_a_version_rewritten_meanwhile_is_not_built_upon(ledger: SqlLedger) -> None:
    with ledger.write(ALICE) as world:
        first = world.versions.publish("dataset", "people", "a" * 64)
        world.versions.rewrite("dataset", "people", 1, "b" * 64, {})
    with ledger.write(ALICE) as world, pytest.raises(Conflict, match="people@1 was rewritten"):
        world.versions.publish("dataset", "people", "c" * 64, after=first)
    with ledger.write(ALICE) as world, pytest.raises(Conflict, match="people@1 is the newest version"):
        world.versions.publish("dataset", "people", "c" * 64, after=0)
    with ledger.write(ALICE) as world, pytest.raises(Conflict, match="dataset/others has no version"):
        world.versions.publish("dataset", "others", "c" * 64, after=first)


_WRITERS = """
import os, sys
from pathlib import Path
import polars as pl
import flyball.data.kinds
from flyball.data.datasets import Datasets
from flyball.ledger.sql import open_ledger
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.parquet import ParquetTables

home = Path(sys.argv[1])
pids = []
for writer in range(8):  # forked before Polars has threads
    pids.append(os.fork())
    if pids[-1]:
        continue
    datasets = Datasets(open_ledger(home), ParquetTables(FileBlobs(home / "blobs")), home)
    for batch in range(6):
        first = writer * 10_000 + batch * 100
        if writer % 2:
            frame = pl.DataFrame({"id": range(first, first + 50), "by": [writer] * 50})
            datasets.publish("people", frame, actor=f"user/w{writer}", mode="append")
        else:  # half of the rows again, and a row that all of them fight for
            ids = [*range(first - 25 * (batch > 0), first + 50), -1]
            frame = pl.DataFrame({"id": ids, "by": [writer] * len(ids)})
            datasets.publish("people", frame, actor=f"user/w{writer}", mode="upsert")
    os._exit(0)
sys.exit(max(os.waitpid(pid, 0)[1] for pid in pids) != 0)
"""


def test_eight_writers_at_once_lose_nothing_and_put_nothing_in_twice(
    datasets: Datasets, ledger: SqlLedger, tmp_path: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", _WRITERS, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = {-1}
    for writer in range(8):
        for batch in range(6):
            first = writer * 10_000 + batch * 100
            expected |= set(range(first - (25 if batch and not writer % 2 else 0), first + 50))
    found = datasets.frame("people").collect()
    assert sorted(found["id"].to_list()) == sorted(expected)
    owned = found.filter(pl.col("id") >= 0).with_columns(owner=(pl.col("id") + 25) // 10_000)
    assert owned.filter(pl.col("by") != pl.col("owner")).is_empty()
    with ledger.read() as world:
        versions = world.versions.all("dataset", "people")
        assert world.journal.verify() > 48
    assert [version.number for version in versions] == list(range(48, 0, -1))
    sizes = [version.metadata["rows"] for version in versions]
    assert sizes == sorted(sizes, reverse=True)


# -- faults

_PUBLISHER = """
import os, signal, sys
from pathlib import Path
import polars as pl
import sqlalchemy
import flyball.data.kinds
from flyball.data.datasets import Datasets
from flyball.ledger.sql import open_ledger
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.parquet import ParquetTables

home, mode = Path(sys.argv[1]), sys.argv[2]
steps = 0

def step(event, args):
    global steps
    if event in ("os.rename", "fsync", "commit") and armed:
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)

armed, at, fsync = False, 0, os.fsync
sys.addaudithook(step)
os.fsync = lambda descriptor: (step("fsync", ()), fsync(descriptor))
for line in sys.stdin:  # one attempt a line, forked before Polars has threads; killed before its step number `at`
    at = int(line)
    pid = os.fork()
    if not pid:
        ledger = open_ledger(home)
        sqlalchemy.event.listen(ledger.engine, "commit", lambda connection: step("commit", ()))
        datasets = Datasets(ledger, ParquetTables(FileBlobs(home / "blobs"), part_rows=200), home)
        armed = True
        frame = pl.DataFrame({"id": range(at * 10, at * 10 + 500), "x": [at] * 500})
        datasets.publish("people", frame, actor="user/alice", mode=mode)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("mode", ["overwrite", "append", "upsert"])
def test_kill_9_at_any_step_leaves_the_last_version_and_nothing_half(
    datasets: Datasets, tmp_path: Path, mode: str
) -> None:
    datasets.publish("people", {"id": [1, 2, 3], "x": [-1, -1, -1]}, actor=ALICE)
    command = [sys.executable, "-c", _PUBLISHER, str(tmp_path), mode]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    before, killed = rows(datasets), 0
    blobs = FileBlobs(tmp_path / "blobs")
    for at in range(1, 60):
        print(at, file=child.stdin, flush=True)
        if int(child.stdout.readline()) == 0:
            break
        killed += 1
        assert rows(datasets) == before
        for digest in blobs.digests():
            blobs.get(digest)  # whole, whatever it belongs to
    child.stdin.close()
    assert child.wait(30) == 0
    assert killed >= 10, "kept parts, manifest and the ledger's commit are steps"
    after = rows(datasets)
    new = dict.fromkeys(range(at * 10, at * 10 + 500), at)
    kept = {} if mode == "overwrite" else dict(before)
    assert dict(after) == kept | new
    assert len(after) == len(kept | new)


def test_a_full_disk_is_said_and_the_last_version_stays(
    datasets: Datasets, tables: ParquetTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the machine itself says on a full disk is in tests/storage; this is how far it comes.
    from flyball.errors import Unavailable

    def full(*_: Any) -> Any:
        raise Unavailable("the disk is full; the table was not written")

    datasets.publish("people", {"id": [1], "x": [1]}, actor=ALICE)
    for method in ("stage", "join"):
        with monkeypatch.context() as patch:
            patch.setattr(tables, method, full)
            with pytest.raises(Unavailable, match="disk is full"):
                datasets.publish("people", {"id": [2], "x": [2]}, actor=ALICE, mode="append")
    assert rows(datasets) == [(1, 1)]


def test_a_source_that_dies_half_way_publishes_nothing(datasets: Datasets, tmp_path: Path) -> None:
    path = tmp_path / "half.parquet"
    pl.DataFrame({"id": range(100_000)}).write_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + bytes(len(whole) - 3000) + whole[-1000:])
    for mode in ("overwrite", "append", "upsert"):
        with pytest.raises(Exception, match=r"."):
            datasets.publish("people", str(path), actor=ALICE, mode=mode)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        rows(datasets)


# -- the dataset's own source


def test_the_own_source_is_read_on_from_where_it_ended(datasets: Datasets, ledger: SqlLedger, tmp_path: Path) -> None:
    declare(ledger, key=["id"], source={"files": "in.csv", "watermark": "id"})
    (tmp_path / "in.csv").write_text("id,x\n1,a\n2,b\n", encoding="utf-8")
    first = datasets.publish("people", actor=ALICE)
    assert datasets.publish("people", actor=ALICE).version == first.version, "nothing new is the newest version"
    (tmp_path / "in.csv").write_text("id,x\n1,other\n2,b\n3,c\n", encoding="utf-8")
    second = datasets.publish("people", actor=ALICE)
    assert rows(datasets) == [(1, "a"), (2, "b"), (3, "c")]
    assert (second.version.metadata["mode"], dict(second.changes)) == ("append", {"appended": 1})
    datasets.publish("people", {"id": [50], "x": ["by hand"]}, actor=ALICE, mode="append")
    (tmp_path / "in.csv").write_text("id,x\n3,c\n4,d\n", encoding="utf-8")
    datasets.publish("people", actor=ALICE)
    assert [row[0] for row in rows(datasets)] == [1, 2, 3, 50, 4], "rows put in by hand leave the watermark alone"
    datasets.publish("people", actor=ALICE, mode="overwrite")
    assert rows(datasets) == [(3, "c"), (4, "d")]


def test_what_a_source_has_new_is_never_put_in_by_two(
    datasets: Datasets, ledger: SqlLedger, tables: ParquetTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(ledger, source={"files": "in.csv", "watermark": "id"})
    (tmp_path / "in.csv").write_text("id\n1\n", encoding="utf-8")
    datasets.publish("people", actor=ALICE)
    (tmp_path / "in.csv").write_text("id\n1\n2\n", encoding="utf-8")
    stage = tables.stage

    def meanwhile(frames: Any) -> Any:
        monkeypatch.setattr(tables, "stage", stage)
        datasets.publish("people", actor=ALICE)
        return stage(frames)

    monkeypatch.setattr(tables, "stage", meanwhile)
    with pytest.raises(Conflict, match="what its source has new was published by another meanwhile"):
        datasets.publish("people", actor=ALICE)
    assert rows(datasets) == [(1,), (2,)]
