"""Canary: a growing share of the traffic goes to the challenger; it is promoted, or rolled back on evidence.

At every look: refused, too many errors or too slow means rolled back. Quality is judged when a step ends and not
at every look, so that looking often does not find "worse" by chance (each look is one test at the comparison's level).
"""

from __future__ import annotations

from flyball.rollouts import Decision, Observed, RolloutPlan, Table, failure, weights

__all__ = ["begin", "decide"]


def begin(plan: RolloutPlan) -> Table:
    """Return the first step's table."""
    return Table(weights(plan.steps[0]))


def decide(plan: RolloutPlan, step: int, observed: Observed) -> Decision:
    """Return what to do after looking at `observed` in step `step` of the plan."""
    failed = failure(plan, observed)
    if failed is not None:
        return Decision("roll back", failed)
    canary = observed.canary
    share = plan.steps[step]
    if canary.requests < plan.hold_requests:
        return Decision("hold", f"{canary.requests:,} of {plan.hold_requests:,} answers at {share:g} %", step)
    is_last = step + 1 == len(plan.steps)
    seen = canary.requests_total + observed.baseline.requests_total + observed.champion.requests_total
    if (
        is_last
        and plan.quality == "worse"
        and canary.labelled_total < plan.hold_labels
        and seen < plan.patience_requests
    ):
        return Decision(
            "hold", f"the truth of {canary.labelled_total:,} of {plan.hold_labels:,} answers is known", step
        )
    judged = observed.comparison
    if plan.quality == "worse" and judged is not None and judged.get("verdict") == "worse":
        return Decision("roll back", f"its quality is worse: {describe(observed)}")
    if not is_last:
        nearer = plan.steps[step + 1]
        return Decision("step", f"{canary.requests:,} answers at {share:g} % without harm", step + 1, weights(nearer))
    return Decision("promote", describe(observed))


def describe(observed: Observed) -> str:
    """Return the evidence as a sentence: `auc 0.712 [0.701, 0.723] against 0.655 [0.643, 0.667] on 2,140 answers`."""
    judged = observed.comparison
    if judged is None or "challenger" not in judged or "champion" not in judged:
        return f"no errors beyond the limit in {observed.canary.requests_total:,} answers; no truth known yet"
    ours, theirs = judged["challenger"], judged["champion"]
    return (
        f"{judged['metric']} {_interval(ours)} against {_interval(theirs)} on {observed.canary.labelled_total:,} and "
        f"{observed.baseline.labelled_total:,} labelled answers ({judged['verdict']})"
    )


def _interval(value: object) -> str:
    low, middle, high = value if isinstance(value, list | tuple) else (value["low"], value["value"], value["high"])  # type: ignore[index]
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"
