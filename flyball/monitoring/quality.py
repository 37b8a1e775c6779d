"""What the quality of live answers may fall to: pure functions of a monitor's spec and what training found."""

from __future__ import annotations

from collections.abc import Sequence

from flyball.ledger.versions import Version
from flyball.monitoring.kinds import Monitor
from flyball.stats.calibration import metric_limit
from flyball.stats.metrics import metric

__all__ = ["is_decayed", "limit_of"]

_LEAST_WINDOWS = 5  # of unseen reference rows, below which their spread says nothing


def limit_of(spec: Monitor, version: Version, metric_name: str) -> float | None:
    """Return the value that the metric must not pass: the stricter of the declared one and the reference's own."""
    assert spec.quality is not None
    higher = metric(metric_name).higher_is_better
    limits = [limit for limit in ((spec.quality.at_least if higher else spec.quality.at_most),) if limit is not None]
    windows = version.metadata.get("evaluation", {}).get("windows", {})
    values = windows.get("values", [])
    if spec.quality.against_reference and len(values) >= _LEAST_WINDOWS and windows.get("metric") == metric_name:
        alpha = spec.drift.false_alarms if spec.drift else 0.01
        horizon = spec.drift.horizon if spec.drift else 100
        limits.append(_limit(metric_name, values, windows.get("errors", ()), alpha / horizon))
    return (max(limits) if higher else min(limits)) if limits else None


def is_decayed(metric_name: str, value: float, limit: float | None) -> bool:
    """Whether a value of a metric is beyond its limit; without a limit none is."""
    if limit is None:
        return False
    return value < limit if metric(metric_name).higher_is_better else value > limit


def _limit(metric_name: str, values: Sequence[float], errors: Sequence[float], level: float) -> float:
    """Return the metric's limit from its values on windows of unseen reference rows.

    R² has no lower end, so what is left unexplained, 1 − R², which is positive, is limited in its place.
    """
    if metric_name == "r2":
        unexplained = [1 - value for value in values]
        return 1 - metric_limit(unexplained, level=level, errors=errors, higher_is_better=False, bounded=False)
    found = metric(metric_name)
    is_share = found.low == 0 and found.high == 1
    return metric_limit(values, level=level, errors=errors, higher_is_better=found.higher_is_better, bounded=is_share)
