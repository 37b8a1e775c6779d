"""Recording a run: what is kept, and that it ends whichever way the code ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
        assert len(world.runs.history(run.id, "loss")) == 500
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
        assert len(world.runs.history(run, "loss")) == 1000
        world.runs.finish(run, "lost", error="its process is gone")
    assert platform.run(run).status == "lost"
