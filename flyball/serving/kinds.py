"""The kind Deployment: which model answers, how a new version is let in, what is logged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from flyball.ledger.kinds import RefersTo, Spec, register

__all__ = ["Deployment", "RollBackIf", "RequestLog", "Rollout"]


class RollBackIf(Spec):
    """What ends a rollout at once."""

    errors_above: float = Field(0.01, ge=0, le=1, description="share of the canary's answers that were errors")
    latency_p99_ms_above: float | None = Field(None, gt=0)
    quality: Literal["worse", "ignore"] = Field("worse", description="worse: its quality is worse, with evidence")


class Rollout(Spec):
    """How traffic moves from the champion to a challenger."""

    strategy: str = Field("canary", description="a file of flyball/rollouts")
    steps: list[float] = Field(default=[5, 25, 50], description="the canary's share in percent, rising; then 100")
    hold_requests: int = Field(500, ge=1, description="answers that the canary must have given before a step ends")
    hold_labels: int = Field(200, ge=0, description="of its answers with known truth, before the last step ends")
    patience_requests: int = Field(
        20_000, ge=1, description="answers of all arms after which the last step ends on what evidence there is"
    )
    roll_back_if: RollBackIf = Field(default_factory=RollBackIf)

    @field_validator("steps")
    @classmethod
    def _rise(cls, steps: list[float]) -> list[float]:
        if not steps or any(not 0 < s <= 100 for s in steps) or sorted(set(steps)) != steps:
            raise ValueError("steps must rise within 0 to 100, such as [5, 25, 50]")
        return steps


class RequestLog(Spec):
    """What the prediction log keeps."""

    requests: Literal["all"] = "all"
    mask: list[str] = Field(default_factory=list, description="inputs kept only as a keyed hash")


@register
class Deployment(Spec):
    """A model in service."""

    description: str = ""
    model: Annotated[str, RefersTo("model")] = Field(
        description="name, or name@alias; the alias that serves is champion"
    )
    features: list[Annotated[str, RefersTo("feature-view")]] = Field(
        default_factory=list, description="looked up, or computed by request-time functions, inside a request"
    )
    service: Annotated[str, RefersTo("feature-service")] | None = Field(
        None, description="a feature service whose pinned views are looked up too"
    )
    key: str | None = Field(None, description="input that keeps a caller on one variant; default: the request's id")
    rollout: Rollout = Field(default_factory=Rollout)
    log: RequestLog = Field(default_factory=RequestLog)
