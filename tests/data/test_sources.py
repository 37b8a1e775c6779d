"""Opening files and frames: what is right arrives as it was, what is wrong is said at the edge."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from flyball.data.sources import open_source
from flyball.errors import InvalidInput, NotFound

TABLE = pl.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.5, 1.5]})


def write(frame: pl.DataFrame, path: Path) -> None:
    writers: dict[str, Any] = {
        ".csv": frame.write_csv,
        ".parquet": frame.write_parquet,
        ".ndjson": frame.write_ndjson,
        ".json": frame.write_json,
        ".arrow": frame.write_ipc,
        ".feather": frame.write_ipc_stream,
    }
    writers[path.suffix](path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".ndjson", ".json", ".arrow", ".feather"])
def test_a_table_survives_each_kind_of_file_alone_and_by_glob(tmp_path: Path, suffix: str) -> None:
    for part in ("1", "2"):
        write(TABLE, tmp_path / f"part-{part}{suffix}")
    one = open_source(tmp_path / f"part-1{suffix}")
    assert isinstance(one, pl.LazyFrame) and one.collect().equals(TABLE)
    assert open_source(str(tmp_path / f"part-*{suffix}")).collect().equals(pl.concat([TABLE, TABLE]))
    assert open_source([tmp_path / f"part-1{suffix}", tmp_path / f"part-2{suffix}"]).collect().height == 4


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        TABLE.lazy(),
        TABLE.to_arrow(),
        TABLE.to_pandas(),
        TABLE.to_dict(as_series=False),
        {"a": np.array([1, 2]), "b": ["x", None], "c": [0.5, 1.5]},
        TABLE.to_dicts(),
    ],
    ids=["polars", "lazy", "arrow", "pandas", "columns", "numpy", "rows"],
)
def test_a_table_in_memory_is_taken_as_it_is(frame: Any) -> None:
    assert open_source(frame).collect().equals(TABLE)


def test_a_byte_order_mark_separators_and_unnamed_columns_are_understood(tmp_path: Path) -> None:
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert open_source(tmp_path / "bom.csv").collect().columns == ["a", "b"]
    (tmp_path / "bom.json").write_bytes(b'\xef\xbb\xbf[{"a": 1}]')
    assert open_source(tmp_path / "bom.json").collect().rows() == [(1,)]
    (tmp_path / "semi.csv").write_text("a;b\n1;2\n")
    assert open_source(tmp_path / "semi.csv").collect().rows() == [(1, 2)]
    (tmp_path / "tab.tsv").write_text("a,1\tb\n1\t2\n")
    assert open_source(tmp_path / "tab.tsv").collect().columns == ["a,1", "b"]
    (tmp_path / "index.csv").write_text(",a\n0,5\n")
    assert open_source(tmp_path / "index.csv").collect().columns == ["column_1", "a"]
    (tmp_path / "quoted.csv").write_text('"a\nb",c\n1,2\n')
    assert open_source(tmp_path / "quoted.csv").collect().columns == ["a\nb", "c"]


def test_types_are_those_of_the_whole_file_and_text_is_kept_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("zip,n,day\n" + "01001,1,2024-01-01\n" * 5000 + "01002,N/A,2024-01-02\n")
    assert open_source(path).collect_schema() == {"zip": pl.Int64, "n": pl.String, "day": pl.Date}
    kept = open_source(path, string_columns=["zip"]).collect()
    assert kept.row(-1) == ("01002", "N/A", date(2024, 1, 2))
    assert set(open_source(path, as_text=True).collect_schema().dtypes()) == {pl.String}


def test_a_file_of_an_unknown_name_opens_when_its_format_is_said(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_text("a\n1\n")
    with pytest.raises(InvalidInput, match="unknown"):
        open_source(tmp_path / "data.bin")
    assert open_source(tmp_path / "data.bin", format="csv").collect().rows() == [(1,)]
    with pytest.raises(InvalidInput, match='did you mean "parquet"'):
        open_source(tmp_path / "data.bin", format="parket")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"\n\n", "only blank lines"),
        ("t.csv", b"a,b\n", "a header but no rows"),
        ("t.csv", b"a,b\n1,caf\xe9\n", "byte 9 (line 2) is 0xe9"),
        ("t.csv", b"a\nx\n" * 600_000 + b"\xff\n", "byte 2400000 (line 1200001)"),
        ("t.csv", b"a\n\xc3", "middle of a UTF-8 character"),
        ("t.csv", b"a\n1\n".join([b""] * 3) + b"\xff\n", "or say its encoding"),
        ("t.csv", b"a,b,a\n1,2,3\n", 'two columns named "a"'),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "line 3 of"),
        ("t.json", b"[]", "empty list"),
        ("t.json", b"3", "not a table"),
        ("t.json", b'[{"a": 1}', "cannot be read"),
        ("t.ndjson", b"\n", "blank lines"),
        ("t.ndjson", b'{"a": 1}\n{"a', "cannot be read"),
        ("t.parquet", b"PAR1 and no more", "cannot be read"),
        ("t.arrow", b"nothing of the kind", "cannot be read"),
        ("t.cvs", b"a\n1\n", 'did you mean ".csv"'),
    ],
)
def test_a_broken_file_gets_its_error(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        open_source(tmp_path / name)
    assert says in str(caught.value)


def test_parquet_without_rows_is_refused(tmp_path: Path) -> None:
    TABLE.clear().write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InvalidInput, match="no rows"):
        open_source(tmp_path / "t.parquet")


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "flights.csv").write_text("a\n1\n")
    with pytest.raises(NotFound, match=r'did you mean "flights\.csv"'):
        open_source(tmp_path / "flihgts.csv")
    with pytest.raises(NotFound, match="no file matches"):
        open_source(tmp_path / "*.parquet")
    with pytest.raises(InvalidInput, match="is a folder"):
        open_source(tmp_path)


def test_files_of_a_glob_must_fit_together(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("b,a\n0.5,4\n")
    assert open_source(tmp_path / "*.csv").collect().to_dict(as_series=False) == {"a": [1, 4], "b": [2.0, 0.5]}
    (tmp_path / "3.csv").write_text("a,c\n1,2\n")
    with pytest.raises(InvalidInput, match="different columns"):
        open_source(tmp_path / "*.csv")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns"),
        (pa.table([[1], [2]], names=["a", "a"]), "two columns"),
        ({"a": [1, 2], "b": [1]}, "cannot be read"),
        ({"a": 1}, "expected a list"),
        ({"a": [1, "x"]}, "cannot be read"),
        ({1: [1]}, "not a text"),
        ({"a": [object()]}, "Python objects"),
        ({}, "no columns"),
        ([], "is empty"),
        ([{"a": 1}, 2], "row 1"),
        (3, "not a table"),
    ],
)
def test_what_is_no_table_is_refused(table: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_source(table)
    assert says in str(caught.value)


def test_the_real_tables_open(shared_data: Path) -> None:
    assert open_source(shared_data / "bike_sharing" / "hour.csv").collect().shape == (17_379, 17)
    assert open_source(shared_data / "heart" / "heart.csv").collect_schema().names()[0] == "age"
    assert open_source(shared_data / "nycflights13" / "flights.parquet").select(pl.len()).collect().item() == 336_776
    rows = json.loads('[{"a": 1, "b": {"c": [1]}}]')
    assert open_source(rows).collect_schema()["b"] == pl.Struct({"c": pl.List(pl.Int64)})
