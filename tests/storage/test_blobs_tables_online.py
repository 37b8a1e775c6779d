"""The shipped cases over the embedded stores, and what only files can suffer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import Corrupt
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.online import OnlineValue
from flyball.storage.online.sqlite import SqliteOnline
from flyball.storage.tables.parquet import ParquetTables
from flyball.testing.storage import BlobCases, OnlineCases, TableCases

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


class TestFileBlobs(BlobCases):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FileBlobs:
        return FileBlobs(tmp_path / "blobs")


class TestParquetTables(TableCases):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ParquetTables:
        return ParquetTables(FileBlobs(tmp_path / "blobs"), part_rows=1000)


class TestSqliteOnline(OnlineCases):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SqliteOnline:
        return SqliteOnline(tmp_path / "online.sqlite")


def test_a_blob_that_changed_on_disk_is_refused(blobs: FileBlobs) -> None:
    digest = blobs.put(b"hello")
    path = blobs.path(digest)
    assert path is not None
    path.write_bytes(b"hellO")
    with pytest.raises(Corrupt, match="has changed on disk"):
        blobs.get(digest)


_PUTTER = """
import sys, os
from pathlib import Path
from flyball.storage.blobs.files import FileBlobs
blobs = FileBlobs(Path(sys.argv[1]))
while True:
    print(blobs.put(os.urandom(300_000)), flush=True)
"""


def test_kill_9_leaves_every_acknowledged_blob_whole_and_no_half_one_in_sight(blobs: FileBlobs) -> None:
    rng = random.Random(0)
    for _round in range(3):
        child = subprocess.Popen([sys.executable, "-c", _PUTTER, str(blobs.root)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        told = [child.stdout.readline().strip() for _ in range(rng.randint(2, 10))]
        os.kill(child.pid, signal.SIGKILL)
        told += [line for line in child.stdout.read().split("\n") if len(line) == 64]
        child.wait(30)
        for digest in told:
            assert len(blobs.get(digest)) == 300_000
        for digest in blobs.digests():
            blobs.get(digest)


def test_a_table_reads_back_as_written_and_shares_parts_with_the_next(blobs: FileBlobs) -> None:
    tables = ParquetTables(blobs, part_rows=1000)
    frame = pl.DataFrame({"n": range(2500), "text": [f"é{n}" for n in range(2500)], "at": [NOW] * 2500})
    first = tables.write(frame.lazy())
    assert (first.rows, len(first.parts)) == (2500, 3)
    assert tables.scan(first.digest).collect().equals(frame)
    second = tables.write([frame.head(10)], after=first.digest)
    assert second.parts[:3] == first.parts
    assert tables.scan(second.digest).collect().height == 2510
    assert tables.write(frame.lazy()).digest == first.digest


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.integers()), max_size=30))
def test_online_values_equal_a_plain_dictionary(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int]]
) -> None:
    online = SqliteOnline(tmp_path_factory.mktemp("online") / "online.sqlite")
    expected: dict[str, tuple[int, int]] = {}
    for key, minute, value in rows:
        online.put("v", [(key, OnlineValue(NOW + timedelta(minutes=minute), {"x": value % 2**31}))])
        if key not in expected or minute >= expected[key][0]:
            expected[key] = (minute, value % 2**31)
    found = dict(zip("abc", online.get("v", list("abc")), strict=True))
    assert {k: v.values["x"] for k, v in found.items() if v} == {k: v for k, (_, v) in expected.items()}
