"""A run is made again from what it keeps, and what is different is told, with why."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flyball.cli import app
from flyball.errors import InvalidInput, NotFound, Unavailable
from flyball.ledger.points import Point
from flyball.platform import Platform
from flyball.tracking.comparing import compared_metric, environment_changes

SCRIPT = """
import sys
import numpy as np
import flyball as fb
from helper import scaled

data = fb.dataset("flights", target="late")
data.publish({"distance": [float(n) for n in range(40)], "late": [n % 2 for n in range(40)]})
rows = data.rows()
draw = np.random.default_rng(int(sys.argv[1]) if sys.argv[1] != "none" else None)
with fb.run("late", seed=sys.argv[1], rows=len(rows.y)) as run:
    for step in range(5):
        run.log(step=step, loss=scaled(draw.random()), total=float(rows.frame["distance"].sum()))
    run.artifact("out.txt", b"%d rows" % len(rows.y))
print(run.id)
"""


def made(folder: Path, seed: str) -> str:
    """Run the script in a folder with a home, and return the run's id."""
    (folder / "job").mkdir()
    (folder / "job" / "train.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "job" / "helper.py").write_text("def scaled(x): return 2 * x\n", encoding="utf-8")
    environment = {**os.environ, "FLYBALL_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "job/train.py", seed], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_with_a_seed_is_the_same_although_code_and_data_have_moved_on(tmp_path: Path) -> None:
    run = made(tmp_path, "7")
    (tmp_path / "job" / "helper.py").write_text("def scaled(x): return 3 * x\n", encoding="utf-8")
    with closing(Platform.open(tmp_path / "home")) as platform:
        platform.publish("flights", {"distance": [1.0], "late": [0]})
        before = (len(platform.runs(limit=1000)), len(platform.versions("dataset")), platform.events()[0])
        found = platform.reproduce(run[:8])
        assert (len(platform.runs(limit=1000)), len(platform.versions("dataset")), platform.events()[0]) == before
    assert found.is_same, found
    assert {(one.name, one.verdict) for one in (*found.metrics, *found.files, *found.params)} == {
        *(("loss", "identical"), ("total", "identical"), ("out.txt", "identical")),
        *(("seed", "identical"), ("rows", "identical")),
    }
    assert found.reasons == []


def test_a_run_without_a_seed_is_told_to_be_different_and_why(tmp_path: Path) -> None:
    run = made(tmp_path, "none")
    done = CliRunner().invoke(app, ["reproduce", run, "--home", str(tmp_path / "home"), "--json"])
    assert done.exit_code == 1, done.output
    told = json.loads(done.output)
    assert {one["name"]: one["verdict"] for one in told["metrics"]} == {"loss": "different", "total": "identical"}
    shown = CliRunner().invoke(app, ["reproduce", run, "--home", str(tmp_path / "home"), "--tolerance", "2"])
    assert (shown.exit_code, "within tolerance" in shown.output) == (0, True), shown.output


def test_what_cannot_be_made_again_says_so(tmp_path: Path) -> None:
    run = made(tmp_path, "1")
    with closing(Platform.open(tmp_path / "home")) as platform:
        plain = platform.recorder.create_run("0", "of a client").result().id
        with pytest.raises(InvalidInput, match="keeps no script"):
            platform.reproduce(plain)
        with pytest.raises(NotFound):
            platform.reproduce("f" * 32)
        with pytest.raises(Unavailable, match="did not end"):
            platform.reproduce(run, timeout_s=0.01)
        with pytest.raises(NotFound):
            platform.reproduce(run, directory=tmp_path / "nowhere")


def points(*values: float) -> list[Point]:
    return [Point("m", value, step, 1000 + step) for step, value in enumerate(values)]


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (points(1, 2), points(1, 2), "identical"),
        (points(math.nan, math.inf), points(math.nan, math.inf), "identical"),
        (points(1, 2), points(1, 2 + 1e-7), "within tolerance"),
        (points(1, 2), points(1, 2.1), "different"),
        (points(1e308), points(-1e308), "different"),
        (points(1), points(math.nan), "different"),
        (points(1, 2), points(1), "different"),
        (points(1), [], "missing"),
        ([], points(1), "new"),
    ],
)
def test_metrics_are_compared_point_by_point(then: list[Point], now: list[Point], verdict: str) -> None:
    assert compared_metric("m", then, now, 1e-6).verdict == verdict


def test_what_changed_in_the_environment_is_named() -> None:
    then = {"python": "3.11.1", "cores": 2, "packages": {"numpy": "1.0", "gone": "2", "same": "1"}}
    now = {"python": "3.11.2", "cores": 2, "packages": {"numpy": "2.0", "same": "1", "new": "1"}}
    assert environment_changes(then, now) == [
        "Python was 3.11.1, and is 3.11.2",
        "packages: numpy 1.0 → 2.0, gone 2 is not here",
    ]
