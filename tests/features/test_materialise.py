"""Materialisation: newest values, each written once, memory that does not grow, failing writes, bad arguments."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball.errors import InvalidInput, Unavailable
from flyball.features.materialise import materialise, materialise_stored
from flyball.features.views import FeatureView, feature_view
from flyball.features.writing import add_rows, store_view
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.online import OnlineValue
from flyball.storage.online.sqlite import SqliteOnline
from flyball.storage.tables.parquet import ParquetTables

START = datetime(2020, 1, 1, tzinfo=UTC)


def rows_of(count: int, entities: int, first: int = 0) -> pl.LazyFrame:
    spread = pl.int_range(first, first + count)
    return pl.select(
        key=spread % entities,
        at=pl.lit(START) + pl.duration(seconds=(spread * 7_919) % count),
        x=spread.cast(pl.Float64),
        word=pl.format("é\n{}", spread % 5),
    ).lazy()


def declared(**more: bool) -> FeatureView:
    return feature_view(entity="key", event_time="at", name="v", **more)(lambda rows: rows.filter(pl.col("x") >= 10))  # type: ignore[arg-type]


def newest(frame: pl.LazyFrame) -> dict[str, tuple[datetime, float, str]]:
    rows = frame.filter(pl.col("x") >= 10).sort("at", maintain_order=True).unique("key", keep="last").collect()
    return {str(key): (at, x, word) for key, at, x, word in rows.rows()}


def online(store: SqliteOnline, keys: list[str]) -> dict[str, tuple[datetime, float, str]]:
    found = zip(keys, store.get("v@1", keys), strict=True)
    return {k: (v.event_time, v.values["x"], v.values["word"]) for k, v in found if v is not None}


@pytest.mark.parametrize("incremental", [False, True])
def test_slices_of_any_length_give_the_newest_of_each(tmp_path: Path, incremental: bool) -> None:
    frame = rows_of(5_000, 300)
    expected = newest(frame)
    for number, batch_rows in enumerate((1_000_000, 777)):
        store = SqliteOnline(tmp_path / f"{number}.sqlite")
        done = materialise(declared(incremental=incremental), frame, store, batch_rows=batch_rows)
        assert done.rows == 4_990 and done.watermark == START + timedelta(seconds=4_999)
        assert online(store, list(expected)) == expected


def test_stored_rows_give_the_same_from_any_row_on_and_only_what_was_added(tmp_path: Path) -> None:
    tables, view = ParquetTables(FileBlobs(tmp_path / "blobs")), declared()
    first, second = rows_of(3_000, 300), rows_of(50, 300, 3_000)
    stored = store_view(view, first, tables)
    store, marks = SqliteOnline(tmp_path / "online.sqlite"), list[int]()
    done = materialise_stored(stored, tables, store, on_write=marks.append, batch_rows=128)
    assert (done.rows, done.written, marks) == (2_990, 300, [128, 256, 300])
    assert online(store, list(newest(first))) == newest(first)
    assert materialise_stored(stored, tables, store, start=256, batch_rows=128).written == 44
    larger = add_rows(stored, view.compute(second), tables)
    assert materialise_stored(larger, tables, store, since_batch=stored.batch, batch_rows=700).rows == 50
    both = pl.concat([first, second])
    assert online(store, list(newest(both))) == newest(both)


def test_rows_older_than_what_is_online_are_not_written_and_newer_ones_are(tmp_path: Path) -> None:
    tables, view, store = ParquetTables(FileBlobs(tmp_path / "blobs")), declared(), SqliteOnline(tmp_path / "o.sqlite")
    stored = store_view(view, rows_of(3_000, 300), tables)
    later = OnlineValue(START + timedelta(days=1), {"x": -1.0, "word": "pushed"})
    pushed = [str(key) for key in range(300) if key % 3]
    store.put("v@1", [(key, later) for key in pushed])
    done = materialise_stored(stored, tables, store, batch_rows=100)
    assert (done.rows, done.written) == (2_990, 100)
    expected = newest(rows_of(3_000, 300)) | dict.fromkeys(pushed, (later.event_time, -1.0, "pushed"))
    assert online(store, list(expected)) == expected


class Failing(SqliteOnline):
    """Its disk is full at the third write."""

    writes = 0

    def put_encoded(self, *args: Any, **named: Any) -> int:
        self.writes += 1
        if self.writes == 3:
            raise Unavailable("the disk is full")
        return super().put_encoded(*args, **named)


def test_a_write_that_fails_leaves_what_was_noted_and_no_files_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    tables, store = ParquetTables(FileBlobs(tmp_path / "blobs")), Failing(tmp_path / "online.sqlite")
    stored, marks = store_view(declared(), rows_of(3_000, 300), tables), list[int]()
    with pytest.raises(Unavailable, match="the disk is full"):
        materialise_stored(stored, tables, store, on_write=marks.append, batch_rows=50)
    assert (marks, store.count("v@1"), list((tmp_path / "temporary").iterdir())) == ([50, 100], 100, [])
    assert materialise_stored(stored, tables, store, start=marks[-1], batch_rows=50).written == 200
    assert online(store, list(newest(rows_of(3_000, 300)))) == newest(rows_of(3_000, 300))


def test_a_slice_of_nothing_and_a_time_without_zone_are_refused(tmp_path: Path) -> None:
    store = SqliteOnline(tmp_path / "online.sqlite")
    with pytest.raises(InvalidInput, match="batch_rows is 0; expected a whole number from 1"):
        materialise(declared(), rows_of(20, 2), store, batch_rows=0)
    with pytest.raises(InvalidInput, match="`since` is 2020-01-01T00:00:00, a time without a zone; give it one"):
        materialise(declared(), rows_of(20, 2), store, since=START.replace(tzinfo=None))


_CHILD = """
import sys
from pathlib import Path
import polars as pl
from flyball.features.materialise import materialise
from flyball.features.views import feature_view
from flyball.storage.online.sqlite import SqliteOnline
folder, incremental = Path(sys.argv[1]), sys.argv[2] == "True"
view = feature_view(entity="key", event_time="at", name="v", incremental=incremental)(lambda rows: rows)
rows = pl.scan_parquet(folder / "rows.parquet")
materialise(view, rows, SqliteOnline(folder / "online.sqlite"), batch_rows=50_000)
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1000)
"""


@pytest.mark.parametrize("incremental", [False, True])
def test_memory_does_not_grow_with_the_view(tmp_path: Path, incremental: bool) -> None:
    peaks = []
    for count in (400_000, 1_200_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        wide = {f"f{i}": pl.col("x") + i for i in range(8)}
        rows_of(count, 20_000).drop("word").with_columns(**wide).sink_parquet(folder / "rows.parquet")
        command = [sys.executable, "-c", _CHILD, str(folder), str(incremental)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < peaks[0] + 40, peaks  # of 70 MB more of rows
    assert peaks[1] < 400, peaks
