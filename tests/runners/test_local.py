"""Processes of their own on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flyball.errors import Unavailable
from flyball.runners.local import LocalRunner, this_process


def wait_until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_runs_with_its_environment_and_what_it_prints_is_appended(tmp_path: Path) -> None:
    runner, log = LocalRunner(), tmp_path / "logs" / "run.log"
    for word in ("one", "two"):
        process = runner.start(python("import os; print(os.environ['WORD'])"), log, {"WORD": word})
        wait_until(lambda process=process: not runner.is_running(process))
    assert log.read_text() == "one\ntwo\n"


def test_stopping_kills_what_it_started_as_well(tmp_path: Path) -> None:
    runner, log = LocalRunner(), tmp_path / "log"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)"
    )
    process = runner.start(python(code), log)
    assert runner.is_running(process)
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    child = replace(process, pid=int(log.read_text()), born="")
    assert runner.is_running(child)
    runner.stop(process)
    wait_until(lambda: not runner.is_running(process) and not runner.is_running(child))
    runner.stop(process)


def test_a_process_that_got_the_id_of_another_is_not_taken_for_it() -> None:
    me = this_process()
    runner = LocalRunner()
    assert runner.is_running(me)
    assert not runner.is_running(replace(me, born="1"))
    assert runner.is_running(replace(me, host="elsewhere")) is None


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no-such-command cannot be started"):
        LocalRunner().start(["no-such-command"], tmp_path / "log")
