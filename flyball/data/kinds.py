"""The kind Dataset: where a table comes from, what its columns mean, and the contract that guards it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from flyball.ledger.kinds import Spec, register

__all__ = ["ColumnNotes", "Dataset", "Source"]


class Source(Spec):
    """Where new rows are read from when nobody hands them over."""

    files: str = Field(description="path or glob of CSV, Parquet, JSON or Arrow files, relative to the project")


class ColumnNotes(Spec):
    """What people know of a column. The same fields of the contract's property hold where this says nothing."""

    description: str = ""
    classification: str | None = Field(None, description="public, internal, confidential, personal, sensitive, secret…")
    tags: list[str] = Field(default_factory=list)


@register
class Dataset(Spec):
    """A versioned table."""

    description: str = ""
    owner: str | None = Field(None, description="who answers for it: user/alice, team/flights")
    domain: str | None = Field(None, description="the part of the business that it belongs to")
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
    key: list[str] = Field(default_factory=list, description="columns that name a row; upsert and diff go by them")
    columns: dict[str, ColumnNotes] = Field(default_factory=dict, description="notes on columns, by name")
    subject: str | None = Field(None, description="column that names the person whom a row is about; erasure goes by it")
    purposes: list[str] = Field(default_factory=list, description="what it may be read for; empty: anything")
    residency: str | None = Field(None, description="the region that its bytes must stay in")
    retention: str | None = Field(None, description="how long rows are kept after their event time, such as 400d")
