"""What may be done with a promise: it is its value wherever it is used, and an edge wherever it is handed on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from flyball.errors import StepFailed
from flyball.pipelines.graph import Node, Promise, freeze, resolve, thaw
from tests.pipelines import flows


class Ready:
    """An execution whose promises are kept at once."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}
        self.asked = 0

    def call(self, *_: Any) -> Any:
        raise AssertionError("not used")

    def value(self, node: Node, _index: int) -> Any:
        self.asked += 1
        return self.values[node.number]

    def promise(self, value: Any) -> Any:
        number = len(self.values) + 1
        self.values[number] = value
        return Promise(self, Node(number, flows.number, {}, b"", [], [], ""), 0)


@pytest.fixture
def ready() -> Ready:
    return Ready()


USES: list[tuple[Any, Callable[[Any], Any]]] = [
    (3, lambda x: x > 2),
    (3, lambda x: x == 3),
    (3, lambda x: x != 3),
    (3, lambda x: 10 - x),
    (3, lambda x: x**2 + x / 2 - x // 2 + x % 2),
    (3, lambda x: 2 < x < 4),
    (3, lambda x: [10, 11, 12, 13][x]),
    (0, lambda x: "yes" if x else "no"),
    (-3, lambda x: (abs(x), -x, +x, ~x, round(x), int(x), float(x))),
    (0.71234, lambda x: f"{x:.2f} {x}"),
    ([1, 2, 3], lambda x: (len(x), x[1], list(x), 2 in x, [n + 1 for n in x], x[1:])),
    ({"auc": 0.7}, lambda x: (x["auc"], x.get("none"), sorted(x.items()))),
    ("text", lambda x: (x.upper(), x + "s", str(x))),
    (True, lambda x: x & False | x),
    (flows.Report(0.5, 3), lambda x: x.auc),
    (len, lambda x: x([1, 2])),
]


@pytest.mark.parametrize("number", range(len(USES)))
def test_a_promise_is_used_like_its_value(number: int, ready: Ready) -> None:
    value, use = USES[number]
    found = use(ready.promise(value))
    assert found == use(value)
    assert not isinstance(found, Promise)


def test_two_promises_can_be_compared_and_added(ready: Ready) -> None:
    one, two = ready.promise(1), ready.promise(2)
    assert one < two
    assert one + two == 3


def test_a_value_is_fetched_once(ready: Ready) -> None:
    promise = ready.promise(5)
    assert [promise + 1, promise + 2] == [6, 7]
    assert ready.asked == 1


def test_resolve_looks_into_lists_tuples_and_dicts_and_lets_plain_values_pass(ready: Ready) -> None:
    mixed = {"a": [ready.promise(1), 2], "b": (ready.promise("x"),), "c": None}
    assert resolve(mixed) == {"a": [1, 2], "b": ("x",), "c": None}
    assert type(resolve(ready.promise(1))) is int


def test_handing_a_promise_on_does_not_ask_for_its_value(ready: Ready) -> None:
    one, two = ready.promise(1), ready.promise(2)
    data, inputs = freeze("fit", ([one, {"k": two}], 5), {"again": one, "deep": flows.Report(two, 1)})
    assert ready.asked == 0
    assert [node.number for node, _ in inputs] == [1, 2, 1, 2]
    args, kwargs = thaw(data, ["A", "B", "C", "D"])
    assert args == (["A", {"k": "B"}], 5)
    assert kwargs == {"again": "C", "deep": flows.Report("D", 1)}  # type: ignore[arg-type]


def test_a_promise_cannot_be_pickled_by_others(ready: Ready) -> None:
    with pytest.raises(TypeError, match="take its value first"):
        pickle.dumps(ready.promise(1))


def test_an_argument_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(StepFailed, match="step fit: argument model cannot be sent"):
        freeze("fit", (1,), {"model": lambda: 1})


def test_a_step_can_be_handed_to_a_step() -> None:
    args, _ = thaw(*freeze("fit", (flows.number,), {}))
    assert args == (flows.number,)


def test_a_promise_says_what_it_is_without_waiting(ready: Ready) -> None:
    assert repr(ready.promise(1)) == "<promise of number: waiting>"
    assert ready.asked == 0
