"""The kind FeatureView: a feature, defined once for training and for serving."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from flyball.ledger.kinds import RefersTo, Spec, register

__all__ = ["FeatureView"]


@register
class FeatureView(Spec):
    """A declared view; `definition` is its light description, which travels with models that use it."""

    description: str = ""
    dataset: Annotated[str, RefersTo("dataset")] | None = Field(None, description="what it is computed from")
    function: str = Field("", description="file.py:name or module:name of the decorated function")
    definition: dict[str, Any] = Field(description="name, entity, ttl, features: what look-ups need")
    tags: list[str] = Field(default_factory=list)
