"""What steps may return comes back as it was, and has the same digest each time."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from flyball.errors import Corrupt, NotFound, StepFailed
from flyball.pipelines.results import Stored, is_plain, load, store
from flyball.storage.blobs.files import FileBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path)


def back(value: Any, blobs: FileBlobs) -> Any:
    stored = store(value, blobs, "step fit")
    assert stored == store(value, blobs, "step fit")
    assert Stored.from_dict(stored.to_dict()) == stored
    assert stored.is_there(blobs)
    return load(stored, blobs)


@pytest.mark.parametrize("rows", [0, 3, 50_000])
def test_polars_frames(rows: int, blobs: FileBlobs) -> None:
    frame = pl.DataFrame(
        {
            "n": range(rows),
            "text": [None if n % 7 == 0 else f"row {n}" for n in range(rows)],
            "at": [datetime(2013, 1, 1, tzinfo=UTC)] * rows,
            "list": [[n] for n in range(rows)],
        },
        schema={"n": pl.Int64, "text": pl.String, "at": pl.Datetime("us", "UTC"), "list": pl.List(pl.Int8)},
        strict=False,
    ).with_columns(pl.col("text").cast(pl.Categorical).alias("category"))
    assert_frame_equal(back(frame, blobs), frame)
    assert_frame_equal(back(frame.select([]), blobs), frame.select([]))


@pytest.mark.parametrize(
    "array", [np.arange(10_000), np.array(3.5), np.zeros((2, 0, 3)), np.array(["a", "bc"]), np.array([True])]
)
def test_numpy_arrays(array: np.ndarray[Any, Any], blobs: FileBlobs) -> None:
    found = back(array, blobs)
    np.testing.assert_array_equal(found, array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)


def test_pandas_frames_keep_their_index(blobs: FileBlobs) -> None:
    frame = pd.DataFrame({"x": [1.5, None], "y": pd.Categorical(["a", "b"])}, index=pd.Index([3, 7], name="id"))
    pd.testing.assert_frame_equal(back(frame, blobs), frame)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
        max_leaves=20,
    )
)
def test_any_plain_value_comes_back_as_it_was_in_value_and_type(tmp_path_factory: Any, value: Any) -> None:
    found = back(value, FileBlobs(tmp_path_factory.getbasetemp() / "shared-blobs"))
    assert repr(found) == repr(value)


def test_values_that_json_would_change_are_not_kept_as_json(blobs: FileBlobs) -> None:
    assert math.isnan(back(float("nan"), blobs))
    for value in ((1, 2), {1: "a"}, [(1,)], float("inf"), np.float64(2.0)):
        assert not is_plain(value)
        assert repr(back(value, blobs)) == repr(value)


def test_small_values_need_no_blob_and_large_ones_have_one(blobs: FileBlobs) -> None:
    assert store("x" * 100, blobs, "step fit").inline is not None
    assert list(blobs.digests()) == []
    large = store(b"x" * 10_000, blobs, "step fit")
    assert list(blobs.digests()) == [large.digest]
    blobs.delete(large.digest)
    assert not large.is_there(blobs)
    with pytest.raises(NotFound):
        load(large, blobs)


def test_what_cannot_be_stored_names_the_step_and_the_type(blobs: FileBlobs) -> None:
    with pytest.raises(
        StepFailed, match=r"step fit returned a _thread.lock, which cannot be stored .* expected a Polars"
    ):
        store(threading.Lock(), blobs, "step fit")
    with pytest.raises(StepFailed, match="LazyFrame, which is a plan"):
        store(pl.LazyFrame({"a": [1]}), blobs, "step fit")
    with pytest.raises(StepFailed, match=r"polars.*DataFrame, which cannot be stored"):
        store(pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}), blobs, "step fit")


def test_an_unknown_format_is_an_error(blobs: FileBlobs) -> None:
    with pytest.raises(Corrupt, match="unknown format 'feather'"):
        load(Stored("feather", "0" * 64, 1, ""), blobs)
