"""Runs that are written as folders, without a home: a crash loses nothing, and imported twice they are there once."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flyball as fb
from flyball.errors import Conflict, InvalidInput
from flyball.platform import Platform
from flyball.tracking.offline import OfflineRun


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


def written(folder: Path) -> fb.Recording:
    with fb.run("late", experiment="Flüge", offline=folder, depth=6, rate=0.1, layers=[1, 2]) as run:
        for step in range(100):
            run.log(step=step, loss=1 / (step + 1))
        run.log({"odd": math.nan, "far": math.inf})
        run.tags(colour="blau")
        run.artifact("größe/notes.txt", b"hello")
        run.log_table("t", {"a": [1]})
        run.use(fb.ref("dataset/flights@12"))
    return run


def test_an_offline_run_is_imported_with_all_that_it_was_told(platform: Platform, tmp_path: Path) -> None:
    run = written(tmp_path / "runs")
    found = platform.import_runs([tmp_path / "runs"])
    assert (found.new, found.refused) == (1, [])
    kept = platform.run(run.id)
    assert (kept.name, kept.status, dict(kept.params)) == (
        "late",
        "succeeded",
        {"depth": 6, "rate": 0.1, "layers": [1, 2]},
    )
    assert platform.experiment(str(kept.experiment)).name == "Flüge"
    assert kept.tags["colour"] == "blau"
    assert "numpy" in kept.environment["packages"]
    assert kept.started_at <= kept.finished_at  # type: ignore[operator]
    assert [p.value for p in platform.metric(run.id, "loss")] == [1 / (step + 1) for step in range(100)]
    assert math.isnan(platform.metric(run.id, "odd")[0].value)
    files = {a.path: platform.blobs.get(a.digest) for a in platform.artifacts(run.id)}
    assert files["größe/notes.txt"] == b"hello"
    with platform.ledger.read() as world:
        edges = world.lineage.walk(fb.ref(f"run/{run.id}"), "upstream").edges
    assert [edge.source for edge in edges] == ["dataset/flights@12"]


def test_importing_twice_is_importing_once(platform: Platform, tmp_path: Path) -> None:
    run = written(tmp_path / "runs")
    platform.import_runs([tmp_path / "runs"])
    before = platform.run(run.id)
    again = platform.import_runs([tmp_path / "runs", tmp_path / "runs" / run.id])
    assert (again.new, again.changed, again.unchanged, again.refused) == (0, 0, 2, [])
    assert platform.run(run.id) == before


def test_a_run_that_is_still_written_is_imported_again_for_the_rest(platform: Platform, tmp_path: Path) -> None:
    run = OfflineRun(tmp_path / "runs", "late", None, {"a": 1})
    run.log(step=0, loss=1.0)
    assert platform.import_runs([tmp_path / "runs"]).new == 1
    assert platform.run(run.id).status == "running"
    run.log(step=1, loss=0.5)
    run.params(b=2)
    run.artifact("x", b"1")
    run.finish("failed", "as planned")
    found = platform.import_runs([tmp_path / "runs"])
    assert (found.new, found.changed) == (0, 1)
    kept = platform.run(run.id)
    assert (kept.status, kept.error, dict(kept.params)) == ("failed", "as planned", {"a": 1, "b": 2})
    assert [(p.step, p.value) for p in platform.metric(run.id, "loss")] == [(0, 1.0), (1, 0.5)]


def test_what_was_logged_before_a_kill_is_there(platform: Platform, tmp_path: Path) -> None:
    code = (
        "import flyball as fb, sys, signal\nrun = fb.run('late', seed=1)\n"
        "for step in range(1000): run.log(step=step, loss=step)\nprint('ready', flush=True)\nsignal.pause()\n"
    )
    environment = {**os.environ, "FLYBALL_OFFLINE": str(tmp_path / "runs")}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    folder = next((tmp_path / "runs").iterdir())
    with (folder / "log.jsonl").open("ab") as log:
        log.write(b'{"points": [["loss", 5')  # as a crash of the machine leaves it
    assert platform.import_runs([tmp_path / "runs"]).refused == []
    assert len(platform.metric(folder.name, "loss")) == 1000


def test_a_run_that_nobody_ended_ends_with_its_program(platform: Platform, tmp_path: Path) -> None:
    for ending, status in (("", "succeeded"), ("raise ValueError('why')", "failed")):
        code = f"import flyball as fb\nrun = fb.run('late', offline={str(tmp_path / status)!r})\n{ending}\n"
        subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
        platform.import_runs([tmp_path / status])
        assert platform.runs()[0].status == status


def test_offline_refuses_what_the_home_refuses(tmp_path: Path) -> None:
    with fb.run("late", offline=tmp_path, depth=6) as run:
        with pytest.raises(Conflict, match="depth = 6"):
            run.params(depth=7)
        with pytest.raises(InvalidInput, match="expected a number"):
            run.log(loss="0.5")  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="not a relative path"):
            run.artifact("../x", b"")
        with pytest.raises(Conflict, match="offline"):
            run.register("late", object())
    with pytest.raises(Conflict):
        run.log(loss=1)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidInput):
        fb.run("late", offline=tmp_path / "file")


def test_a_run_of_the_same_id_that_was_not_imported_is_left_alone(platform: Platform, tmp_path: Path) -> None:
    run = written(tmp_path / "runs")
    platform.recorder.create_run("0", "mine", id=run.id).result()
    found = platform.import_runs([tmp_path / "runs"])
    assert (found.new, len(found.refused)) == (0, 1)
    assert platform.run(run.id).name == "mine"


def test_hostile_folders_are_refused_and_the_others_taken(platform: Platform, tmp_path: Path) -> None:
    run = written(tmp_path / "runs")
    folder = tmp_path / "runs"
    (tmp_path / "secret").write_text("secret", encoding="utf-8")

    def forged(name: str, facts: str, log: str = "") -> Path:
        (folder / name / "files").mkdir(parents=True)
        (folder / name / "run.json").write_text(facts, encoding="utf-8")
        (folder / name / "log.jsonl").write_text(log, encoding="utf-8")
        return folder / name

    good = {"format": 1, "id": "a" * 32, "name": "x", "started_ms": 1}
    digest = "b" * 64
    forged("later", json.dumps({**good, "format": 2}))
    forged("badid", json.dumps({**good, "id": "../../etc"}))
    forged("nested", "[" * 100_000)
    forged("list", "[]")
    lines = [
        f'{{"file": "../../x", "digest": "{digest}", "size": 1}}',
        '{"file": "x", "digest": "../../../secret", "size": 1}',
        f'{{"file": "linked", "digest": "{digest}", "size": 1}}',
        f'{{"file": "forged", "digest": "{("c" * 64)}", "size": 1}}',
        '{"points": [["k", "x", 0, 0], ["k", 1, 1e400, 0]]}',
        '{"points": [["k", 1, 99999999999999999999999, 0]]}',
        '{"tags": 3}',
        '{"end": "exploded", "at_ms": 1}',
        "nonsense",
        '{"points": [["fine", 1, 0, 5]]}',
    ]
    bad = forged("lines", json.dumps(good), "\n".join(lines) + "\n")
    (bad / "files" / digest).symlink_to(tmp_path / "secret")
    (bad / "files" / ("c" * 64)).write_text("not those bytes", encoding="utf-8")
    (folder / "away").symlink_to(tmp_path)
    found = platform.import_runs([folder])
    assert found.new == 2
    assert {one.what.partition("/")[0] for one in found.refused} >= {"later", "badid", "nested", "list", "lines"}
    assert [a.path for a in platform.artifacts("a" * 32)] == []
    assert list(platform.run("a" * 32).metrics) == ["fine"]
    assert platform.run(run.id).status == "succeeded"
