"""What is kept of rows by blocks tells windows as the rows themselves do, in little space, and is read back equal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import polars as pl
import pytest

from flyball.data.blocks import MOST_BLOCKS, MOST_WINDOWS, Blocks, blocks_of
from flyball.errors import Corrupt, Incompatible, InvalidInput, NotFound
from flyball.stats.calibration import calibrate
from flyball.stats.profiles import profile

START = datetime(2026, 1, 1, tzinfo=UTC)


def rows(count: int, seed: int = 0) -> pl.DataFrame:
    """Rows of a season: numbers, few numbers, truth values, names with accents, and gaps in all of them."""
    rng = np.random.default_rng(seed)
    season = np.sin(np.arange(count) / count * 6.28)
    frame = pl.DataFrame(
        {
            "at": [START + timedelta(minutes=i) for i in range(count)],
            "wind": rng.normal(size=count) + season,
            "hour": rng.integers(0, 24, count),
            "late": rng.random(count) < 0.2 + 0.1 * season,
            "city": rng.choice(["Zürich", "Ulm", "東京", ""], count),
            "gone": np.full(count, np.nan),
        }
    )
    return frame.with_columns(pl.when(pl.int_range(pl.len()) % 7 != 3).then(pl.col("wind", "hour", "late", "city")))


INPUTS = ["wind", "hour", "late", "city", "gone"]


def values(column: pl.Series) -> object:
    """A column as `stats.profiles` takes it."""
    return column.to_list() if column.dtype == pl.String else column.cast(pl.Float64).to_numpy()


def test_windows_are_those_of_the_rows_in_the_order_of_time() -> None:
    frame = rows(4_000)
    blocks = blocks_of(frame.sample(fraction=1.0, shuffle=True, seed=1).lazy(), INPUTS, event_time="at")
    for name in INPUTS:
        windows = blocks.windows(name, 500)
        bins = blocks.profiles[name].bins
        expected = [profile(values(frame[name][start : start + 500]), bins) for start in range(0, 4_000, 500)]
        assert [w.counts.tolist() for w in windows] == [e.counts.tolist() for e in expected]
        assert blocks.profiles[name].counts.tolist() == profile(values(frame[name]), bins).counts.tolist()


def test_thresholds_are_those_that_the_rows_give() -> None:
    from flyball.monitoring.windows import make_reference

    frame = rows(6_000).select("at", "hour", "late", "city")
    few = ["hour", "late", "city"]  # of few values, so that the bins are the same to the last digit
    blocks = blocks_of(frame.lazy(), few, event_time="at")
    found = make_reference(blocks, few, window=500, false_alarms=0.01, horizon=50, persistence=2).calibration
    expected, _ = calibrate({n: values(frame[n]) for n in few}, window=500, alpha=0.01, horizon=50)  # type: ignore[misc]
    assert found.limits == expected.limits


def test_many_rows_are_kept_in_few_blocks_from_all_over_their_time() -> None:
    count = 600_000
    position = pl.DataFrame({"n": np.arange(count, dtype=np.float64)})
    blocks = blocks_of(position.lazy(), ["n"], event_time="n")
    assert all(len(counts) <= MOST_BLOCKS for counts in blocks.counts["n"])
    assert blocks.profiles["n"].rows == count
    for size in (50, 400, 1_000, 5_000, 60_000, count):
        windows = blocks.windows("n", size)
        assert len(windows) <= MOST_WINDOWS
        assert all(0.75 * size <= w.rows <= 1.5 * size for w in windows), size
        # Each window is of rows that are neighbours: of a ramp they fall into few bins, and later ones into higher.
        places = [int(w.counts.argmax()) for w in windows]
        assert places == sorted(places)
        assert places[0] <= 1 + size * 20 // count and places[-1] >= 20 - size * 20 // count


def test_what_is_kept_is_read_back_equal_and_its_names_can_be_looked_into() -> None:
    blocks = blocks_of(rows(3_000).lazy(), [*INPUTS, "at", "nowhere"], event_time="at")
    data = blocks.to_bytes()
    again = Blocks.from_bytes(data)
    assert again.to_bytes() == data
    assert "Zürich".encode() in data
    assert set(again.left_out) == {"at", "nowhere"}
    with pytest.raises(NotFound, match=r'no column "at" \(it has: wind'):
        again.windows("at", 100)


def test_damage_and_a_newer_form_are_told() -> None:
    data = blocks_of(rows(100).lazy(), ["city"]).to_bytes()
    document = orjson.loads(data)
    for broken in (b"", b"[]", data[:-20], data.replace(b'"data":"', b'"data":"!')):
        with pytest.raises(Corrupt, match="register the model again"):
            Blocks.from_bytes(broken)
    with pytest.raises(Incompatible, match="newer release"):
        Blocks.from_bytes(orjson.dumps({**document, "format": 99}))


def test_fewer_rows_than_a_block_are_one_window_and_none_are_refused() -> None:
    assert [w.rows for w in blocks_of(rows(7).lazy(), ["hour"]).windows("hour", 1_000)] == [7]
    with pytest.raises(InvalidInput, match="no rows"):
        blocks_of(rows(7).clear().lazy(), ["hour"])
