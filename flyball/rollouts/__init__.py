"""Rollouts: pure functions that look at what each arm did and propose the next traffic table.

A strategy is a file here, found by its name, with one function

    decide(plan: RolloutPlan, step: int, observed: Observed) -> Decision

that touches no clock, network or database: the deployment's controller observes and acts. Weights are percentages by
variant; the baseline is the champion again, on as much traffic as the canary, so that the two arms can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Arm", "Decision", "Observed", "RolloutPlan", "weights"]


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
    """What happened so far. `comparison` is canary against baseline on labelled answers, None without any."""

    canary: Arm
    baseline: Arm
    champion: Arm
    comparison: Mapping[str, Any] | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Decision:
    """What to do next, and why, in a sentence. `step` counts from 0; weights are of the table to use then."""

    action: Literal["hold", "step", "promote", "roll back"]
    reason: str
    step: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)


def weights(share: float) -> dict[str, float]:
    """Return the traffic table for a canary's share in percent: canary, champion, baseline, adding up to 100.

    The canary stands first and the baseline last, so that when the share grows a key only ever moves from the
    champion to one of them.
    """
    baseline = min(share, 100.0 - share)
    return {"canary": share, "champion": 100.0 - share - baseline, "baseline": baseline}
