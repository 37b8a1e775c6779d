"""CSV and JSON as people really write them: what is sound arrives exactly, what is not is refused by line."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flyball.data.sources._csv as csv_module
import flyball.data.sources._json as json_module
import flyball.data.sources._text as text_module
from flyball.data.sources import open_source
from flyball.errors import InvalidInput, Unavailable


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few bytes, and no file small enough for memory: as if each file were large."""
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 7)
    monkeypatch.setattr(csv_module, "_SMALL_BYTES", 0)
    monkeypatch.setattr(json_module, "_SMALL_BYTES", 0)


def column(tmp_path: Path, *values: str, **options: Any) -> pl.Series:
    (tmp_path / "t.csv").write_text("\n".join(["x;y", *(f"{v};1" for v in values)]) + "\n")
    return open_source(tmp_path / "t.csv", options={"separator": ";", **options}).collect()["x"]


@pytest.mark.parametrize(
    ("values", "expected", "dtype"),
    [
        (["1", "-2"], [1, -2], pl.Int64),
        (["1", "18446744073709551615"], [1, 2**64 - 1], pl.UInt64),
        (["-1", "9223372036854775808"], ["-1", "9223372036854775808"], pl.String),
        (["1", "184467440737095516160"], ["1", "184467440737095516160"], pl.String),
        (["1e400", "1"], ["1e400", "1"], pl.String),
        (["1", "2.5", ""], [1.0, 2.5, None], pl.Float64),
        (["inf", "-1.5"], [float("inf"), -1.5], pl.Float64),
        (["+41", "2"], ["+41", "2"], pl.String),
        (["true", "FALSE"], [True, False], pl.Boolean),
        (["2024-02-29", ""], [date(2024, 2, 29), None], pl.Date),
        (["2023-02-29"], ["2023-02-29"], pl.String),
        (["01/02/2024"], ["01/02/2024"], pl.String),
        (["12:30", "12:30:01.5"], [time(12, 30), time(12, 30, 1, 500_000)], pl.Time),
        (
            ["2024-01-01T10:00", "2024-01-01 10:00:00.25"],
            [datetime(2024, 1, 1, 10), datetime(2024, 1, 1, 10, 0, 0, 250_000)],
            pl.Datetime("us"),
        ),
        (
            ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2023-12-31 19:00:00-0500", "2024-01-01T05:00+05"],
            [datetime(2024, 1, 1, tzinfo=UTC)] * 4,
            pl.Datetime("us", "UTC"),
        ),
        (["2024-01-01", "2024-01-01 00:00:00"], ["2024-01-01", "2024-01-01 00:00:00"], pl.String),
        (["1", "N/A"], ["1", "N/A"], pl.String),
    ],
)
def test_a_column_is_what_all_its_values_are(
    tmp_path: Path, values: list[str], expected: list[Any], dtype: Any
) -> None:
    found = column(tmp_path, *values)
    assert found.dtype == dtype and found.to_list() == expected


def test_numbers_with_decimal_commas_are_understood_when_said_and_noticed_when_not(tmp_path: Path) -> None:
    assert column(tmp_path, "1.234,5", "-2,25", "7", decimal=",", thousands=".").to_list() == [1234.5, -2.25, 7.0]
    assert column(tmp_path, "1 234", "7", thousands=" ").to_list() == [1234, 7]
    with pytest.raises(InvalidInput, match=r'column "x" .* decimal comma.*decimal: ","'):
        column(tmp_path, "1,5", "2,25", "3")
    (tmp_path / "t.csv").write_text("x;y\n1,5;1\n")
    assert open_source(tmp_path / "t.csv", string_columns=["x"]).collect()["x"].to_list() == ["1,5"]
    assert column(tmp_path, "1,5", "-", nulls=["-"], decimal=",").to_list() == [1.5, None]


def test_times_with_and_without_a_zone_in_one_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r'column "x" .* with a zone and times without'):
        column(tmp_path, "2024-01-01T00:00:00Z", "2024-01-01T00:00:00")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1", "shift_jis"])
@pytest.mark.usefixtures("small_blocks")
def test_text_of_any_encoding_arrives_as_written(tmp_path: Path, encoding: str) -> None:
    word = "日本" if encoding == "shift_jis" else "café ü"
    (tmp_path / "t.csv").write_bytes(f"a,ä\n1,{word}\n2,x\n".replace("ä", "b").encode(encoding))
    marked = encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32")
    options = {} if marked else {"encoding": encoding}
    assert open_source(tmp_path / "t.csv", options=options).collect().rows() == [(1, word), (2, "x")]


