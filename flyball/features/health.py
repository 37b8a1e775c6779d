"""What is wrong with a view that is served: too old, or other than what was stored. Pure functions of a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flyball.features.agreement import Agreement
from flyball.features.kinds import Materialising

__all__ = ["conditions", "measured"]

_QUIET = 2  # measurements in a row, after which a condition ends, so that it does not flap


def measured(found: Agreement) -> dict[str, Any]:
    """Return what a view's status keeps of a measurement: shares and ages, and nobody's values."""
    features = {
        name: {
            "agree": asdict(feature.agree),
            "online_nulls": feature.online_nulls,
            "offline_nulls": feature.offline_nulls,
        }
        for name, feature in found.features.items()
    }
    kept = {k: v for k, v in found.to_dict().items() if k not in ("view", "now", "features", "online_entities")}
    return {**kept, "features": features}


def conditions(
    found: Agreement | None, wanted: Materialising, before: Mapping[str, Any], now: str
) -> dict[str, dict[str, Any]]:
    """Return the conditions that hold after a measurement, by name: `stale`, `disagrees`.

    Args:
        found: the measurement; None: nothing could be measured, so nothing changes.
        wanted: the limits.
        before: the conditions that held.
        now: the instant, for `since` of what begins.
    """
    if found is None:
        return {name: dict(condition) for name, condition in before.items()}
    holding: dict[str, dict[str, Any]] = {}
    for name, exceeded in (("stale", _stale(found, wanted)), ("disagrees", _disagrees(found, wanted))):
        there = before.get(name)
        if exceeded is not None:
            holding[name] = {**exceeded, "since": there["since"] if there else now}
        elif there is not None and there.get("quiet", 0) + 1 < _QUIET:
            holding[name] = {**there, "quiet": there.get("quiet", 0) + 1}
    return holding


def _stale(found: Agreement, wanted: Materialising) -> dict[str, Any] | None:
    share = found.too_old / found.found if found.found else 0.0
    if share <= wanted.stale_above:
        return None
    return {
        "share": share,
        "threshold": wanted.stale_above,
        "summary": f"{share:.1%} of the values that look-ups would find are older than the time to live; "
        f"the limit is {wanted.stale_above:.1%}",
    }


def _disagrees(found: Agreement, wanted: Materialising) -> dict[str, Any] | None:
    agree = found.agree
    if agree.high >= wanted.agree_at_least:
        return None
    worst = min(found.features, key=lambda name: found.features[name].agree.value)
    return {
        "share": agree.value,
        "threshold": wanted.agree_at_least,
        "feature": worst,
        "summary": f"{agree.value:.1%} [{agree.low:.1%}, {agree.high:.1%}] of {found.entities:,} entities are the same "
        f"online as stored, {worst} the least; the limit is {wanted.agree_at_least:.1%}",
    }
