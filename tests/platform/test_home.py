"""A home that several processes open first at the same time: all of them get the same whole home."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flyball.errors import InvalidInput
from flyball.ledger.sql import migrate, open_ledger
from flyball.platform import Platform
from flyball.platform import home as home_module


def test_a_home_that_another_process_makes_between_two_looks_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other begins, and is done, right after the first has found no home there."""
    looked: Callable[[Path], dict[str, Any]] = home_module._home_facts
    project = tmp_path / "project"

    def look(home: Path) -> dict[str, Any]:
        facts = looked(home)
        if not facts:
            monkeypatch.undo()
            with closing(Platform.open(home)) as other:
                other.belongs_to(project)
        return facts

    monkeypatch.setattr(home_module, "_home_facts", look)
    with closing(Platform.open(tmp_path / "home")) as platform:
        assert platform.experiment("0").name == "Default"
        assert platform.project == project


def test_what_another_process_writes_of_a_home_before_the_first_does_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found none; the other has noted the project when the first comes to write."""
    write, project = home_module._write_json, tmp_path / "project"

    def late(path: Path, document: Mapping[str, Any], *, is_first: bool = False) -> None:
        monkeypatch.undo()
        with closing(Platform.open(path.parent)) as other:
            other.belongs_to(project)
        write(path, document, is_first=is_first)

    monkeypatch.setattr(home_module, "_write_json", late)
    with closing(Platform.open(tmp_path / "home")) as platform:
        assert platform.project == project
    assert [path.name for path in (tmp_path / "home").glob(".flyball.json.*")] == []


def test_a_folder_of_other_files_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InvalidInput, match="not empty"):
        Platform.open(tmp_path)


def test_who_opens_while_another_makes_the_schema_finds_the_default_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process asks in the middle of the first one's migration, before its commit and after its first look."""
    upgrade = migrate.upgrade
    found: list[str] = []
    second = threading.Thread(target=lambda: found.append(_opened(tmp_path)))

    def slowly(connection: Any, revision: str = "head") -> None:
        monkeypatch.setattr(migrate, "upgrade", upgrade)
        waits = threading.Event()
        monkeypatch.setattr(migrate, "_exclusively", _telling(migrate._exclusively, waits))
        # It has the write lock of the database: the second waits for it, with what it read before.
        second.start()
        upgrade(connection, revision)
        waits.set()

    monkeypatch.setattr(migrate, "upgrade", slowly)
    first = _opened(tmp_path)
    second.join(30)
    assert [first, *found] == ["Default", "Default"]


def _telling(plain: Callable[..., Any], event: threading.Event) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        assert event.wait(30)
        return plain(*args)

    return call


def _opened(folder: Path) -> str:
    with closing(open_ledger(folder)) as ledger, ledger.write("user/a") as world:
        world.runs.start("training", "fit", experiment="0")
        return world.experiments.get("0").name


def test_many_processes_open_an_empty_folder_at_once(tmp_path: Path) -> None:
    begin_read, begin_write = os.pipe()
    children = []
    for number in range(6):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            os.close(begin_write)
            os.read(begin_read, 1)  # until all are there
            with closing(Platform.open(tmp_path / "home")) as platform:
                platform.recorder.create_run("0", f"run {number}").result()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(begin_write)
    os.close(begin_read)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
    with closing(Platform.open(tmp_path / "home")) as platform:
        assert len(platform.search_runs(["0"])[0]) == 6
