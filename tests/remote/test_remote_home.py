"""What `import flyball as fb` does with a home on another machine, besides runs."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from sklearn.linear_model import LogisticRegression

import flyball as fb
from flyball import api
from flyball.errors import Conflict, Corrupt, Forbidden, InvalidInput, NotFound
from flyball.remote.home import RemoteHome
from tests.cli.running import RECORD, Up, serves_late, until

FRAME = pl.DataFrame(np.random.default_rng(5).normal(size=(60, 2)), schema=["a", "größe"])
TARGET = (FRAME["a"] > 0).cast(int).to_numpy()


def test_a_model_is_registered_from_a_run_and_loaded_by_its_alias(remote: RemoteHome, away: Path) -> None:
    model = LogisticRegression().fit(FRAME, TARGET)
    rows = fb.Rows.of(FRAME.with_columns(late=pl.Series(TARGET)), "late")
    with fb.run("fit", depth=6) as run:
        run.evaluate(model, rows)
        version = run.register("elsewhere", model, note="die erste")
    assert str(version.ref) == "model/elsewhere@1"
    assert version.run == run.id and version.metadata["note"] == "die erste"
    assert version.metadata["evaluation"]["rows"] == 60
    assert remote.run(run.id).result["version"] == "model/elsewhere@1"
    fb.home().set_alias("elsewhere", "bereit", 1)
    assert fb.home().aliases("model", "elsewhere")["bereit"] == 1
    for _ in range(2):  # fetched, then from the cache
        loaded = fb.load("elsewhere@bereit")
        answers = loaded.predict(loaded.signature.columns(FRAME.to_dicts()))
        assert np.allclose(answers["probability"], model.predict_proba(FRAME)[:, 1])
        assert loaded.bundle.digest == version.digest
    assert loaded.bundle.manifest["metadata"]["run"] == run.id
    assert "configuration/params.json" in loaded.bundle.manifest["files"]
    fb.home().remove_alias("elsewhere", "bereit")
    with pytest.raises(NotFound):
        fb.load("elsewhere@bereit")
    assert list((away / "cache" / "models").iterdir())


def test_registering_again_is_another_version_and_an_answer_lost_is_not(remote: RemoteHome) -> None:
    first = fb.register("twice", LogisticRegression(C=1.0).fit(FRAME, TARGET), FRAME.head(3))
    second = fb.register("twice", LogisticRegression(C=0.1).fit(FRAME, TARGET), FRAME.head(3), note="smaller")
    assert (first.number, second.number) == (1, 2)
    body = {"digest": first.digest, "request": first.metadata["request"]}
    again = remote.connection.ask("POST", "/api/v1/models/twice/versions", json=body)
    assert again["number"] == 1, "the same request is the same version"
    assert [v.number for v in fb.home().versions("model", "twice")] == [2, 1]


@pytest.mark.usefixtures("remote")
def test_a_cached_model_that_was_changed_on_disk_is_fetched_again(away: Path) -> None:
    fb.register("changed", LogisticRegression().fit(FRAME, TARGET), FRAME.head(3))
    digest = fb.load("changed@1").bundle.manifest["files"]["model/model.skops"]["digest"]
    cached = next(p for p in (away / "cache" / "models").rglob("*") if digest.endswith(p.name) and p.is_file())
    cached.chmod(0o644)
    cached.write_bytes(b"changed")
    assert fb.load("changed@1").signature.inputs
    assert cached.read_bytes() != b"changed"


def test_a_bundle_that_is_not_the_versions_is_refused(remote: RemoteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, strength in enumerate((1.0, 0.5), 1):
        fb.register("swapped", LogisticRegression(C=strength).fit(FRAME, TARGET), FRAME.head(3))
        assert remote.version("model/swapped").number == number
    real = remote.connection.download

    def other(path: str, to: Path) -> None:
        real(path.replace("@2", "@1"), to)

    monkeypatch.setattr(remote.connection, "download", other)
    with pytest.raises(Corrupt, match="do not use it"):
        fb.load("swapped@2")


@pytest.mark.usefixtures("remote")
def test_a_home_that_wants_signatures_here_loads_nothing_without(monkeypatch: pytest.MonkeyPatch) -> None:
    fb.register("unsigned", LogisticRegression().fit(FRAME, TARGET), FRAME.head(3))
    monkeypatch.setenv("FLYBALL_MODELS_REQUIRE_SIGNATURE", "true")
    with pytest.raises(Forbidden, match="no trusted key signed it"):
        fb.load("unsigned@1")


@pytest.mark.usefixtures("remote")
def test_predictions_are_asked_of_the_data_plane_and_their_truth_is_told(server: Up) -> None:
    until(lambda: serves_late(server.predictions))
    one = fb.predict("late", RECORD)
    many = fb.predict("late", [RECORD, RECORD])
    assert one["version"] == "late@1" and len(many) == 2
    assert one["outputs"]["probability"] == pytest.approx(many[0]["outputs"]["probability"])
    assert fb.label("late", {one["id"]: 1, many[0]["id"]: 0}) == 2
    with pytest.raises(NotFound):
        fb.predict("nothing-of-the-sort", RECORD)
    with pytest.raises(InvalidInput):
        fb.predict("late", {"distance": "far"})


def test_rows_are_read_as_they_are_there(server: Up, remote: RemoteHome) -> None:
    from flyball.platform import Platform

    rows = pl.DataFrame(
        {
            "id": [1, 2, 3],
            "näme": ["ä", "北京", None],
            "at": [datetime(2024, 1, day, 12, tzinfo=UTC) for day in (1, 2, 3)],
            "late": [0.1, None, float("inf")],
        }
    )
    platform = Platform.open(server.home)
    try:
        platform.declare("dataset", "fluge", target="late")
        platform.publish("fluge", rows.head(2))
        platform.publish("fluge", rows)
    finally:
        platform.close()
    data = fb.dataset("fluge")
    assert_frame_equal(data.frame().collect(), rows)
    assert_frame_equal(data.frame(1, columns=["id"]).collect(), rows.head(2).select("id"))
    assert data.to_pandas()["näme"][1] == "北京"
    assert data.to_arrow().read_all().num_rows == 3
    assert [v.number for v in data.versions()] == [2, 1] and data.latest().number == 2
    assert data.rows().target == "late"
    with pytest.raises(NotFound):
        data.frame(9)
    with pytest.raises(InvalidInput):
        data.frame(columns=["nothing"])
    with fb.run("learnt") as run:
        data.frame()
    assert remote.run(run.id).result["read"]["fluge"] == 2


@pytest.mark.usefixtures("remote")
def test_the_catalogue_is_searched_and_resources_are_declared() -> None:
    declared = fb.declare("Dataset", "declared-remotely", target="y", description="Ankünfte")
    assert declared.spec["target"] == "y"
    assert "declared-remotely" in [hit.name for hit in fb.search("declared-remotely")]
    assert fb.dataset("declared-remotely", target="z").name == "declared-remotely"
    assert fb.home().resource("dataset/declared-remotely").spec["target"] == "z"
    assert fb.home().resource("dataset/declared-remotely").spec["description"] == "Ankünfte"
    assert "declared-remotely" in fb.why("dataset/declared-remotely")
    with pytest.raises(InvalidInput):
        fb.declare("Dataset", "bad", nothing="of the sort")


def _step(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("what", "act"),
    [
        ("fb.deploy", lambda: fb.deploy("late")),
        ("fb.watch", lambda: fb.watch("late")),
        ("fb.push", lambda: fb.push("view", {"x": 1})),
        ("fb.look_up", lambda: fb.look_up(["view"], id=1)),
        ("fb.materialise", lambda: fb.materialise("view")),
        ("fb.agreement", lambda: fb.agreement("view")),
        ("fb.training_set", lambda: fb.training_set(FRAME, [])),
        ("fb.feature_service", lambda: fb.feature_service("x", [])),
        ("fb.submit", lambda: fb.submit(fb.pipeline(_step))),
        ("fb.settle", lambda: fb.settle()),
        ("publish", lambda: fb.dataset("flights-elsewhere").publish(FRAME)),
        ("profile", lambda: fb.dataset("flights-elsewhere").profile()),
    ],
)
def test_what_needs_the_homes_own_files_says_where_it_can_be_done(remote: RemoteHome, what: str, act: object) -> None:
    assert callable(act)
    with pytest.raises(InvalidInput) as raised:
        act()
    sentence = str(raised.value)
    assert sentence.startswith(f"{what} works on the home's own files") and remote.url in sentence


def test_flyball_url_says_the_same_and_a_named_home_wins(
    server: Up, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYBALL_URL", server.pages + "/")
    assert isinstance(fb.home(), RemoteHome)
    assert fb.home().resource("model/late").name == "late"
    fb.open_home(away / "local")
    try:
        assert not isinstance(fb.home(), RemoteHome)
        with fb.run("here") as run:
            pass
        assert fb.home().run(run.id).status == "succeeded"
    finally:
        api._session.close()
    with fb.run("offline", offline=away / "folder") as run:
        pass
    assert (away / "folder" / run.id / "log.jsonl").exists(), "a folder that is asked for wins too"


def test_a_deleted_experiment_refuses_the_run_before_it_begins(server: Up, remote: RemoteHome, away: Path) -> None:
    import httpx2

    made = remote.create_experiment("gone")
    httpx2.post(f"{server.pages}/api/2.0/mlflow/experiments/delete", json={"experiment_id": made.id}).raise_for_status()
    with pytest.raises(Conflict):
        fb.run("late", experiment="gone")
    assert not list((away / "state").rglob("run.json"))
    with pytest.raises(Conflict):
        remote.create_experiment("gone")


def test_the_answers_of_the_api_are_made_into_the_ledgers_own_values(server: Up, remote: RemoteHome) -> None:
    from flyball.platform import Platform

    with fb.run("same", experiment="same", depth=[1, {"x": None}]) as run:
        run.log({"loss": 0.5}, step=2)
        run._sink.result(found=[1, 2])
    platform = Platform.open(server.home)
    try:
        ours, theirs = remote.run(run.id), platform.run(run.id)
        assert ours == theirs
        assert remote.artifacts(run.id) == platform.artifacts(run.id)
        assert remote.metric(run.id, "loss") == platform.metric(run.id, "loss")
        assert remote.experiment_by_name("same") == platform.experiment_by_name("same")
        assert remote.version("model/late@1") == platform.version("model/late@1")
        assert {r.name for r in remote.resources("model")} == {r.name for r in platform.resources("model")}
        assert remote.resource("model/late").spec == platform.resource("model/late").spec
        assert remote.search("late").hits == platform.search("late").hits
    finally:
        platform.close()
    assert json.loads(json.dumps(dict(ours.params))) == {"depth": [1, {"x": None}]}
    assert os.environ.get("FLYBALL_URL") is None
