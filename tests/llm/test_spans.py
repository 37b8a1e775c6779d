"""Spans as they are kept, and what they say of a whole trace."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from flyball.llm.conventions import in_our_words
from flyball.llm.previews import preview
from flyball.llm.spans import Span, SpanEvent, SpanLink, read_span
from flyball.llm.usage import cost_of, usage_of

_TEXT = some.text(some.characters(exclude_categories=["Cs"]), max_size=20)
_JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | _TEXT,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(_TEXT, some.dictionaries(_TEXT, _JSON, max_size=4), some.integers(0, (1 << 64) - 1))
def test_a_span_is_read_as_it_was_written(name: str, attributes: dict[str, object], at: int) -> None:
    event, link = SpanEvent(name, at, {"k": 1}), SpanLink("ab" * 16, "cd" * 8, {"l": "x"})
    span = Span("12" * 16, "34" * 8, name, at, at, None, "ERROR", name, attributes, (event,), (link,))
    assert "\n" not in span.text()
    assert read_span(span.text()) == span


def _span(id: int, parent: int | None, **said: object) -> Span:
    names = {"usage": "mlflow.chat.tokenUsage", "cost": "mlflow.llm.cost"}
    above = None if parent is None else f"{parent:016x}"
    return Span("1" * 32, f"{id:016x}", "s", 0, parent=above, attributes={names[k]: v for k, v in said.items()})


def test_what_a_parent_sums_up_is_counted_once() -> None:
    usage = {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}
    leaves = [_span(number, 1, usage=usage, cost={"total_cost": 0.5}) for number in (2, 3)]
    assert usage_of([_span(1, None), *leaves]) == {"input_tokens": 4, "output_tokens": 6, "total_tokens": 10}
    parent = _span(1, None, usage={**usage, "total_tokens": 10})
    assert usage_of([parent, *leaves]) == {**usage, "total_tokens": 10}
    assert cost_of([parent, *leaves]) == {"input_cost": 0, "output_cost": 0, "total_cost": 1.0}
    assert usage_of([_span(1, None)]) is None


def test_a_circle_of_spans_ends() -> None:
    assert usage_of([_span(1, 2, usage={"total_tokens": 1}), _span(2, 1)]) is None
    assert usage_of([_span(1, 1, usage={"total_tokens": 1})]) == {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 1,
    }


def test_hundred_thousand_spans_in_a_row_are_summed() -> None:
    chain = [_span(number, number - 1 or None) for number in range(1, 100_000)]
    assert usage_of([*chain, _span(100_000, 99_999, usage={"total_tokens": 7})]) == {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 7,
    }


def test_numbers_that_are_none_count_as_nothing() -> None:
    odd = {"input_tokens": "many", "output_tokens": 1 << 70, "total_tokens": True}
    assert usage_of([_span(1, None, usage=odd)]) == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert cost_of([_span(1, None, cost={"total_cost": float("inf")})]) == {
        "input_cost": 0,
        "output_cost": 0,
        "total_cost": 0,
    }


def test_other_conventions_are_understood() -> None:
    found = in_our_words(
        {
            "openinference.span.kind": "LLM",
            "llm.token_count.prompt": 3,
            "llm.token_count.completion": "4",
            "llm.model_name": "m",
            "input.value": '{"q": 1}',
        }
    )
    assert found["mlflow.spanType"] == "LLM"
    assert found["mlflow.chat.tokenUsage"] == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert (found["mlflow.llm.model"], found["mlflow.spanInputs"]) == ("m", {"q": 1})
    kept = in_our_words({"mlflow.spanType": "TOOL", "openinference.span.kind": "LLM"})
    assert kept["mlflow.spanType"] == "TOOL"


def test_a_preview_is_the_last_message_or_the_value() -> None:
    chat = {"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}
    assert preview(chat, "user") == "one"
    assert (
        preview({"choices": [{"message": {"role": "assistant", "content": [{"type": "text", "text": "t"}]}}]}, "x")
        == "t"
    )
    assert preview({"a": 1}, "user") == '{"a": 1}'
    assert preview("x" * 2000, "user") == '"' + "x" * 996 + "..."
