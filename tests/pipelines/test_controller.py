"""Queued runs, the processes that carry them out, and what is left after `kill -9` at any point."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flyball.control import Retry, World
from flyball.control.lease import is_alive
from flyball.control.loop import Loop
from flyball.ledger.runs import Run
from flyball.ledger.sql import open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.pipelines.claims import ATTEMPT, attempt_of, claim, process_of
from flyball.pipelines.controller import PipelineController
from flyball.platform import Platform
from flyball.platform.acting import worker_command
from flyball.runners import Process
from flyball.testing.clock import FakeClock
from tests.pipelines.flows import marks

FLOWS = Path(__file__).with_name("flows.py")


def wait_until(holds: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


class Project:
    """A folder with the flows in it, a home, and the pipeline controller at work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self.marks.mkdir(parents=True)
        shutil.copy(FLOWS, folder / "flows.py")
        self.platform = Platform.open(folder / ".flyball")
        controller = PipelineController(self.platform.home, worker_command)
        self.loop = Loop(self.platform.ledger, [controller])

    def queue(self, name: str, **params: Any) -> str:
        self.platform.declare("pipeline", name, function=f"flows.py:{name}")
        return self.platform.start_pipeline(name, params).id

    def ended(self, run: str) -> Run:
        return wait_until(lambda: (found := self.platform.run(run)).is_finished and found)

    def worker(self, run: str) -> Process:
        return wait_until(lambda: process_of(self.platform.run(run)))

    def log(self, run: str) -> str:
        return (self.platform.home / "logs" / f"run-{run}.log").read_text()

    def close(self) -> None:
        self.loop.stop()
        for run in self.platform.runs(kind="pipeline"):
            process = process_of(run)
            if process is not None and is_alive(process.pid):
                os.kill(process.pid, signal.SIGKILL)
        self.platform.close()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    yield made
    made.close()


def test_a_queued_run_is_carried_out_and_the_pipeline_shows_how_it_ended(project: Project) -> None:
    project.loop.start()
    run = project.ended(project.queue("fan_in", folder=str(project.marks), count=4))
    assert (run.status, run.error, run.result["value"]) == ("succeeded", None, 56)
    last = wait_until(lambda: project.platform.resource("pipeline/fan_in").status.get("last"))
    assert (last["run"], last["status"]) == (run.id, "succeeded")
    again = project.ended(project.queue("fan_in", folder=str(project.marks), count=4))
    assert again.result["value"] == 56
    assert marks(project.marks, "total") == 1
    assert {"python", "packages", "worker"} <= set(run.environment)
    assert run.source["script"]


def test_steps_find_the_platform_and_their_run(project: Project) -> None:
    project.loop.start()
    run = project.ended(project.queue("looking_around"))
    assert run.result["value"] == [True, True]
    assert "past Python" in project.platform.run_log(run.id)


def test_a_killed_run_is_taken_up_again_without_repeating_finished_steps(project: Project) -> None:
    project.loop.start()
    run = project.queue("resumable", folder=str(project.marks))
    wait_until((project.marks / "reached").exists)
    step_pid = int((project.marks / "reached").read_text())
    os.kill(project.worker(run).pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(step_pid))  # the pool's processes end with their owner
    done = project.ended(run)
    assert (done.status, done.result["value"], attempt_of(done)) == ("succeeded", 11, 2)
    assert marks(project.marks, "number-1") == 1
    assert marks(project.marks, "impure-a") == 2  # two calls, each once
    assert marks(project.marks, "stop") == 2
    lost = [s for s in project.platform.runs(parent=run) if s.status == "lost"]
    assert [s.name for s in lost] == ["stop_here"]
    assert project.platform.verify_journal() > 0


def test_a_run_goes_on_when_the_control_plane_is_killed_and_another_looks_after_it(project: Project) -> None:
    code = (
        "import sys\nfrom flyball.platform import Platform\nfrom flyball.platform.acting import worker_command\n"
        "from flyball.control.loop import Loop\nfrom flyball.pipelines.controller import PipelineController\n"
        "at = Platform.open(sys.argv[1])\n"
        "Loop(at.ledger, [PipelineController(at.home, worker_command)]).start()\n"
        "sys.stdin.read()"
    )
    run = project.queue("resumable", folder=str(project.marks))
    control = subprocess.Popen([sys.executable, "-c", code, str(project.platform.home)], stdin=subprocess.PIPE)
    try:
        wait_until((project.marks / "reached").exists)
    finally:
        control.kill()
        control.wait(10)
    worker = project.worker(run)
    assert is_alive(worker.pid)
    project.loop.start()
    os.kill(worker.pid, signal.SIGKILL)
    assert project.ended(run).status == "succeeded"
    assert marks(project.marks, "number-1") == 1


def test_a_run_whose_process_always_dies_is_lost_after_three_times(project: Project) -> None:
    project.loop.start()
    run = project.ended(project.queue("deadly", folder=str(project.marks)))
    assert (run.status, marks(project.marks, "deadly")) == ("lost", 3)
    assert "its process ended 3 times without a result" in str(run.error)


@pytest.mark.parametrize("name", ["busy_body", "waiting"])
def test_a_cancelled_run_leaves_no_process_behind(project: Project, name: str) -> None:
    project.loop.start()
    run = project.queue(name, folder=str(project.marks))
    wait_until((project.marks / "reached").exists)
    process = project.worker(run)
    with project.platform.ledger.write("user/ada") as tx:
        tx.runs.finish(run, "cancelled")
    wait_until(lambda: not is_alive(process.pid), 8)
    assert project.platform.run(run).status == "cancelled"


