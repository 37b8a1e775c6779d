"""Sizes of experiments, against SciPy's noncentral t and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from flyball.errors import InvalidInput
from flyball.stats.planning import of_means, of_proportions


@pytest.mark.parametrize("effect", [0.1, 0.3])
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_fixed_size_of_means_has_its_power_by_the_noncentral_t(effect: float, share: float) -> None:
    size = of_means(effect, 1.0, 0.05, 0.8, share)
    arms = size.fixed_units * share, size.fixed_units * (1 - share)
    noncentrality = effect / np.sqrt(1 / arms[0] + 1 / arms[1])
    freedom = size.fixed_units - 2
    critical = scipy.stats.t.ppf(0.975, freedom)
    power = scipy.stats.nct.sf(critical, freedom, noncentrality) + scipy.stats.nct.cdf(
        -critical, freedom, noncentrality
    )
    assert power == pytest.approx(0.8, abs=0.005)


def test_the_fixed_size_of_shares_has_its_power_when_it_is_tried() -> None:
    size = of_proportions(0.1, 0.03, 0.05, 0.8)
    generator = np.random.default_rng(1)
    each = size.fixed_units // 2
    treated = generator.binomial(each, 0.13, 20_000) / each
    control = generator.binomial(each, 0.10, 20_000) / each
    error = np.sqrt((treated * (1 - treated) + control * (1 - control)) / each)
    assert (np.abs(treated - control) / error > 1.96).mean() == pytest.approx(0.8, abs=0.015)


def test_looking_all_the_time_costs_about_twice_the_units_at_most() -> None:
    size = of_means(0.1, 1.0, 0.05, 0.8)
    assert 1.5 < size.sequential_units / size.fixed_units < 2.0


def test_a_covariate_saves_the_share_of_the_variance_that_it_explains() -> None:
    plain, adjusted = of_means(0.1, 1.0), of_means(0.1, 1.0, correlation=0.6)
    assert adjusted.fixed_units == pytest.approx(plain.fixed_units * (1 - 0.36), abs=1)


def test_days_follow_from_the_traffic() -> None:
    size = of_proportions(0.1, 0.02, units_a_day=500)
    assert size.days == pytest.approx(size.sequential_units / 500)
    assert of_means(1, 1).as_dict()["days"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"effect": 0.0}, "smallest effect"),
        ({"effect": 1e-300}, "say a larger one"),
        ({"effect": float("nan")}, "smallest effect"),
        ({"deviation": 0.0}, "deviation"),
        ({"power": 1.0}, "power"),
        ({"share": 0.0}, "share"),
        ({"correlation": 1.0}, "correlation"),
        ({"alpha": 1.5}, "alpha"),
        ({"units_a_day": 0.0}, "units a day"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        of_means(**{"effect": 0.1, "deviation": 1.0, **arguments})


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        of_proportions(0.95, 0.1)
