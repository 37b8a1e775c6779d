"""Moments of arms: against NumPy on all rows at once, and CUPED against its own formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.stats.outcomes import Outcomes, difference, merged, outcomes_of, slope

RANDOM = np.random.default_rng(11)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 40), min_size=1, max_size=5), st.sampled_from([0.0, 1e6]))
def test_moments_do_not_depend_on_how_the_units_were_split(seed: int, sizes: list[int], offset: float) -> None:
    generator = np.random.default_rng(seed)
    parts = [generator.normal(offset, 1, (2, size)) for size in sizes]
    together = np.concatenate(parts, axis=1)
    found = merged([outcomes_of(part[0], part[1]) for part in parts])
    whole = outcomes_of(together[0], together[1])
    for name in vars(whole):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-9, abs=1e-6), name


def test_moments_are_those_of_numpy() -> None:
    y, x = RANDOM.normal(3, 2, 500), RANDOM.normal(-1, 4, 500)
    found = outcomes_of(y, x)
    assert float(found.variance) == pytest.approx(y.var(ddof=1))
    assert float(found.total) == pytest.approx(y.sum())
    assert float(found.products) == pytest.approx(np.cov(y, x)[0, 1] * 499)


def test_what_was_written_is_read_back_and_other_names_are_refused() -> None:
    found = outcomes_of([1.0, 2.0, 4.0], [0.0, 1.0, 1.0])
    assert Outcomes.from_dict(found.as_dict()).as_dict() == found.as_dict()
    with pytest.raises(InvalidInput, match="'median'"):
        Outcomes.from_dict({"median": 1.0})


def test_cuped_leaves_one_minus_rho_squared_of_the_variance_and_the_same_effect() -> None:
    correlation, effect = 0.8, 0.3
    arms = []
    for shift in (effect, 0.0):
        covariate = RANDOM.standard_normal(200_000)
        noise = RANDOM.standard_normal(200_000)
        arms.append(outcomes_of(shift + correlation * covariate + (1 - correlation**2) ** 0.5 * noise, covariate))
    plain, adjusted = difference(arms[0], arms[1]), difference(arms[0], arms[1], is_adjusted=True)
    assert float(adjusted.variance / plain.variance) == pytest.approx(1 - correlation**2, rel=0.01)
    assert float(adjusted.value) == pytest.approx(effect, abs=4 * float(adjusted.variance) ** 0.5)
    assert float(slope(arms)) == pytest.approx(correlation, abs=0.01)


def test_a_covariate_that_does_not_vary_changes_nothing() -> None:
    arms = [outcomes_of([1.0, 2.0, 3.0], [5.0] * 3), outcomes_of([1.0, 1.0, 4.0], [5.0] * 3)]
    plain, adjusted = difference(arms[0], arms[1]), difference(arms[0], arms[1], is_adjusted=True)
    assert (float(plain.value), float(plain.variance)) == (float(adjusted.value), float(adjusted.variance))


def test_the_variance_of_a_difference_is_welchs() -> None:
    first, second = RANDOM.normal(0, 1, 30), RANDOM.normal(0, 3, 80)
    expected = first.var(ddof=1) / 30 + second.var(ddof=1) / 80
    assert float(difference(outcomes_of(first), outcomes_of(second)).variance) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[1.0, float("nan")], [float("inf")]])
def test_an_outcome_that_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(InvalidInput, match="not finite"):
        outcomes_of(values)


def test_covariates_of_another_length_are_refused() -> None:
    with pytest.raises(InvalidInput, match="expected the same"):
        outcomes_of([1.0, 2.0], [1.0])
