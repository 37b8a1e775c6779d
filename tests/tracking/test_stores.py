"""What the real MLflow wrote is imported: its file store (2.22) and its SQLite databases (2.22, 3.17).

The archives in data/stores are made by make_mlflow_stores.py, which says what is in them.
"""

from __future__ import annotations

import math
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flyball.cli import app
from flyball.errors import InvalidInput, NotFound
from flyball.platform import Platform
from flyball.platform.importing import ImportReport
from flyball.tracking.stores import open_store

DATA = Path(__file__).resolve().parent / "data" / "stores"
STORES = {"files2": "mlruns", "sqlite2": "mlflow.db", "sqlite3": "mlflow.db"}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


def unpacked(name: str, folder: Path) -> Path:
    with tarfile.open(DATA / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "store"


def imported(platform: Platform, name: str, folder: Path) -> ImportReport:
    root = unpacked(name, folder)
    return platform.import_runs([root / STORES[name]], [root / "artifacts"])


@pytest.mark.parametrize("name", STORES)
def test_a_store_of_mlflow_is_taken_in_whole(platform: Platform, tmp_path: Path, name: str) -> None:
    found = imported(platform, name, tmp_path)
    assert (found.new, found.versions, found.files, found.refused) == (6, 2, 2, [])
    flights = platform.experiment_by_name("flights")
    assert (dict(flights.tags), flights.is_deleted) == ({"team": "späte Flüge"}, False)
    assert platform.experiment_by_name("gone").is_deleted
    runs = {run.name: run for run in platform.search_runs([flights.id], view="all")[0]}
    first = runs["first"]
    assert dict(first.params) == {"depth": "6", "path/with": "x = 1\ny = 2", "empty": ""}
    assert (first.status, first.tags["kind"], first.tags["mlflow.note.content"]) == (
        "succeeded",
        "baseline",
        "what it is",
    )
    loss = platform.metric(first.id, "train/loss")
    assert [(p.value, p.step, p.at_ms) for p in loss] == [(1 / (n + 1), n, 1_700_000_000_000 + n) for n in range(50)]
    odd = {p.step: p.value for p in platform.metric(first.id, "odd")}
    assert math.isnan(odd[0])
    assert (odd[-1], odd[3]) == (1.7976931348623157e308, -1.7976931348623157e308)
    assert (runs["broken"].status, runs["deleted"].is_deleted, runs["child"].parent) == ("failed", True, first.id)
    files = {a.path: platform.blobs.get(a.digest).decode() for a in platform.artifacts(first.id)}
    assert files["notes/grüße.txt"] == "größer"
    assert [(i["name"], i["tags"]["mlflow.data.context"]) for i in first.inputs] == [("rows", "training")]
    waiting = platform.search_runs(["0"])[0]
    assert [(run.name, run.status) for run in waiting] == [("still running", "running")]


@pytest.mark.parametrize("name", STORES)
def test_registered_models_keep_numbers_aliases_tags_and_stages(platform: Platform, tmp_path: Path, name: str) -> None:
    imported(platform, name, tmp_path)
    model = platform.model("late")
    assert (model.description, model.note.tags["team"], dict(model.aliases)) == ("who is late", "a", {"champion": 2})
    one, two = platform.model_version("late", 1), platform.model_version("late", 2)
    assert (one.note.stage, two.note.stage or None, one.note.tags["n"]) == ("Staging", None, "1")
    place = platform.place_at(two.location)
    assert [entry.name for entry in platform.files_in(place)] == ["grüße.txt"]


@pytest.mark.parametrize("name", STORES)
def test_a_store_imported_twice_is_there_once(platform: Platform, tmp_path: Path, name: str) -> None:
    imported(platform, name, tmp_path)
    before = platform.runs(deleted=None, limit=1000)
    again = imported(platform, name, tmp_path)
    assert (again.new, again.changed, again.unchanged, again.versions, again.refused) == (0, 0, 6, 0, [])
    assert platform.runs(deleted=None, limit=1000) == before
    assert len(platform.search_versions("name = 'late'")[0]) == 2


def test_files_are_looked_for_only_where_the_caller_says(platform: Platform, tmp_path: Path) -> None:
    root = unpacked("files2", tmp_path)
    secret = tmp_path / "secret" / "artifacts"
    secret.mkdir(parents=True)
    (secret / "key").write_text("s", encoding="utf-8")
    run = next(p.parent for p in root.glob("mlruns/*/*/meta.yaml") if "run_name: first" in p.read_text())
    meta = (run / "meta.yaml").read_text(encoding="utf-8").splitlines()
    lines = [f"artifact_uri: file://{secret}" if line.startswith("artifact_uri") else line for line in meta]
    (run / "meta.yaml").write_text("\n".join(lines), encoding="utf-8")
    (run / "artifacts" / "link").symlink_to(secret / "key")
    found = platform.import_runs([root / "mlruns"])
    assert platform.artifacts(run.name) == []
    assert {"link", run.name} <= {one.what for one in found.refused}


def test_hostile_parts_of_a_file_store_are_refused_and_the_rest_is_taken(platform: Platform, tmp_path: Path) -> None:
    root = unpacked("files2", tmp_path) / "mlruns"
    (tmp_path / "passwd").write_text("secret", encoding="utf-8")
    run = next(p.parent for p in root.glob("*/*/meta.yaml") if "run_name: first" in p.read_text())
    (run / "params" / "stolen").symlink_to(tmp_path / "passwd")
    (run / "tags" / "all").symlink_to(tmp_path, target_is_directory=True)
    (run / "metrics" / "bad").write_text("1 2 3 4\n", encoding="utf-8")
    (run / "metrics" / "huge").write_text("1 2 99999999999999999999\n", encoding="utf-8")
    os.mkfifo(run / "params" / "pipe")
    (run / "params" / "bytes").write_bytes(b"\xff\xfe")
    bomb = run.parent / ("b" * 32)
    bomb.mkdir()
    laughs = "a: &a [x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)},*{chr(97 + n)}]\n" for n in range(20)
    )
    (bomb / "meta.yaml").write_text(laughs, encoding="utf-8")
    code = run.parent / ("c" * 32)
    code.mkdir()
    (code / "meta.yaml").write_text(f"!!python/object/apply:os.mknod ['{tmp_path}/owned']", encoding="utf-8")
    (run.parent / ("d" * 32)).mkdir()
    found = platform.import_runs([root])
    assert not (tmp_path / "owned").exists()
    assert found.new == 6
    refused = {one.what for one in found.refused}
    assert {"b" * 32, "c" * 32, "d" * 32, "stolen", "all", "pipe"} <= refused
    kept = platform.run(run.name)
    assert sorted(kept.params) == ["depth", "empty", "path/with"]
    assert sorted(kept.metrics) == ["odd", "train/loss"]


def test_what_is_no_store_is_refused_before_anything_is_taken(platform: Platform, tmp_path: Path) -> None:
    root = unpacked("files2", tmp_path)
    (tmp_path / "text").write_text("hello", encoding="utf-8")
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\x00" + b"x" * 5000)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE runs (a)").connection.close()
    for path in ("text", "broken.db", "other.db"):
        with pytest.raises(InvalidInput):
            platform.import_runs([root / "mlruns", tmp_path / path])
    with pytest.raises(NotFound):
        open_store(tmp_path / "nothing")
    assert platform.runs() == []


def test_the_command_tells_what_was_taken_and_refused(tmp_path: Path) -> None:
    root = unpacked("sqlite3", tmp_path)
    command = ["import", str(root / "mlflow.db"), "--home", str(tmp_path / "home")]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, "runs: 6 new" in done.output) == (0, True), done.output
    assert "6 as before" in CliRunner().invoke(app, command).output
    assert CliRunner().invoke(app, ["import", str(tmp_path / "no")]).exit_code == 1
