"""The loop on tables of a user's own, and what is said when the table or the options are wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from flyball.demo.main import MARK, DemoOptions, run_demo


def _table(folder: Path, **columns: list[object]) -> Path:
    path = folder / "table.csv"
    pl.DataFrame(columns).write_csv(path)
    return path


def _good(folder: Path) -> Path:
    return _table(folder, x=list(range(4000)), y=[i % 2 for i in range(4000)])


def _one_class(folder: Path) -> Path:
    return _table(folder, x=list(range(4000)), z=[i % 7 for i in range(4000)], y=[1] * 4000)


def _latin(folder: Path) -> Path:
    path = folder / "table.csv"
    path.write_bytes("x,y\nZürich,1\nGenève,0\n".encode("latin-1"))
    return path


def _empty(folder: Path) -> Path:
    path = folder / "table.csv"
    path.write_bytes(b"")
    return path


def _short(folder: Path) -> Path:
    return _table(folder, x=[i % 13 for i in range(300)], y=[i % 2 for i in range(300)])


def _missing(folder: Path) -> Path:
    return folder / "nowhere.csv"


@pytest.mark.parametrize(
    ("table", "options", "code", "said"),
    [
        (_good, {"target": None}, 2, "needs --target"),
        (_good, {"target": "why"}, 2, 'has no column "why", given by --target'),
        (_good, {"time": "when"}, 2, 'has no column "when", given by --time'),
        (_good, {"entity": "y"}, 2, 'the column "y" was given by --target, --entity'),
        (_good, {"time": "x"}, 1, "expected dates or times"),
        (_one_class, {}, 1, "a model needs at least two values"),
        (_latin, {}, 1, "UTF-8"),
        (_empty, {}, 1, "empty"),
        (_short, {}, 1, "the demo needs at least"),
        (_missing, {}, 1, "there is no file"),
        (_good, {"data": None}, 2, "give the table with --data"),
        (_good, {"seasons": True}, 2, "leave --data out"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence_before_anything_is_started(
    table: Callable[[Path], Path],
    options: dict[str, object],
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = tmp_path / "home"
    given = {"data": table(tmp_path), "target": "y", "home": home, **options}
    assert run_demo(DemoOptions(**given)) == code  # type: ignore[arg-type]
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert len(error.splitlines()) == 1
    assert not home.exists()


def test_a_home_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").write_text("")
    assert run_demo(DemoOptions(home=tmp_path / "home")) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["control.json", "serving/status.json"])
def test_a_former_demo_that_something_runs_in_is_refused_and_left_as_it_is(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / MARK).write_text("{}")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps({"pid": os.getpid()}))
    assert run_demo(DemoOptions(home=tmp_path)) == 2
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err
    assert (tmp_path / file).exists()
