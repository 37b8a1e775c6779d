"""What a script records by `fb.run()`: experiments, tables, figures, files and folders, models."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

import flyball as fb
from flyball.errors import Conflict, InvalidInput, NotFound
from flyball.platform import Platform


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Platform]:
    opened = fb.open_home(tmp_path / "home")
    yield opened
    from flyball.api import _session

    _session.close()


def kept(home: Platform, run: fb.Recording, path: str) -> bytes:
    found = {artifact.path: artifact for artifact in home.artifacts(run.id)}
    data = home.blobs.get(found[path].digest)
    assert len(data) == found[path].size_bytes
    return data


def test_a_run_goes_into_the_experiment_of_the_name_which_is_made_once(home: Platform) -> None:
    ids = set()
    for _ in range(2):
        with fb.run("late", experiment="Flüge") as run:
            pass
        ids.add(home.run(run.id).experiment)
    assert ids == {home.experiment_by_name("Flüge").id}
    with fb.run("late") as run:
        pass
    assert home.run(run.id).experiment == "0"


def test_a_run_in_a_deleted_experiment_is_refused(home: Platform) -> None:
    home.delete_experiment(home.create_experiment("old").id)
    with pytest.raises(Conflict):
        fb.run("late", experiment="old")
    assert home.runs() == []


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, dict], ids=["polars", "pandas", "columns"])
def test_a_table_is_kept_as_mlflow_keeps_tables_and_named_in_its_tag(home: Platform, make: type) -> None:
    frame = make({"who": ["ä", None], "score": [0.5, float("nan")]})
    with fb.run("late") as run:
        run.log_table("eval/scores", frame)
        run.log_table("more.json", [{"a": 1}])
    assert json.loads(kept(home, run, "eval/scores.json")) == {
        "columns": ["who", "score"],
        "data": [["ä", 0.5], [None, None]],
    }
    tag = json.loads(home.run(run.id).tags["mlflow.loggedArtifacts"])
    assert tag == [{"path": "eval/scores.json", "type": "table"}, {"path": "more.json", "type": "table"}]


def test_a_table_named_parquet_keeps_its_types(home: Platform) -> None:
    frame = pl.DataFrame({"at": pl.Series([1, 2], dtype=pl.Datetime("us", "UTC")), "n": [2**60, None]})
    with fb.run("late") as run:
        run.log_table("t.parquet", frame)
    assert pl.read_parquet(io.BytesIO(kept(home, run, "t.parquet"))).equals(frame)


@pytest.mark.parametrize(
    ("name", "frame", "said"),
    [
        ("t.csv", {"a": [1]}, "not as .csv"),
        ("t", 3, "int is not a table"),
        ("t", {"a": [object()]}, "Python objects"),
        ("big", pl.DataFrame({"a": range(100_001)}), "big.parquet"),
        ("../t", {"a": [1]}, "not a relative path"),
    ],
)
def test_what_is_no_table_is_refused_and_keeps_nothing(home: Platform, name: str, frame: object, said: str) -> None:
    with fb.run("late") as run, pytest.raises(InvalidInput, match=said):
        run.log_table(name, frame)
    assert [a.path for a in home.artifacts(run.id) if not a.path.startswith("code/")] == []


def test_figures_are_kept_in_the_format_that_their_name_says(home: Platform) -> None:
    image = Image.new("RGB", (4, 3), "red")
    with fb.run("late") as run:
        png = run.log_figure("red", image)
        run.log_figure("plots/red.jpg", image)
        svg = run.log_figure("drawn", b'<svg xmlns="http://www.w3.org/2000/svg"/>')
        with pytest.raises(InvalidInput, match="cannot be told"):
            run.log_figure("what", b"\x00\x01")
        with pytest.raises(InvalidInput, match="no figure"):
            run.log_figure("what", 7)
        with pytest.raises(InvalidInput, match="cannot be written"):
            run.log_figure("red.doc", image)
    assert (png.path, svg.path) == ("red.png", "drawn.svg")
    assert Image.open(io.BytesIO(kept(home, run, "red.png"))).getpixel((0, 0)) == (255, 0, 0)
    assert Image.open(io.BytesIO(kept(home, run, "plots/red.jpg"))).format == "JPEG"


def test_a_folder_is_kept_whole_without_what_its_links_lead_to(home: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "wéights.bin").write_bytes(b"12")
    (folder / "a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "secret").write_text("s", encoding="utf-8")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "all").symlink_to(tmp_path, target_is_directory=True)
    with fb.run("late") as run:
        run.artifact(folder)
        run.artifact("copy", folder)
        run.artifact(tmp_path / "secret")
    found = [a.path for a in home.artifacts(run.id)]
    assert found == sorted(["copy/a.txt", "copy/deep/wéights.bin", "model/a.txt", "model/deep/wéights.bin", "secret"])


def test_a_file_in_the_place_of_a_folder_is_refused(home: Platform) -> None:
    with fb.run("late") as run:
        run.artifact("a/b", b"1")
        with pytest.raises(Conflict):
            run.artifact("a", b"2")
        with pytest.raises(InvalidInput, match="encode"):
            run.artifact("c", "text")  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="no file"):
            run.artifact("c", Path("not-there"))
    with pytest.raises(Conflict):
        run.artifact("late", b"3")
    assert kept(home, run, "a/b") == b"1"


def test_a_model_is_registered_and_loaded_by_alias_and_number(home: Platform) -> None:
    frame = pd.DataFrame({"distance": [0.0, 1.0, 2.0, 3.0], "hour": [1.0, 0.0, 1.0, 0.0]})
    model = LogisticRegression().fit(frame, [0, 0, 1, 1])
    version = fb.register("late", model, frame)
    home.set_alias("late", "best", version.number)
    for target in ("late@best", "late@1", "model/late@best", "late"):
        loaded = fb.load(target)
        answers = loaded.predict(loaded.signature.columns_from({n: frame[n].tolist() for n in frame.columns}))
        assert answers["prediction"].tolist() == model.predict(frame).tolist()
        assert answers["probability"] == pytest.approx(model.predict_proba(frame)[:, 1], abs=1e-4)
    with pytest.raises(NotFound):
        fb.load("late@nobody")


def test_the_script_and_its_modules_stay_with_the_run(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "helper.py").write_text("N = 3\n", encoding="utf-8")
    (tmp_path / "job" / "later.py").write_text("M = 4\n", encoding="utf-8")
    code = (
        "import flyball as fb, helper\nwith fb.run('x') as run:\n    import later\n    run.log(n=helper.N)\n"
        "print(*sorted(a.path for a in fb.home().artifacts(run.id)), fb.home().run(run.id).source['arguments'][0])\n"
    )
    (tmp_path / "job" / "train.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "FLYBALL_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "job/train.py", "--fast"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["code/helper.py", "code/later.py", "code/train.py", "--fast"], done.stderr
