"""A run is made again from what it keeps, and what is different is told, with why."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
import sysconfig
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flyball.cli import app
from flyball.errors import InvalidInput, NotFound, Unavailable
from flyball.ledger.points import Point
from flyball.platform import Platform
from flyball.tracking.comparing import compared_metric, environment_changes, package_changes

ROOT = Path(__file__).resolve().parents[2]
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


def package(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    """Install a small package into a folder as pip would, and lay its wheel beside."""
    told = {
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-{version}.dist-info/RECORD": "",
    }
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "wheels" / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, **told}.items():
            wheel.writestr(path, text)
            place = folder / f"{name}-{version}" / "site-packages" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")


def record(folder: Path, run: str, environment: dict[str, object]) -> None:
    """Let a finished run have been made with fewer packages than whoever tests has installed."""
    with closing(sqlite3.connect(folder / "home" / "ledger.db")) as ledger, ledger:
        assert ledger.execute("update runs set environment = ? where id = ?", (json.dumps(environment), run)).rowcount


def test_a_run_is_made_again_in_the_environment_that_it_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "answer", "1.0", {"answer.py": "VALUE = 41.5\n"})
    package(tmp_path, "answer", "2.0", {"answer.py": "VALUE = 42.0\n"})
    package(tmp_path, "borrowed", "1.0", {"borrowed.pth": sysconfig.get_path("purelib") + "\n"})  # what Flyball needs
    (tmp_path / "job").mkdir()
    script = (
        "import answer\nimport flyball as fb\nwith fb.run('deep', seed=1) as run:\n    run.log(value=answer.VALUE)\n"
    )
    (tmp_path / "job" / "train.py").write_text(script + "print(run.id)\n", encoding="utf-8")

    def beside(version: str) -> str:
        return os.pathsep.join([str(tmp_path / f"answer-{version}" / "site-packages"), str(ROOT)])

    done = subprocess.run(
        [sys.executable, "job/train.py"],
        cwd=tmp_path, env={**os.environ, "FLYBALL_HOME": str(tmp_path / "home"), "PYTHONPATH": beside("1.0")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip()
    monkeypatch.setenv("PYTHONPATH", beside("2.0"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    with closing(Platform.open(tmp_path / "home")) as platform:
        assert platform.run(run).environment["packages"]["answer"] == "1.0"
        here = platform.reproduce(run)
        assert not here.is_same
        assert [(one.package, one.recorded, one.here) for one in here.environment] == [("answer", "1.0", "2.0")]
        told = {"python": sys.version.split()[0], "packages": {"answer": "1.0+local", "borrowed": "1.0", "pip": "0.1"}}
        record(tmp_path, run, told)
        there = platform.reproduce(run, environment=True)
        assert there.is_same, (there.reasons, there.output)
        assert [one.verdict for one in there.metrics] == ["identical"]
        for packages, said in (({"nowhere": "9.0"}, "nowhere==9.0 is not to be had"), ({}, "recorded no packages")):
            record(tmp_path, run, {**told, "packages": packages})
            with pytest.raises((InvalidInput, Unavailable), match=said):
                platform.reproduce(run, environment=True)
        record(tmp_path, run, {**told, "python": "3.1.4"})
        with pytest.raises(Unavailable, match=r"no python3\.1 here"):
            platform.reproduce(run, environment=True)


def test_a_run_of_a_pipeline_says_how_it_is_made_again(tmp_path: Path) -> None:
    with closing(Platform.open(tmp_path / "home")) as platform:
        (platform.project / "late.py").write_text(_PIPELINE, encoding="utf-8")
        platform.declare("pipeline", "late", function="late.py:late")
        run = platform.start_pipeline("late", {"depth": 3})
        with pytest.raises(InvalidInput, match=r"flyball run late --param depth=3"):
            platform.reproduce(run.id)


_PIPELINE = "import flyball as fb\n\n\n@fb.pipeline\ndef late(depth: int = 1) -> int:\n    return depth\n"


def test_packages_that_differ_are_listed_by_name() -> None:
    then = {"python": "3.11.1", "packages": {"numpy": "1.0", "gone": "2", "same": "1"}}
    now = {"python": "3.11.2", "packages": {"numpy": "2.0", "same": "1", "new": "1"}}
    assert [(one.package, one.recorded, one.here) for one in package_changes(then, now)] == [
        ("python", "3.11.1", "3.11.2"), ("numpy", "1.0", "2.0"), ("gone", "2", None),
    ]  # fmt: skip
    assert package_changes({}, now) == []
