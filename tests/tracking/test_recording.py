"""The recorder: one commit for many, each acknowledged when it is on disk, none spoilt by another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flyball.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from flyball.governance.identity import Principal
from flyball.ledger.points import Point
from flyball.ledger.sql import open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.platform import Platform
from flyball.tracking.recording import Recorder, Writer


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqlLedger]:
    opened = open_ledger(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def recorder(ledger: SqlLedger) -> Iterator[Recorder]:
    writer = Writer(ledger)
    yield Recorder(writer, "user/ann")
    writer.close()


def _commits(ledger: SqlLedger) -> int:
    """Return how many transactions have changed the ledger: each takes a block of numbers, but for its end."""
    with ledger.read() as world:
        return world.run_columns.head() // 64


def test_a_run_is_created_told_of_and_ended(recorder: Recorder, ledger: SqlLedger) -> None:
    began = datetime(2026, 1, 2, tzinfo=UTC)
    run = recorder.create_run("0", started_at=began, user="bob", tags={"mlflow.parentRunId": "f" * 32}).result()
    assert len(run.name.split("-")) == 3
    assert (run.tags["mlflow.runName"], run.parent, run.user, run.actor) == (run.name, "f" * 32, "bob", "user/ann")
    recorder.log(run.id, [Point("loss", 0.5, 0, 1)], [("depth", "6")], {"long": "x" * 9000}).result()
    ended = datetime(2026, 1, 3, tzinfo=UTC)
    recorder.update_run(run.id, "failed", ended, "better").result()
    with ledger.read() as world:
        found = world.runs.get(run.id)
        assert (found.name, found.status, found.started_at, found.finished_at) == ("better", "failed", began, ended)
        assert (found.params, len(found.tags["long"]), found.metrics) == ({"depth": "6"}, 8000, {"loss": 0.5})
        assert [e.action for e in world.journal.find(ref=f"run/{run.id}")] == ["failed", "started"]


def test_bad_input_is_refused_and_nothing_of_it_is_kept(recorder: Recorder, ledger: SqlLedger) -> None:
    run = recorder.create_run(name="x").result()
    point = Point("loss", 0.5, 0, 1)
    recorder.log(run.id, params={"depth": "6"}).result()
    with pytest.raises(InvalidInput, match="different values"):
        recorder.create_run(name="a", tags={"mlflow.runName": "b"})
    with pytest.raises(InvalidInput, match="Duplicate parameter keys"):
        recorder.log(run.id, [point], [("a", "1"), ("a", "2")])
    with pytest.raises(InvalidInput, match="at most 6000"):
        recorder.log(run.id, [point], {"a": "x" * 6001}, truncate=False)
    with pytest.raises(Conflict, match="Changing param values is not allowed"):
        recorder.log(run.id, [point], {"depth": "7"}, {"t": "1"}).result()
    with pytest.raises(NotFound):
        recorder.log(run.id[:8], [point]).result()  # only whole ids are told of
    with pytest.raises(NotFound):
        recorder.create_run("999").result()
    with ledger.read() as world:
        found = world.runs.get(run.id)
        assert (found.params, found.metrics, "t" in found.tags) == ({"depth": "6"}, {}, False)
        assert len(world.runs.find()) == 1


def test_what_waits_together_is_committed_together_and_one_failure_spoils_nothing(
    recorder: Recorder, ledger: SqlLedger
) -> None:
    run = recorder.create_run(name="x").result()
    entered, go = threading.Event(), threading.Event()

    def hold(world: Any) -> str:
        entered.set()
        assert go.wait(30)
        return world.runs.start("step", "held").id

    def fail(world: Any) -> None:
        world.runs.start("step", "half")
        raise ZeroDivisionError

    held = recorder.change(hold)
    assert entered.wait(30)
    before = _commits(ledger)
    waiting: list[Future[Any]] = [
        recorder.log(run.id, [Point(f"m{n}", 1.0, n, n)]) if n % 7 else recorder.log("0" * 32, [Point("m", 1.0, 0, 0)])
        for n in range(100)
    ]
    refused = recorder.change(lambda world: world.runs.finish(run.id, "nonsense"))  # type: ignore[arg-type]
    go.set()
    assert held.result(30)
    for n, future in enumerate(waiting):
        assert isinstance(future.exception(30), NotFound) is (n % 7 == 0)
    assert isinstance(refused.exception(30), InvalidInput)
    assert _commits(ledger) - before <= 4
    broken, whole = recorder.change(fail), recorder.log(run.id, tags={"after": "it"})
    assert isinstance(broken.exception(30), ZeroDivisionError)
    whole.result(30)
    with ledger.read() as world:
        assert len(world.runs.get(run.id).metrics) == 85
        assert {r.name for r in world.runs.find(kind="step")} == {"held"}
        world.journal.verify()


def test_the_order_of_the_queue_is_the_order_of_changes(recorder: Recorder, ledger: SqlLedger) -> None:
    run = recorder.create_run(name="x", id="a" * 32)
    for n in range(200):
        last = recorder.log("a" * 32, [Point("loss", float(n), 0, n)], tags={"last": str(n)})
    last.result(30)
    assert run.done()
    with ledger.read() as world:
        found = world.runs.get("a" * 32)
        assert (found.tags["last"], found.metrics["loss"]) == ("199", 199.0)


def test_closing_writes_what_waits_and_refuses_what_comes_later(ledger: SqlLedger) -> None:
    recorder = Recorder(Writer(ledger), "user/ann")
    run = recorder.create_run(name="x", id="a" * 32)
    waiting = [recorder.log("a" * 32, [Point("loss", 1.0, n, n)]) for n in range(500)]
    recorder.writer.close()
    assert run.result(0).name == "x"
    assert all(future.done() and future.exception() is None for future in waiting)
    with pytest.raises(Unavailable, match="closed"):
        recorder.log("a" * 32, [Point("loss", 1.0, 0, 0)])
    recorder.writer.close()
    with ledger.read() as world:
        assert len(world.points.history("a" * 32, "loss")) == 500


def test_too_much_that_waits_is_refused_at_once(ledger: SqlLedger) -> None:
    writer = Writer(ledger, most_waiting=100)
    recorder = Recorder(writer, "user/ann")
    entered, go = threading.Event(), threading.Event()

    def hold(_world: Any) -> None:
        entered.set()
        assert go.wait(30)

    held = recorder.change(hold)
    assert entered.wait(30)
    taken = recorder.log("a" * 32, [Point("loss", 1.0, 0, n) for n in range(80)])
    with pytest.raises(Unavailable, match="too many"):
        recorder.log("a" * 32, [Point("loss", 1.0, 0, n) for n in range(80)])
    go.set()
    held.result(30)
    assert isinstance(taken.exception(30), NotFound)
    writer.close()


def test_many_principals_share_one_writer_and_are_told_apart(tmp_path: Path) -> None:
    platform = Platform.open(tmp_path / "home")
    ann, bob = (platform.as_(Principal(f"user/{name}", "editor")) for name in ("ann", "bob"))
    runs = [each.recorder.create_run(name="x").result() for each in (ann, bob)]
    assert [(r.actor, r.user) for r in runs] == [("user/ann", "user/ann"), ("user/bob", "user/bob")]
    assert ann.recorder.writer is bob.recorder.writer
    with pytest.raises(Forbidden):
        _ = platform.as_(Principal("user/eve", "viewer")).recorder
    platform.close()


_LOGGER = """
import sys, threading
from pathlib import Path
from flyball.ledger.points import Point
from flyball.ledger.sql import open_ledger
from flyball.tracking.recording import Recorder, Writer
recorder = Recorder(Writer(open_ledger(Path(sys.argv[1]))), "user/ann")
recorder.create_run(name="x", id="a" * 32).result()
printing = threading.Lock()
def work(thread):
    for step in range(1_000_000):
        recorder.log("a" * 32, [Point(f"t{thread}.{n}", step / 7, step, step) for n in range(20)]).result()
        with printing:
            print(thread, step, flush=True)
