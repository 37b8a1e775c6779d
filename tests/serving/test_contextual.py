"""Arms drawn by context: probabilities against SciPy and simulation, regret on a known problem, what the log tells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from flyball.errors import InvalidInput
from flyball.rollouts import Arm, Observed, RolloutPlan
from flyball.rollouts.bandit import begin, contextual
from flyball.serving import snapshot
from flyball.serving.contextual import Chooser, context_number
from flyball.serving.snapshot import contextual_of
from flyball.stats.bandits import LinearArm, linear_thompson, linear_ucb
from flyball.stats.contexts import ContextSums, arm_values, fitted

QUIET = Arm()


def chooser(policy: str, least: float = 0.05, **arms: tuple[list[float], float]) -> Chooser:
    """Arms of one input: the weights, and a deviation that does not depend on it."""
    described = [
        {"name": name, "weights": weights, "spread": [[deviation, 0.0], [0.0, 0.0]]}
        for name, (weights, deviation) in arms.items()
    ]
    found = contextual_of({"policy": policy, "inputs": ["x"], "least": least, "arms": described})
    assert found is not None
    return Chooser(found)


def test_two_arms_are_drawn_by_the_probability_that_each_is_the_best() -> None:
    drawn = chooser("linear_thompson", champion=([0.0, 1.0], 0.3), canary=([0.5, -1.0], 0.4))
    for x in (-2.0, 0.0, 0.25, 3.0):
        first = norm.sf(0, loc=x - (0.5 - x), scale=0.5)
        assert drawn.probabilities([x]) == pytest.approx([0.05 + 0.9 * first, 0.05 + 0.9 * (1 - first)])


def test_three_arms_have_probabilities_that_add_up_and_the_best_has_most() -> None:
    drawn = chooser("linear_thompson", champion=([0.0, 0.0], 0.3), canary=([0.4, 0.0], 0.3), arm2=([0.1, 0.0], 0.3))
    odds = drawn.probabilities([1.0])
    assert sum(odds) == pytest.approx(1.0)
    assert odds[1] > odds[2] > odds[0] > 0.05


def test_ucb_gives_the_highest_bound_what_the_least_shares_leave() -> None:
    drawn = chooser("linear_ucb", champion=([0.0, 1.0], 0.1), canary=([0.5, 0.0], 0.6), arm2=([0.0, 0.0], 0.0))
    assert drawn.probabilities([1.2]) == pytest.approx([0.9, 0.05, 0.05])
    assert drawn.probabilities([0.2]) == pytest.approx([0.05, 0.9, 0.05])


def test_draws_come_as_often_as_they_say_and_the_same_request_meets_the_same_arm() -> None:
    drawn = chooser("linear_thompson", champion=([0.0, 0.0], 0.3), canary=([0.3, 0.0], 0.3), arm2=([0.1, 0.0], 0.3))
    odds = dict(zip(drawn.names, drawn.probabilities([1.0]), strict=True))
    found = [drawn.choose([1.0], f"request {n}") for n in range(20_000)]
    for name, share in odds.items():
        count = sum(one == name for one, _ in found)
        assert count == pytest.approx(20_000 * share, abs=4 * math.sqrt(20_000 * share * (1 - share)))
    assert all(propensity == odds[name] for name, propensity in found)
    assert drawn.choose([1.0], "request 7") == found[7]


@pytest.mark.parametrize(("value", "expected"), [(2, 2.0), (True, 1.0), ("x", 0.0), (None, 0.0), (math.nan, 0.0)])
def test_what_is_no_number_counts_as_zero(value: Any, expected: float) -> None:
    assert context_number(value) == expected


class Problem:
    """Rewards are linear in the context, another for each arm, beside noise; the units of input and reward are odd."""

    truth = np.array([[0.5, 0.6, 0.0], [0.5, -0.6, 0.3]])

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def context(self) -> list[float]:
        z = self.random.standard_normal(2)
        return [1e6 + 1e3 * z[0], 0.01 * z[1]]

    def expected(self, context: list[float]) -> Any:
        return 500 + 40 * (self.truth @ [1.0, (context[0] - 1e6) / 1e3, context[1] / 0.01])


def played(policy: str, seed: int, rounds: int) -> tuple[Any, dict[str, ContextSums], Any]:
    """Return the regret of each round, the sums of both arms, and the rewards that each arm would have had."""
    problem, plan = Problem(seed), RolloutPlan(policy=policy, least_share=1.0, context=("a", "b"))
    sums = {name: ContextSums.empty(3) for name in ("champion", "canary")}
    regret, every = np.zeros(rounds), np.zeros((rounds, 2))
    described: Any = begin(plan).contextual
    for turn in range(rounds):
        if turn % 50 == 0:
            described = contextual(plan, Observed(QUIET, QUIET, QUIET, contexts=sums))
            drawn = Chooser(contextual_of(described))  # type: ignore[arg-type]
        context = problem.context()
        expected = problem.expected(context)
        name, propensity = drawn.choose(context, f"{seed} {turn}")
        reward = expected[drawn.names.index(name)] + 10 * problem.random.standard_normal()
        sums[name] = sums[name].moved([(context, propensity, None, float(reward))])
        regret[turn] = expected.max() - expected[drawn.names.index(name)]
        every[turn] = expected
    return regret, sums, every


@pytest.mark.parametrize("policy", ["linear_thompson", "linear_ucb"])
def test_regret_grows_slower_than_the_rounds_and_is_far_below_that_of_the_best_fixed_arm(policy: str) -> None:
    regrets, fixed = [], []
    for seed in range(4):
        regret, sums, every = played(policy, seed, 3000)
        regrets.append(regret)
        fixed.append((every.max(axis=1)[:, None] - every).sum(axis=0).min())
        values = arm_values(sums)
        for place, name in enumerate(("champion", "canary")):
            normalised = values[name]["normalised"]
            assert normalised == pytest.approx(every[:, place].mean(), abs=8)  # of 500; the arms' rewards vary by 25
    total = np.mean([regret.sum() for regret in regrets])
    assert total < 0.1 * np.mean(fixed)
    early, late = (np.mean([regret[part].mean() for regret in regrets]) for part in (slice(0, 300), slice(2700, 3000)))
    assert late < 0.5 * early


def test_the_regression_is_that_of_bandits_on_standardised_contexts() -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal((400, 2)) * [100.0, 0.1] + [5000.0, 3.0]
    rewards = {"champion": 3 + x @ [0.01, 2.0], "canary": 8 - x @ [0.01, 1.0]}
    sums = {n: ContextSums.empty(3).moved([(c, None, None, r) for c, r in zip(x, y, strict=True)]) for n, y in rewards.items()}  # fmt: skip  # noqa: E501
    found = fitted(sums, 3)
    z = np.column_stack([np.ones(400), (x - x.mean(axis=0)) / x.std(axis=0)])
    every = np.concatenate(list(rewards.values()))
    for name, y in rewards.items():
        arm = LinearArm.empty(3).add(z, (y - every.mean()) / every.std())
        for context, standardised in zip(x[:5], z[:5], strict=True):
            told = found[name].weights @ [1.0, *context]
            assert told == pytest.approx(standardised @ arm.weights, abs=1e-6)
    plan = RolloutPlan(policy="linear_thompson", least_share=1e-9, context=("a", "b"))
    drawn = Chooser(contextual_of(contextual(plan, Observed(QUIET, QUIET, QUIET, contexts=sums))))  # type: ignore[arg-type]
    for context in ([5000.0, 3.0], [5200.0, 3.2], [4700.0, 2.8]):
        assert sum(drawn.probabilities(context)) == pytest.approx(1.0)


def test_a_reward_that_is_taken_back_leaves_no_trace() -> None:
    moves = [([float(n), 1e9 + n], 0.5, None, float(n % 7)) for n in range(100)]
    back = [(context, propensity, reward, None) for context, propensity, _, reward in moves]
    empty = ContextSums.empty(3).moved(moves).moved(back[:50]).moved(back[50:])
    np.testing.assert_allclose(empty.gram, 0.0, atol=1e5)  # of 1e20
    assert empty.count == 0 and empty.odds[0] == 0


def test_policies_of_stats_agree_with_the_data_planes_for_the_same_arms() -> None:
    arms = [LinearArm.empty(2).add(np.array([1.0, 0.5]), 1.0), LinearArm.empty(2).add(np.array([1.0, -0.5]), 0.2)]
    described = [
        {
            "name": name,
            "weights": arm.weights.tolist(),
            "spread": np.linalg.inv(np.linalg.cholesky(arm.gram)).tolist(),
        }
        for name, arm in zip(("champion", "canary"), arms, strict=True)
    ]
    for policy in ("linear_ucb", "linear_thompson"):
        drawn = Chooser(contextual_of({"policy": policy, "inputs": ["x"], "least": 0.0, "arms": described}))  # type: ignore[arg-type]
        for x in (-1.0, 0.1, 2.0):
            context = np.array([1.0, x])
            if policy == "linear_ucb":
                assert drawn.probabilities([x]) == linear_ucb(arms, context).tolist()
            else:
                expected = linear_thompson(arms, context, 1, draws=40_000)
                assert drawn.probabilities([x]) == pytest.approx(expected.tolist(), abs=0.012)


def test_the_snapshot_carries_the_draw_and_refuses_what_cannot_be_drawn() -> None:
    described = contextual(RolloutPlan(policy="linear_ucb", context=("a",)), Observed(QUIET, QUIET, QUIET))
    variants = [{"name": n, "version": "m@1", "bundle": "0" * 64, "weight": 50.0} for n in ("champion", "canary")]
    deployment = {"revision": 1, "salt": "m", "variants": variants, "contextual": described}
    parsed = snapshot.parse({"generation": 1, "deployments": {"m": deployment}})
    assert parsed.deployments["m"].contextual == contextual_of(described)
    changes: list[dict[str, Any]] = [
        {"policy": "greedy"}, {"inputs": []}, {"least": 0.6}, {"arms": described["arms"][:1]}, {"inputs": ["a", "b"]},
    ]  # fmt: skip
    for change in changes:
        wrong = {**deployment, "contextual": {**described, **change}}
        with pytest.raises(InvalidInput):
            snapshot.parse({"generation": 1, "deployments": {"m": wrong}})
