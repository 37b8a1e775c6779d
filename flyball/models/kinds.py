"""The kind Model: what a model is for, and the gates that a version must pass before it may serve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flyball.ledger.kinds import RefersTo, Spec, register

__all__ = ["Approval", "Gate", "Model"]


class Gate(Spec):
    """One condition on a version's evaluation: a bound on a metric, or a comparison with the champion."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    against: Literal["champion"] | None = None
    verdict: Literal["better", "not worse"] = Field(
        "better", description="of the comparison: better needs evidence; not worse fails only on evidence against"
    )

    @model_validator(mode="after")
    def _checks_something(self) -> Gate:
        if self.at_least is None and self.at_most is None and self.against is None:
            raise ValueError("a gate needs at_least, at_most or against: champion; this one checks nothing")
        return self


class Approval(Spec):
    """Who must agree before a version becomes the challenger of a deployment."""

    by: Literal["nobody", "person"] = Field("nobody", description="person: it waits for `flyball approve`")


@register
class Model(Spec):
    """A named model; its versions are made by runs, its aliases say which one does what."""

    description: str = ""
    dataset: Annotated[str, RefersTo("dataset")] | None = Field(None, description="what it learns from")
    task: Literal["binary", "multiclass", "regression"] | None = Field(
        None, description="default: seen from the target"
    )
    metric: str | None = Field(None, description="what decides; default: auc, accuracy or rmse by task")
    gates: list[Gate] = Field(default_factory=list)
    approve: Approval = Approval()
    tags: list[str] = Field(default_factory=list)