for thread in range(4):
    threading.Thread(target=work, args=(thread,), daemon=True).start()
threading.Event().wait()
"""


def test_kill_9_under_load_loses_no_acknowledged_point(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _LOGGER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(1200)]
    os.kill(child.pid, signal.SIGKILL)
    lines += child.stdout.read().splitlines()
    child.wait(30)
    acknowledged = {tuple(map(int, line.split())) for line in lines if line.count(" ") == 1 and line[-1:] != " "}
    opened = open_ledger(tmp_path)
    with opened.read() as world:
        for thread in range(4):
            told = {step for of, step in acknowledged if of == thread}
            for n in (0, 19):
                found = {p.step: p.value for p in world.points.history("a" * 32, f"t{thread}.{n}")}
                assert told <= found.keys()
                assert len(found) <= len(told) + 2  # what was written, but not yet acknowledged
                assert all(value == step / 7 for step, value in found.items())
        assert world.runs.get("a" * 32).latest["t0.0"].step >= max(s for t, s in acknowledged if t == 0)
        world.journal.verify()
    opened.close()


def _log_some(folder: str, number: int) -> str:
    recorder = Recorder(Writer(open_ledger(Path(folder))), f"user/{number}")
    run = recorder.create_run(name=f"r{number}").result()
    last = [recorder.log(run.id, [Point("loss", float(step), step, step)]) for step in range(50)]
    for future in last:
        future.result()
    recorder.log("a" * 32, tags={f"t{number}": "x"}).result()
    recorder.update_run(run.id, "succeeded").result()
    return run.id


def test_sixteen_processes_write_to_one_file_at_once(tmp_path: Path) -> None:
    opened = open_ledger(tmp_path)
    with opened.write("user/a") as world:
        world.runs.start("training", "shared", id="a" * 32)
    with multiprocessing.get_context("fork").Pool(16) as pool:
        runs = pool.starmap(_log_some, [(str(tmp_path), n) for n in range(16)], chunksize=1)
    with opened.read() as world:
        for run in runs:
            assert (len(world.points.history(run, "loss")), world.runs.get(run).status) == (50, "succeeded")
        assert len(world.runs.get("a" * 32).tags) == 16
        assert len({f.revision for f in world.run_columns.of_experiment("0")}) == 17
        world.journal.verify()
    opened.close()


_FULL = """
import resource, signal, sys
from pathlib import Path
from flyball.errors import Unavailable
from flyball.ledger.points import Point
from flyball.ledger.sql import open_ledger
from flyball.tracking.recording import Recorder, Writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recorder = Recorder(Writer(open_ledger(Path(sys.argv[1]))), "user/ann")
recorder.create_run(name="x", id="a" * 32).result()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
written = failed = 0
for step in range(400):
    try:
        recorder.log("a" * 32, [Point(f"m{n}", step / 7, step, step) for n in range(500)]).result()
        written += 1
    except Unavailable as error:
        failed += 1
        message = str(error)
        if failed == 1:
            first = step
        if failed == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    if failed >= 5 and step > first + 20:
        break
