"""Bandits: regret against UCB1's published bound, and each policy against another way to compute it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate
import scipy.stats

from flyball.errors import InvalidInput
from flyball.stats.bandits import (
    LinearArm,
    Pulls,
    epsilon_greedy,
    linear_thompson,
    linear_ucb,
    thompson_bernoulli,
    thompson_normal,
    ucb1,
    with_floor,
)

Floats = npt.NDArray[np.float64]
MEANS = (0.45, 0.6, 0.9)


def play(policy: Callable[[Sequence[Pulls], int], Floats], rounds: int, seed: int) -> tuple[float, list[int]]:
    """Return the regret of a run, and the arms chosen."""
    generator = np.random.default_rng(seed)
    arms = [Pulls()] * len(MEANS)
    regret, chosen = 0.0, []
    for at in range(rounds):
        arm = int(generator.choice(len(arms), p=policy(arms, at)))
        arms[arm] = arms[arm].add(float(generator.random() < MEANS[arm]))
        regret += max(MEANS) - MEANS[arm]
        chosen.append(arm)
    return regret, chosen


def test_the_regret_of_ucb1_stays_within_its_published_bound() -> None:
    rounds = 1500
    regrets = [play(lambda arms, _at: ucb1(arms), rounds, seed)[0] for seed in range(5)]
    gaps = [max(MEANS) - mean for mean in MEANS if mean < max(MEANS)]
    bound = 8 * sum(math.log(rounds) / gap for gap in gaps) + (1 + math.pi**2 / 3) * sum(gaps)  # Auer et al., Theorem 1
    assert np.mean(regrets) <= bound
    assert np.mean(regrets) < rounds * np.mean([max(MEANS) - mean for mean in MEANS]) / 3


def test_ucb1_chooses_as_the_paper_says_round_by_round() -> None:
    generator = np.random.default_rng(3)
    rewards = (generator.random((400, len(MEANS))) < MEANS).astype(float)
    arms = [Pulls()] * len(MEANS)
    sums, counts = [0.0] * 3, [0] * 3
    for at in range(400):
        if 0 in counts:
            expected = {arm for arm in range(3) if counts[arm] == 0}
        else:
            scores = [sums[j] / counts[j] + (2 * math.log(sum(counts)) / counts[j]) ** 0.5 for j in range(3)]
            expected = {arm for arm in range(3) if math.isclose(scores[arm], max(scores), rel_tol=1e-12)}
        shares = ucb1(arms)
        assert set(np.flatnonzero(shares)) <= expected
        arm = int(shares.argmax())
        arms[arm] = arms[arm].add(rewards[at, arm])
        sums[arm], counts[arm] = sums[arm] + rewards[at, arm], counts[arm] + 1


@pytest.mark.parametrize(
    "policy",
    [
        lambda arms, _at: epsilon_greedy(arms, 0.1),
        lambda arms, at: thompson_bernoulli(arms, at, draws=1),
        lambda arms, at: thompson_normal(arms, at, draws=1),
    ],
    ids=["epsilon greedy", "thompson bernoulli", "thompson normal"],
)
def test_a_policy_ends_up_at_the_best_arm(policy: Callable[[Sequence[Pulls], int], Floats]) -> None:
    regrets = [play(policy, 1000, seed)[0] for seed in range(4)]
    uniform = 1000 * float(np.mean([max(MEANS) - mean for mean in MEANS]))
    assert np.median(regrets) < uniform / 2


def test_thompsons_shares_are_the_probabilities_of_being_best() -> None:
    arms = [Pulls(40, 12, 12), Pulls(30, 12, 12)]
    first, second = scipy.stats.beta(13, 29), scipy.stats.beta(13, 19)
    expected = scipy.integrate.quad(lambda x: first.pdf(x) * second.cdf(x), 0, 1)[0]
    assert thompson_bernoulli(arms, 1, draws=200_000)[0] == pytest.approx(expected, abs=0.005)


def test_normal_thompsons_shares_are_the_probabilities_of_being_best() -> None:
    rewards = [np.array([1.0, 2.0, 3.0, 2.5]), np.array([2.0, 2.2, 2.9, 3.5, 1.4])]
    arms = [Pulls(len(r), float(r.sum()), float((r * r).sum())) for r in rewards]
    first, second = (scipy.stats.t(len(r) - 1, r.mean(), r.std(ddof=1) / math.sqrt(len(r))) for r in rewards)
    expected = scipy.integrate.quad(lambda x: first.pdf(x) * second.cdf(x), -20, 20)[0]
    assert thompson_normal(arms, 1, draws=200_000)[0] == pytest.approx(expected, abs=0.005)


def test_the_same_seed_gives_the_same_shares() -> None:
    arms = [Pulls(40, 12, 12), Pulls(30, 12, 12)]
    assert (thompson_bernoulli(arms, 7) == thompson_bernoulli(arms, 7)).all()
    assert (thompson_bernoulli(arms, 7) != thompson_bernoulli(arms, 8)).any()


def test_an_arm_without_rewards_is_tried_first() -> None:
    arms = [Pulls(10, 9, 9), Pulls()]
    assert ucb1(arms).tolist() == [0.0, 1.0]
    assert epsilon_greedy(arms, 0.2) == pytest.approx([0.1, 0.9])
    assert thompson_normal(arms, 1).tolist() == [0.0, 1.0]


# with a context


def test_the_regression_is_ridge_whether_rows_come_one_by_one_or_together() -> None:
    generator = np.random.default_rng(1)
    rows, rewards = generator.normal(size=(60, 3)), generator.normal(size=60)
    one_by_one = LinearArm.empty(3)
    for row, reward in zip(rows, rewards, strict=True):
        one_by_one = one_by_one.add(row, reward)
    expected = np.linalg.lstsq(np.r_[rows, np.eye(3)], np.r_[rewards, np.zeros(3)], rcond=None)[0]
    assert one_by_one.weights == pytest.approx(expected)
    assert LinearArm.empty(3).add(rows, rewards).weights == pytest.approx(expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["ucb", "thompson"])
def test_with_a_context_each_gets_the_arm_that_is_best_for_it(policy: str) -> None:
    generator = np.random.default_rng(2)
    truth = np.array([[1.0, -1.0], [-1.0, 1.0]])
    arms = [LinearArm.empty(2), LinearArm.empty(2)]
    right = 0
    for at in range(600):
        context = generator.normal(size=2)
        shares = linear_ucb(arms, context) if policy == "ucb" else linear_thompson(arms, context, at, draws=1)
        arm = int(generator.choice(2, p=shares))
        arms[arm] = arms[arm].add(context, float(truth[arm] @ context + 0.1 * generator.normal()))
        right += at >= 300 and arm == int((truth @ context).argmax())
    assert right / 300 > 0.95


def test_the_bound_of_linear_ucb_is_the_papers() -> None:
    generator = np.random.default_rng(5)
    arms = [LinearArm.empty(3).add(generator.normal(size=(20, 3)), generator.normal(size=20)) for _ in range(4)]  # type: ignore[arg-type]
    for _ in range(50):
        context = generator.normal(size=3)
        scores = []
        for arm in arms:
            inverse = np.linalg.inv(arm.gram)
            scores.append(context @ (inverse @ arm.moment) + 0.7 * np.sqrt(context @ inverse @ context))
        assert int(linear_ucb(arms, context, 0.7).argmax()) == int(np.argmax(scores))


# floors and bad input


def test_no_arm_falls_below_the_least_share() -> None:
    assert with_floor([1.0, 0.0, 0.0], 0.05) == pytest.approx([0.9, 0.05, 0.05])
    assert with_floor([3.0, 1.0], 0.0) == pytest.approx([0.75, 0.25])
    with pytest.raises(InvalidInput, match="3 arms"):
        with_floor([1, 1, 1], 0.4)


def test_rewards_beyond_one_are_refused_where_the_policy_cannot_take_them() -> None:
    for policy in (ucb1, lambda arms: thompson_bernoulli(arms, 1)):
        with pytest.raises(InvalidInput, match="within 0 to 1"):
            policy([Pulls(2, 5, 13), Pulls(1, 0, 0)])


def test_an_epsilon_that_is_no_share_is_refused() -> None:
    with pytest.raises(InvalidInput, match="epsilon"):
        epsilon_greedy([Pulls()], 1.5)
