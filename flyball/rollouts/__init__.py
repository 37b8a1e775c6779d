"""Rollouts: pure functions that look at what each arm did and propose the next traffic table.

A strategy is a file here, found by its name, with two functions

    begin(plan: RolloutPlan) -> Table
    decide(plan: RolloutPlan, step: int, observed: Observed) -> Decision

that touch no clock, network or database: the deployment's controller observes and acts. Weights are percentages by
variant: `champion` is the version in service, `canary` the challenger whatever the strategy, `shadow` a challenger that
answers copies of requests into the log only, `arm2` and on are further challengers of an A/B or a bandit. A canary's
`baseline` is the champion again, on as much traffic as the canary, so that the two arms can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from flyball.stats.contexts import ContextSums
    from flyball.stats.outcomes import Outcomes

__all__ = ["Arm", "Decision", "Guardrail", "Observed", "RolloutPlan", "Table", "failure", "split", "weights"]

_LATENCY_REQUESTS = 100  # a 99th percentile of fewer answers is their maximum


@dataclass(frozen=True)
class Table:
    """A traffic table: percentages by variant, adding up to 100, and of the requests that each mirror copies.

    `contextual` describes how a variant is drawn by a request's context instead (`serving.snapshot.Contextual`).
    """

    weights: Mapping[str, float]
    mirrors: Mapping[str, float] = field(default_factory=dict)
    contextual: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Guardrail:
    """A metric that must not become worse by more than `worse_by`, in its unit, whatever the other one gains."""

    metric: str
    worse_by: float
    higher_is_better: bool


@dataclass(frozen=True)
class RolloutPlan:
    """What the deployment's spec asks for."""

    steps: tuple[float, ...] = (5.0, 25.0, 50.0)
    hold_requests: int = 500
    hold_labels: int = 200
    patience_requests: int = 20_000
    errors_above: float = 0.01
    latency_p99_ms_above: float | None = None
    quality: Literal["worse", "ignore"] = "worse"
    hold_s: float = 600.0
    share: float = 50.0
    higher_is_better: bool = True
    guardrails: tuple[Guardrail, ...] = ()
    alpha: float = 0.05
    planned_units: int = 10_000
    is_adjusted: bool = False
    policy: str = "thompson"
    least_share: float = 5.0
    agreement_least: float | None = None
    then: Literal["report", "promote"] = "report"
    arms: tuple[str, ...] = ("canary",)  # the challengers' variants
    context: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arm:
    """What one variant did: answers in this step, and over the whole rollout with how many of them labelled."""

    requests: int = 0
    requests_total: int = 0
    errors_total: int = 0
    labelled_total: int = 0
    latency_p99_ms: float | None = None


@dataclass(frozen=True)
class Observed:
    """What happened so far.

    `canary` is the challenger's arm, whatever its variant is called. `comparison` is canary against baseline on
    labelled answers, None without any. `is_applied`: the data plane serves the present table. `step_s` counts from when
    that table was written. `units`, `outcomes` (of the rollout's metric) and `guardrails` (by metric) are by variant,
    over the whole rollout; `agreement` is how a shadow's answers compare with the champion's for the same requests.
    `others` are the arms of further challengers, `contexts` the rewards against contexts by variant.
    """

    canary: Arm
    baseline: Arm
    champion: Arm
    comparison: Mapping[str, Any] | None = None
    refused: str | None = None
    is_applied: bool = True
    step_s: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    guardrails: Mapping[str, Mapping[str, Outcomes]] = field(default_factory=dict)
    agreement: Mapping[str, Any] | None = None
    others: Mapping[str, Arm] = field(default_factory=dict)
    contexts: Mapping[str, ContextSums] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What to do next, and why, in a sentence.

    `step` counts from 0; weights and `contextual` are of the table to use then (see `Table`). `winner` is the variant
    to promote.
    """

    action: Literal["hold", "step", "promote", "roll back", "report"]
    reason: str
    step: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)
    contextual: Mapping[str, Any] | None = None
    winner: str = "canary"


def split(plan: RolloutPlan) -> dict[str, float]:
    """Return the traffic table in which the challengers share `share` percent alike, and the champion has the rest."""
    each = round(plan.share / len(plan.arms), 2)
    return {"champion": round(100.0 - each * len(plan.arms), 2), **dict.fromkeys(plan.arms, each)}


def weights(share: float) -> dict[str, float]:
    """Return the traffic table for a canary's share in percent: canary, champion, baseline, adding up to 100.

    The canary stands first and the baseline last, so that when the share grows a key only ever moves from the
    champion to one of them.
    """
    baseline = min(share, 100.0 - share)
    return {"canary": share, "champion": 100.0 - share - baseline, "baseline": baseline}


def failure(plan: RolloutPlan, observed: Observed) -> str | None:
    """Return why the challenger is ended at once, whatever the strategy: refused, too many errors, or too slow."""
    if observed.refused is not None:
        return f"it could not be served: {observed.refused}"
    found = _failure(plan, observed.canary)
    if found is not None:
        return found
    of_others = ((name, _failure(plan, arm)) for name, arm in observed.others.items())
    return next((f"{name}: {why}" for name, why in of_others if why is not None), None)


def _failure(plan: RolloutPlan, canary: Arm) -> str | None:
    tried = canary.requests_total + canary.errors_total
    if tried and _wilson_low(canary.errors_total, tried) > plan.errors_above:
        rate = canary.errors_total / tried
        share = f"{rate:.1%}, allowed {plan.errors_above:.1%}"
        return f"{canary.errors_total:,} of its {tried:,} answers were errors ({share})"
    limit = plan.latency_p99_ms_above
    if limit is not None and _is_slow(canary, limit):
        return f"its 99th percentile of latency is {canary.latency_p99_ms:.3g} ms (allowed {limit:g} ms)"
    return None


def _is_slow(arm: Arm, limit: float) -> bool:
    return arm.requests >= _LATENCY_REQUESTS and arm.latency_p99_ms is not None and arm.latency_p99_ms > limit


def _wilson_low(successes: int, trials: int, z: float = 2.326) -> float:
    """Return the lower end of Wilson's interval (1927) at 99 %, one-sided."""
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - spread) / (1 + z * z / trials))
