"""The newest row of each entity against brute force, in memory and through many small files, in one order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import Unavailable
from flyball.features.encoding import encoded_keys, places
from flyball.features.newest import newest_in_order
from flyball.features.specs import ViewSpec
from flyball.storage.online.places import place_of

START = datetime(2020, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
KEYS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "whole numbers": (pl.Int64, st.integers(0, 30) | st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1)),
    "unsigned": (pl.UInt64, st.sampled_from([0, 7, 10**7, 2**62 + 7, 2**63, 2**64 - 1])),
    "texts": (pl.String, st.sampled_from(["", "a", "b\n", "é", "12345678", "a longer key 1", "a longer key 2"])),
}
rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=40)


@contextmanager
def small_bounds() -> Iterator[None]:
    """Make every bound so small that a few rows fill several files, which are merged in between."""
    bounds = {
        "flyball.features.newest": {"_HELD_CELLS": 25, "_MERGED_CELLS": 12, "_MOST_FILES": 2, "_GROUP_ROWS": 2},
        "flyball.features.runs": {"_FEWEST_ROWS": 1, "_MARK_ROWS": 2},
    }
    with ExitStack() as stack:
        for module, names in bounds.items():
            for name, value in names.items():
                stack.enter_context(patch(f"{module}.{name}", value))
        yield


def newest(frames: list[pl.DataFrame], spec: ViewSpec) -> list[tuple[Any, ...]]:
    with TemporaryDirectory() as folder:
        return [row for frame in newest_in_order(iter(frames), spec, Path(folder)) for row in frame.rows()]


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("is_bitemporal", [False, True])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), times=rows)
def test_each_entity_comes_once_with_its_newest_row_whatever_the_bounds(
    kind: str, is_bitemporal: bool, data: st.DataObject, times: list[tuple[int, int]]
) -> None:
    dtype, drawn = KEYS[kind]
    keys = data.draw(st.lists(drawn, min_size=len(times), max_size=len(times)))
    frame = pl.DataFrame(
        {
            "key": pl.Series(keys, dtype=dtype),
            "event": pl.Series([START + timedelta(minutes=event) for event, _ in times], dtype=TIME),
            "known": pl.Series([START + timedelta(minutes=event + late) for event, late in times], dtype=TIME),
            "number": pl.Series(range(len(times)), dtype=pl.Int64),
        }
    )
    if not is_bitemporal:
        frame = frame.drop("known")
    spec = ViewSpec("v", ("key",), "event", {"number": "int64"}, "known" if is_bitemporal else None)
    best: dict[Any, tuple[int, int, int]] = {}
    for number, (key, (event, late)) in enumerate(zip(keys, times, strict=True)):
        candidate = (event, event + late if is_bitemporal else 0, number)
        best[key] = max(best.get(key, candidate), candidate)
    frames = [frame.slice(start, 5) for start in range(0, max(frame.height, 1), 5)]
    whole = newest(frames, spec)
    assert {row[0]: row[-1] for row in whole} == {key: number for key, (_, _, number) in best.items()}
    assert len(whole) == len(best)
    with small_bounds():
        assert newest(frames, spec) == whole
    assert newest([frame], spec) == whole, "the order is that of the rows, not of how they came"


def test_entities_whose_places_are_the_same_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.storage.online.places._HASH_MODULUS", 2)
    keys = [f"customer {number % 5}" for number in range(60)]
    frame = pl.DataFrame({"key": keys, "at": [START] * 60, "n": range(60)}).with_columns(pl.col("at").cast(TIME))
    spec = ViewSpec("v", ("key",), "at", {"n": "int64"})
    frames = [frame.slice(start, 4) for start in range(0, 60, 4)]
    with small_bounds():
        found = newest(frames, spec)
    assert sorted((row[0], row[-1]) for row in found) == [(f"customer {number}", 55 + number) for number in range(5)]
    assert found == newest([frame], spec)


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**18 - 1) | st.integers(0, 10**8), max_size=30))
def test_whole_numbers_are_in_the_order_of_their_places(numbers: list[int]) -> None:
    frame = pl.DataFrame({"key": pl.Series(numbers, dtype=pl.Int64)})
    order = sorted(range(len(numbers)), key=places(frame, ["key"]).to_list().__getitem__)
    assert [numbers[n] for n in order] == sorted(numbers, key=lambda number: place_of(str(number)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=9), st.integers(-(2**63), 2**63 - 1)), max_size=20))
def test_rows_of_one_key_have_one_place(pairs: list[tuple[str, int]]) -> None:
    frame = pl.DataFrame(pairs, schema={"a": pl.String, "b": pl.Int64}, orient="row")
    for entity in (["a"], ["b"], ["a", "b"]):
        seen = dict(zip(encoded_keys(frame, entity), places(frame, entity), strict=True))
        again = dict(zip(encoded_keys(frame.reverse(), entity), places(frame.reverse(), entity), strict=True))
        assert seen == again


def test_a_full_disk_of_temporary_files_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    frame = pl.DataFrame({"key": range(50), "at": [START] * 50, "n": range(50)}).with_columns(pl.col("at").cast(TIME))
    spec = ViewSpec("v", ("key",), "at", {"n": "int64"})
    with small_bounds(), pytest.raises(Unavailable, match="is full; make room there or name another folder in TMPDIR"):
        list(newest_in_order(iter([frame]), spec, tmp_path))
