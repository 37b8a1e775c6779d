"""What each entity that MLflow's clients search has: its names, their other spellings, operators and types.

Source: PROTOCOLS.md §2.5; names and operators are those that MLflow 3.17 accepts, where its own code paths differ the
wider ones. To make a field searchable, add it here; what looks it up meets it as a `Comparison`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.tracking.clauses import shown

__all__ = [
    "EVALUATION_DATASETS", "EXPERIMENTS", "LOGGED_MODELS", "MODEL_VERSIONS", "REGISTERED_MODELS", "RUNS", "TRACES",
    "Field", "Grammar", "Keys", "Type", "unknown",
]  # fmt: skip

Type = Literal["text", "pattern", "number", "integer", "id", "score", "prompt"]
"""Of a field: text; text that may be written bare; a number; a whole one; a decimal id; text or, ordered, a number;
a prompt's `name/version`."""


@dataclass(frozen=True, slots=True)
class Field:
    """What may stand to the left of an operator, with the operators and the sort of value that it takes."""

    kind: str
    key: str
    type: Type
    operators: frozenset[str]
    is_number_quoted: bool = False  # '5' is taken for 5


@dataclass(frozen=True, slots=True)
class Keys:
    """The fields of one kind: any key has `type` and `operators`, unless `fields` names them all.

    A key that begins with `open` may be any beside those. `noun` and `what` are how messages name kind and key.
    """

    noun: str
    type: Type
    operators: frozenset[str]
    fields: Mapping[str, Field] | None = None
    open: str | None = None
    what: str = "key"


@dataclass(frozen=True)
class Grammar:
    """What an entity can be searched and ordered by.

    Attributes:
        prefixes: the kind that each spelling before the dot means.
        attributes: fields by each of their spellings, which need no prefix.
        kinds: the fields of the other kinds.
        orders: kind and key by each spelling of an attribute to order by.
        order_kinds: the other kinds to order by.
        nullable: nouns that IS NULL may ask of, as the refusal says it; empty: it names the operators instead.
        bad_prefix, bad_operator, bad_order: how refusals begin.
        is_order_repeatable: whether one key may be ordered by twice.
    """

    prefixes: Mapping[str, str]
    attributes: Mapping[str, Field]
    kinds: Mapping[str, Keys]
    orders: Mapping[str, tuple[str, str]]
    order_kinds: frozenset[str] = frozenset()
    nullable: str = ""
    bad_prefix: str = "Invalid entity type '{prefix}'. Valid values are"
    bad_operator: str = "Invalid comparator '{operator}' not one of"
    bad_order: str = "Invalid attribute key '{key}' specified. Valid keys are"
    is_order_repeatable: bool = False

    def field(self, kind: str, key: str) -> Field:
        """Return a field. Raises InvalidInput when the entity has none of that name."""
        if kind == "attribute":
            if key not in self.attributes:
                raise InvalidInput(
                    unknown("Invalid attribute key '{key}' specified. Valid keys are", key, self.attributes)
                )
            return self.attributes[key]
        keys = self.kinds[kind]
        if keys.fields is not None and key in keys.fields:
            return keys.fields[key]
        if keys.fields is not None and (keys.open is None or not key.startswith(keys.open)):
            known = [*keys.fields, *([f"{keys.open}<name>"] if keys.open else [])]
            raise InvalidInput(
                unknown(f"Invalid {keys.noun} {keys.what} '{{key}}' specified. Valid keys are", key, known)
            )
        return Field(kind, key, keys.type, keys.operators)

    def noun(self, kind: str) -> str:
        """Return what messages call a kind."""
        return "attribute" if kind == "attribute" else self.kinds[kind].noun


def unknown(begin: str, name: str, known: Iterable[str], what: str = "key") -> str:
    """Return the sentence of a refused name: `begin` with {key} filled in, what is known, and the nearest of it."""
    spellings = list(known)
    return f"{begin.format(**{what: shown(name)})} {listed(spellings, 20)}{did_you_mean(shown(name), spellings)}"


