"""The grammar of filters: beside what MLflow's own parser takes (a recorded table), and what nobody should send."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.tracking import grammars
from flyball.tracking.filters import Comparison, Order, holds, parse_filter, parse_order, parse_order_objects
from flyball.tracking.grammars import (
    EVALUATION_DATASETS,
    EXPERIMENTS,
    LOGGED_MODELS,
    MODEL_VERSIONS,
    REGISTERED_MODELS,
    RUNS,
    TRACES,
    Grammar,
)

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "data/mlflow_filters.json").read_text(encoding="utf-8"))
ALL = ["RUNS", "EXPERIMENTS", "REGISTERED_MODELS", "MODEL_VERSIONS", "LOGGED_MODELS", "TRACES", "EVALUATION_DATASETS"]

# What is taken here and refused there: accidents of MLflow's parser (words of SQL as keys, small letters) or what its
# documents promise (lists of names of traces).
WIDER = {
    "metrics.acc > 1e+5": "as Python writes large numbers",
    "metrics.from > 5": "a word of SQL is a key like others",
    "metrics.1 > 5": "a number is a key like others",
    "last_updated_time < 5": "an alias like creation_time",
    "text LIKE '%x%'": "a word of SQL",
    "timestamp = '5'": "as execution_time_ms = '5'",
}
# What is refused here and taken there: it finds nothing there, or means something else than it says.
NARROWER = {
    "run_id IN ('a' 'b')": "Python joins the two",
    "metrics. > 5": "no key",
    "name IN ()": "an empty list",
    "name = 'b' || 'c'": "taken as one text there",
    "name = UPPER('b')": "taken as the text UPPER('b') there",
    "tags.a-b = 'x'": "a key to be quoted, as for all other entities",
    "tags.a/b = 'x'": "a key to be quoted, as for all other entities",
    "metrics.a > nan": "compares with nothing",
    "lifecycle_stage = 'x'": "deleted models are never found",
    "name RLIKE 'a'": "of a data set: fails in the database unless it is SQLite",
}


def grammar_of(entity: str) -> Grammar:
    found: Grammar = getattr(grammars, entity.upper())
    return found


def read(text: str, grammar: Grammar) -> list[Any] | None:
    try:
        return [[c.kind, c.key, c.operator, c.value] for c in parse_filter(text, grammar)]
    except InvalidInput:
        return None


def as_ours(entity: str, clause: list[Any]) -> list[Any]:
    """Return a clause as MLflow parsed it in our words: kinds, canonical keys, operators in capitals, numbers."""
    kind, key, operator, value = clause
    kinds = {"parameter": "param", "params": "param", "request_metadata": "metadata", "metrics": "metric",
             "tags": "tag", "attributes": "attribute"}  # fmt: skip
    kind, operator = kinds.get(kind, kind), operator.upper()
    renamed = {
        ("tag", "mlflow.traceName"): "name",
        ("metadata", "mlflow.sourceRun"): "run_id",
        ("tag", "mlflow.linkedPrompts"): "prompt",
    }
    if entity == "traces" and (kind, key) in renamed:
        kind, key = "attribute", renamed[kind, key]
    if kind == "attribute":
        key = {"created": "start_time", "Created": "start_time", "run name": "run_name", "Run Name": "run_name"}.get(
            key, key
        )
        key = re.sub("_timestamp_ms$", "_timestamp", key)
    if isinstance(value, list):
        value = tuple(value)
    if kind == "metric":
        value = float(value)
    if isinstance(value, str) and value.isdigit() and key in ("version_number", "execution_time_ms"):
        value = int(value)
    if isinstance(value, str):
        value = value.replace("''", "'")
        if entity == "logged_models" and value.startswith('"'):
            value = value[1:-1]  # MLflow looks for the quotes themselves
    return [kind, key.replace("`", "").strip('"') if kind in ("tag", "span") else key, operator, value]


@pytest.mark.parametrize("entity", [name.lower() for name in ALL])
def test_what_mlflow_takes_and_refuses_is_taken_and_refused_alike(entity: str) -> None:
    rows = [row[1:] for row in TABLE["filters"] if row[0] == entity]
    assert len(rows) > 150
    different = []
    for text, parsed, _ in rows:
        ours = read(text, grammar_of(entity))
        theirs = None if parsed is None else [as_ours(entity, clause) for clause in parsed]
        if ours != theirs:
            different.append((text, ours, theirs))
    for text, ours, theirs in different:
        if ours is None:
            assert text in NARROWER or is_text_compared(entity, text), (text, theirs)
        elif theirs is None:
            assert text in WIDER or is_wider_in_general(entity, text), (text, ours)
        else:
            assert (entity, text) == ("traces", "tags.name = 'x'"), (text, ours, theirs)  # a trace's name there


def is_text_compared(entity: str, text: str) -> bool:
    """Whether texts are compared by < or > there, or a number with a text."""
    ordered = re.search(r"(name|created_by|execution_time_ms|timestamp_ms) *(<|<=|>|>=) *['\"]", text) is not None
    return ordered and entity in ("evaluation_datasets", "traces")


def is_wider_in_general(entity: str, text: str) -> bool:
    """Whether an operator is in small letters, a key in backquotes, or traces are named in a list."""
    listed_names = entity == "traces" and re.search(r"\b(name|run_id) (NOT )?IN \(", text) is not None
    return listed_names or re.search(r"\b(like|ilike|in|rlike)\b", text) is not None or "`" in text


@pytest.mark.parametrize("entity", [name.lower() for name in ALL if name != "LOGGED_MODELS"])
def test_orders_that_mlflow_takes_and_refuses_are_taken_and_refused_alike(entity: str) -> None:
    known = {"metrics.1", "metrics.from"}
    for _, text, refusal in (row for row in TABLE["orders"] if row[0] == entity):
        if text in known or refusal == "AttributeError":
            continue
        try:
            parse_order([text], grammar_of(entity))
            is_taken = True
        except InvalidInput:
            is_taken = False
        assert is_taken == (refusal is None), (text, refusal)


@pytest.mark.parametrize(
    ("grammar", "text", "begin"),
    [
        (RUNS, "params.a = 'x' OR params.b = 'y'", "Invalid clause(s) in filter string: 'OR'"),
        (RUNS, "(params.a = 'x')", "Invalid clause(s) in filter string"),
        (RUNS, "params.acc = 'LR", "Invalid clause(s) in filter string"),
        (RUNS, "tags.acc = = 'LR'", "Invalid clause(s) in filter string"),
        (RUNS, "attribute.status = true", "Invalid clause(s) in filter string"),
        (RUNS, "metric.acc >= 0.94; metrics.rmse < 1", "Search filter contained multiple expression"),
        (RUNS, "m.acc >= 0.94", "Invalid entity type 'm'"),
        (RUNS, "acc >= 0.94", "Invalid attribute key 'acc'"),
        (RUNS, "dataset.status = 'true'", "Invalid dataset key 'status'"),
        (RUNS, "metrics.acc IS NULL", "IS NULL / IS NOT NULL is only supported for tags and params, not for"),
        (RUNS, "metric.model = 'LR'", "Expected numeric value type for metric"),
        (RUNS, "start_time > '5'", "Expected numeric value type for numeric attribute: start_time"),
        (RUNS, "params.acc = 5", "Expected a quoted string value for parameter"),
        (RUNS, "tags.acc = 5", "Expected a quoted string value for tag"),
        (RUNS, "attribute.status = 1", "Expected a quoted string value for attributes"),
        (RUNS, "1.0 > metrics.acc", "Invalid comparison clause. Expected 'Identifier' found '1.0'"),
        (RUNS, "params.acc = LR", "Parameter value is either not quoted or unidentified quote types"),
        (RUNS, "params.acc = `LR`", "Parameter value is either not quoted or unidentified quote types"),
        (RUNS, "metrics.a ~ 1", "Invalid comparator '~'"),
        (RUNS, "start_time LIKE 1234", "Invalid comparator 'LIKE'"),
        (RUNS, "status IN ('x')", "Only ['run_id'] attributes support comparison with a list"),
        (RUNS, "run_id IN ()", "While parsing a list in the query, expected a non-empty list"),
        (RUNS, "run_id IN (1)", "While parsing a list in the query, expected string value"),
        (EXPERIMENTS, "attributes.name = 'x'", "Invalid entity type 'attributes'"),
        (EXPERIMENTS, "experiment_id = 'x'", "Invalid experiment ID 'x'"),
        (EXPERIMENTS, "creation_time > 1.5", "Invalid value for numeric attribute 'creation_time'"),
        (REGISTERED_MODELS, "name = 1", "Expected a quoted string value or a list of quoted string values"),
        (REGISTERED_MODELS, "name > 'a'", "Invalid comparator for attribute: >"),
        (MODEL_VERSIONS, "version_number = 'x'", "Invalid value for numeric attribute 'version_number'"),
        (LOGGED_MODELS, "params.a > 'x'", "Invalid comparison operator for params.a: '>'"),
        (LOGGED_MODELS, "foo.a = 'x'", "Invalid entity type: 'foo'. Expected one of"),
        (TRACES, "span.foo = 'x'", "Invalid span attribute 'foo'"),
        (TRACES, "prompt = 'a'", "Invalid prompts filter value 'a'"),
        (TRACES, "name RLIKE '['", "Invalid regular expression '['"),
        (TRACES, "feedback.a > '0.5'", "Expected a numeric value for feedback"),
        (EVALUATION_DATASETS, "tag.a = 'x'", "Invalid identifier token 'tag'"),
    ],
)
def test_a_refusal_begins_as_mlflows_clients_expect(grammar: Grammar, text: str, begin: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_filter(text, grammar)
    assert str(caught.value).startswith(begin)


TAKEN = [row[1] for row in TABLE["filters"] if row[0] == "runs" and row[2] and read(row[1], RUNS)]


@given(st.lists(st.sampled_from(TAKEN), min_size=1, max_size=4), st.sampled_from([" AND ", " and ", "\n", "\tAnd "]))
def test_filters_that_are_joined_hold_together(texts: list[str], joint: str) -> None:
    parts = [text.removesuffix(" AND").removeprefix("AND ") for text in texts]
    assert read(joint.join(parts), RUNS) == [clause for text in texts for clause in read(text, RUNS) or []]


names = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), min_size=1, max_size=20)


@given(names, names)
def test_any_key_and_any_text_can_be_asked_for_when_their_quotes_are_doubled(key: str, value: str) -> None:
    quoted_key, quoted = key.replace("`", "``"), value.replace("'", "''")
    if quoted.endswith("\\"):
        return  # before the closing quote a backslash may be read as part of the text; double quotes serve then
    expected = (Comparison("param", key, "=", value),)
    if "\\'" not in quoted:
        assert parse_filter(f"params.`{quoted_key}` = '{quoted}'", RUNS) == expected
    assert parse_order([f"params.`{quoted_key}` DESC"], RUNS) == (Order("param", key, False),)


pieces = st.sampled_from(
    ["metrics.a", "params.`b", "`", "'", '"', "''", "\\'", "(", ")", "((", "IN", "NOT", "IS", "NULL", "LIKE", "=", "<",
     "--", "/*", "*/", ";", ",", ".", "..", "x", "5", "-1e", "1e400", " ", "\n", "AND", "OR", "日本", "\x00", "\ud800",
     "$$", "#", "run_id"]
)  # fmt: skip


@settings(max_examples=400)
@given(
    st.one_of(
        st.text(max_size=60), st.lists(pieces, max_size=25).map("".join), st.lists(pieces, max_size=25).map(" ".join)
    )
)
@pytest.mark.parametrize("name", ["RUNS", "LOGGED_MODELS", "TRACES"])
def test_whatever_is_sent_is_read_or_refused_in_words_that_can_be_sent_back(name: str, text: str) -> None:
    for act in (
        lambda: parse_filter(text, getattr(grammars, name)),
        lambda: parse_order([text], getattr(grammars, name)),
    ):
        try:
            act()
        except InvalidInput as refusal:
            assert len(str(refusal).encode()) < 4000 and "\x00" not in str(refusal)


@pytest.mark.parametrize(
    "unit",
    ["(", "a=(", "a IN (", "'\\'", "''", "`", "\"\\\"", "/*", "--", "a.", "a..", "x IN ('a',", "NOT ", "IS NOT ", "1",
     "metrics.a>1 ", "'a\\\\'", "a < ", "1e", "-", "日", "a = 'x' AND ", "``"],
)  # fmt: skip
def test_the_longest_text_takes_no_time_whatever_it_is_made_of(unit: str) -> None:
    text = (unit * 100_000)[:100_000]
    start = time.process_time()
    read(text, RUNS)
    read("'" + text[1:], RUNS)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text", ["params.a = 'x\x00'", "params.a = '\ud800'", "metrics.a > 1" + " " * 100_000])
def test_what_no_text_may_hold_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid filter string"):
        parse_filter(text, RUNS)


def test_a_filter_has_at_most_500_comparisons() -> None:
    assert len(parse_filter(" AND ".join(["metrics.a > 1"] * 500), RUNS)) == 500
    with pytest.raises(InvalidInput, match="501 comparisons"):
        parse_filter(" AND ".join(["metrics.a > 1"] * 501), RUNS)


def test_nothing_is_asked_by_an_empty_filter() -> None:
    assert parse_filter("", RUNS) == parse_filter(None, RUNS) == () == parse_order(None, RUNS) == parse_order([], RUNS)


def test_one_key_is_ordered_by_once() -> None:
    with pytest.raises(InvalidInput, match="duplicate fields"):
        parse_order(["metrics.a", "metrics.a DESC"], RUNS)
    with pytest.raises(InvalidInput, match="duplicate fields"):
        parse_order(["created", "start_time"], RUNS)
    assert len(parse_order(["name", "name DESC"], EXPERIMENTS)) == 2


def test_orders_of_logged_models_are_objects() -> None:
    items: list[dict[str, Any]] = [
        {"field_name": "metrics.acc", "ascending": False, "dataset_name": "iris", "dataset_digest": "d1"},
        {"field_name": "metrics.a.b"},
        {"field_name": "creation_time", "ascending": True},
    ]
    assert parse_order_objects(items, LOGGED_MODELS) == (
        Order("metric", "acc", False, "iris", "d1"),
        Order("metric", "a.b", True),
        Order("attribute", "creation_timestamp", True),
    )
    assert parse_order_objects(None, LOGGED_MODELS) == ()


@pytest.mark.parametrize(
    ("item", "begin"),
    [
        ("name", "`order_by` must be a list of dictionaries"),
        ({}, "`field_name` in the `order_by` clause must be specified"),
        ({"field_name": "params.a"}, "Invalid order by field name: params"),
        ({"field_name": "foo"}, "Invalid order by field name: foo"),
        ({"field_name": "name", "ascending": "yes"}, "Value of `ascending` in the `order_by` clause must be a boolean"),
        (
            {"field_name": "metrics.a", "dataset_digest": "d"},
            "`dataset_digest` can only be specified if `dataset_name`",
        ),
    ],
)
def test_an_object_that_orders_nothing_is_refused(item: Any, begin: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_order_objects([item], LOGGED_MODELS)
    assert str(caught.value).startswith(begin)


@pytest.mark.parametrize(
    ("actual", "operator", "value", "is_held"),
    [
        (0.5, ">", 0.4, True),
        (0.5, "!=", 0.5, False),
        (math.nan, "!=", 0.0, True),
        (math.nan, "=", 0.0, False),
        (math.nan, "<", 1.0, False),
        (None, "!=", "x", False),
        (None, "IS NULL", None, True),
        ("", "IS NULL", None, False),
        ("", "IS NOT NULL", None, True),
        ("Adam", "LIKE", "a%", False),
        ("Adam", "ILIKE", "a%", True),
        ("a", "IN", ("a", "b"), True),
        ("c", "NOT IN", ("a", "b"), True),
        (None, "NOT IN", ("a",), False),
        ("trace-17", "RLIKE", r"\d+$", True),
        ("x", "RLIKE", "^y", False),
    ],
)
def test_one_value_is_judged_as_the_store_judges_it(actual: Any, operator: str, value: Any, is_held: bool) -> None:
    assert holds(actual, Comparison("any", "key", operator, value)) is is_held
