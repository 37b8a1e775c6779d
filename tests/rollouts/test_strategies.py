"""Blue/green, shadow, A/B and bandit: pure decisions, so each case is a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flyball import plugins
from flyball.errors import NotFound
from flyball.rollouts import Arm, Guardrail, Observed, RolloutPlan, ab, bandit, blue_green, shadow
from flyball.stats.outcomes import Outcomes, outcomes_of

QUIET = Arm(requests=500, requests_total=500)


def observed(**found: Any) -> Observed:
    return Observed(**{"canary": QUIET, "baseline": Arm(), "champion": QUIET, **found})


def arms(champion: float, canary: float, units: int = 4000, spread: float = 1.0) -> dict[str, Outcomes]:
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((2, units)) * spread
    noise -= noise.mean(axis=1, keepdims=True)  # so that the means are what the test says
    return {"champion": outcomes_of(champion + noise[0]), "canary": outcomes_of(canary + noise[1])}


@pytest.mark.parametrize("name", plugins.names("flyball.rollouts"))
def test_every_strategy_begins_with_a_whole_table_and_rolls_back_what_cannot_be_served(name: str) -> None:
    strategy = plugins.find("flyball.rollouts", name)
    table = strategy.begin(RolloutPlan())
    assert sum(table.weights.values()) == pytest.approx(100.0)
    decision = strategy.decide(RolloutPlan(), 0, observed(refused="its bundle was tampered with"))
    assert decision.action == "roll back"
    assert "tampered" in decision.reason


# blue/green


def test_blue_green_warms_up_then_switches_then_keeps_the_old_warm_for_its_time() -> None:
    plan = RolloutPlan(hold_s=60)
    assert blue_green.begin(plan).weights == {"champion": 100.0, "canary": 0.0}
    assert blue_green.decide(plan, 0, observed(is_applied=False)).action == "hold"
    switch = blue_green.decide(plan, 0, observed(is_applied=True))
    assert (switch.action, switch.weights) == ("step", {"champion": 0.0, "canary": 100.0})
    assert blue_green.decide(plan, 1, observed(step_s=59.0)).action == "hold"
    assert blue_green.decide(plan, 1, observed(step_s=60.0)).action == "promote"


def test_blue_green_switches_back_on_errors_without_waiting() -> None:
    broken = Arm(requests=10, requests_total=10, errors_total=10)
    assert blue_green.decide(RolloutPlan(), 1, observed(canary=broken, step_s=1.0)).action == "roll back"


# shadow


def agreement(equal: float) -> dict[str, Any]:
    return {"requests": 600, "outputs": {"prediction": {"equal": equal, "difference": 0.1, "psi": 0.0}}}


def test_a_shadow_is_reported_on_when_it_has_answered_enough() -> None:
    plan = RolloutPlan(hold_requests=500, quality="ignore")
    assert shadow.begin(plan).mirrors == {"shadow": 50.0}
    few = observed(canary=Arm(requests_total=499), agreement=agreement(0.9))
    assert shadow.decide(plan, 0, few).action == "hold"
    decision = shadow.decide(plan, 0, observed(agreement=agreement(0.9)))
    assert decision.action == "report"
    assert "600 requests answered by both: prediction equal in 90.0%" in decision.reason


def test_a_shadow_is_promoted_where_that_is_wanted_and_it_agrees() -> None:
    plan = RolloutPlan(hold_requests=500, quality="ignore", agreement_least=0.95, then="promote")
    assert shadow.decide(plan, 0, observed(agreement=agreement(0.97))).action == "promote"
    decision = shadow.decide(plan, 0, observed(agreement=agreement(0.90)))
    assert decision.action == "roll back"
    assert "90.0%" in decision.reason


def test_a_shadow_waits_for_truth_but_not_for_ever_and_ends_when_it_is_worse() -> None:
    plan = RolloutPlan(hold_requests=100, hold_labels=50, patience_requests=1000)
    assert shadow.decide(plan, 0, observed(agreement=agreement(1.0))).action == "hold"
    patient = observed(canary=Arm(requests_total=1000), agreement=agreement(1.0))
    assert shadow.decide(plan, 0, patient).action == "report"
    worse = {"metric": "auc", "verdict": "worse", "reason": "the improvement lies below 0"}
    labelled = observed(canary=Arm(requests_total=200, labelled_total=60), agreement=agreement(1.0), comparison=worse)
    assert shadow.decide(plan, 0, labelled).action == "roll back"


# A/B

PLAN = RolloutPlan(planned_units=10_000)
SPLIT = {"champion": 4000, "canary": 4000}


def test_ab_promotes_what_is_better_and_says_by_how_much() -> None:
    decision = ab.decide(PLAN, 0, observed(units=SPLIT, outcomes=arms(1.0, 1.2)))
    assert decision.action == "promote"
    assert "+0.2 [" in decision.reason
    assert "8,000 of 10,000 keys" in decision.reason


def test_ab_rolls_back_what_is_worse_and_knows_metrics_of_which_less_is_better() -> None:
    assert ab.decide(PLAN, 0, observed(units=SPLIT, outcomes=arms(1.2, 1.0))).action == "roll back"
    less = RolloutPlan(planned_units=10_000, higher_is_better=False)
    assert ab.decide(less, 0, observed(units=SPLIT, outcomes=arms(1.2, 1.0))).action == "promote"


def test_ab_holds_without_evidence_and_keeps_the_champion_at_the_horizon() -> None:
    nothing = observed(units=SPLIT, outcomes=arms(1.0, 1.0))
    assert ab.decide(PLAN, 0, nothing).action == "hold"
    decision = ab.decide(RolloutPlan(planned_units=8000), 0, nothing)
    assert decision.action == "roll back"
    assert "no evidence of a difference" in decision.reason


def test_ab_gives_no_verdict_on_a_broken_split_however_good_the_metric() -> None:
    broken = observed(units={"champion": 5000, "canary": 4000}, outcomes=arms(1.0, 2.0))
    decision = ab.decide(PLAN, 0, broken)
    assert decision.action == "roll back"
    assert "the split is broken (4,000 against 5,000 keys at 50 %" in decision.reason


def test_ab_ends_on_a_broken_guardrail_but_only_beyond_its_margin() -> None:
    slower = {"latency_ms": arms(10.0, 12.0)}
    for margin, action in ((0.0, "roll back"), (3.0, "promote")):
        plan = RolloutPlan(planned_units=10_000, guardrails=(Guardrail("latency_ms", margin, False),))
        decision = ab.decide(plan, 0, observed(units=SPLIT, outcomes=arms(1.0, 1.5), guardrails=slower))
        assert decision.action == action
    fewer = {"reward": arms(1.0, 0.5)}
    plan = RolloutPlan(planned_units=10_000, guardrails=(Guardrail("reward", 0.0, True),))
    assert "guardrail reward" in ab.decide(plan, 0, observed(units=SPLIT, guardrails=fewer)).reason


def test_ab_says_nothing_of_no_evidence_at_all() -> None:
    decision = ab.decide(PLAN, 0, observed())
    assert (decision.action, decision.reason) == ("hold", "no verdict yet: too few keys to say on 0 of 10,000 keys")
    assert ab.standing(PLAN, observed()).as_dict()["difference"]["low"] is None


# bandit


@pytest.mark.parametrize("policy", sorted({*bandit.POLICIES} - {*bandit.CONTEXTUAL}))
def test_a_bandit_moves_traffic_to_the_arm_that_earns_more_and_leaves_each_its_least(policy: str) -> None:
    rewards = {"champion": outcomes_of([0.0] * 180 + [1.0] * 20), "canary": outcomes_of([0.0] * 20 + [1.0] * 180)}
    plan = RolloutPlan(hold_requests=400, policy=policy, least_share=5.0)
    decision = bandit.decide(plan, 0, observed(outcomes=rewards, weights={"champion": 50.0, "canary": 50.0}))
    assert (decision.action, decision.step) == ("step", 1)
    assert decision.weights == {"champion": 5.0, "canary": 95.0}
    worse = RolloutPlan(hold_requests=400, policy=policy, higher_is_better=False)
    assert bandit.decide(worse, 0, observed(outcomes=rewards)).weights == {"champion": 95.0, "canary": 5.0}


def test_a_bandit_holds_until_a_batch_is_full_and_while_nothing_would_move() -> None:
    rewards = {"champion": outcomes_of([0.0, 1.0] * 50), "canary": outcomes_of([1.0] * 100)}
    plan = RolloutPlan(hold_requests=2000)
    assert bandit.decide(plan, 3, observed(outcomes=rewards)).action == "hold"
    full = RolloutPlan(hold_requests=500)
    assert bandit.decide(full, 3, observed(outcomes=rewards, weights={"canary": 95.0})).action == "hold"
    assert bandit.decide(full, 3, observed()).action == "hold"  # no reward is known yet


def test_a_bandit_keeps_the_arm_that_earned_more_at_its_horizon() -> None:
    plan = RolloutPlan(planned_units=200)
    better = {"champion": outcomes_of([0.0] * 100), "canary": outcomes_of([1.0] * 100)}
    assert bandit.decide(plan, 9, observed(outcomes=better)).action == "promote"
    worse = {"champion": outcomes_of([1.0] * 100), "canary": outcomes_of([0.0] * 100)}
    assert bandit.decide(plan, 9, observed(outcomes=worse)).action == "roll back"


def test_a_bandit_proposes_the_same_shares_for_the_same_evidence() -> None:
    seen = observed(outcomes=arms(0.4, 0.5, units=100, spread=0.01))
    assert bandit.shares(RolloutPlan(), seen) == bandit.shares(RolloutPlan(), seen)


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(NotFound, match='did you mean "thompson"'):
        bandit.shares(RolloutPlan(policy="tompson"), observed())


# several challengers

THREE = RolloutPlan(arms=("canary", "arm2"), share=50.0, planned_units=12_000)


def three(champion: float, canary: float, arm2: float) -> dict[str, Outcomes]:
    return {**arms(champion, canary), "arm2": arms(champion, arm2)["canary"]}


def test_challengers_share_what_is_theirs_alike() -> None:
    assert ab.begin(THREE).weights == {"champion": 50.0, "canary": 25.0, "arm2": 25.0}
    thirds = ab.begin(RolloutPlan(arms=("canary", "arm2", "arm3"), share=50.0)).weights
    assert sum(thirds.values()) == pytest.approx(100.0) and thirds["arm3"] == 16.67


def test_the_best_of_several_better_challengers_is_promoted() -> None:
    units = {"champion": 4000, "canary": 2000, "arm2": 2000}
    decision = ab.decide(THREE, 0, observed(units=units, outcomes=three(1.0, 1.2, 1.5)))
    assert (decision.action, decision.winner) == ("promote", "arm2")
    assert "better by arm2 +0.5" in decision.reason
    longer = RolloutPlan(arms=THREE.arms, planned_units=20_000)
    assert ab.decide(longer, 0, observed(units=units, outcomes=three(1.0, 0.5, 1.0))).action == "hold"
    assert ab.decide(THREE, 0, observed(units=units, outcomes=three(1.0, 0.5, 0.5))).action == "roll back"


def test_several_comparisons_are_each_made_with_a_part_of_alpha() -> None:
    found = ab.standing(THREE, observed(outcomes=three(1.0, 1.0, 1.0)))
    alone = ab.standing(RolloutPlan(planned_units=9_000), observed(outcomes=arms(1.0, 1.0)))
    assert {look.alpha for look in found.looks.values()} == {0.025}
    assert found.look.high - found.look.low > alone.look.high - alone.look.low


def test_a_split_is_broken_by_any_arm_and_a_guardrail_by_any_challenger() -> None:
    broken = observed(units={"champion": 4000, "canary": 2000, "arm2": 1500}, outcomes=three(1.0, 2.0, 2.0))
    assert "the split is broken (2,000 and 1,500 against 4,000 keys at 25 %" in ab.decide(THREE, 0, broken).reason
    plan = RolloutPlan(arms=THREE.arms, guardrails=(Guardrail("latency_ms", 0.5, False),), planned_units=12_000)
    slow = observed(outcomes=three(1.0, 1.0, 1.0), guardrails={"latency_ms": three(2.0, 2.0, 4.0)})
    assert "the guardrail latency_ms of arm2 became worse" in ab.decide(plan, 0, slow).reason


def test_a_further_challenger_that_fails_ends_it() -> None:
    failing = observed(others={"arm2": Arm(requests_total=10, errors_total=10)})
    assert ab.decide(THREE, 0, failing).reason.startswith("arm2: 10 of its 20 answers were errors")


def test_the_chance_of_any_verdict_among_three_challengers_without_a_difference_is_below_alpha() -> None:
    generator = np.random.default_rng(7)
    plan = RolloutPlan(arms=("canary", "arm2", "arm3"), share=75.0, planned_units=1600, alpha=0.1)
    found = 0
    for _ in range(300):
        drawn = generator.standard_normal((4, 400))
        names = ("champion", *plan.arms)
        for count in range(100, 401, 20):
            outcomes = {name: outcomes_of(row[:count]) for name, row in zip(names, drawn, strict=True)}
            if ab.decide(plan, 0, observed(units=dict.fromkeys(names, count), outcomes=outcomes)).action == "promote":
                found += 1
                break
    assert found <= 30 + 2 * 5.2


def test_a_bandit_of_three_arms_keeps_the_one_that_earned_most() -> None:
    plan = RolloutPlan(hold_requests=400, arms=("canary", "arm2"), planned_units=900, policy="epsilon_greedy")
    rewards = {name: outcomes_of(np.full(200, value)) for name, value in (("champion", 0.2), ("canary", 0.1))}
    seen = observed(outcomes={**rewards, "arm2": outcomes_of(np.full(200, 0.9))}, weights={"champion": 100.0})
    assert bandit.decide(plan, 0, seen).weights == {"champion": 5.0, "canary": 5.0, "arm2": 90.0}
    ended = bandit.decide(RolloutPlan(arms=plan.arms, planned_units=600, policy="epsilon_greedy"), 3, seen)
    assert (ended.action, ended.winner) == ("promote", "arm2")
