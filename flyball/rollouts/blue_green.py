"""Blue/green: everything goes to the challenger at once, and back at once when it fails; the old version stays warm.

Step 0 loads the challenger beside the champion without giving it traffic. When the data plane says that it serves both,
step 1 sends all traffic to the challenger for `hold_s` seconds, the champion staying loaded with no traffic. Errors or
latency beyond the limits switch back; quality is not compared, as no other arm answers at the same time.
"""

from __future__ import annotations

from flyball.rollouts import Decision, Observed, RolloutPlan, Table, failure

__all__ = ["begin", "decide"]

_SWITCHED = {"champion": 0.0, "canary": 100.0}


def begin(plan: RolloutPlan) -> Table:
    """Return the table that warms the challenger up."""
    del plan
    return Table({"champion": 100.0, "canary": 0.0})


def decide(plan: RolloutPlan, step: int, observed: Observed) -> Decision:
    """Return what to do after looking at `observed`: switch when both are loaded, promote when the time has passed."""
    failed = failure(plan, observed)
    if failed is not None:
        return Decision("roll back", failed)
    if step == 0:
        if not observed.is_applied:
            return Decision("hold", "the data plane is loading it", step)
        return Decision("step", "it is loaded beside the champion", 1, _SWITCHED)
    if not observed.is_applied:
        return Decision("hold", "the data plane is switching", step)
    if observed.step_s < plan.hold_s:
        return Decision("hold", f"{observed.step_s:,.0f} of {plan.hold_s:,.0f} s on all traffic", step)
    answers = observed.canary.requests_total
    return Decision("promote", f"{answers:,} answers in {observed.step_s:,.0f} s on all traffic without harm")
