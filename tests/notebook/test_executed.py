"""A run in a notebook keeps the notebook as it was executed; seen with a real kernel."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from flyball.platform import Platform

CELLS = [
    "import flyball as fb\nfb.home()\nprint('größer')",
    "1 + 1",
    "from IPython.display import display, HTML\ndisplay(HTML('<b>bold</b>'))",
    "with fb.run('in a notebook', depth=3) as run:\n    run.log(loss=0.5)\nrun",
    "print('after the run')",
]


def test_the_executed_notebook_stays_with_its_run_and_the_run_shows_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_HOME", str(tmp_path / "home"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    done = NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = done.cells[3].outputs[-1]["data"]["text/html"]
    assert "in a notebook" in shown
    assert "loss" in shown
    with closing(Platform.open(tmp_path / "home")) as platform:
        run = platform.runs()[0]
        kept = {artifact.path: artifact for artifact in platform.artifacts(run.id)}
        assert list(kept) == ["notebook.ipynb"]
        text = platform.blobs.get(kept["notebook.ipynb"].digest).decode()
    found = nbformat.reads(text, as_version=4)
    nbformat.validate(found)
    assert [cell.source for cell in found.cells] == CELLS[:4]
    assert found.cells[0].outputs[0]["text"] == "größer\n"
    assert found.cells[1].outputs[0]["data"]["text/plain"] == "2"
    assert found.cells[2].outputs[0]["data"]["text/html"] == "<b>bold</b>"
