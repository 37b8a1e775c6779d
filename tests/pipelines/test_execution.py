"""Pipelines over a real pool: what runs, in what order, how often; and what happens when something goes wrong."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyball.errors import InvalidInput
from flyball.ledger.runs import Run
from flyball.pipelines.steps import pipeline, step
from tests.pipelines import flows
from tests.pipelines.conftest import Bench
from tests.pipelines.flows import marks


def wait_until(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come to pass")


def in_background(act: Callable[[], Run]) -> tuple[threading.Thread, list[Run]]:
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    return thread, found


def test_called_directly_a_pipeline_is_a_plain_function(folder: Path) -> None:
    assert flows.fan_in(str(folder), count=4) == 0 + 10 + 20 + 30 - 4
    assert flows.typed(11) == 5.0
    assert flows.together.name == "together"


def test_a_run_comes_to_the_same_as_a_plain_call_and_keeps_its_graph(bench: Bench, folder: Path) -> None:
    run = bench.run(flows.fan_in, folder=str(folder), count=4)
    assert (run.status, run.error, run.result["value"]) == ("succeeded", None, 56)
    graph = run.result["graph"]
    assert [s["name"] for s in graph["steps"]] == ["both", *["number"] * 4, "total"]
    assert graph["edges"] == [[1, 6], [2, 6], [3, 6], [4, 6], [5, 6]]
    steps = bench.steps(run).values()
    assert {s.status for s in steps} == {"succeeded"}
    assert {s.id for s in steps} == {s["run"] for s in graph["steps"]}
    assert bench.step(run, "number").params["x"] in range(4)


def test_frames_and_objects_pass_from_step_to_step_and_can_be_used_as_values(bench: Bench) -> None:
    run = bench.run(flows.typed, rows=5_000)
    assert run.error is None
    assert run.result["value"] == 2499.5


def test_steps_run_at_the_same_time(bench: Bench, folder: Path) -> None:
    assert bench.run(flows.together, folder=str(folder)).result["value"] == "ab"


def test_a_step_that_wants_more_processors_than_there_are_runs_alone(bench: Bench, folder: Path) -> None:
    assert bench.run(flows.one_by_one, folder=str(folder)).result["value"] is True


def test_a_second_run_repeats_nothing_and_has_the_same_digests(bench: Bench, folder: Path) -> None:
    first = bench.run(flows.fan_in, folder=str(folder))
    second = bench.run(flows.fan_in, folder=str(folder))
    assert second.result["value"] == first.result["value"]
    assert marks(folder, "total") == 1
    assert [marks(folder, f"number-{n}") for n in range(4)] == [1] * 4
    outputs = [
        sorted(str([kept["digest"] for kept in s.result["outputs"]]) for s in bench.steps(run).values())
        for run in (first, second)
    ]
    assert outputs[0] == outputs[1]
    assert all(s.tags == {"cached": "true"} for s in bench.steps(second).values())


def test_only_what_depends_on_a_changed_input_runs_again(bench: Bench, folder: Path) -> None:
    bench.run(flows.fan_in, folder=str(folder), count=3)
    bench.run(flows.fan_in, folder=str(folder), count=4)
    assert [marks(folder, f"number-{n}") for n in range(4)] == [1] * 4
    assert marks(folder, "total") == 2


def test_equal_calls_in_one_run_run_once(bench: Bench, folder: Path) -> None:
    assert bench.run(flows.twins, folder=str(folder)).result["value"] == 60
    assert marks(folder, "number-3") == 1


def test_a_changed_helper_function_runs_the_step_again(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(flows.twins, folder=str(folder))
    monkeypatch.setattr(flows, "FACTOR", 10.0)  # the workers still have 10; that the key differs is what counts
    bench.run(flows.twins, folder=str(folder))
    assert marks(folder, "number-3") == 2


def test_a_step_that_raises_fails_the_run_and_keeps_its_traceback_and_log(bench: Bench, folder: Path) -> None:
    (folder / "go").touch()
    run = bench.run(flows.failing, folder=str(folder))
    assert run.status == "failed"
    assert "step raising failed: ZeroDivisionError" in str(run.error)
    failed = bench.step(run, "raising")
    assert failed.status == "failed"
    assert "return x // 0" in str(failed.error)
    assert "flyball/pipelines" not in str(failed.error)
    assert bench.log(failed) == "about to divide\n"
    assert {s["name"]: s["status"] for s in run.result["graph"]["steps"]}["after"] == "skipped"


def test_a_sibling_at_work_finishes_when_a_step_fails(bench: Bench, folder: Path) -> None:
    run = bench.run(flows.failing_beside, folder=str(folder))
    assert "no such luck" in str(run.error)
    assert bench.step(run, "slow_sibling").status == "succeeded"


def test_a_body_may_catch_a_failure(bench: Bench, folder: Path) -> None:
    run = bench.run(flows.catching, folder=str(folder))
    assert (run.status, run.result["value"]) == ("succeeded", 70)


def test_a_step_is_tried_again_as_often_as_it_says(bench: Bench, folder: Path) -> None:
    run = bench.run(flows.trying_again, folder=str(folder))
    assert (run.status, marks(folder, "flaky")) == ("succeeded", 2)
    assert bench.step(run, "flaky").result["attempts"] == 2


def test_a_step_that_takes_too_long_is_killed(bench: Bench, folder: Path) -> None:
    run = bench.run(flows.too_long, folder=str(folder))
    assert run.status == "failed"
    assert "endless took longer than 0.3 s" in str(run.error)
    assert bench.run(flows.twins, folder=str(folder)).status == "succeeded"


def test_a_step_whose_process_is_killed_runs_in_another(bench: Bench, folder: Path) -> None:
    run = bench.run(flows.surviving, folder=str(folder), times=1)
    assert (run.status, run.result["value"], marks(folder, "dying")) == ("succeeded", 5, 2)


def test_a_step_that_always_kills_its_process_is_given_up(bench: Bench, folder: Path) -> None:
    run = bench.run(flows.surviving, folder=str(folder), times=99)
    assert (run.status, marks(folder, "dying")) == ("failed", 3)
    assert "died 3 times" in str(run.error)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("lock", "step unstorable returned a _thread.lock, which cannot be stored"),
        ("lazy", r"LazyFrame, which is a plan and holds no rows; return its rows: .collect\(\)"),
        ("three", "step three returned 3 values; its declaration says a tuple of 2"),
    ],
)
def test_a_result_that_cannot_be_stored_says_so(bench: Bench, what: str, message: str) -> None:
    run = bench.run(flows.returning, what=what)
    assert run.status == "failed"
    assert re.search(message, str(run.error)), run.error


def test_an_argument_that_cannot_be_sent_says_so(bench: Bench) -> None:
    run = bench.run(flows.sending_a_lock)
    assert run.status == "failed"
    assert "step taking: argument 1 cannot be sent to another process" in str(run.error)


def test_a_wrong_parameter_is_an_error_with_the_one_meant(bench: Bench, folder: Path) -> None:
    run = bench.run(flows.fan_in, folder=str(folder), cuont=3)
    assert run.error == 'pipeline fan_in has no parameter "cuont"; did you mean "count"? (it has: folder, count)'
    assert "missing a required argument: 'folder'" in str(bench.run(flows.fan_in).error)


def test_a_step_inside_a_function_is_refused_where_others_would_not_find_it(bench: Bench) -> None:
    @step
    def inner() -> int:
        return 1

    @pipeline
    def outer() -> int:
        return inner()

    assert outer() == 1
    assert "step inner stands inside a function" in str(bench.run(outer).error)


def test_what_a_step_prints_is_kept_and_it_knows_its_run(bench: Bench) -> None:
    run = bench.run(flows.looking_around)
    assert run.result["value"] == [False, True]
    assert bench.log(bench.step(run, "surroundings")) == "to standard output\nto standard error\npast Python\n"


def test_a_cancelled_run_stops_and_its_step_is_killed(bench: Bench, folder: Path) -> None:
    queued = bench.queue(flows.waiting)
    thread, found = in_background(lambda: bench.run(flows.waiting, queued.id, folder=str(folder)))
    wait_until((folder / "reached").exists)
    with bench.ledger.write("user/bob") as tx:
        tx.runs.finish(queued.id, "cancelled")
    began = time.monotonic()
    thread.join(20)
    assert time.monotonic() - began < 3
    assert found[0].status == "cancelled"
    assert bench.step(found[0], "stop_here").status == "cancelled"


def test_an_idle_worker_that_is_killed_is_replaced(bench: Bench, folder: Path) -> None:
    queued = bench.queue(flows.failing_beside)
    thread, found = in_background(lambda: bench.run(flows.together, queued.id, folder=str(folder)))
    thread.join(20)
    for worker in list(bench.pool._workers):
        os.kill(worker.pid, signal.SIGKILL)
    assert found[0].status == "succeeded"
    assert bench.run(flows.twins, folder=str(folder)).status == "succeeded"


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidInput, match="retries is -1; expected a whole number of at least 0"):
        step(retries=-1)
    with pytest.raises(InvalidInput, match="not a duration"):
        step(timeout="soon")
    with pytest.raises(InvalidInput, match="plain function"):
        step(print)
    assert flows.named.name == "fit the model"
    assert flows.named.__doc__ == "Say what it does."
    assert flows.both.outputs == 2
    assert flows.number.outputs is None
