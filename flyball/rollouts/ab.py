"""A/B: champion and challenger get fixed shares of the keys until one is shown to be better, or the horizon is reached.

The metric is compared at every look by a confidence sequence (`stats.sequential`), which stays valid however often one
looks, on moments by key. Guardrails are metrics that must not become worse by more than their margin; the error of all
of them together is `alpha`. Arms whose numbers of keys contradict the table (sample-ratio mismatch) are not compared:
the experiment ends without a verdict, for what broke the split may have made the difference too. At the horizon
(`planned_units` keys in all arms) without evidence the champion stays.

Of several challengers each is compared with the champion at α divided by their number (Bonferroni), so that all
intervals hold together, at all looks, with probability 1 − α, and any verdict is wrong with probability at most α. The
first look at which one is better ends it; of several better ones that with the largest estimate is promoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flyball.rollouts import Decision, Guardrail, Observed, RolloutPlan, Table, failure, split
from flyball.stats import sample_ratio
from flyball.stats.outcomes import Outcomes
from flyball.stats.sequential import Look, compare

__all__ = ["Standing", "begin", "decide", "standing"]


@dataclass(frozen=True)
class Standing:
    """How an experiment stands: `looks` are challenger − champion by variant, `look` the first of them.

    `guardrails` say by metric, of further challengers by `METRIC of VARIANT`, how it stands and whether it is broken.
    """

    looks: dict[str, Look]
    sample_ratio_p: float
    guardrails: dict[str, tuple[Look, bool]] = field(default_factory=dict)

    @property
    def look(self) -> Look:
        """The first challenger's."""
        return next(iter(self.looks.values()))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, looks as mappings."""
        return {
            "difference": self.look.as_dict(),
            "differences": {variant: look.as_dict() for variant, look in self.looks.items()},
            "sample_ratio_p": self.sample_ratio_p,
            "guardrails": {
                name: {**look.as_dict(), "is_broken": is_broken} for name, (look, is_broken) in self.guardrails.items()
            },
        }


def begin(plan: RolloutPlan) -> Table:
    """Return the table of the whole experiment."""
    return Table(split(plan))


def standing(plan: RolloutPlan, observed: Observed) -> Standing:
    """Return what the evidence says at this look."""
    shares, alpha = split(plan), plan.alpha / len(plan.arms)
    counts = [observed.units.get(variant, 0) for variant in shares]
    guardrails = {}
    for variant in plan.arms:
        for guardrail in plan.guardrails:
            arms = observed.guardrails.get(guardrail.metric, {})
            look = _compare(plan, arms, variant, alpha / len(plan.guardrails))
            name = guardrail.metric if variant == plan.arms[0] else f"{guardrail.metric} of {variant}"
            guardrails[name] = (look, _is_broken(guardrail, look))
    return Standing(
        {variant: _compare(plan, observed.outcomes, variant, alpha, plan.is_adjusted) for variant in plan.arms},
        float(sample_ratio.p_value(counts, list(shares.values()))),
        guardrails,
    )


def decide(plan: RolloutPlan, step: int, observed: Observed) -> Decision:
    """Return what to do after looking at `observed`."""
    failed = failure(plan, observed)
    if failed is not None:
        return Decision("roll back", failed)
    found = standing(plan, observed)
    if found.sample_ratio_p < sample_ratio.ALPHA:
        shares = split(plan)
        counts = " and ".join(f"{observed.units.get(v, 0):,}" for v in plan.arms)
        told = f"{counts} against {observed.units.get('champion', 0):,} keys at {shares['canary']:g} %"
        return Decision("roll back", f"the split is broken ({told}; p {found.sample_ratio_p:.1g}): no verdict")
    for name, (look, is_broken) in found.guardrails.items():
        if is_broken:
            return Decision("roll back", f"the guardrail {name} became worse: {_interval(look)}")
    units = sum(float(arm.units) for v, arm in observed.outcomes.items() if v in ("champion", *plan.arms))
    known = f"{units:,.0f} of {plan.planned_units:,} keys"
    sign = 1 if plan.higher_is_better else -1
    shown = {v: look for v, look in found.looks.items() if np.isfinite(look.p_value) and look.p_value < look.alpha}
    better = {v: look for v, look in shown.items() if float(look.value) * sign > 0}
    if better:
        winner = max(better, key=lambda variant: float(better[variant].value) * sign)
        told = _told(plan, {winner: better[winner]})
        return Decision("promote", f"its metric is better by {told} on {known}", winner=winner)
    told = _told(plan, found.looks)
    if len(shown) == len(plan.arms):
        return Decision("roll back", f"its metric is worse: {told} on {known}")
    if units >= plan.planned_units:
        return Decision("roll back", f"no evidence of a difference: {told} on {known}; the champion stays")
    return Decision("hold", f"no verdict yet: {told} on {known}", step)


def _told(plan: RolloutPlan, looks: Mapping[str, Look]) -> str:
    """Return differences in words, with their variants where there are several challengers."""
    if len(plan.arms) == 1:
        return _interval(looks["canary"])
    return "; ".join(f"{variant} {_interval(look)}" for variant, look in looks.items())


def _compare(plan: RolloutPlan, arms: Any, variant: str, alpha: float, is_adjusted: bool = False) -> Look:
    treated, control = arms.get(variant, Outcomes()), arms.get("champion", Outcomes())
    shares = split(plan)
    planned = plan.planned_units * (shares["champion"] + shares[variant]) / 100
    return compare(treated, control, planned, alpha, is_adjusted)


def _is_broken(guardrail: Guardrail, look: Look) -> bool:
    """Return whether the metric is shown to be worse by more than its margin."""
    worse = -float(look.high) if guardrail.higher_is_better else float(look.low)
    return bool(worse > guardrail.worse_by)


def _interval(look: Look) -> str:
    if not np.isfinite(look.low):
        return "too few keys to say"
    return f"{float(look.value):+.4g} [{float(look.low):+.4g}, {float(look.high):+.4g}]"
