"""Sequential inference: error rates over thousands of simulated experiments that were looked at all the time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from flyball.errors import InvalidInput
from flyball.stats import sample_ratio
from flyball.stats.outcomes import Difference, Outcomes, difference, merged, outcomes_of
from flyball.stats.planning import of_means
from flyball.stats.sequential import bounded, bounded_difference, compare, half_width, log_gamma, log_ratio, tuning

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

ALPHA = 0.05
EXPERIMENTS = 10_000
UPPER = ALPHA  # the mixture is conservative at any finite end, so the rate must not even reach its level


def looks(
    draw: Draw, effect: float, experiments: int, batches: int, batch: int, planned: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return of each experiment whether 0 was ever excluded, and whether the true effect ever was."""
    generator = np.random.default_rng(5)
    treated, control = Outcomes(), Outcomes()
    excluded = missed = np.zeros(experiments, dtype=bool)
    for _ in range(batches):
        treated = merged([treated, outcomes_of(effect + draw(generator, (experiments, batch)))])
        control = merged([control, outcomes_of(draw(generator, (experiments, batch)))])
        found = compare(treated, control, planned, ALPHA)
        excluded = excluded | (found.p_value < ALPHA)
        missed = missed | (found.low > effect) | (found.high < effect)
    return excluded, missed


DRAWS: dict[str, Draw] = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "a rare event": lambda generator, shape: (generator.random(shape) < 0.02).astype(np.float64),
    "heavy tails": lambda generator, shape: np.exp(1.5 * generator.standard_normal(shape)),
}


def test_ten_thousand_experiments_without_a_difference_looked_at_all_the_time_find_one_in_less_than_alpha() -> None:
    excluded, missed = looks(DRAWS["normal"], 0.0, EXPERIMENTS, batches=50, batch=25, planned=1000)
    assert excluded.mean() <= UPPER
    assert (excluded == missed).all()  # the p-value and the interval say the same


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("planned", [300, 20_000])
def test_the_interval_covers_the_truth_at_all_looks_together(name: str, planned: int) -> None:
    _, missed = looks(DRAWS[name], 0.25, 2000, batches=40, batch=25, planned=planned)
    assert missed.mean() <= UPPER


def test_a_test_for_one_look_would_find_differences_that_are_not_there() -> None:
    generator = np.random.default_rng(5)
    rows = np.cumsum(generator.standard_normal((2000, 1000)), axis=1) / np.sqrt(np.arange(1, 1001))
    assert (np.abs(rows[:, 99:]) > 1.96).any(axis=1).mean() > 3 * ALPHA


def test_an_effect_is_found_by_the_planned_size() -> None:
    size = of_means(0.4, 1.0, ALPHA, 0.8)
    excluded, _ = looks(
        DRAWS["normal"],
        0.4,
        2000,
        batches=20,
        batch=math.ceil(size.sequential_units / 40),
        planned=size.sequential_units,
    )
    assert excluded.mean() >= 0.8


def test_users_who_come_back_count_once() -> None:
    """Rows of one user are alike: counted as rows they find a difference far too often, counted by user they do not."""
    generator = np.random.default_rng(7)
    by_row, by_user = 0, 0
    experiments, users, visits = 300, 400, 10
    taste = generator.standard_normal((2, experiments, users, 1))
    rows = taste + 0.3 * generator.standard_normal((2, experiments, users, visits))
    for values, is_user in ((rows.reshape(2, experiments, -1), False), (rows.mean(axis=3), True)):
        arms = [outcomes_of(values[arm]) for arm in (0, 1)]
        found = compare(arms[0], arms[1], 2 * values.shape[2], ALPHA).p_value < ALPHA
        by_user, by_row = (int(found.sum()), by_row) if is_user else (by_user, int(found.sum()))
    assert by_user <= ALPHA * experiments
    assert by_row > 5 * ALPHA * experiments


def test_nothing_is_said_of_too_few_units() -> None:
    generator = np.random.default_rng(0)
    few, many = outcomes_of(generator.normal(size=99)), outcomes_of(generator.normal(5, size=1000))
    found = compare(few, many, 1000)
    assert found.as_dict()["low"] is None
    assert found.as_dict()["p_value"] is None
    rare = outcomes_of(np.r_[np.ones(9), np.zeros(991)])
    assert compare(rare, outcomes_of(np.r_[np.ones(300), np.zeros(700)]), 1000).as_dict()["p_value"] is None
    assert compare(Outcomes(), many, 1000).as_dict()["high"] is None


def test_the_ratio_is_the_mixture_of_normal_likelihoods() -> None:
    value, variance, units, rho_squared = 0.3, 0.01, 400.0, 0.02
    sigma_squared = variance * units

    def mixed(effect: float) -> float:
        likelihood = scipy.stats.norm.pdf(value, effect, math.sqrt(variance))
        return float(likelihood * scipy.stats.norm.pdf(effect, 0, math.sqrt(rho_squared * sigma_squared)))

    expected = scipy.integrate.quad(mixed, -5, 5)[0] / scipy.stats.norm.pdf(value, 0, math.sqrt(variance))
    found = Difference(np.asarray(value), np.asarray(variance), np.asarray(units))
    assert float(np.exp(log_ratio(found, rho_squared))) == pytest.approx(expected, rel=1e-6)


