"""The kinds FeatureView and FeatureService: a feature, defined once for training and serving, and what a model uses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from flyball.clock import parse_duration
from flyball.ledger.kinds import RefersTo, Spec, register

__all__ = ["FeatureService", "FeatureView", "Materialising", "PinnedView", "Retired"]


class Retired(Spec):
    """Why a view is not to be used any more, and what takes its place."""

    reason: str = Field(min_length=1, description="a sentence that is shown to whoever uses it")
    successor: Annotated[str, RefersTo("feature-view")] | None = Field(None, description="the view to use instead")


class Materialising(Spec):
    """When a view is stored, served and measured by itself, and what then counts as wrong with it."""

    every: str = Field("1h", description="how often it is brought up to date and measured, such as 10m")
    on_version: bool = Field(True, description="also as soon as its dataset has a new version")
    sample: int = Field(1000, ge=10, le=100_000, description="entities that are measured, drawn by hash")
    stale_above: float = Field(
        0.5, ge=0, lt=1, description="it is stale when more than this share of values is older than the time to live"
    )
    agree_at_least: float = Field(
        0.99,
        gt=0,
        le=1,
        description="it disagrees when surely fewer entities than this are online as they are stored",
    )

    @field_validator("every")
    @classmethod
    def _is_a_span(cls, every: str) -> str:
        if parse_duration(every).total_seconds() < 1:
            raise ValueError("a second is the shortest; write it like 10m or 1h")
        return every


@register
class FeatureView(Spec):
    """A declared view; `definition` is its light description, which travels with models that use it."""

    description: str = ""
    owner: str | None = Field(None, description="who answers for it: user/alice, team/flights")
    dataset: Annotated[str, RefersTo("dataset")] | None = Field(None, description="what it is computed from")
    function: str = Field("", description="file.py:name or module:name of the decorated function")
    definition: dict[str, Any] = Field(description="name, entity, ttl, features: what look-ups need")
    digest: str | None = Field(None, description="of the function's code, by which a changed definition is noticed")
    text: str = Field("", description="the source of the function as it was declared, to be read")
    version: int = Field(1, ge=1, description="of the definition; values of two versions never mix")
    status: Literal["active", "deprecated", "retired"] = Field(
        "active", description="deprecated: whoever uses it is warned; retired: not in new training sets"
    )
    retired: Retired | None = Field(None, description="with a status other than active: why, and what to use instead")
    tags: list[str] = Field(default_factory=list)
    materialise: Materialising | None = Field(None, description="keep it up to date by itself; default: when asked")

    @model_validator(mode="after")
    def _can_be_kept(self) -> FeatureView:
        if self.materialise is not None and (not self.function or self.dataset is None):
            missing = "dataset" if self.function else "function"
            raise ValueError(f"to materialise it by itself its {missing} must be known; give function: and dataset:")
        return self

    @model_validator(mode="after")
    def _says_why(self) -> FeatureView:
        if self.status != "active" and self.retired is None:
            raise ValueError(f"a view that is {self.status} says why; give retired: {{reason: …, successor: …}}")
        if self.status == "active" and self.retired is not None:
            raise ValueError("a view that is active cannot be retired; set status to deprecated or retired")
        return self


class PinnedView(Spec):
    """One version of one view, as it was when the service was declared."""

    view: Annotated[str, RefersTo("feature-view")]
    version: int = Field(ge=1, description="of the definition")
    digest: str = Field(description="of the definition's code", pattern="[0-9a-f]{64}")


@register
class FeatureService(Spec):
    """The views that a model uses, each pinned to a version and a digest of its definition."""

    description: str = ""
    owner: str | None = Field(None, description="who answers for it: user/alice, team/flights")
    views: list[PinnedView] = Field(min_length=1, description="what a model is trained on and looks up")
    tags: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _once(self) -> FeatureService:
        names = [pinned.view for pinned in self.views]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the view {twice} is there twice; pin one version of it")
        return self
