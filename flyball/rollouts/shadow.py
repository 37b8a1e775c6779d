"""Shadow: the challenger gets copies of requests and answers into the log only; nobody meets it before it is judged.

The copies are answered after the champion's answer was given, so they delay nobody. After `hold_requests` copies the
answers are compared with the champion's to the same requests; where `quality` counts and truth arrives, `hold_labels`
of them are waited for too, though not longer than `patience_requests`. Then it is promoted (`then: promote`) or
reported on (`then: report`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyball.rollouts import Decision, Observed, RolloutPlan, Table, failure

__all__ = ["begin", "decide", "describe"]


def begin(plan: RolloutPlan) -> Table:
    """Return the table in which the champion answers everything and the shadow gets its share of copies."""
    return Table({"champion": 100.0}, {"shadow": plan.share})


def decide(plan: RolloutPlan, step: int, observed: Observed) -> Decision:
    """Return what to do after looking at `observed`."""
    failed = failure(plan, observed)
    if failed is not None:
        return Decision("roll back", failed)
    shadow, found = observed.canary, observed.agreement
    if found is None or shadow.requests_total < plan.hold_requests:
        return Decision("hold", f"{shadow.requests_total:,} of {plan.hold_requests:,} copies answered", step)
    waits = plan.quality == "worse" and shadow.labelled_total < plan.hold_labels
    if waits and shadow.requests_total < plan.patience_requests:
        known = f"the truth of {shadow.labelled_total:,} of {plan.hold_labels:,} copies is known"
        return Decision("hold", known, step)
    judged = observed.comparison
    if plan.quality == "worse" and judged is not None and judged.get("verdict") == "worse":
        return Decision("roll back", f"its quality is worse: {judged['metric']}, {judged['reason']}")
    least = plan.agreement_least
    if least is not None and (output := _differing(found, least)) is not None:
        equal = found["outputs"][output]["equal"]
        return Decision("roll back", f"{equal:.1%} of its answers in {output} are the champion's, wanted {least:.1%}")
    return Decision("promote" if plan.then == "promote" else "report", describe(found))


def describe(agreement: Mapping[str, Any]) -> str:
    """Return an agreement report as a sentence."""
    outputs = "; ".join(
        f"{name} equal in {found['equal']:.1%}"
        + (f", {found['difference']:.3g} apart on average" if found.get("difference") is not None else "")
        for name, found in agreement["outputs"].items()
    )
    return f"{agreement['requests']:,} requests answered by both: {outputs or 'no output in common'}"


def _differing(agreement: Mapping[str, Any], least: float) -> str | None:
    return next((name for name, found in agreement["outputs"].items() if found["equal"] < least), None)
