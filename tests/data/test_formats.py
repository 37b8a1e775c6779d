"""A version as Polars, Arrow, DuckDB and pandas, the real libraries as oracles; and without them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from flyball.data.formats import converted, to_arrow, to_duckdb, to_pandas
from flyball.errors import InvalidInput, MissingExtra
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.parquet import ParquetTables

FRAME = pl.DataFrame(
    {
        "n": range(250),
        "text": [f"é{n % 7}" if n % 5 else None for n in range(250)],
        "at": [datetime(2026, 1, 1, tzinfo=UTC)] * 250,
        "list": [[n, None] for n in range(250)],
    }
)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[pl.LazyFrame, list[Path]]:
    tables = ParquetTables(FileBlobs(tmp_path / "blobs"), part_rows=100)
    table = tables.write(FRAME.lazy())
    paths = tables.paths(table.digest)
    assert paths is not None
    return tables.scan(table.digest), paths


def test_arrow_streams_the_rows_in_order(stored: tuple[pl.LazyFrame, list[Path]]) -> None:
    reader = to_arrow(stored[0])
    assert reader.schema.names == FRAME.columns
    assert pl.DataFrame(reader.read_all()).equals(FRAME)


def test_arrow_of_no_rows_has_the_columns(stored: tuple[pl.LazyFrame, list[Path]]) -> None:
    table = to_arrow(stored[0].filter(pl.col("n") < 0)).read_all()
    assert (table.num_rows, table.column_names) == (0, FRAME.columns)


def test_duckdb_reads_the_files_in_order_and_takes_sql(stored: tuple[pl.LazyFrame, list[Path]]) -> None:
    relation = to_duckdb(stored[1])
    assert [row[0] for row in relation.project("n").fetchall()] == list(range(250))
    assert relation.filter("text = 'é1'").aggregate("count(*), sum(n)").fetchall() == [
        (FRAME.filter(pl.col("text") == "é1").height, FRAME.filter(pl.col("text") == "é1")["n"].sum())
    ]


def test_duckdb_takes_rows_that_are_in_no_file_here(stored: tuple[pl.LazyFrame, list[Path]]) -> None:
    import duckdb

    connection = duckdb.connect()
    assert to_duckdb(stored[0], connection).aggregate("sum(n)").fetchall() == [(FRAME["n"].sum(),)]


def test_pandas_gets_the_values(stored: tuple[pl.LazyFrame, list[Path]]) -> None:
    frame = to_pandas(stored[0])
    assert frame["n"].tolist() == list(range(250))
    assert frame["text"].isna().sum() == FRAME["text"].null_count()
    assert str(frame["at"].dt.tz) == "UTC"


def test_a_format_is_chosen_by_name(stored: tuple[pl.LazyFrame, list[Path]]) -> None:
    frame, paths = stored
    assert converted(frame, paths, "polars") is frame
    assert converted(frame, paths, "arrow").read_all().num_rows == 250
    assert converted(frame, None, "duckdb").aggregate("count(*)").fetchall() == [(250,)]
    assert len(converted(frame, paths, "pandas")) == 250
    with pytest.raises(InvalidInput, match='as "panda"; did you mean "pandas"'):
        converted(frame, paths, "panda")


@pytest.mark.parametrize(
    ("format", "library", "extra"),
    [("arrow", "pyarrow", "lake"), ("duckdb", "duckdb", "lake"), ("pandas", "pandas", "pandas")],
)
def test_a_library_that_is_not_there_is_named_with_its_extra(
    stored: tuple[pl.LazyFrame, list[Path]], monkeypatch: pytest.MonkeyPatch, format: str, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"{library}.*flyball\[{extra}\]"):
        converted(*stored, format)
