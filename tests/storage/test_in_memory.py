"""Rows in memory: which lazy frames are nothing else, and that their tables are those of the same rows in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.in_memory import held
from flyball.storage.tables.parquet import ParquetTables

ROWS = pl.DataFrame({"id": range(2_500), "name": [None if i % 7 == 0 else f"näme {i} 🛩" for i in range(2_500)]})
CHANGED: dict[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    "filtered": lambda rows: rows.filter(pl.col("id") > 5),
    "sliced": lambda rows: rows.head(3),
    "fewer columns": lambda rows: rows.select("id"),
    "more columns": lambda rows: rows.with_columns(twice=pl.col("id") * 2),
    "renamed": lambda rows: rows.rename({"id": "number"}),
    "sorted": lambda rows: rows.sort("id", descending=True),
    "twice": lambda rows: pl.concat([rows, rows]),
    "joined": lambda rows: rows.join(rows, on="id"),
    "made by Python": lambda rows: rows.map_batches(lambda frame: frame),
}


@pytest.mark.parametrize("frame", [ROWS, ROWS.clear(), pl.DataFrame(), ROWS.slice(7, 90)])
def test_a_lazy_frame_of_rows_in_memory_gives_them_back(frame: pl.DataFrame) -> None:
    found = held(frame.lazy())
    assert found is not None and found.equals(frame) and found.schema == frame.schema


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED.keys())
def test_rows_that_must_be_computed_are_not_taken_for_rows_in_memory(
    change: Callable[[pl.LazyFrame], pl.LazyFrame],
) -> None:
    assert held(change(ROWS.lazy())) is None


def test_rows_of_a_file_are_not_taken_for_rows_in_memory(tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "rows.parquet")
    assert held(pl.scan_parquet(tmp_path / "rows.parquet")) is None


@pytest.mark.parametrize("part_bytes", [20_000, 1 << 20])
def test_rows_in_memory_make_the_parts_that_the_same_rows_of_a_file_make(tmp_path: Path, part_bytes: int) -> None:
    ROWS.write_parquet(tmp_path / "rows.parquet")
    tables = ParquetTables(FileBlobs(tmp_path / "blobs"), part_rows=1_000, part_bytes=part_bytes)
    of_file = tables.write(pl.scan_parquet(tmp_path / "rows.parquet"))
    for rows in ([ROWS], ROWS.lazy(), pl.concat([ROWS[:11], ROWS[11:]], rechunk=False).lazy()):
        made = tables.write(rows)
        assert [part.rows for part in made.parts] == [part.rows for part in of_file.parts]
        assert tables.scan(made.digest).collect().equals(ROWS)
    assert len(of_file.parts) > 2