_NUMERIC = frozenset({"=", "!=", ">", ">=", "<", "<="})
_TEXT = frozenset({"=", "!=", "LIKE", "ILIKE"})
_LISTED = _TEXT | {"IN", "NOT IN"}
_NULLABLE = _TEXT | {"IS NULL", "IS NOT NULL"}
_MATCHED = _TEXT | {"RLIKE"}
_FOUND = _MATCHED | {"IS NULL", "IS NOT NULL"}


def _attributes(
    names: str, type: Type, operators: frozenset[str], *, is_number_quoted: bool = False
) -> dict[str, Field]:
    return {n: Field("attribute", n, type, operators, is_number_quoted) for n in names.split()}


def _with_aliases(fields: Mapping[str, Field], aliases: Mapping[str, str]) -> dict[str, Field]:
    return {**fields, **{alias: fields[name] for alias, name in aliases.items()}}


def _orders(names: str, aliases: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    places = {name: ("attribute", name) for name in names.split()}
    return {**places, **{alias: ("attribute", name) for alias, name in (aliases or {}).items()}}


def _prefixes(**spellings: Iterable[str]) -> dict[str, str]:
    return {spelling: kind for kind, all_of_it in spellings.items() for spelling in all_of_it}


_CREATED = {"created": "start_time", "Created": "start_time"}
_RUN_NAMES = {"run name": "run_name", "Run name": "run_name", "Run Name": "run_name"}
RUNS = Grammar(
    prefixes=_prefixes(
        metric=("metric", "metrics"), param=("parameter", "parameters", "param", "params"), tag=("tag", "tags"),
        attribute=("attribute", "attributes", "attr", "run"), dataset=("dataset", "datasets"),
    ),
    attributes=_with_aliases(
        _attributes("artifact_uri run_name status user_id", "text", _TEXT)
        | _attributes("run_id", "text", _LISTED)
        | _attributes("start_time end_time", "number", _NUMERIC),
        _CREATED | _RUN_NAMES,
    ),
    kinds={
        "metric": Keys("metric", "number", _NUMERIC),
        "param": Keys("parameter", "text", _NULLABLE),
        "tag": Keys("tag", "text", _NULLABLE),
        "dataset": Keys(
            "dataset", "text", _LISTED, {n: Field("dataset", n, "text", _LISTED) for n in ("name", "digest", "context")}
        ),
    },
    orders=_orders("artifact_uri run_name status user_id run_id start_time end_time", _CREATED),
    order_kinds=frozenset({"metric", "param", "tag"}),
    nullable="tags and params",
)  # fmt: skip

_BY_ATTRIBUTE_OR_TAG = _prefixes(attribute=("attribute",), tag=("tag", "tags"))
EXPERIMENTS = Grammar(
    prefixes=_BY_ATTRIBUTE_OR_TAG,
    attributes=_attributes("name", "text", _TEXT)
    | _attributes("experiment_id", "id", frozenset({"=", "!=", "IN", "NOT IN"}))
    | _attributes("creation_time last_update_time", "integer", _NUMERIC),
    kinds={"tag": Keys("tag", "text", _NULLABLE)},
    orders=_orders("name experiment_id creation_time last_update_time"),
    nullable="tags",
    is_order_repeatable=True,
)

REGISTERED_MODELS = Grammar(
    prefixes=_BY_ATTRIBUTE_OR_TAG,
    attributes=_attributes("name", "text", _LISTED),
    kinds={"tag": Keys("tag", "text", _TEXT)},
    orders=_orders("name last_updated_timestamp", {"timestamp": "last_updated_timestamp"}),
    bad_operator="Invalid comparator for {noun}: {operator}. Expected one of",
    bad_order="Invalid order by key '{key}' specified. Valid keys are",
)

MODEL_VERSIONS = Grammar(
    prefixes=_BY_ATTRIBUTE_OR_TAG,
    attributes=_attributes("name run_id", "text", _LISTED)
    | _attributes("source_path", "text", _TEXT)
    | _attributes("version_number", "integer", _NUMERIC, is_number_quoted=True),
    kinds={"tag": Keys("tag", "text", _TEXT)},
    orders=_orders("name version_number creation_timestamp last_updated_timestamp"),
    bad_operator="Invalid comparator for {noun}: {operator}. Expected one of",
)

_MODEL_TIMES = {
    "creation_time": "creation_timestamp", "creation_timestamp_ms": "creation_timestamp",
    "last_updated_time": "last_updated_timestamp", "last_updated_timestamp_ms": "last_updated_timestamp",
}  # fmt: skip
_MODEL_TEXTS = "name model_id model_type status status_message source_run_id experiment_id artifact_location"
LOGGED_MODELS = Grammar(
    prefixes=_prefixes(attribute=("attributes",), metric=("metrics",), param=("params",), tag=("tags",)),
    attributes=_with_aliases(
        _attributes(_MODEL_TEXTS, "pattern", _LISTED)
        | _attributes("creation_timestamp last_updated_timestamp", "number", _NUMERIC),
        _MODEL_TIMES,
    ),
    kinds={
        "metric": Keys("metrics", "number", _NUMERIC),
        "param": Keys("params", "pattern", _LISTED),
        "tag": Keys("tags", "pattern", _LISTED),
    },
    orders=_orders(f"{_MODEL_TEXTS} creation_timestamp last_updated_timestamp", _MODEL_TIMES),
    order_kinds=frozenset({"metric"}),
    bad_prefix="Invalid entity type: '{prefix}'. Expected one of",
    bad_operator="Invalid comparison operator for {name}: '{operator}'. Expected one of",
    is_order_repeatable=True,
)

_TRACE_TIMES = {"timestamp": "timestamp_ms", "execution_time": "execution_time_ms", "end_time": "end_time_ms"}
_SPAN = _MATCHED | {"IN", "NOT IN"}
_CONTENT = Field("span", "content", "text", frozenset({"LIKE", "ILIKE"}))
_SCORED = _FOUND | {">", ">=", "<", "<="}
TRACES = Grammar(
    prefixes=_prefixes(
        attribute=("attribute", "attributes", "trace"), tag=("tag", "tags"), metadata=("metadata", "request_metadata"),
        span=("span",), feedback=("feedback",), expectation=("expectation",), issue=("issue",),
    ),
    attributes=_with_aliases(
        _attributes("status request_id client_request_id", "text", _SPAN)
        | _attributes("name run_id", "text", _SPAN | {"IS NULL", "IS NOT NULL"})
        | _attributes("prompt", "prompt", frozenset({"="}))
        | _attributes("timestamp_ms execution_time_ms end_time_ms", "number", _NUMERIC, is_number_quoted=True)
        | {"text": _CONTENT},
        _TRACE_TIMES,
    ),
    kinds={
        "tag": Keys("tag", "text", _FOUND),
        "metadata": Keys("request_metadata", "text", _FOUND),
        "span": Keys(
            "span", "text", _SPAN,
            {n: Field("span", n, "text", _SPAN) for n in ("name", "type", "status")} | {"content": _CONTENT},
            open="attributes.", what="attribute",
        ),
        "feedback": Keys("feedback", "score", _SCORED),
        "expectation": Keys("expectation", "score", _SCORED),
        "issue": Keys("issue", "text", frozenset({"="}), {"id": Field("issue", "id", "text", frozenset({"="}))}),
    },
    orders=_orders(
        "experiment_id timestamp_ms execution_time_ms end_time_ms status request_id name run_id", _TRACE_TIMES
    ),
    order_kinds=frozenset({"tag", "metadata"}),
)  # fmt: skip

EVALUATION_DATASETS = Grammar(
    prefixes={"tags": "tag"},
    attributes=_attributes("name", "text", _TEXT | {"IN"})
    | _attributes("created_by last_updated_by", "text", _TEXT)
    | _attributes("created_time last_update_time", "integer", _NUMERIC),
    kinds={"tag": Keys("tag", "text", _TEXT)},
    orders=_orders("name created_time last_update_time"),
    bad_prefix="Invalid identifier token '{prefix}' specified. Valid tokens are",
    bad_operator="Invalid comparator for {noun}: {operator}. Expected one of",
    is_order_repeatable=True,
)
