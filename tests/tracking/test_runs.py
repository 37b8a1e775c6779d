"""Recording a run: what is kept, and that it ends whichever way the code ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.errors import Conflict, InvalidInput
from flyball.platform import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


def test_a_run_keeps_source_environment_metrics_and_files(platform: Platform) -> None:
    with platform.start_run("late", params={"depth": 6}) as run:
        for step in range(500):
            run.log(step=step, loss=1 / (step + 1))
        run.artifact("notes/read.me", b"hello")
        run.tags(colour="blue")
    found = platform.run(run.id)
    assert (found.status, found.params, found.tags) == ("succeeded", {"depth": 6}, {"colour": "blue"})
    assert found.metrics["loss"] == 1 / 500
    assert "numpy" in found.environment["packages"]
    assert found.environment["python"].startswith("3.")
    assert found.source["script"]
    with platform.ledger.read() as world:
        assert len(world.points.history(run.id, "loss")) == 500
    artifact = platform.artifacts(run.id)[0]
    assert (artifact.path, platform.blobs.get(artifact.digest)) == ("notes/read.me", b"hello")


def test_a_run_that_raises_has_failed_and_keeps_what_it_logged_and_why(platform: Platform) -> None:
    with pytest.raises(ZeroDivisionError), platform.start_run("late") as run:
        run.log(loss=0.5)
        _ = 1 / 0
    found = platform.run(run.id)
    assert (found.status, found.metrics) == ("failed", {"loss": 0.5})
    assert found.error is not None
    assert "ZeroDivisionError" in found.error


def test_a_run_stopped_from_the_keyboard_is_cancelled(platform: Platform) -> None:
    with pytest.raises(KeyboardInterrupt), platform.start_run("late") as run:
        raise KeyboardInterrupt
    assert platform.run(run.id).status == "cancelled"


def test_a_parameter_keeps_its_first_value(platform: Platform) -> None:
    with platform.start_run("late", params={"depth": 6}) as run, pytest.raises(Conflict, match="depth = 6"):
        run.params(depth=7)


@pytest.mark.parametrize("value", ["0.5", True, None, [1]])
def test_a_metric_that_is_no_number_is_refused(platform: Platform, value: object) -> None:
    with platform.start_run("late") as run, pytest.raises(InvalidInput, match="expected a number"):
        run.log(loss=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "\\x", "a\x00b"])
def test_a_file_cannot_leave_its_run(platform: Platform, path: str) -> None:
    with platform.start_run("late") as run, pytest.raises(InvalidInput, match="not a relative path"):
        run.artifact(path, b"x")


_SCRIPT = """
import sys
import time
from flyball.platform import Platform
platform = Platform.open(sys.argv[1])
run = platform.start_run("late")
for step in range(1000):
    run.log(step=step, loss=float(step))
run.flush()
print(run.id, flush=True)
sys.stdin.read()
"""


def test_kill_9_keeps_every_flushed_point_and_the_run_can_still_be_ended(platform: Platform, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "home")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    run = child.stdout.readline().strip()
    os.kill(child.pid, signal.SIGKILL)
    child.wait(30)
    assert platform.run(run).status == "running"
    with platform.ledger.write("user/a") as world:
        assert len(world.points.history(run, "loss")) == 1000
        world.runs.finish(run, "lost", error="its process is gone")
    assert platform.run(run).status == "lost"


def test_points_are_on_disk_soon_without_a_flush(platform: Platform) -> None:
    run = platform.start_run("late")
    run.log(step=1, loss=0.5)
    give_up = time.monotonic() + 30
    while not platform.run(run.id).metrics and time.monotonic() < give_up:
        time.sleep(0.02)  # for the thread that hands over, which goes by the clock of the machine
    assert platform.run(run.id).metrics == {"loss": 0.5}
    run.finish()
    with pytest.raises(Conflict, match="takes no more"):
        run.log(loss=0.25)


def test_logging_does_not_wait_for_the_ledger(platform: Platform) -> None:
    run = platform.start_run("late")
    with platform.ledger.write("user/other"):  # SQLite has one writer, and it is busy
        for step in range(20_000):
            run.log(step=step, loss=1.0)
    run.flush()
    assert platform.run(run.id).latest["loss"].step == 19_999
    run.finish()


def test_a_refusal_of_the_ledger_is_told_at_the_next_flush(platform: Platform) -> None:
    run = platform.start_run("late")
    platform.delete_run(run.id)
    run.log(loss=1.0)
    with pytest.raises(Conflict, match="Current state is deleted"):
        run.flush()
    platform.restore_run(run.id)
    run.finish()


_HOLDING = """
import os, signal, sys, threading
from flyball.platform import Platform
way = sys.argv[2]
if way == "own handler":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
platform = Platform.open(sys.argv[1])
run = platform.start_run("late")
print(run.id, flush=True)
for step in range(50):
    run.log(step=step, loss=float(step))
if way == "fork":
    if os.fork() == 0:
        try:
            run.log(loss=1.0)
        except Exception as error:
            print(error, flush=True)
        sys.exit(0)
    os.wait()
if way == "error":
    raise ValueError("boom")
if way in ("signal", "own handler"):
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("way", "code", "status"),
    [
        ("exit", 0, "succeeded"),
        ("error", 1, "failed"),
        ("signal", -signal.SIGTERM, "cancelled"),
        ("own handler", 7, "succeeded"),
        ("fork", 0, "succeeded"),
    ],
)
def test_what_was_held_back_is_written_however_the_program_ends(
    platform: Platform, tmp_path: Path, way: str, code: int, status: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HOLDING, str(tmp_path / "home"), way], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    id, *said = done.stdout.splitlines()
    found = platform.run(id)
    assert (found.status, found.metrics) == (status, {"loss": 49.0})
    with platform.ledger.read() as world:
        assert len(world.points.history(id, "loss")) == 50
    assert way != "fork" or "forked" in said[0]
    assert status != "failed" or "boom" in (found.error or "")
