"""`flyball run`: with nobody acting on the home, and with `flyball up`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flyball.platform import Platform
from tests.cli.running import ROOT, up

PIPELINES = """
import flyball as fb


@fb.step
def double(number: int) -> int:
    print(f"doubling {number}")
    return 2 * number


@fb.step
def fail(number: int) -> int:
    raise ValueError(f"{number} is too much")


@fb.pipeline
def late(depth: int = 6) -> int:
    return double(double(depth))


@fb.pipeline
def broken(depth: int = 6) -> int:
    return fail(double(depth))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "pipelines.py").write_text(PIPELINES)
    with closing(Platform.open(tmp_path / "home")) as platform:
        for name in ("late", "broken"):
            platform.declare("pipeline", name, function=f"pipelines.py:{name}", params={"depth": 6})
    return tmp_path / "home"


def flyball(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flyball.cli", *arguments, "--home", str(home)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        command, cwd=home.parent, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_without_a_server_the_work_is_done_here_step_by_step(home: Path) -> None:
    done = flyball(home, "run", "pipeline/late", "-p", "depth=8", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert (run["status"], run["params"], run["of"]) == ("succeeded", {"depth": 8}, "pipeline/late")
    progress = done.stderr.splitlines()
    assert progress[0] == f"run {run['id'][:8]} of pipeline/late"
    assert [line.split()[:3] for line in progress[1:]] == [["step", "double", "succeeded"]] * 2
    assert "doubling 8" in flyball(home, "logs", run["id"][:8]).stdout
    assert "doubling 16" in flyball(home, "logs", f"run/{run['id']}").stdout
    again = flyball(home, "run", "late", "-p", "depth=8")
    assert again.returncode == 0
    assert again.stderr.count("from the cache") == 2


def test_a_step_that_raises_is_one_sentence_and_exit_code_1(home: Path) -> None:
    done = flyball(home, "run", "broken")
    assert (done.returncode, done.stdout) == (1, "")
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: run ")
    assert "is too much" in error
    assert "flyball logs run/" in error


def test_wrong_parameters_start_nothing(home: Path) -> None:
    done = flyball(home, "run", "late", "-p", "depth")
    assert (done.returncode, done.stderr) == (2, "error: -p 'depth' is not NAME=VALUE; write it like -p depth=8\n")
    assert json.loads(flyball(home, "get", "runs", "--json").stdout)["items"] == []


def test_with_flyball_up_the_run_is_queued_or_waited_for(home: Path) -> None:
    with up(home) as running:
        queued = flyball(home, "run", "late")
        assert queued.returncode == 0
        assert "is in the queue; see flyball describe run/" in queued.stdout
        waited = flyball(home, "run", "late", "-p", "depth=1", "--wait")
        assert waited.returncode == 0, waited.stderr
        assert waited.stdout.endswith("of pipeline/late succeeded\n")
        assert running.end()[0] == 0
