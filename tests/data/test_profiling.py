"""What columns are measured by: texts hashed where they lie, numbers counted in one pass, against their definitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from flyball.data.profiles import PROFILER
from flyball.data.profiling.numbers import floats_of, integers_of, times_of
from flyball.data.profiling.text_views import view_hashes
from flyball.data.profiling.texts import texts_of
from flyball.stats.distinct import registers_of
from flyball.stats.frequencies import EXACT
from flyball.stats.hashing import Hashes, chain_words, float_hashes, integer_hashes, text_hashes
from flyball.stats.sketches import histogram_of_counts
from flyball.stats.sums import sums_of

ROWS = 150_000


def hashed(texts: list[str]) -> Hashes:
    """Return the hashes by their definition."""
    data = [text.encode() for text in texts]
    return text_hashes(b"".join(data), np.array([len(each) for each in data], dtype=np.int64))


def random_texts(rows: int, most: int) -> list[str]:
    rng = np.random.default_rng(most)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzäöü€😀"))
    return ["".join(rng.choice(letters, size)) for size in rng.integers(0, most + 1, rows)]


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""] * 5,
        random_texts(3000, 2),
        random_texts(3000, 40),
        [f"{n:08d}" for n in range(40_000)],
        [f"{n:012d}" for n in range(20_000)],
        [f"{n:013d}" for n in range(20_000)],
        [f"{n:016d}" for n in range(20_000)],
        ["x" * n for n in (12, 13, 511, 512, 513, 2000, 0, 1)] * 3,
    ],
    ids=["none", "empty", "short", "any", "8 bytes", "12 bytes", "13 bytes", "16 bytes", "long"],
)
def test_texts_hashed_where_they_lie_have_the_hashes_of_their_bytes(texts: list[str]) -> None:
    whole = pl.Series(texts, dtype=pl.String)
    shuffled = whole.sample(fraction=1.0, shuffle=True, seed=1) if texts else whole
    for series in (whole, whole.slice(3), shuffled, pl.concat([whole, shuffled], rechunk=False)):
        found = view_hashes(series)
        assert found is not None, "Polars no longer keeps texts as views"
        assert np.array_equal(found, hashed(series.to_list()))


def late(values: list[str]) -> list[str]:
    return values + [f"late {n}" for n in range(500)]


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b", "b", "Zürich"] * 30_000,
        late(["a"] * 300_000),
        [f"name {n % 700}" for n in range(ROWS)],
        [f"name {n % 3000}" for n in range(ROWS)],
        ["a"] * 270_000 + [f"name {n}" for n in range(30_000)],
        [f"name {n}" for n in range(ROWS)],
        [f"name {n % 20_000} of a longer kind" for n in range(ROWS)],
    ],
    ids=["few", "late", "700", "3000", "few, then many", "all different", "20,000"],
)
def test_texts_are_counted_and_their_rows_hashed_in_each_of_the_ways(texts: list[str]) -> None:
    rows = np.zeros(len(texts), dtype=np.uint64)

    def take(start: int, hashes: Hashes) -> None:
        assert not rows[start : start + hashes.size].any(), "each row is taken once"
        rows[start : start + hashes.size] = hashes

    found = texts_of(pl.Series(texts), take)
    assert np.array_equal(rows, hashed(texts))
    wanted = Counter(texts)
    assert found.names.is_exact == (len(wanted) <= EXACT)
    assert all(wanted[name] == count for name, count in found.names.most_common(5000))
    assert found.names.total == len(texts)
    by_length = Counter(map(len, texts))
    times = np.ones(len(found.sizes), dtype=np.int64) if found.counts is None else found.counts
    assert {n: int(times[found.sizes == n].sum()) for n in by_length} == by_length


RNG = np.random.default_rng(11)
NUMBERS: dict[str, Callable[[], npt.NDArray[np.float64]]] = {
    "bell": lambda: RNG.normal(100, 15, ROWS),
    "both signs": lambda: RNG.normal(0, 15, ROWS),
    "negative": lambda: -RNG.lognormal(0, 2, ROWS),
    "zeros among others": lambda: np.where(RNG.random(ROWS) < 0.3, 0.0, RNG.lognormal(0, 2, ROWS)),
    "zeros and tiny ones": lambda: np.where(RNG.random(ROWS) < 0.3, 0.0, 10.0 ** RNG.uniform(-300, 300, ROWS)),
    "cents": lambda: np.round(RNG.lognormal(3, 1, ROWS), 2),
    "negative cents": lambda: np.round(RNG.normal(-3, 30, ROWS), 2),
    "cents but one": lambda: np.append(np.round(RNG.normal(50, 10, ROWS), 2), 1 / 3),
    "tenths, far away": lambda: np.round(1e9 + RNG.normal(0, 30, ROWS), 1),
    "whole": lambda: RNG.integers(-40_000, 40_000, ROWS).astype(np.float64),
    "few": lambda: RNG.choice(RNG.random(300), ROWS),
    "halves of the smallest": lambda: RNG.integers(0, 5000, ROWS) * 5e-324,
    "one": lambda: np.full(ROWS, 0.1),
    "a short column": lambda: RNG.normal(0, 1, 100),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_one_pass_are_what_each_sketch_makes_of_them(name: str) -> None:
    values = NUMBERS[name]() + 0.0
    rows, chained = np.zeros(values.size, dtype=np.uint64), np.zeros(values.size, dtype=np.uint64)
    ends = (float(values.min()), float(values.max()))
    found = floats_of(values, ends, int((values == 0).sum()), rows, np.empty(values.size, dtype=np.uint64))
    distinct, counts = np.unique(values, return_counts=True)
    wanted = histogram_of_counts(distinct, counts)
    assert found.histogram.shift == wanted.shift
    assert np.array_equal(found.histogram.cells, wanted.cells)
    assert np.array_equal(found.histogram.counts, wanted.counts)
    assert found.sums == sums_of(values)
    assert np.array_equal(found.registers, registers_of(float_hashes(distinct)))
    chain_words(chained, values.view(np.uint64))
    assert np.array_equal(rows, chained)


@pytest.mark.parametrize(
    "numbers",
    [
        RNG.integers(0, 500_000, ROWS),
        RNG.integers(-3_000_000, 100, ROWS),
        np.arange(ROWS) + 7,
        RNG.choice([5, 10**12, -3], ROWS),
        RNG.integers(-50, 50, ROWS),
        RNG.integers(-(2**62), 2**62, 9000),
    ],
    ids=["from zero", "both signs", "in a row", "far apart", "dense", "large"],
)
def test_whole_numbers_in_one_pass_are_what_each_sketch_makes_of_them(numbers: npt.NDArray[np.int64]) -> None:
    rows, ends = np.zeros(numbers.size, dtype=np.uint64), (int(numbers.min()), int(numbers.max()))
    found, zeros = integers_of(numbers, ends, rows, np.empty(numbers.size, dtype=np.uint64))
    distinct, counts = np.unique(numbers, return_counts=True)
    wanted = histogram_of_counts(distinct.astype(np.float64), counts)
    assert np.array_equal(found.histogram.cells, wanted.cells)
    assert np.array_equal(found.histogram.counts, wanted.counts)
    assert zeros == int((numbers == 0).sum())
    assert np.array_equal(found.registers, registers_of(integer_hashes(distinct)))
    in_time, registers = times_of(numbers, ends, None, np.empty(numbers.size, dtype=np.uint64))
    assert in_time.total == numbers.size
    assert registers is None or np.array_equal(registers, registers_of(integer_hashes(distinct)))


def test_large_parts_have_the_profile_of_their_rows_cut_small() -> None:
    # Hashes that cannot raise a register are not made: which those are must not depend on how many rows there are.
    rng = np.random.default_rng(12)
    rows = 300_000
    ids = rng.integers(0, 2**40, rows)
    frame = pl.DataFrame({"id": ids, "x": rng.random(rows), "name": pl.Series(ids % 60_000).cast(pl.String)})
    for size in (160_000, rows):
        part = frame.head(size)
        assert PROFILER.of(part) == PROFILER.merged([PROFILER.of(cut) for cut in part.iter_slices(16_000)])
