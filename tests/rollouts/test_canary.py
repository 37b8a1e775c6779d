"""The canary's decisions: pure, so each case is a value."""

from __future__ import annotations

import pytest

from flyball.rollouts import Arm, Observed, RolloutPlan, weights
from flyball.rollouts.canary import decide

PLAN = RolloutPlan(steps=(5.0, 50.0), hold_requests=100, hold_labels=50)


def observed(canary: Arm, verdict: str | None = None, refused: str | None = None) -> Observed:
    arm = {"low": 0.6, "value": 0.7, "high": 0.8}
    judged = {"metric": "auc", "verdict": verdict, "challenger": arm, "champion": arm} if verdict else None
    return Observed(canary, Arm(), Arm(), judged, refused)


@pytest.mark.parametrize("share", [0.0, 1.0, 5.0, 25.0, 50.0, 75.0, 100.0])
def test_weights_add_up_to_a_hundred_and_arms_are_equal_as_long_as_they_can_be(share: float) -> None:
    table = weights(share)
    assert sum(table.values()) == pytest.approx(100.0)
    assert table["baseline"] == min(share, 100 - share)


def test_canary_holds_when_no_requests_arrive() -> None:
    assert decide(PLAN, 0, observed(Arm())).action == "hold"


def test_canary_steps_when_the_step_has_seen_enough_requests() -> None:
    decision = decide(PLAN, 0, observed(Arm(requests=100, requests_total=100)))
    assert (decision.action, decision.step, decision.weights["canary"]) == ("step", 1, 50.0)


def test_canary_waits_for_labels_before_the_last_step_ends() -> None:
    few = Arm(requests=500, requests_total=600, labelled_total=49)
    assert decide(PLAN, 1, observed(few, "no evidence")).action == "hold"


def test_canary_is_promoted_when_nothing_speaks_against_it() -> None:
    enough = Arm(requests=500, requests_total=600, labelled_total=50)
    decision = decide(PLAN, 1, observed(enough, "no evidence"))
    assert decision.action == "promote"
    assert "auc 0.700 [0.600, 0.800]" in decision.reason


def test_canary_is_promoted_without_labels_once_patience_is_used_up() -> None:
    assert decide(PLAN, 1, observed(Arm(requests=500, requests_total=20_000))).action == "promote"


def test_worse_quality_rolls_back_but_only_when_a_step_ends() -> None:
    assert decide(PLAN, 0, observed(Arm(requests=99), "worse")).action == "hold"
    assert decide(PLAN, 0, observed(Arm(requests=100), "worse")).action == "roll back"


def test_a_few_errors_among_few_answers_are_no_evidence() -> None:
    assert decide(PLAN, 0, observed(Arm(requests_total=20, errors_total=1))).action == "hold"


def test_many_errors_roll_back_at_once() -> None:
    decision = decide(PLAN, 0, observed(Arm(requests=10, requests_total=10, errors_total=5)))
    assert decision.action == "roll back"
    assert "5 of its 15 answers were errors" in decision.reason


def test_a_bundle_that_cannot_be_served_rolls_back() -> None:
    decision = decide(PLAN, 0, observed(Arm(), refused="its bundle was tampered with"))
    assert decision.action == "roll back"
    assert "tampered" in decision.reason


def test_slow_answers_roll_back_when_a_limit_is_set() -> None:
    slow = Arm(requests=100, requests_total=100, latency_p99_ms=30.0)
    assert decide(PLAN, 0, observed(slow)).action == "step"
    limited = RolloutPlan(steps=(5.0, 50.0), hold_requests=100, latency_p99_ms_above=20.0)
    assert decide(limited, 0, observed(slow)).action == "roll back"
