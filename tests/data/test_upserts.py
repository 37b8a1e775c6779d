"""Upserts against a plain loop over rows, and which parts they leave alone."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.data.upserts import KeyedBatch, Upserted
from flyball.errors import InvalidInput
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables import Table
from flyball.storage.tables.parquet import ParquetTables

# Names that the code might use itself are names that users use.
SCHEMA = {"row": pl.Int64, "at": pl.String, "part": pl.Float64, "stays": pl.Boolean}


def upserted(tables: ParquetTables, base: Table | None, frame: pl.DataFrame, key: list[str]) -> Upserted:
    with TemporaryDirectory() as folder:
        return KeyedBatch(frame.lazy(), key, Path(folder)).put_into(tables, base)


def by_loop(rows: list[Any], batch: list[Any], keys: int) -> tuple[list[Any], tuple[int, int, int]]:
    """Put `batch` into `rows`, whose first `keys` values are the key, one after the other."""
    found: list[Any] = list(rows)
    last = {row[:keys]: place for place, row in enumerate(batch)}
    inserted = updated = unchanged = 0
    for row in (batch[place] for place in sorted(last.values())):
        places = [n for n, old in enumerate(found) if old is not None and old[:keys] == row[:keys]]
        for place in places[:-1]:
            found[place] = None
        if not places:
            found.append(row)
            inserted += 1
        elif found[places[-1]] == row:
            unchanged += 1
        else:
            found[places[-1]] = row
            updated += 1
    return [row for row in found if row is not None], (inserted, updated, unchanged)


row = st.tuples(
    st.integers(0, 20),
    st.sampled_from(["", "a", "é"]),
    st.sampled_from([None, 0.5, 1.0]),
    st.sampled_from([None, True]),
)


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(row, max_size=30), batch=st.lists(row, min_size=1, max_size=30), keys=st.sampled_from([1, 2]))
def test_an_upsert_is_what_a_loop_over_the_rows_makes(rows: list[Any], batch: list[Any], keys: int) -> None:
    with TemporaryDirectory() as folder:
        tables = ParquetTables(FileBlobs(Path(folder)), part_rows=7)
        base = tables.write(pl.DataFrame(rows, schema=SCHEMA, orient="row").lazy())
        done = upserted(tables, base, pl.DataFrame(batch, schema=SCHEMA, orient="row"), list(SCHEMA)[:keys])
        found = tables.scan(done.table.digest).collect()
        expected, counts = by_loop(rows, batch, keys)
        assert found.rows() == expected
        assert (done.inserted, done.updated, done.unchanged) == counts
        assert done.repeats == len(batch) - sum(counts)
        assert dict(found.schema) == SCHEMA


@pytest.fixture
def tables(tmp_path: Path) -> ParquetTables:
    return ParquetTables(FileBlobs(tmp_path / "blobs"), part_rows=100)


def test_only_parts_with_rows_that_change_are_written_again(tables: ParquetTables) -> None:
    base = tables.write(pl.DataFrame({"id": range(1000), "x": [0] * 1000}).lazy())
    batch = pl.DataFrame({"id": [5, 250, 251, 999, 2000], "x": [0, 1, 1, 0, 1]})
    done = upserted(tables, base, batch, ["id"])
    assert (done.inserted, done.updated, done.unchanged) == (1, 2, 2)
    same = [old == new for old, new in zip(base.parts, done.table.parts, strict=False)]
    assert same == [True, True, False, *[True] * 7]
    assert len(done.table.parts) == 11


def test_an_upsert_that_changes_nothing_is_the_same_table(tables: ParquetTables) -> None:
    base = tables.write(pl.DataFrame({"id": range(300), "x": [float("nan")] * 300}).lazy())
    done = upserted(tables, base, pl.DataFrame({"id": [7, 7], "x": [1.0, float("nan")]}), ["id"])
    assert done.table == base
    assert done.counts() == {"inserted": 0, "updated": 0, "unchanged": 1, "repeats": 1}


def test_keys_of_any_plain_type_pair_rows(tables: ParquetTables) -> None:
    frame = pl.DataFrame({"day": [date(2026, 1, 1), date(2026, 1, 2)], "ok": [True, False], "x": [1, 2]})
    base = tables.write(frame.lazy())
    batch = pl.DataFrame({"x": [7, 8], "ok": [False, True], "day": [date(2026, 1, 2)] * 2})
    done = upserted(tables, base, batch, ["ok", "day"])
    assert tables.scan(done.table.digest).collect().rows() == [
        (date(2026, 1, 1), True, 1),
        (date(2026, 1, 2), False, 7),
        (date(2026, 1, 2), True, 8),
    ]


def test_nested_values_are_updated_and_compared(tables: ParquetTables) -> None:
    base = tables.write(pl.DataFrame({"id": [1, 2], "v": [[1.0], [2.0]], "p": [{"a": 1}, {"a": 2}]}).lazy())
    done = upserted(tables, base, pl.DataFrame({"id": [1, 2], "v": [[1.0], [3.0]], "p": [{"a": 1}, None]}), ["id"])
    assert (done.updated, done.unchanged) == (1, 1)
    assert tables.scan(done.table.digest).collect().rows() == [(1, [1.0], {"a": 1}), (2, [3.0], None)]


def test_a_narrower_key_finds_its_rows_and_a_wider_one_is_refused(tables: ParquetTables) -> None:
    base = tables.write(pl.DataFrame({"id": [1, 2], "x": [1, 2]}, schema={"id": pl.Int32, "x": pl.Int32}).lazy())
    narrow = pl.DataFrame({"id": [2], "x": [5]}, schema={"id": pl.UInt8, "x": pl.Int8})
    assert upserted(tables, base, narrow, ["id"]).updated == 1
    with pytest.raises(InvalidInput, match='"id" is Int64, not Int32'):
        upserted(tables, base, pl.DataFrame({"id": [2], "x": [5]}), ["id"])


def test_a_key_that_the_table_lacks_is_said(tables: ParquetTables) -> None:
    base = tables.write(pl.DataFrame({"x": [1]}).lazy())
    with pytest.raises(InvalidInput, match=r'"id" is new|no column "id"'):
        upserted(tables, base, pl.DataFrame({"id": [1], "x": [1]}), ["id"])


def test_corrections_of_real_flights_reach_their_rows(tables: ParquetTables, shared_data: Path) -> None:
    flights = pl.read_parquet(shared_data / "nycflights13" / "flights.parquet").head(3000)
    base = tables.write(flights.lazy())
    changed = flights.gather_every(97).with_columns(arr_delay=pl.col("arr_delay").fill_null(0) + 1)
    done = upserted(tables, base, changed, ["flight_id"])
    assert (done.inserted, done.updated) == (0, changed.height)
    found = tables.scan(done.table.digest).collect()
    assert found["flight_id"].equals(flights["flight_id"])
    assert found.filter(pl.col("flight_id").is_in(changed["flight_id"].implode())).equals(changed)