def test_the_interval_is_narrowest_where_it_was_planned() -> None:
    found = Difference(np.zeros(()), np.asarray(1 / 1000), np.asarray(1000.0))
    widths = {planned: float(half_width(found, tuning(planned, ALPHA), ALPHA)) for planned in (250, 1000, 4000)}
    assert min(widths, key=widths.__getitem__) == 1000


def test_adjusting_for_a_covariate_narrows_the_interval() -> None:
    generator = np.random.default_rng(3)
    arms = []
    for _ in range(2):
        before = generator.normal(size=2000)
        arms.append(outcomes_of(before + 0.5 * generator.normal(size=2000), before))
    plain, adjusted = compare(arms[0], arms[1], 4000), compare(arms[0], arms[1], 4000, is_adjusted=True)
    assert float(adjusted.high - adjusted.low) < 0.5 * float(plain.high - plain.low)


# a mean within [0, 1]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97])
def test_the_interval_of_a_share_covers_it_at_all_rows_together(share: float) -> None:
    generator = np.random.default_rng(2)
    sums = np.cumsum(generator.random((400, 300)) < share, axis=1)
    low, high = bounded(np.arange(1, 301), sums, ALPHA)
    assert ((low > share) | (high < share)).any(axis=1).mean() <= UPPER


def test_the_interval_of_a_bounded_mean_covers_it_where_values_are_no_counts() -> None:
    generator = np.random.default_rng(4)
    sums = np.cumsum(generator.beta(0.3, 0.9, (400, 300)), axis=1)
    low, high = bounded(np.arange(1, 301), sums, ALPHA)
    assert ((low > 0.25) | (high < 0.25)).any(axis=1).mean() <= UPPER


def test_the_interval_of_a_share_is_where_the_mixture_reaches_its_level() -> None:
    low, high = bounded(200, 30, ALPHA)
    for mean in (float(low), float(high)):
        mixture = scipy.special.betaln(30.5, 170.5) - scipy.special.betaln(0.5, 0.5)
        assert mixture - 30 * math.log(mean) - 170 * math.log(1 - mean) == pytest.approx(-math.log(ALPHA), rel=1e-6)
    assert [float(end) for end in bounded(0, 0)] == [0.0, 1.0]
    assert float(bounded(50, 50)[1]) == 1.0


def test_a_difference_of_shares_is_that_of_both_arms() -> None:
    low, value, high = bounded_difference((1000, 100), (1000, 20))
    assert value == pytest.approx(0.08)
    assert 0 < low < value < high
    assert bounded_difference((10, 1), (10, 0))[0] < 0


# shares of the arms


def test_a_true_split_is_seldom_called_false_though_it_is_looked_at_after_every_unit() -> None:
    generator = np.random.default_rng(9)
    first = np.cumsum(generator.random((1000, 2000)) < 0.3, axis=1)
    counts = np.stack([first, np.arange(1, 2001) - first], axis=-1)
    assert (sample_ratio.p_value(counts, [30, 70]) < ALPHA).any(axis=1).mean() <= UPPER


def test_a_false_split_is_found_and_as_surely_as_by_one_look() -> None:
    assert float(sample_ratio.p_value([10_300, 9_700], [50, 50])) > sample_ratio.by_chi_squared(
        [10_300, 9_700], [50, 50]
    )
    assert float(sample_ratio.p_value([10_500, 9_500], [50, 50])) < sample_ratio.ALPHA
    assert float(sample_ratio.p_value([0, 0], [50, 50])) == 1.0


def test_one_look_is_scipys_chi_squared() -> None:
    expected = scipy.stats.chisquare([310, 620, 70], [300, 600, 100]).pvalue
    assert sample_ratio.by_chi_squared([310, 620, 70], [30, 60, 10]) == pytest.approx(expected)


@pytest.mark.parametrize(("counts", "shares"), [([1, 2], [1, 0]), ([1, -1], [1, 1]), ([1, 2, 3], [1, 1]), ([1], [1])])
def test_counts_that_fit_no_shares_are_refused(counts: list[int], shares: list[int]) -> None:
    with pytest.raises(InvalidInput):
        sample_ratio.p_value(counts, shares)


# bad input and small parts


def test_log_gamma_is_scipys() -> None:
    x = np.r_[np.geomspace(1e-3, 1e9, 300), 0.5, 1.0, 2.0]
    assert log_gamma(x) == pytest.approx(scipy.special.gammaln(x), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_an_alpha_that_is_no_probability_is_refused(alpha: float) -> None:
    with pytest.raises(InvalidInput, match="alpha"):
        tuning(100, alpha)


def test_a_sum_beyond_its_count_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"within \[0, 1\]"):
        bounded(3, 4)


def test_a_difference_of_nothing_is_nothing() -> None:
    assert float(difference(Outcomes(), Outcomes()).variance) == 0.0
