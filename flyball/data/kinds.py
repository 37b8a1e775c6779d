"""The kind Dataset: where a table comes from, what its columns mean, and the contract that guards it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from flyball.ledger.kinds import Spec, register

__all__ = ["Dataset", "Source"]


class Source(Spec):
    """Where new rows are read from when nobody hands them over."""

    files: str = Field(description="path or glob of CSV, Parquet, JSON or Arrow files, relative to the project")


@register
class Dataset(Spec):
    """A versioned table."""

    description: str = ""
    source: Source | None = None
    event_time: str | None = Field(None, description="column: when the row was true; splits and windows go by it")
    known_at: str | None = Field(None, description="column: when the row arrived; default: the event time")
    target: str | None = Field(None, description="column that models learn to predict")
    label_time: str | None = Field(None, description="column: when the target became known")
    entity: list[str] = Field(default_factory=list, description="columns that name what the row is about")
    contract: str | dict[str, Any] | None = Field(None, description="ODCS document, or the path of one")
    on_failure: Literal["quarantine", "split"] = Field(
        "quarantine", description="a failing batch is kept aside whole, or only its failing rows are"
    )
    tags: list[str] = Field(default_factory=list)