def test_a_file_of_two_encodings_is_refused_with_byte_and_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a\nä\n".encode() + b"x\n\xe4\n")
    with pytest.raises(InvalidInput, match=r"byte 7 \(line 4\) is 0xe4.*encoding"):
        open_source(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"a\nx\n\x81\n")
    with pytest.raises(InvalidInput, match=r"not cp1252: byte 4 \(line 3\) is 0x81"):
        open_source(tmp_path / "t.csv", options={"encoding": "cp1252"})
    with pytest.raises(InvalidInput, match="unknown encoding"):
        open_source(tmp_path / "t.csv", options={"encoding": "utf-9"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3\n", "line 3 of .* has 1 field, the header has 2"),
        ('a,b\n"x\ny",2\n3\n', "line 4 of"),
        ("a,b\n1,2,3\n", "line 2 of .* has 3 fields"),
        ('a,b\n5" pipe,2\n6" x,3\n', "line 2 of .* quote in the middle"),
        ('a,b\n"x"y,2\n', "line 2 of .* quote in the middle"),
        ('a,b\n1,2\n"x,2\n6,3\n', "line 3 of .* never closed"),
        ("a,a\n1,2\n", 'two columns named "a"'),
        (",column_1\n1,2\n", 'two columns named "column_1"'),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_a_crooked_line_is_refused_by_its_number(
    tmp_path: Path, text: str, says: str, large: bool, request: pytest.FixtureRequest
) -> None:
    if large:
        request.getfixturevalue("small_blocks")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InvalidInput, match=says):
        open_source(tmp_path / "t.csv")


def test_blank_lines_and_old_line_ends_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\r\na,b\r\n1,2\r\n\r\n3,4\r\n\r\n")
    assert open_source(tmp_path / "t.csv").collect().rows() == [(1, 2), (3, 4)]
    (tmp_path / "t.csv").write_bytes(b"a,b\r1,2\r3,4\r")
    assert open_source(tmp_path / "t.csv").collect().rows() == [(1, 2), (3, 4)]
    (tmp_path / "t.csv").write_bytes(b"a\n1\n\n3\n")
    assert open_source(tmp_path / "t.csv").collect()["a"].to_list() == [1, None, 3]


TEXTS = st.text(alphabet=st.sampled_from('ab,;"\n é1.-'), max_size=8)


@given(rows=st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_whatever_the_csv_module_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("x", "y", "z"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "BLOCK_BYTES", 5)
        patch.setattr(csv_module, "_SMALL_BYTES", 0)
        found = open_source(path, as_text=True).collect().rows()
    assert [tuple(v or "" for v in row) for row in found] == rows


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.zst", "t.ndjson.gz"])
@pytest.mark.usefixtures("small_blocks")
def test_compressed_text_is_read_and_a_cut_archive_is_refused(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({"a": range(500), "b": [f"n{i}" for i in range(500)]})
    text = (frame.write_ndjson() if "ndjson" in name else frame.write_csv()).encode()
    packed = gzip.compress(text) if name.endswith("gz") else pa.compress(text, "zstd", asbytes=True)
    (tmp_path / name).write_bytes(packed)
    assert open_source(tmp_path / name).collect().equals(frame)
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InvalidInput, match=r"cut off|damaged"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".json"])
@pytest.mark.usefixtures("small_blocks")
def test_a_large_file_streams_the_same_rows_and_tells_when_it_changes(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 1000)
    frame = pl.DataFrame({"a": range(2000), "b": [f'q"{i},\\' for i in range(2000)]})
    path = tmp_path / f"t{suffix}"
    {".csv": frame.write_csv, ".ndjson": frame.write_ndjson, ".json": frame.write_json}[suffix](path)
    lazy = open_source(path)
    assert lazy.collect().equals(frame) and lazy.collect().equals(frame)
    assert lazy.filter(pl.col("a") > 1990).select("b").collect().height == 9
    assert lazy.head(3).collect().height == 3
    with path.open("a") as file:
        file.write(" ")
    with pytest.raises(Unavailable, match="changed while it was read"):
        lazy.collect()
    path.unlink()
    with pytest.raises(Unavailable, match="cannot be read any more"):
        lazy.collect()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1},, {"a": 2}]', "two commas"),
        ('[{"a": 1},]', "two commas"),
        ('[{"a": 1}] 3', "goes on after the end"),
        ("[1, 2]", "line 1 of .* is no object"),
        ('{"a": 1}\n[2]\n', "line 2 of .* is no object"),
        ('{"a": 1}\n{"a": tru}\n', "line 2 is not JSON"),
        ('{"a": true}\n{"a": 1}\n', "cannot be read"),
        ('{"a": 123456789012345678901}', 'column "a" .* beyond 64 bits'),
        ("{}\n", "without any field"),
    ],
)
def test_crooked_json_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InvalidInput, match=says):
        open_source(tmp_path / "t.json")


JSON = st.recursive(st.none() | st.integers(-9, 9) | TEXTS, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@given(words=st.lists(TEXTS, min_size=1, max_size=8), indent=st.sampled_from([None, 1]), block=st.integers(3, 40))
@settings(max_examples=60, deadline=None)
def test_a_list_of_objects_is_read_in_blocks_as_json_reads_it_whole(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], indent: int | None, block: int
) -> None:
    rows = [{"a": word, "n": {"x": [i, None], "t": word + '\\"]}'}} for i, word in enumerate(words)]
    path = tmp_path_factory.mktemp("json") / "t.json"
    path.write_text(json.dumps(rows, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "BLOCK_BYTES", block)
        patch.setattr(json_module, "_SMALL_BYTES", 0)
        assert open_source(path).collect().to_dicts() == rows
