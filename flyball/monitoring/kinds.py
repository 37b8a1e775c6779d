"""The kinds Monitor and Alert."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from flyball.ledger.kinds import RefersTo, Spec, register

__all__ = ["Alert", "Drift", "Monitor", "Quality"]


class Drift(Spec):
    """Which inputs are compared with what the model was trained on, and how often a false alarm may come."""

    features: Literal["all"] | list[str] = "all"
    window: int = Field(1000, ge=50, description="requests in a window")
    false_alarms: float = Field(
        0.01, gt=0, lt=1, description="probability of at least one false alarm over `horizon` windows, all features"
    )
    horizon: int = Field(100, ge=1, description="windows that the false-alarm rate speaks of")
    persistence: int = Field(2, ge=1, description="windows in a row beyond the threshold that count as drift")


class Quality(Spec):
    """The metric of the answers whose truth is known by now."""

    metric: str | None = Field(None, description="default: the model's")
    window: int = Field(1000, ge=50, description="labelled answers in a window")
    at_least: float | None = None
    at_most: float | None = None
    against_reference: bool = Field(True, description="alarm when it is worse than on the model's own test rows")


@register
class Monitor(Spec):
    """Watches a deployment's live traffic."""

    description: str = ""
    of: Annotated[str, RefersTo("deployment")]
    drift: Drift | None = Field(default_factory=Drift)
    quality: Quality | None = Field(default_factory=Quality)
    every_s: float = Field(2.0, gt=0, description="how often the log is read")
    purpose: str | None = Field(
        None, description="what the rows that the model learnt from are compared for, where a dataset or policy asks"
    )


@register
class Alert(Spec):
    """Something that a person may want to know; opened and resolved with a condition of what owns it."""

    monitor: Annotated[str | None, RefersTo("monitor")] = Field(None, description="whose condition it is")
    view: Annotated[str | None, RefersTo("feature-view")] = Field(None, description="or the feature view's")
    what: str = Field(description="drifting or decayed; of a feature view stale or disagrees")
    severity: Literal["warning", "critical"] = "warning"
    summary: str = ""
    detail: dict[str, Any] = Field(default_factory=dict)
