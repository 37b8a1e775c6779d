"""What a strategy is given to decide on: the deployment's spec as a plan, and the evidence as an observation.

The controller decides on it, and pages and commands show how a rollout stands by the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyball.rollouts import Arm, Guardrail, Observed, RolloutPlan
from flyball.rollouts.ab import standing
from flyball.serving.evidence import Evidence
from flyball.serving.kinds import Rollout, measures_down
from flyball.stats.contexts import arm_values

__all__ = ["experiment_of", "observed_of", "plan_of"]

_NAMED = ("champion", "canary", "baseline")


def plan_of(wanted: Rollout, running: Mapping[str, Any] | None = None) -> RolloutPlan:
    """Return a rollout's spec as what its strategy takes; `running`, from the status, says which arms there are."""
    guardrails = tuple(
        Guardrail(g.metric, g.worse_by, not measures_down(g.metric) if g.goal is None else g.goal == "increase")
        for g in wanted.guardrails
    )
    return RolloutPlan(
        steps=tuple(wanted.steps),
        hold_requests=wanted.hold_requests,
        hold_labels=wanted.hold_labels,
        patience_requests=wanted.patience_requests,
        errors_above=wanted.roll_back_if.errors_above,
        latency_p99_ms_above=wanted.roll_back_if.latency_p99_ms_above,
        quality=wanted.roll_back_if.quality,
        hold_s=wanted.hold_s,
        share=wanted.share,
        higher_is_better=wanted.is_up_better(),
        guardrails=guardrails,
        alpha=wanted.alpha,
        planned_units=wanted.planned_units,
        is_adjusted=wanted.covariate is not None,
        policy=wanted.policy,
        least_share=wanted.least_share,
        agreement_least=wanted.agreement_least,
        then=wanted.then,
        arms=("canary", *(running or {}).get("arms", ())),
        context=tuple(wanted.context),
    )


def observed_of(
    evidence: Evidence,
    serving: Mapping[str, Any],
    refused: str | None = None,
    is_applied: bool = True,
    step_s: float = 0.0,
) -> Observed:
    """Return the evidence as a strategy takes it; the challenger is the canary, or the shadow where there is one."""
    challenger = "shadow" if serving.get("mirrors") else "canary"
    return Observed(
        canary=evidence.arms.get(challenger, Arm()),
        baseline=evidence.arms.get("baseline", Arm()),
        champion=evidence.arms.get("champion", Arm()),
        comparison=evidence.comparison,
        refused=refused,
        is_applied=is_applied,
        step_s=step_s,
        weights={v["name"]: v["weight"] for v in serving["variants"]},
        units=evidence.units,
        outcomes=evidence.outcomes,
        guardrails=evidence.guardrails,
        agreement=evidence.agreement,
        others={v["name"]: evidence.arms.get(v["name"], Arm()) for v in serving["variants"] if v["name"] not in _NAMED},
        contexts=evidence.contexts,
    )


def experiment_of(
    wanted: Rollout, observed: Observed, running: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return how an A/B or a bandit stands as JSON values, None for other strategies.

    Returns:
        `metric`, `alpha`, `planned_units`, `higher_is_better`; `arms` by variant with `units` (all keys), `known` (keys
        with an outcome), `mean` and `share` of the traffic; `difference` (challenger − champion: low, value, high,
        p_value), `differences` by variant, `sample_ratio_p` and `guardrails`. A bandit's shares move, so it has no
        `sample_ratio_p`; where its arms are drawn by context, `values` says by variant what it would earn if everyone
        met it (see `stats.contexts.arm_values`).
    """
    if wanted.strategy not in ("ab", "bandit"):
        return None
    plan = plan_of(wanted, running)
    found = standing(plan, observed).as_dict()
    if wanted.strategy == "bandit":
        found["sample_ratio_p"] = None
        if plan.context:
            found["values"] = arm_values(observed.contexts)
    arms = {}
    for variant, share in observed.weights.items():
        outcome = observed.outcomes.get(variant)
        known = float(outcome.units) if outcome is not None else 0.0
        arms[variant] = {
            "share": share,
            "units": observed.units.get(variant, 0),
            "known": int(known),
            "mean": float(outcome.mean) if outcome is not None and known else None,
        }
    return {
        "metric": wanted.metric,
        "alpha": wanted.alpha,
        "planned_units": wanted.planned_units,
        "higher_is_better": plan.higher_is_better,
        "arms": arms,
        **found,
    }
