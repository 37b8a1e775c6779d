"""Gates: what an evaluation must show before its version may serve. Pure: plain values in, plain values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.errors import listed

__all__ = ["GateResult", "judge"]


@dataclass(frozen=True)
class GateResult:
    """Whether one gate is passed, and the sentence that says why."""

    gate: str
    passed: bool
    reason: str


def judge(
    gates: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, float]],
    comparisons: Mapping[str, Mapping[str, Any]],
    *,
    has_champion: bool,
) -> list[GateResult]:
    """Judge an evaluation.

    Args:
        gates: as declared by the model (`models.kinds.Gate`).
        metrics: by name, each `{"low", "value", "high"}`.
        comparisons: by metric, with the champion on the same rows, each with its `verdict`.
        has_champion: whether there is a champion to compare with; without one a comparison passes.

    A bound is checked on the value, not on the end of its interval; a metric that was not measured fails.
    """
    return [_judge(gate, metrics, comparisons, has_champion) for gate in gates]


def _judge(
    gate: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, float]],
    comparisons: Mapping[str, Mapping[str, Any]],
    has_champion: bool,
) -> GateResult:
    name, least, most = gate["metric"], gate.get("at_least"), gate.get("at_most")
    if gate.get("against") == "champion":
        wanted = gate.get("verdict", "better")
        title = f"{name} {wanted} than the champion's"
        if not has_champion:
            return GateResult(title, True, "there is no champion yet")
        found = comparisons.get(name)
        if found is None:
            return GateResult(title, False, f"{name} was not compared with the champion's")
        verdict = found["verdict"]
        passed = verdict == "better" or (wanted == "not worse" and verdict != "worse")
        if "challenger" not in found or "champion" not in found:
            return GateResult(title, passed, f"{verdict}: {found.get('reason', 'too little to compare')}")
        return GateResult(title, passed, f"{_text(found['challenger'])} against {_text(found['champion'])}: {verdict}")
    title = f"{name} at least {least:g}" if least is not None else f"{name} at most {most:g}"
    measured = metrics.get(name)
    if measured is None:
        return GateResult(title, False, f"{name} was not measured (measured: {listed(metrics)})")
    value = measured["value"]
    passed = (least is None or value >= least) and (most is None or value <= most)
    return GateResult(title, passed, f"{name} is {_text(measured)}")


def _text(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
