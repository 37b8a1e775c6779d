"""Drift tests against SciPy and against hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from flyball.errors import InvalidInput, NotFound
from flyball.stats import drift
from flyball.stats.profiles import bins_of, profile


@pytest.fixture
def two_samples():
    rng = np.random.default_rng(3)
    return rng.normal(0, 1, 20_000), rng.normal(0.4, 1.3, 20_000)


@pytest.mark.parametrize("test", drift.names())
def test_equal_shares_give_nought_and_more_difference_gives_more(test, two_samples):
    reference, _ = two_samples
    bins = bins_of(reference)
    before = profile(reference, bins)
    values = [drift.statistic(test, before, profile(reference + shift, bins)) for shift in (0.0, 0.2, 0.6, 1.5)]
    assert values[0] == pytest.approx(0.0, abs=1e-12)
    assert values == sorted(values)
    assert values[3] > values[1] > 0


@pytest.mark.parametrize("test", drift.names())
def test_nulls_that_appear_are_seen_by_every_test(test):
    bins = bins_of(np.arange(100.0))
    full = profile(np.arange(100.0), bins)
    holed = profile([None if i % 2 else float(i) for i in range(100)], bins)
    assert drift.statistic(test, full, holed) > 0.2


def test_js_is_the_jensen_shannon_distance_of_scipy(two_samples):
    bins = bins_of(two_samples[0])
    a, b = (profile(s, bins) for s in two_samples)
    assert drift.statistic("js", a, b) == pytest.approx(jensenshannon(a.counts, b.counts, base=2))


def test_ks_and_w1_from_bins_are_near_the_exact_ones_of_scipy(two_samples):
    reference, current = two_samples
    bins = bins_of(reference)
    a, b = profile(reference, bins), profile(current, bins)
    assert drift.statistic("ks", a, b) == pytest.approx(stats.ks_2samp(reference, current).statistic, abs=0.02)
    inside = np.clip(current, reference.min(), reference.max())
    exact = stats.wasserstein_distance(reference, inside) / reference.std()
    assert drift.statistic("w1", a, b) == pytest.approx(exact, rel=0.15)


def test_psi_of_temperature_between_seasons_and_between_alternate_days(shared_data):
    import polars as pl

    weather = pl.read_parquet(shared_data / "nycflights13" / "weather.parquet").filter(pl.col("temp").is_not_null())
    temperature = {m: weather.filter(pl.col("month").is_in(m))["temp"].to_numpy() for m in ((1, 2, 3), (7, 8, 9))}
    winter = weather.filter(pl.col("month") <= 3)
    odd, even = (winter.filter(pl.col("day") % 2 == k)["temp"].to_numpy() for k in (1, 0))
    bins = bins_of(temperature[1, 2, 3])
    seasons = drift.statistic("psi", *(profile(temperature[m], bins) for m in ((1, 2, 3), (7, 8, 9))))
    days = drift.statistic("psi", profile(even, bins), profile(odd, bins))
    assert seasons > 6 > 0.15 > days


def test_an_unknown_test_is_named_with_the_nearest_known():
    bins = bins_of([1.0, 2.0])
    with pytest.raises(NotFound, match='did you mean "ks"'):
        drift.statistic("k_s", profile([1.0], bins), profile([2.0], bins))


def test_empty_or_foreign_profiles_are_refused():
    bins = bins_of([1.0, 2.0])
    with pytest.raises(InvalidInput, match="at least one row"):
        drift.statistic("js", profile([1.0], bins), profile([], bins))
    with pytest.raises(InvalidInput, match="different bins"):
        drift.statistic("js", profile([1.0], bins), profile([1.0], bins_of([7.0])))
