"""Requests joined into calls of a model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flyball.errors import FlyballError, InvalidInput, StepFailed, Unavailable
from flyball.serving.batcher import INLINE_S, Batcher, Columns, Estimate

Outcome = Columns | FlyballError


class Doubling:
    """A model whose calls are recorded; 13 is unlucky; `gate` holds it up."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.threads: list[threading.Thread] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, columns: Columns) -> Columns:
        self.entered.set()
        assert self.gate.wait(20)
        self.threads.append(threading.current_thread())
        self.calls.append(len(columns["x"]))
        if (columns["x"] == 13).any():
            raise ValueError("13")
        return {"y": columns["x"] * 2}


def ask(batcher: Batcher, values: list[float], dtype: str = "f8") -> asyncio.Future[Outcome]:
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def done(outputs: Columns | None, error: FlyballError | None) -> None:
        future.set_result(error if outputs is None else outputs)  # type: ignore[arg-type]

    batcher.submit({"x": np.array(values, dtype)}, len(values), done)
    return future


def quick(batcher: Batcher) -> None:
    """Let a batcher believe that its model is quick."""
    batcher.estimate.fixed_s, batcher.estimate.row_s = 0.0, 0.0


def run(scene: Callable[[Doubling], Any]) -> None:
    asyncio.run(scene(Doubling()))


def test_what_arrives_in_one_turn_of_the_loop_is_one_call_on_the_loop() -> None:
    async def scene(model: Doubling) -> None:
        batcher = Batcher(model, "m@1")
        quick(batcher)
        answers = await asyncio.gather(*(ask(batcher, [n, -n]) for n in range(20, 30)))
        assert [a["y"].tolist() for a in answers] == [[2 * n, -2 * n] for n in range(20, 30)]  # type: ignore[call-overload,index]
        assert model.calls == [20]
        assert model.threads == [threading.current_thread()]
        assert batcher.waiting_rows == 0

    run(scene)


def test_what_arrives_while_a_slow_model_computes_is_its_next_call() -> None:
    async def scene(model: Doubling) -> None:
        batcher = Batcher(model, "m@1")
        model.gate.clear()
        first = ask(batcher, [1])
        await asyncio.to_thread(model.entered.wait, 20)  # the loop lives while the model computes
        later = [ask(batcher, [n]) for n in (2, 3, 4)]
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(first, *later)
        assert model.calls == [1, 3]
        assert model.threads[0] is not threading.current_thread()
        batcher.close()

    run(scene)


@pytest.mark.parametrize("is_quick", [True, False])
def test_a_request_that_fails_spoils_nothing_for_its_neighbours(is_quick: bool) -> None:
    async def scene(model: Doubling) -> None:
        batcher = Batcher(model, "m@1")
        if is_quick:
            quick(batcher)
        good, bad, other = await asyncio.gather(ask(batcher, [1]), ask(batcher, [12, 13]), ask(batcher, [2]))
        assert good["y"].tolist() == [2]  # type: ignore[index]
        assert other["y"].tolist() == [4]  # type: ignore[index]
        assert isinstance(bad, StepFailed)
        assert "m@1 failed on this request (ValueError: 13)" in str(bad)
        assert batcher.waiting_rows == 0
        batcher.close()

    run(scene)


def test_columns_of_different_types_are_never_joined() -> None:
    async def scene(model: Doubling) -> None:
        batcher = Batcher(model, "m@1")
        quick(batcher)
        whole, fraction = await asyncio.gather(ask(batcher, [2**53 + 1], "i8"), ask(batcher, [0.5]))
        assert whole["y"].tolist() == [2 * (2**53 + 1)]  # type: ignore[index]
        assert fraction["y"].tolist() == [1.0]  # type: ignore[index]

    run(scene)


def test_a_large_request_is_cut_and_others_get_their_turn_between() -> None:
    async def scene(model: Doubling) -> None:
        batcher = Batcher(model, "m@1", batch_rows=10)
        quick(batcher)
        order: list[str] = []
        large, small = ask(batcher, [float(n) for n in range(20, 65)]), ask(batcher, [1])
        large.add_done_callback(lambda _: order.append("large"))
        small.add_done_callback(lambda _: order.append("small"))
        answers = await asyncio.gather(large, small)
        await asyncio.sleep(0)
        assert answers[0]["y"].tolist() == [2.0 * n for n in range(20, 65)]  # type: ignore[index]
        assert order == ["small", "large"]
        assert max(model.calls) <= 10

    run(scene)


def test_a_full_queue_refuses_and_says_how_full_it_is() -> None:
    async def scene(model: Doubling) -> None:
        batcher = Batcher(model, "m@1", queue_rows=4)
        model.gate.clear()
        kept = [ask(batcher, [1, 2]), ask(batcher, [3, 4])]
        with pytest.raises(Unavailable, match=r"the queue is full: 4 rows wait for m@1 and at most 4 may"):
            ask(batcher, [5])
        model.gate.set()
        await asyncio.gather(*kept)
        large = await ask(batcher, [1.0] * 9)  # more than the queue holds, yet nothing waits: it is served
        assert len(large["y"]) == 9  # type: ignore[index]
        batcher.close()

    run(scene)


def test_a_model_that_answers_too_few_rows_is_at_fault() -> None:
    async def scene(_: Doubling) -> None:
        batcher = Batcher(lambda columns: {"y": columns["x"][:1]}, "m@1")
        answer = await ask(batcher, [1, 2])
        assert 'gave 1 values of its output "y" for 2 rows' in str(answer)
        batcher.close()

    run(scene)


def test_flyballs_own_errors_pass_unchanged() -> None:
    async def scene(_: Doubling) -> None:
        def refuse(_: Columns) -> Columns:
            raise InvalidInput("no")

        batcher = Batcher(refuse, "m@1")
        assert isinstance(await ask(batcher, [1]), InvalidInput)
        batcher.close()

    run(scene)


def test_a_model_of_fixed_size_gets_each_request_whole_and_alone() -> None:
    async def scene(model: Doubling) -> None:
        batcher = Batcher(model, "m@1", batch_rows=2, is_joinable=False)
        quick(batcher)
        await asyncio.gather(ask(batcher, [1, 2, 3]), ask(batcher, [4]))
        assert model.calls == [3, 1]

    run(scene)


def test_the_estimate_leaves_and_finds_the_inline_way() -> None:
    estimate = Estimate()
    assert estimate.seconds(1) > INLINE_S
    for _ in range(20):
        estimate.observe(1, 0.0004)
        estimate.observe(100, 0.0014)
    assert estimate.seconds(1) < INLINE_S
    assert estimate.seconds(100) == pytest.approx(0.0014, rel=0.2)
    estimate.observe(1, 1.0)
    assert estimate.seconds(1) > INLINE_S
