"""Bandit: the shares of champion and challengers follow what they earn, so that few meet the one that earns less.

After each `hold_requests` answers the policy proposes shares from the rewards by key (`stats.bandits`), none below
`least_share`. A key moves when shares do: as much stays as the table allows, but an experiment that must not move
anyone is an A/B. At the horizon (`planned_units` keys with a reward) the arm with the higher mean is kept. A bandit
earns more on the way than an A/B and proves less at the end: its verdict is a choice, not a finding.

A contextual policy (`linear_ucb`, `linear_thompson`) gives no shares but a regression of each arm's rewards on the
context (`stats.contexts`), by which the data plane draws the arm of every request; the weights of its tables are the
shares that came of it. At the horizon that arm is kept which would have earned most had everyone met it.
"""

from __future__ import annotations

from typing import Any

from flyball.errors import NotFound, did_you_mean, listed
from flyball.rollouts import Arm, Decision, Observed, RolloutPlan, Table, failure, split
from flyball.stats import bandits
from flyball.stats.contexts import ContextSums, arm_values, fitted
from flyball.stats.outcomes import Outcomes

__all__ = ["CONTEXTUAL", "POLICIES", "begin", "contextual", "decide", "shares"]

CONTEXTUAL = ("linear_thompson", "linear_ucb")
POLICIES = ("epsilon_greedy", "thompson", "thompson_normal", "ucb1", *CONTEXTUAL)

_LEAST_MOVE = 1.0  # per cent; less moves keys for nothing


def begin(plan: RolloutPlan) -> Table:
    """Return the first table."""
    if plan.policy in CONTEXTUAL:
        return Table(split(plan), contextual=contextual(plan, Observed(Arm(), Arm(), Arm())))
    return Table(split(plan))


def shares(plan: RolloutPlan, observed: Observed) -> dict[str, float]:
    """Return the shares that the policy proposes, in percent. The same evidence gives the same shares.

    Raises:
        NotFound: no policy has this name.
        InvalidInput: rewards that this policy cannot take.
    """
    variants = ("champion", *plan.arms)
    arms = [_pulls(observed.outcomes.get(variant, Outcomes()), plan.higher_is_better) for variant in variants]
    seed = int(sum(arm.count for arm in arms))
    if plan.policy == "epsilon_greedy":
        found = bandits.epsilon_greedy(arms, 0.0)  # the least share is its epsilon
    elif plan.policy == "ucb1":
        found = bandits.ucb1(arms)
    elif plan.policy == "thompson":
        found = bandits.thompson_bernoulli(arms, seed)
    elif plan.policy == "thompson_normal":
        found = bandits.thompson_normal(arms, seed)
    else:
        near = did_you_mean(plan.policy, POLICIES)
        raise NotFound(f'no bandit policy is called "{plan.policy}"{near} (known: {listed(POLICIES)})')
    return _percent(dict(zip(variants, bandits.with_floor(found, plan.least_share / 100).tolist(), strict=True)))


def contextual(plan: RolloutPlan, observed: Observed) -> dict[str, Any]:
    """Return how the data plane draws arms from now on: a document of `serving.snapshot.Contextual`."""
    size = len(plan.context) + 1
    sums = {v: observed.contexts.get(v, ContextSums.empty(size)) for v in ("champion", *plan.arms)}
    regressions = fitted(sums, size, higher_is_better=plan.higher_is_better)
    return {
        "policy": plan.policy,
        "inputs": list(plan.context),
        "least": plan.least_share / 100,
        "arms": [
            {"name": name, "weights": found.weights.tolist(), "spread": found.spread.tolist()}
            for name, found in regressions.items()
        ],
    }


def decide(plan: RolloutPlan, step: int, observed: Observed) -> Decision:
    """Return what to do after looking at `observed`."""
    failed = failure(plan, observed)
    if failed is not None:
        return Decision("roll back", failed)
    variants = ("champion", *plan.arms)
    arms = {variant: observed.outcomes.get(variant, Outcomes()) for variant in variants}
    units = sum(float(arm.units) for arm in arms.values())
    earned = {variant: float(arm.mean) for variant, arm in arms.items()}
    told = f"{_listed(earned)} on average over {units:,.0f} keys"
    is_contextual = plan.policy in CONTEXTUAL
    if is_contextual:
        values = arm_values({v: observed.contexts[v] for v in variants if v in observed.contexts})
        if len(values) == len(variants) and all(found["normalised"] is not None for found in values.values()):
            earned = {variant: float(values[variant]["normalised"] or 0.0) for variant in variants}
            told += f"; {_listed(earned)} if everyone met it"
    if units >= plan.planned_units:
        sign = 1 if plan.higher_is_better else -1
        best = max(reversed(variants), key=lambda v: sign * earned[v] if float(arms[v].units) else float("-inf"))
        if best == "champion" or earned[best] == earned["champion"]:
            return Decision("roll back", told)
        return Decision("promote", told, winner=best)
    met = {"champion": observed.champion.requests, "canary": observed.canary.requests}
    met |= {variant: arm.requests for variant, arm in observed.others.items()}
    answers = sum(met.values())
    if answers < plan.hold_requests or not units:
        return Decision("hold", f"{answers:,} of {plan.hold_requests:,} answers with these shares", step)
    if is_contextual:
        since = _percent({variant: met.get(variant, 0) / answers for variant in variants})
        return Decision("step", told, step + 1, since, contextual(plan, observed))
    wanted = shares(plan, observed)
    if max(abs(wanted[v] - observed.weights.get(v, 0.0)) for v in plan.arms) < _LEAST_MOVE:
        return Decision("hold", f"the shares stay: {told}", step)
    return Decision("step", told, step + 1, wanted)


def _percent(parts: dict[str, float]) -> dict[str, float]:
    """Return shares in percent, to what the router resolves; the champion takes what rounding leaves."""
    found = {variant: round(100 * part, 2) for variant, part in parts.items()}
    rest = 100.0 - sum(share for variant, share in found.items() if variant != "champion")
    return {**found, "champion": max(0.0, round(rest, 2))}


def _listed(earned: dict[str, float]) -> str:
    return ", ".join(f"{variant} {value:.4g}" for variant, value in earned.items())


def _pulls(arm: Outcomes, higher_is_better: bool) -> bandits.Pulls:
    """Return an arm's rewards as a policy takes them; where less is better, 1 − x keeps them within 0 to 1."""
    count, mean, squares = float(arm.units), float(arm.mean), float(arm.squares)
    if not higher_is_better:
        mean = 1.0 - mean
    return bandits.Pulls(count, count * mean, squares + count * mean * mean)
