"""`flyball sweep` as people call it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flyball.cli import app
from flyball.errors import InvalidInput
from flyball.platform import Platform


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FLYBALL_SWEEP_GRACE_S", "0")
    with closing(Platform.open(tmp_path / "home")) as platform:
        run = platform.recorder.create_run("0", "fit").result().id
        platform.keep_bytes(f"0/{run}/artifacts/a", b"12345")
        platform.delete_run(run)
    yield tmp_path / "home"


def told(home: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["sweep", "--home", str(home), *options])
    return done.exit_code, done.output


def test_a_dry_run_lists_what_the_sweep_then_does(home: Path) -> None:
    assert "nothing was deleted long enough ago" in told(home)[1]
    code, dry = told(home, "--dry-run", "--older-than", "0s", "--json")
    assert code == 0
    assert "would go" in told(home, "--dry-run", "--older-than", "0s")[1]
    code, done = told(home, "--older-than", "0s", "--json")
    assert (code, json.loads(done)) == (0, json.loads(dry))
    listed = json.loads(done)
    assert [(one["kind"], one["name"], one["files"]) for one in listed["removed"]] == [("run", "fit", 1)]
    assert (listed["blobs"], listed["blob_bytes"]) == (1, 5)
    assert json.loads(told(home, "--older-than", "0s", "--json")[1])["removed"] == []


def test_what_is_missing_makes_it_fail_after_the_rest(home: Path) -> None:
    with closing(Platform.open(home)) as platform:
        run = platform.recorder.create_run("0", "fit").result().id
        platform.keep_bytes(f"0/{run}/artifacts/a", b"lost")
        (file,) = platform.artifacts(run)
        assert platform.blobs.delete(file.digest)
    code, output = told(home, "--older-than", "0s")
    assert code == 1
    assert "the bytes of 1 files are missing" in output
    assert "1 blobs without reference went" in output


def test_an_age_that_is_none_is_refused(home: Path) -> None:
    done = CliRunner().invoke(app, ["sweep", "--home", str(home), "--older-than", "soon"])
    assert isinstance(done.exception, InvalidInput)
    assert "older_than is no retention" in str(done.exception)
