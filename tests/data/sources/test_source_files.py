"""Files by glob and by watermark: what fits together is joined, what is new is told, what changes is noticed."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from flyball.data.kinds import Source
from flyball.data.sources import open_source, probe, read_source
from flyball.errors import InvalidInput, NotFound, Unavailable
from flyball.testing.clock import FakeClock


def rows(reading_frame: pl.LazyFrame | None) -> list[tuple[object, ...]]:
    assert reading_frame is not None
    return reading_frame.collect().rows()


def test_whole_numbers_in_one_file_and_decimals_in_another_are_decimals(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"a": [1.5]}).write_parquet(tmp_path / "2.parquet")
    assert open_source(tmp_path / "*.parquet").collect()["a"].to_list() == [1.0, 1.5]
    (tmp_path / "1.csv").write_text("a\n007\n")
    (tmp_path / "2.csv").write_text("a\nx7\n")
    assert open_source(tmp_path / "*.csv").collect()["a"].to_list() == ["007", "x7"]


def test_a_column_that_only_some_files_have_is_refused_by_name_or_filled_when_asked(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "2.csv").write_text("a,c\n3,4\n")
    with pytest.raises(
        InvalidInput, match=r"2\.csv have different columns: the second lacks b and has c besides.*union"
    ):
        open_source(tmp_path / "*.csv")
    joined = open_source(tmp_path / "*.csv", options={"union": True}).collect()
    assert joined.rows() == [(1, 2, None), (3, None, 4)]


def test_numbers_in_one_file_and_texts_in_another_are_refused(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"a": ["x"]}).write_parquet(tmp_path / "2.parquet")
    with pytest.raises(InvalidInput, match=r'column "a" is Int64 in .*1\.parquet and String in .*2\.parquet'):
        open_source(tmp_path / "*.parquet")


def test_a_file_with_a_header_only_is_without_rows_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a\n")
    (tmp_path / "2.csv").write_text("a\n5\n")
    assert open_source(tmp_path / "*.csv").collect().rows() == [(5,)]
    (tmp_path / "3.csv").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"3\.csv is empty"):
        open_source(tmp_path / "*.csv")
    with pytest.raises(InvalidInput, match="no rows"):
        open_source([tmp_path / "1.csv", tmp_path / "1.csv"])


def test_folders_tell_columns(tmp_path: Path) -> None:
    for year, carrier in ((2013, "B6"), (2014, "a%20b"), (2014, "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / f"year={year}" / f"carrier={carrier}"
        folder.mkdir(parents=True)
        pl.DataFrame({"a": [1]}).write_parquet(folder / "x.parquet")
    found = open_source(tmp_path / "**" / "*.parquet").collect()
    assert sorted(found.rows(), key=str) == [(1, 2013, "B6"), (1, 2014, "a b"), (1, 2014, None)]
    with read_source(Source(files="**/*.parquet", options={"partitions": False}), project=tmp_path) as reading:
        assert reading.frame is not None and reading.frame.collect().columns == ["a"]


def test_new_files_are_appended_and_a_changed_one_makes_all_be_read_anew(tmp_path: Path) -> None:
    spec = Source(files="*.csv")
    (tmp_path / "1.csv").write_text("a\n1\n")
    with read_source(spec, project=tmp_path) as reading:
        assert reading.mode == "whole" and rows(reading.frame) == [(1,)]
    with read_source(spec, reading.watermark, project=tmp_path) as nothing:
        assert not nothing.is_new and nothing.watermark == reading.watermark
    (tmp_path / "2.csv").write_text("a\n2\n")
    with read_source(spec, reading.watermark, project=tmp_path) as more:
        assert more.mode == "append" and rows(more.frame) == [(2,)]
    (tmp_path / "1.csv").write_text("a\n10\n")
    with read_source(spec, more.watermark, project=tmp_path) as anew:
        assert anew.mode == "whole" and rows(anew.frame) == [(10,), (2,)] and "1.csv changed" in anew.notes[0]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_beyond_the_watermark_are_read_and_late_ones_by_lag(tmp_path: Path, suffix: str) -> None:
    def write(*hours: int) -> None:
        start = datetime(2024, 1, 1, tzinfo=UTC)
        frame = pl.DataFrame({"id": hours, "at": [start + timedelta(hours=h) for h in hours]})
        frame.write_csv(tmp_path / "t.csv") if suffix == "csv" else frame.write_parquet(tmp_path / "t.parquet")

    def read(since: dict[str, object] | None, **more: object) -> tuple[str, list[int], dict[str, object]]:
        spec = Source.model_validate({"files": f"t.{suffix}", "watermark": "at", **more})
        with read_source(spec, since, project=tmp_path, key=["id"]) as reading:
            found = sorted(reading.frame.collect()["id"]) if reading.frame is not None else []
            return reading.mode, found, reading.watermark

    write(1, 2, 3)
    mode, found, since = read(None)
    assert (mode, found) == ("whole", [1, 2, 3])
    write(1, 2, 3, 5, 0)  # 0 came late: it is behind the watermark
    assert read(since)[:2] == ("append", [5])
    assert read(since, lag="2h")[:2] == ("upsert", [1, 2, 3, 5])
    assert read(read(since)[2])[1] == []


def test_a_watermark_that_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,x\n1,a\n,b\n")
    with pytest.raises(InvalidInput, match=r'1 row of .* have no "id", the watermark'):
        read_source(Source(files="t.csv", watermark="id"), project=tmp_path)
    with pytest.raises(InvalidInput, match='no column "idd", its watermark; did you mean "id"'):
        read_source(Source(files="t.csv", watermark="idd"), project=tmp_path)
    (tmp_path / "t.csv").write_text("id,x\n1,1.5\n")
    with pytest.raises(InvalidInput, match="of type Float64; expected whole numbers"):
        read_source(Source(files="t.csv", watermark="x"), project=tmp_path)
    with read_source(Source(files="t.csv", watermark="id"), project=tmp_path) as reading:
        since = reading.watermark
    with pytest.raises(InvalidInput, match=r"lag reads some rows twice.*key"):
        read_source(Source(files="t.csv", watermark="id", lag="1h"), since, project=tmp_path)
    with pytest.raises(InvalidInput, match=r"the last reading was of t\.csv and the source is u\.csv now"):
        read_source(Source(files="u.csv"), since, project=tmp_path)


def test_a_file_that_goes_or_changes_while_it_is_read_is_no_whole_table(tmp_path: Path) -> None:
    for number in (1, 2):
        pl.DataFrame({"a": [number]}).write_parquet(tmp_path / f"{number}.parquet")
    gone = pytest.raises(Unavailable, match=r"2\.parquet cannot be read any more")
    with gone, read_source(Source(files="*.parquet"), project=tmp_path) as reading:
        (tmp_path / "2.parquet").unlink()
        assert reading.frame is not None
        reading.frame.collect()
    changed = pytest.raises(Unavailable, match=r"1\.parquet changed while it was read")
    with changed, read_source(Source(files="*.parquet"), project=tmp_path):
        pl.DataFrame({"a": [1, 2, 3]}).write_parquet(tmp_path / "1.parquet")


def test_a_probe_tells_reach_age_and_shape(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,x\n")
    written = datetime(2024, 1, 1, tzinfo=UTC)
    os.utime(tmp_path / "t.csv", (written.timestamp(), written.timestamp()))
    clock = FakeClock(written + timedelta(hours=30))
    spec = Source(files="t.csv", max_age="1d")
    found = probe(spec, {"a": "string", "b": "integer", "c": None}, project=tmp_path, clock=clock)
    assert found.reachable and found.newest == written and found.columns == {"a": "Int64", "b": "String"}
    assert [p.replace("t.csv", "T") for p in found.problems] == [
        'column "a" of T is of type Int64; expected string',
        'T has no column "c" (it has: a, b)',
        "the newest data of T is of 2024-01-01T00:00:00.000000Z, 30.0 h old; expected 1d at most",
    ]
    gone = probe(Source(files="u.csv"), project=tmp_path)
    assert not gone.reachable and 'did you mean "t.csv"' in gone.problems[0]
    assert probe(Source(files="t.csv"), {"a": "integer"}, project=tmp_path).is_good


def test_what_is_put_down_goes_with_the_reading(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    with read_source(Source(files="t.csv"), project=tmp_path) as reading:
        folder = reading.closing[0].__self__.name  # type: ignore[attr-defined]
        assert Path(folder).is_dir()
    assert not Path(folder).exists()
    with pytest.raises(NotFound):
        read_source(Source(files="nope.csv"), project=tmp_path)