print(written, failed, step + 1, "nothing was changed" in message, flush=True)
"""


def test_a_full_disk_is_an_error_that_passes_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written, failed, tried, told = done.stdout.split()
    assert int(failed) >= 5
    assert int(written) + int(failed) == int(tried)
    assert told == "True"
    opened = open_ledger(tmp_path)
    with opened.read() as world:
        assert len(world.points.history("a" * 32, "m0")) == int(written)
        assert len(world.points.history("a" * 32, "m499")) == int(written)
    opened.close()


def test_a_forked_process_is_told_to_open_the_home_anew(recorder: Recorder) -> None:
    recorder.create_run(name="x", id="a" * 32).result()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            recorder.log("a" * 32, [Point("loss", 1.0, 0, 0)])
        except Unavailable as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert "open the home in it anew" in stream.read()
    recorder.log("a" * 32, [Point("loss", 1.0, 0, 0)]).result()


class _Heap:
    """A desk that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[list[tuple[int, Any]]] = []
        self.has_all = threading.Event()
        self._given = 0

    def ticket(self) -> int:
        self._given += 1
        return self._given

    def tell(self, outcomes: list[tuple[int, Any]]) -> None:
        self.told.append(outcomes)
        if sum(map(len, self.told)) == 41:
            self.has_all.set()


def test_a_desk_is_told_once_a_commit_what_became_of_each_operation(ledger: SqlLedger, recorder: Recorder) -> None:
    run = recorder.create_run(name="x").result().id
    heap = _Heap()
    at_desk = recorder.at(heap)
    entered, leave = threading.Event(), threading.Event()

    def hold(_world: object) -> None:  # so that what follows is one commit
        entered.set()
        assert leave.wait(10)

    held = recorder.change(hold)
    assert entered.wait(10)
    tickets: list[Any] = [at_desk.log(run, [Point("loss", 0.5, step, 1)]) for step in range(40)]
    tickets.append(at_desk.log("nowhere", [Point("loss", 0.5, 0, 1)]))
    beside = recorder.log(run, tags={"a": "b"})
    leave.set()
    held.result()
    assert heap.has_all.wait(10)
    assert beside.result() is None
    (told,) = heap.told
    assert [ticket for ticket, _ in told] == tickets == list(range(1, 42))
    assert [outcome for _, outcome in told[:40]] == [None] * 40
    assert isinstance(told[40][1], NotFound)
    with ledger.read() as world:
        assert len(world.points.history(run, "loss")) == 40