def test_a_process_that_was_taken_over_stops(project: Project) -> None:
    run = project.queue("waiting", folder=str(project.marks))
    log = project.folder / "log"
    with log.open("wb") as stream:
        worker = subprocess.Popen(worker_command(project.platform.home, run), stderr=stream)
    wait_until((project.marks / "reached").exists)
    with project.platform.ledger.write("controller/pipeline") as tx:
        claim(tx.runs.get(run), project.platform.clock.now(), tx)
    assert worker.wait(8) != 0
    assert project.platform.run(run).status == "running"
    late = subprocess.run(
        worker_command(project.platform.home, run),
        env={**os.environ, ATTEMPT: "1"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert late.returncode == 3
    assert "taken over by another process" in late.stderr


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nowhere.py:late", "there is no file"),
        ("flows.py:fan_inn", "flows.py has no function 'fan_inn'; did you mean \"fan_in\"?"),
        ("flows.py:no_pipeline", "flows.py:no_pipeline is no pipeline; decorate it: @fb.pipeline"),
        ("broken.py:late", "broken.py cannot be imported: ZeroDivisionError: division by zero"),
        ("no.such.module:late", "there is no module no.such.module"),
    ],
)
def test_a_pipeline_that_cannot_be_found_fails_with_a_sentence(project: Project, function: str, message: str) -> None:
    (project.folder / "broken.py").write_text("1 / 0\n")
    project.platform.declare("pipeline", "late", function=function)
    run = project.platform.start_pipeline("late").id
    done = subprocess.run(worker_command(project.platform.home, run), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    found = project.platform.run(run)
    assert found.status == "failed"
    assert message in str(found.error)
    assert "Traceback" not in done.stderr


# -- the controller alone: a runner and a clock that the test holds


class Processes:
    """A runner whose processes the test ends."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.alive: set[int] = set()

    def start(self, command: list[str], _log: Path, environment: dict[str, str] | None = None) -> Process:
        self.started.append(f"{command[0]}#{(environment or {})[ATTEMPT]}")
        self.alive.add(len(self.started))
        return Process("here", len(self.started))

    def is_running(self, process: Process) -> bool | None:
        return process.pid in self.alive if process.host == "here" else None

    def stop(self, process: Process) -> None:
        self.alive.discard(process.pid)


class Office:
    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.ledger: SqlLedger = open_ledger(folder, clock=self.clock)
        self.processes = Processes()
        self.controller = PipelineController(folder, lambda _home, run: [run], self.processes)
        self.world = World(self.ledger, self.clock, "controller/pipeline")

    def queue(self, name: str) -> str:
        self.clock.advance(1)
        with self.ledger.write("user/ada") as tx:
            tx.resources.apply("pipeline", name, {"function": "flows.py:late"})
            return tx.runs.start("pipeline", name, id=name * 4, of=f"pipeline/{name}", status="pending").id

    def run(self, id: str) -> Run:
        with self.ledger.read() as tx:
            return tx.runs.get(id)

    def look(self, name: str) -> Any:
        return self.controller.reconcile(name, self.world)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.ledger.close()


def test_as_many_run_at_a_time_as_there_are_places(office: Office) -> None:
    first, second = office.queue("a"), office.queue("b")
    assert office.look("a") == office.look("b") == Retry(1.0)
    assert office.processes.started == [f"{first}#1"]
    with office.ledger.write("worker/1") as tx:
        tx.runs.finish(first, "succeeded")
    assert office.look("b") == Retry(1.0)
    assert office.look("a") is None
    assert office.processes.started == [f"{first}#1", f"{second}#1"]


def test_looking_again_changes_nothing(office: Office) -> None:
    office.queue("a")
    office.look("a")
    with office.ledger.read() as tx:
        before = tx.journal.last()
    office.look("a")
    office.look("a")
    with office.ledger.read() as tx:
        assert tx.journal.last() == before
    assert len(office.processes.started) == 1


def test_a_claim_without_a_process_is_taken_up_after_a_while(office: Office) -> None:
    run = office.queue("a")
    with office.ledger.write("controller/pipeline") as tx:  # and here the control plane was killed
        claim(tx.runs.get(run), office.clock.now(), tx)
    office.look("a")
    assert office.processes.started == []
    office.clock.advance(11)
    office.look("a")
    assert office.processes.started == [f"{run}#2"]


def test_a_dead_process_is_replaced_and_the_third_is_the_last(office: Office) -> None:
    run = office.queue("a")
    for _ in range(4):
        office.look("a")
        office.processes.alive.clear()
    assert office.processes.started == [f"{run}#1", f"{run}#2", f"{run}#3"]
    assert office.run(run).status == "lost"
    office.look("a")
    with office.ledger.read() as tx:
        assert tx.resources.get("pipeline", "a").status["last"]["status"] == "lost"


def test_a_process_on_another_machine_is_judged_by_its_heartbeat(office: Office) -> None:
    run = office.queue("a")
    office.look("a")
    with office.ledger.write("worker/1") as tx:
        kept = {"host": "elsewhere", "pid": 1, "born": "", "attempt": 1}
        tx.runs.update(run, environment={"worker": kept}, heartbeat=True)
    office.clock.advance(29)
    office.look("a")
    assert len(office.processes.started) == 1
    office.clock.advance(2)
    office.look("a")
    assert office.processes.started[1:] == [f"{run}#2"]


def test_queued_runs_of_a_deleted_pipeline_are_cancelled(office: Office) -> None:
    run = office.queue("a")
    with office.ledger.write("user/ada") as tx:
        tx.resources.delete("pipeline", "a")
    office.look("a")
    assert (office.run(run).status, office.run(run).error) == ("cancelled", "pipeline/a was deleted")
