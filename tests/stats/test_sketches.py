"""Sketches: the same bytes however values are split, and what they tell against NumPy, SciPy and brute force."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.stats import comoments, frequencies, row_samples, sketches, sums
from flyball.stats.distinct import RELATIVE_ERROR, SIZE, estimated, registers_of, registers_of_spread
from flyball.stats.drift import statistic
from flyball.stats.frequencies import EXACT, Names, names_of_rows
from flyball.stats.hashing import float_hashes, integer_hashes, mixed, spread, text_hashes
from flyball.stats.profiles import bins_of, profile
from flyball.stats.sketch_distances import bars_of, bins_of_sketch, profile_of_sketch
from flyball.stats.sketches import Histogram, histogram_of_counts, histogram_of_floats, histogram_of_integers

finite = st.floats(allow_nan=False, allow_infinity=False)
MANY = 40_000  # beyond what is sorted: counted in tables


def same(a: Histogram, b: Histogram) -> bool:
    known = (a.scale, a.limit, a.shift) == (b.scale, b.limit, b.shift)
    return known and np.array_equal(a.cells, b.cells) and np.array_equal(a.counts, b.counts)


def brute(values: npt.NDArray[np.float64], limit: int) -> tuple[int, dict[int, int]]:
    """The definition: the keys of all values, with the fewest low bits dropped that leave at most `limit`."""
    keys = []
    for value in values.tolist():
        bits = int(np.array(value + 0.0).view(np.uint64))
        keys.append((~bits & (1 << 64) - 1) if bits >> 63 else bits | 1 << 63)
    shift = next(s for s in range(64) if len({k >> s for k in keys}) <= limit)
    counts: dict[int, int] = {}
    for key in keys:
        counts[key >> shift] = counts.get(key >> shift, 0) + 1
    return shift, counts


def columns(rng: np.random.Generator) -> dict[str, npt.NDArray[np.float64]]:
    signs = rng.choice([-1.0, 1.0], MANY)
    return {
        "about zero": rng.normal(size=MANY),
        "far from zero": rng.normal(1e6, 1, MANY),
        "heavy tail": rng.pareto(0.5, MANY),
        "negative": -rng.exponential(size=MANY),
        "every size": signs * 10.0 ** rng.uniform(-300, 300, MANY),
        "subnormal": rng.integers(0, 5000, MANY) * 5e-324,
        "one outlier": np.concatenate([rng.normal(5, 0.01, MANY - 1), [1e308]]),
        "few values": rng.choice([0.1, -2.5, 1e100, 0.0, -0.0], MANY),
        "cents": np.round(rng.normal(0, 20, MANY), 2),
        "constant": np.full(MANY, 3.7),
    }


COLUMNS = columns(np.random.default_rng(1))


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_cells_are_those_of_the_definition_and_the_same_for_any_parts(name: str) -> None:
    values = COLUMNS[name]
    whole = histogram_of_floats(values, 500)
    shift, counts = brute(values, 500)
    assert (whole.shift, dict(zip(whole.cells.tolist(), whole.counts.tolist(), strict=True))) == (shift, counts)
    shuffled = np.random.default_rng(2).permutation(values)
    for parts in (np.array_split(values, 3), np.array_split(shuffled, 90), [values, values[:0]]):
        assert same(sketches.merged([histogram_of_floats(part, 500) for part in parts]), whole)
    nested = sketches.merged([histogram_of_floats(part, 500) for part in np.array_split(shuffled, 4)][:2])
    rest = [histogram_of_floats(part, 500) for part in np.array_split(shuffled, 4)][2:]
    assert same(sketches.merged([*rest, nested]), whole)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(finite, max_size=30), min_size=1, max_size=6), st.integers(2, 12))
def test_a_histogram_of_any_floats_is_the_merge_of_its_parts(parts: list[list[float]], limit: int) -> None:
    arrays = [np.array(part, dtype=np.float64) for part in parts]
    whole = histogram_of_floats(np.concatenate(arrays), limit)
    assert same(sketches.merged([histogram_of_floats(part, limit) for part in arrays]), whole)
    assert whole.cells.size <= limit
    assert whole.total == sum(map(len, parts))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30), min_size=1, max_size=6), st.integers(2, 12))
def test_a_histogram_of_any_integers_is_the_merge_of_its_parts(parts: list[list[int]], limit: int) -> None:
    arrays = [np.array(part, dtype=np.int64) for part in parts]
    whole = histogram_of_integers(np.concatenate(arrays), limit)
    assert same(sketches.merged([histogram_of_integers(part, limit) for part in arrays]), whole)


def test_integers_in_tables_count_as_sorted_ones_do() -> None:
    rng = np.random.default_rng(3)
    for reach in (1000, 10**9, 2**62):
        values = rng.integers(-reach, reach, MANY)
        parts = [histogram_of_integers(part, 700) for part in np.array_split(values, 5)]
        assert same(histogram_of_integers(values, 700), sketches.merged(parts))
    found, counts = np.unique(values, return_counts=True)
    assert same(histogram_of_counts(found, counts, "integer", 700), histogram_of_integers(values, 700))


@pytest.mark.parametrize("name", ["about zero", "far from zero", "heavy tail", "negative", "cents", "few values"])
def test_quantiles_are_within_their_cell_of_numpys(name: str) -> None:
    values = COLUMNS[name]
    found = histogram_of_floats(values)
    levels = [0.0, 0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999, 1.0]
    got = found.quantiles(levels, values.min(), values.max())
    wanted = np.quantile(values, levels)
    width = float((found.ends - found.values).max()) if name != "heavy tail" else np.abs(wanted) / 50
    assert (np.abs(got - wanted) <= width).all()
    if found.is_exact:
        assert got == wanted.tolist()


def test_counts_below_and_deviation_are_numpys_where_every_value_is_kept() -> None:
    values = np.random.default_rng(4).integers(-50, 400, MANY) / 4
    found = histogram_of_floats(values)
    asked = np.array([-13.0, -12.5, 0.0, 0.1, 99.75, 100.0])
    assert found.count_below(asked).tolist() == [int((values < a).sum()) for a in asked]
    assert found.deviation(values.mean(), values.min(), values.max()) == pytest.approx(values.std(), rel=1e-12)
    spread = COLUMNS["far from zero"]
    deviation = histogram_of_floats(spread).deviation(spread.mean(), spread.min(), spread.max())
    assert deviation == pytest.approx(spread.std(), rel=1e-4)


def test_bars_hold_every_value_once() -> None:
    first, second = COLUMNS["about zero"], COLUMNS["cents"]
    ends = (min(first.min(), second.min()), max(first.max(), second.max()))
    edges, counts = bars_of([histogram_of_floats(first), histogram_of_floats(second)], ends)
    assert len(edges) <= 41
    assert [round(c.sum()) for c in counts] == [MANY, MANY]
    few = histogram_of_floats(COLUMNS["few values"])
    edges, (bars,) = bars_of([few], (-2.5, 1e100))
    assert bars.tolist() == few.counts.tolist()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(finite, max_size=20), min_size=1, max_size=5))
def test_sums_do_not_depend_on_how_numbers_are_split(parts: list[list[float]]) -> None:
    arrays = [np.array(part, dtype=np.float64) for part in parts]
    every = np.concatenate(arrays)
    whole = sums.sums_of(every)
    assert sums.merged([sums.sums_of(part) for part in arrays]) == whole
    assert sums.sums_of(every[::-1].copy()) == whole
    assert sums.sums_of_counts(every, np.ones(every.size, dtype=np.int64)) == whole
    if every.size:
        exact = sum(map(Fraction, every.tolist())) / every.size
        assert whole.mean is not None
        largest = Fraction(float(np.abs(every).max()))
        assert abs(Fraction(whole.mean) - exact) <= largest / 2**38 + Fraction(5e-324)


def test_sums_over_many_chunks_do_not_depend_on_order() -> None:
    rng = np.random.default_rng(5)
    for values in COLUMNS.values():
        whole = sums.sums_of(values)
        shuffled = rng.permutation(values)
        assert sums.merged([sums.sums_of(part) for part in np.array_split(shuffled, 17)]) == whole
    assert sums.sums_of(np.array([])).mean is None
    assert sums.sums_of(np.zeros(3)).mean == 0.0


def holes(rng: np.random.Generator, rows: int) -> list[npt.NDArray[np.float64]]:
    base = rng.normal(size=rows)
    made = [base * scale + rng.normal(size=rows) * scale / 2 + at for scale, at in ((1, 0), (1e9, 0), (1, 2011))]
    made += [rng.integers(0, 100, rows).astype(np.float64), np.full(rows, 7.0), base * 1e-9]
    made[0][base > 1.0] = np.nan  # missing because of what it was: pairs must be counted pair by pair
    made[3][rng.random(rows) < 0.2] = np.inf
    return made


def test_correlations_are_numpys_on_the_rows_that_have_both() -> None:
    data = holes(np.random.default_rng(6), 20_000)
    found = comoments.comoments_of(data).correlations()
    for i in range(len(data)):
        for j in range(len(data)):
            both = np.isfinite(data[i]) & np.isfinite(data[j])
            if 4 in (i, j):
                assert math.isnan(found[i, j])
            else:
                assert found[i, j] == pytest.approx(np.corrcoef(data[i][both], data[j][both])[0, 1], abs=1e-7)


def test_products_do_not_depend_on_how_rows_are_split() -> None:
    rng = np.random.default_rng(7)
    data = holes(rng, 9_000)
    whole = comoments.comoments_of(data)
    by_size = np.argsort(np.abs(np.nan_to_num(data[1])))  # small numbers first: digits move up as parts merge
    for order in (rng.permutation(9_000), by_size):
        parts = [comoments.comoments_of([c[at] for c in data]) for at in np.array_split(order, 50)]
        found = comoments.merged(parts)
        assert (found.rows, found.levels) == (whole.rows, whole.levels)
        for what in ("digits", "products", "gaps", "lost", "lost_squares"):
            assert (getattr(found, what) == getattr(whole, what)).all(), what


@pytest.mark.parametrize("distinct", [0, 10, 1000, 5000, 200_000])
@pytest.mark.parametrize("step", [1.0, 0.01, 1e9])
def test_distinct_values_are_estimated_within_four_standard_errors(distinct: int, step: float) -> None:
    values = np.arange(distinct) * step
    repeated = np.concatenate([values, values[::-1], values[: distinct // 2]])
    registers = registers_of(float_hashes(repeated))
    assert abs(estimated(registers) - distinct) <= max(4 * RELATIVE_ERROR * distinct, 1)
    parts = [registers_of(float_hashes(part)) for part in np.array_split(repeated, 7)]
    assert np.array_equal(np.max(parts, axis=0), registers)


def test_registers_are_those_of_the_definition() -> None:
    for rows in (100, 300_000):
        hashes = mixed(np.arange(rows, dtype=np.uint64) % np.uint64(50_000))
        wanted = [0] * SIZE
        for value in set(hashes.tolist()):
            low = value & (1 << 52) - 1
            rank = (low & -low).bit_length() if low else 53
            wanted[value >> 52] = max(wanted[value >> 52], rank)
        assert registers_of(hashes).tolist() == wanted
    assert registers_of(np.zeros(1, dtype=np.uint64))[0] == 53


@pytest.mark.parametrize("rows", [20_000, 150_000, 300_000, 600_000, 1_100_000])
@pytest.mark.parametrize("distinct", [50, 60_000, 400_000, 2**50])
def test_registers_of_numbers_are_those_of_all_their_hashes(rows: int, distinct: int) -> None:
    # Of many rows only hashes that end in zeros are made; those of values that repeat are fewer than of as many rows.
    values = np.random.default_rng(rows).integers(0, distinct, rows).astype(np.uint64)
    assert np.array_equal(registers_of_spread(spread(values)), registers_of(integer_hashes(values.view(np.int64))))


def test_hashes_stay_what_they_are() -> None:
    # Stored profiles merge with those of later releases: these figures may never change.
    texts = ["", "a", "EWR", "Zürich", "12345678", "123456789", "x" * 600, "y" * 600, "x" * 512, "y" * 512]
    data = "".join(texts).encode()
    found = text_hashes(data, np.array([len(t.encode()) for t in texts]))
    alone = [int(text_hashes(t.encode(), np.array([len(t.encode())]))[0]) for t in texts]
    assert found.tolist() == alone
    assert len(set(alone)) == len(texts)
    assert int(mixed(np.array([1], dtype=np.uint64))[0]) == 0xB456BCFC34C2CB2C  # MurmurHash3's fmix64(1)
    step = 0x9E3779B97F4A7C15
    assert int(spread(np.array([1], dtype=np.uint64))[0]) == step
    murmur = int(mixed(np.array([step], dtype=np.uint64))[0])
    assert int(integer_hashes(np.array([1]))[0]) == murmur & ~15 | step >> 60
    assert [hex(h) for h in [*alone[:4], alone[6]]] == PINNED


PINNED = ["0x6393d51c06c618dc", "0xa3185156c5445fe", "0xbb197b7de401a264", "0x7270dbccbc772c4a", "0x441b5b819e2cfe8e"]


def counted(texts: list[str]) -> Names:
    data = [t.encode() for t in texts]
    hashes = text_hashes(b"".join(data), np.array([len(t) for t in data], dtype=np.int64))
    return names_of_rows(hashes, lambda at: [texts[i] for i in at])


def alike(a: Names, b: Names) -> bool:
    arrays = [(a.hashes, b.hashes), (a.counts, b.counts), (a.buckets, b.buckets), (a.registers, b.registers)]
    return a.names == b.names and all(
        (x is None and y is None) or (x is not None and y is not None and np.array_equal(x, y)) for x, y in arrays
    )


@pytest.mark.parametrize("distinct", [3, EXACT, EXACT + 1, 30_000])
def test_names_are_the_same_for_any_parts_and_exact_while_few(distinct: int) -> None:
    rng = np.random.default_rng(8)
    which = np.concatenate([np.arange(distinct), (distinct * rng.random(40_000) ** 3).astype(int)])
    texts = [f"name {i}" for i in rng.permutation(which)]
    whole = counted(texts)
    assert whole.is_exact == (distinct <= EXACT)
    assert whole.total == len(texts)
    assert abs(whole.distinct - distinct) <= 4 * RELATIVE_ERROR * distinct * (not whole.is_exact)
    for size in (len(texts) // 3, 4000):
        parts = [counted(texts[at : at + size]) for at in range(0, len(texts), size)]
        assert alike(frequencies.merged(parts), whole)
    wanted = {name: texts.count(name) for name, _ in whole.most_common(5)}
    assert dict(whole.most_common(5)) == wanted


def test_few_names_in_many_rows_are_kept_whole() -> None:
    whole = counted(["a", "b", "b"] * 30_000)
    assert whole.is_exact
    assert whole.most_common(2) == [("b", 60_000), ("a", 30_000)]


def sample_of(rows: npt.NDArray[np.int64]) -> row_samples.RowSample:
    hashes = integer_hashes(rows)
    at, kept, counts, is_exact = row_samples.lowest(hashes)
    return row_samples.RowSample(rows.size, is_exact, kept, counts, rows[at][None].astype(np.float64))


@pytest.mark.parametrize("distinct", [5, 1024, 1025, 50_000])
def test_a_sample_of_rows_is_the_same_for_any_parts(distinct: int) -> None:
    rng = np.random.default_rng(9)
    rows = np.concatenate([np.arange(distinct), rng.integers(0, distinct, 5000)])
    whole = sample_of(rows)
    merged = row_samples.merged([sample_of(part) for part in np.array_split(rng.permutation(rows), 13)])
    assert (whole.rows, whole.is_exact) == (merged.rows, merged.is_exact)
    assert np.array_equal(whole.hashes, merged.hashes)
    assert np.array_equal(whole.counts, merged.counts)
    assert np.array_equal(whole.values, merged.values)
    truth = rows.size - distinct
    if whole.is_exact:
        assert whole.duplicates == (truth, truth)
    assert whole.duplicates[1] >= truth


def test_rank_correlation_and_association_are_scipys() -> None:
    rng = np.random.default_rng(10)
    first = rng.integers(0, 30, 800).astype(np.float64)
    second = first * 2 + rng.integers(0, 40, 800)
    one = np.ones(800, dtype=np.int64)
    wanted = scipy.stats.spearmanr(first, second).statistic
    assert row_samples.rank_correlation(first, second, one) == pytest.approx(wanted)
    both = np.stack([first, second])
    rows, counts = np.unique(both, axis=1, return_counts=True)
    assert row_samples.rank_correlation(rows[0], rows[1], counts) == pytest.approx(wanted)
    assert row_samples.rank_correlation(first, np.ones(800), one) is None
    assert row_samples.association(first, first, one) == pytest.approx(1.0)
    independent = row_samples.association(first, rng.integers(0, 3, 800).astype(np.float64), one)
    assert independent is not None and independent < 0.15


@pytest.mark.parametrize("name", ["about zero", "far from zero", "cents", "few values"])
def test_a_reference_from_a_sketch_counts_as_one_from_the_rows(name: str) -> None:
    values = COLUMNS[name]
    sketch = histogram_of_floats(values)
    bins = bins_of_sketch(sketch)
    ends = (float(values.min()), float(values.max()))
    kept = profile_of_sketch(sketch, bins, nulls=3, mean=float(values.mean()), deviation=float(values.std()), ends=ends)
    counted_rows = profile(np.concatenate([values, [np.nan] * 3]), bins)
    assert kept.counts.tolist() == counted_rows.counts.tolist()
    assert (kept.finite, kept.least, kept.greatest) == (counted_rows.finite, counted_rows.least, counted_rows.greatest)
    assert statistic("js", kept, counted_rows) == 0.0
    wanted = bins_of(values)
    assert len(bins.edges) == len(wanted.edges)
    assert np.asarray(bins.edges) == pytest.approx(np.asarray(wanted.edges), rel=0.02, abs=0.02)


def test_a_reference_of_names_counts_as_one_from_the_rows() -> None:
    texts = [f"n{i % 90}" for i in range(5000)] + ["often"] * 400
    sketch = counted(texts)
    bins = bins_of_sketch(sketch)
    assert bins == bins_of(texts)
    assert (
        profile_of_sketch(sketch, bins, nulls=2).counts.tolist() == profile([*texts, None, None], bins).counts.tolist()
    )
    with pytest.raises(InvalidInput, match="expected numbers or nulls"):
        profile_of_sketch(sketch, bins_of([1.0, 2.0]))


def test_what_cannot_be_merged_is_refused_in_words() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        sketches.merged([])
    times = histogram_of_integers(np.array([1, 2]), 2048)
    with pytest.raises(InvalidInput, match="different scales"):
        sketches.merged([times, histogram_of_floats(np.array([1.0]))])
    with pytest.raises(InvalidInput, match="no quantiles"):
        histogram_of_floats(np.array([])).quantiles([0.5], 0.0, 0.0)
