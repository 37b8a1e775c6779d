"""The kinds of the data room: Dataset, Labels (what people say of its rows), DataProduct (what a team answers for)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from flyball.clock import parse_duration
from flyball.data.sources._spelling import check_source
from flyball.ledger.kinds import RefersTo, Spec, register

__all__ = ["ColumnNotes", "DataProduct", "Dataset", "InputPort", "Labels", "OutputPort", "ServiceLevel", "Source"]


class Source(Spec):
    """Where new rows are read from when nobody hands them over: one of files, sql, url, delta, topic.

    Any text may hold `${NAME}`, which stands for an environment variable at the time of reading; a password or another
    secret must be given so.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # the input may be what is refused: a password

    files: str | None = Field(
        None,
        description="path or glob of CSV, Parquet, JSON or Arrow files, relative to the project; or s3://bucket/key",
    )
    sql: str | None = Field(None, description="a database: postgresql://user:${PASSWORD}@host/name, sqlite:path")
    table: str | None = Field(None, description="of sql: the table to read")
    query: str | None = Field(None, description="of sql: one SELECT to read instead of a table")
    parameters: dict[str, Any] = Field(default_factory=dict, description="values that are bound to the query's names")
    url: str | None = Field(None, description="a file or a JSON API at http:// or https://")
    delta: str | None = Field(None, description="a Delta table: a path relative to the project, or s3://bucket/key")
    topic: str | None = Field(None, description="a Kafka topic: kafka://host:port/topic")
    format: str | None = Field(None, description="csv, parquet, json, ndjson or arrow, where the name does not tell")
    watermark: str | None = Field(None, description="column that grows: only rows beyond its last value are read again")
    lag: str | None = Field(
        None, description="how late rows may come behind the watermark, such as 1h; those are read again, by key"
    )
    max_age: str | None = Field(None, description="how old the newest data may be, such as 1d; checked before reading")
    options: dict[str, Any] = Field(default_factory=dict, description="what else this kind of source understands")

    @model_validator(mode="after")
    def _is_one_source(self) -> Source:
        check_source(self)
        return self


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
    subject: str | None = Field(
        None, description="column that names the person whom a row is about; erasure goes by it"
    )
    purposes: list[str] = Field(default_factory=list, description="what it may be read for; empty: anything")
    residency: str | None = Field(None, description="the region that its bytes must stay in")
    retention: str | None = Field(None, description="how long rows are kept after their event time, such as 400d")


@register
class Labels(Spec):
    """What people say of items (rows, entities, predictions): several may label one, later labels correct earlier."""

    description: str = ""
    owner: str | None = Field(None, description="who answers for it: user/alice, team/flights")
    domain: str | None = Field(None, description="the part of the business that it belongs to")
    tags: list[str] = Field(default_factory=list)
    dataset: Annotated[str, RefersTo("dataset")] | None = Field(None, description="whose rows are labelled")
    key: list[str] = Field(min_length=1, description="columns that name an item, the same as in the dataset")
    values: list[bool | int | float | str] = Field(
        default_factory=list, description="what may be said; empty: anything"
    )
    ordered: bool = Field(False, description="the values stand in order: near ones disagree less")
    policy: Literal["majority", "latest", "expert", "unanimous", "weighted"] = Field(
        "majority", description="what holds when labellers differ; weighted: by how often each agrees with the others"
    )
    experts: list[str] = Field(
        default_factory=list, description="labellers who decide what the policy leaves open, the first who labelled it"
    )
    needed: int = Field(1, ge=1, description="labellers who must have labelled an item before it has a label")
    unknown_keys: Literal["refuse", "keep", "drop"] = Field(
        "refuse", description="labels of items that the dataset's newest version does not have"
    )

    @model_validator(mode="after")
    def _can_be_resolved(self) -> Labels:
        if self.policy == "expert" and not self.experts:
            raise ValueError("the policy is expert and no expert is named; list them under experts")
        if len(set(map(repr, self.values))) < len(self.values) or len(set(self.key)) < len(self.key):
            raise ValueError("a value or a key column is listed twice; remove one")
        if self.ordered and not self.values:
            raise ValueError("ordered needs values, from the lowest to the highest")
        return self


Measure = Literal["freshness", "latency", "completeness", "availability", "row_count"]


class ServiceLevel(Spec):
    """One promise about an output port. Durations are written 2h or 1d, shares 0.99."""

    measure: Measure
    port: str | None = Field(None, description="an output port; default: all of them")
    at_least: float | None = Field(None, description="of completeness, availability and row_count")
    at_most: str | float | None = Field(None, description="of freshness and latency, a duration; of row_count, rows")
    within: str = Field("30d", description="the time that completeness, availability and latency look back")
    every: str | None = Field(None, description="of availability: a version must never be older than this")

    @model_validator(mode="after")
    def _promises_something(self) -> ServiceLevel:
        is_time = self.measure in ("freshness", "latency")
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"{self.measure} promises nothing; give {'at_most: 2h' if is_time else 'at_least'}")
        if is_time and (self.at_least is not None or not isinstance(self.at_most, str)):
            raise ValueError(f"{self.measure} is a duration; write at_most: 2h and no at_least")
        is_share = self.measure in ("completeness", "availability")
        if is_share and (self.at_most is not None or not 0 <= (self.at_least or 0) <= 1):
            raise ValueError(f"{self.measure} is a share; write at_least between 0 and 1 and no at_most")
        if self.measure == "row_count" and isinstance(self.at_most, str):
            raise ValueError("row_count is a number of rows; write at_most without quotes")
        if (self.measure == "availability") != (self.every is not None):
            raise ValueError("availability, and only it, needs every: how old a version may become, such as 1d")
        for duration in (self.within, self.every, self.at_most if is_time else None):
            if isinstance(duration, str):
                parse_duration(duration)
        return self


class InputPort(Spec):
    """What a product is made of."""

    name: str
    version: str = ""
    contract: str = Field("", description="id of the contract that the product counts on")
    dataset: Annotated[str, RefersTo("dataset")] | None = None
    product: Annotated[str, RefersTo("data-product")] | None = Field(None, description="another product it comes from")
    more: dict[str, Any] = Field(default_factory=dict, description="what else ODPS says of the port")


class OutputPort(Spec):
    """What a product gives."""

    name: str
    version: str = ""
    contract: str = Field("", description="id of the contract that the port keeps")
    dataset: Annotated[str, RefersTo("dataset")] | None = None
    description: str = ""
    type: str = Field("", description="how it is read: tables, files, topic")
    more: dict[str, Any] = Field(default_factory=dict, description="what else ODPS says of the port")


@register
class DataProduct(Spec):
    """Data that a team answers for. Its lifecycle (proposed … retired) is in the status; `flyball product` moves it."""

    id: str = ""
    label: str = Field("", description="its name for people")
    version: str = ""
    description: str = ""
    purpose: str = ""
    limitations: str = ""
    usage: str = ""
    owner: str | None = Field(None, description="who answers for it: user/alice, team/flights")
    domain: str | None = Field(None, description="the part of the business that it belongs to")
    tags: list[str] = Field(default_factory=list)
    inputs: list[InputPort] = Field(default_factory=list)
    outputs: list[OutputPort] = Field(default_factory=list)
    support: list[dict[str, Any]] = Field(default_factory=list, description="channels, as ODPS has them")
    team: dict[str, Any] = Field(default_factory=dict, description="name and members, as ODPS has them")
    levels: list[ServiceLevel] = Field(default_factory=list, description="service levels, measured")
    more: dict[str, Any] = Field(default_factory=dict, description="what else its ODPS document says")

    @model_validator(mode="after")
    def _ports_have_names(self) -> DataProduct:
        keys = {"input": [(p.name, p.version) for p in self.inputs]}
        keys["output"] = [(p.name, p.version) for p in self.outputs]
        for what, names in keys.items():
            if len(set(names)) < len(names):
                raise ValueError(
                    f"two {what} ports have the same name and version; the standard tells them apart by it"
                )
        known = {p.name for p in self.outputs}
        for level in self.levels:
            if level.port is not None and level.port not in known:
                raise ValueError(f"{level.measure} is promised of the port {level.port!r}, which is no output port")
        return self
