"""Versions that a client of MLflow registered: loaded, signed, looked through and deployed as any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.clock import SYSTEM
from flyball.control import Blocked, World
from flyball.errors import Forbidden, InvalidInput
from flyball.governance.identity import Principal
from flyball.models import bundle, mlmodel
from flyball.platform import Platform
from flyball.serving.deployments import DeploymentController
from flyball.serving.engine import Engine

FOLDER = Path(__file__).parents[1] / "models" / "data" / "mlmodels"
ROW = {"distance": 0.4, "hour": 7, "carrier": "UA"}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    yield opened
    opened.close()


def log(platform: Platform, folder: str, name: str = "late") -> int:
    """Keep a logged model's files and register a version of them, as a client does; return its number."""
    if not any(model.name == name for model in platform.search_models()[0]):
        platform.create_model(name)
    logged = platform.create_logged_model("0", "m")
    root = logged.location.removeprefix("mlflow-artifacts:/")
    for path in sorted((FOLDER / folder).rglob("*")):
        if path.is_file():
            platform.keep_bytes(f"{root}/{path.relative_to(FOLDER / folder)}", path.read_bytes())
    return platform.create_version(name, f"models:/{logged.id}", model_id=logged.id).number


@pytest.mark.parametrize("folder", ["sklearn_3", "xgboost_3", "lightgbm_3"])
def test_a_version_that_a_client_registered_loads_and_gets_its_bundle_once(folder: str, platform: Platform) -> None:
    number = log(platform, folder)
    recorded = platform.version(f"model/late@{number}")
    platform.set_alias("late", "champion", number)
    loaded = platform.as_(Principal("eve", "viewer")).load("late@champion")
    assert len(loaded.predict(loaded.signature.columns([ROW]))["prediction"]) == 1
    made = platform.version(f"model/late@{number}")
    assert made.digest == loaded.bundle.digest != recorded.digest
    assert made.metadata["flavor"] == folder.partition("_")[0]
    assert made.metadata["location"] == recorded.metadata["location"]
    assert platform.load("late").bundle.digest == made.digest
    with platform.ledger.read() as world:
        events = world.journal.find(ref=f"model/late@{number}", action="bundled", limit=5)
    assert len(events) == 1 and events[0].detail["from"] == recorded.digest
    assert platform.scan_model("late@1") == ()
    assert platform.model_version_source("late", str(number)) == recorded.metadata["location"]


def test_a_pickle_is_refused_and_the_version_stays_as_it_was(platform: Platform) -> None:
    number = log(platform, "sklearn_pickle_2")
    before = platform.version(f"model/late@{number}")
    with pytest.raises(Forbidden, match='serialization_format="skops"'):
        platform.load(f"late@{number}")
    assert platform.version(f"model/late@{number}") == before
    platform.create_version("late", "s3://bucket/model")
    with pytest.raises(InvalidInput, match="not kept by this server"):
        platform.load("late@2")


def test_a_deployment_serves_a_logged_model_and_says_why_it_cannot_serve_a_pickle(platform: Platform) -> None:
    log(platform, "xgboost_3")
    log(platform, "sklearn_pickle_2")
    platform.set_alias("late", "champion", 1)
    with platform.ledger.write("ann") as world:
        world.resources.apply("deployment", "late", {"model": "late@champion"})
    controller = next(one for one in platform.controllers() if isinstance(one, DeploymentController))
    world = World(platform.ledger, SYSTEM, "controller/deployment")
    assert not isinstance(controller.reconcile("late", world), Blocked)
    engine = Engine(platform.home, writer=None)
    engine.refresh()
    answer = engine.predict("late", [ROW])
    expected = platform.load("late@1").predict(platform.load("late@1").signature.columns([ROW]))
    assert answer.parts[0].outputs["probability"].tolist() == expected["probability"].tolist()
    platform.set_alias("late", "champion", 2)
    blocked = controller.reconcile("late", world)
    assert isinstance(blocked, Blocked) and "late@2 cannot be served" in blocked.reason
    assert engine.refresh().served["late"].deployment.variants[0].version == "late@1"
    engine.close()


@pytest.mark.parametrize("folder", ["sklearn_pickle_2"])
def test_a_pickle_is_loaded_and_served_once_a_trusted_key_signed_it(folder: str, platform: Platform) -> None:
    number = log(platform, folder)
    with pytest.raises(Forbidden, match="flyball model sign"):
        platform.load(f"late@{number}")
    platform.sign(f"late@{number}")
    loaded = platform.load(f"late@{number}")
    assert loaded.bundle.manifest["flavor"] == "mlmodel"
    answers = loaded.predict(loaded.signature.columns([ROW, {**ROW, "distance": -2.0}]))
    assert answers["prediction"].tolist() == (answers["probability"] > 0.5).astype(int).tolist()
    assert any(finding.is_unsafe for finding in platform.scan_model(f"late@{number}"))
    with pytest.raises(InvalidInput):
        loaded.signature.columns([{**ROW, "hour": "seven"}])
    platform.set_alias("late", "champion", number)
    with platform.ledger.write("ann") as world:
        world.resources.apply("deployment", "late", {"model": "late@champion"})
    controller = next(one for one in platform.controllers() if isinstance(one, DeploymentController))
    assert not isinstance(
        controller.reconcile("late", World(platform.ledger, SYSTEM, "controller/deployment")), Blocked
    )
    engine = Engine(platform.home, writer=None)
    engine.refresh()
    assert engine.predict("late", [ROW]).parts[0].outputs["prediction"].tolist() == answers["prediction"][:1].tolist()
    engine.close()
    for path in (platform.home / "signatures" / loaded.bundle.digest).iterdir():
        path.unlink()
    with pytest.raises(Forbidden, match="no trusted key signed it"):
        platform.load(f"late@{number}")


def test_a_folder_kept_as_it_is_is_unsafe_even_where_a_scan_of_its_files_finds_nothing(platform: Platform) -> None:
    found = mlmodel.keep(platform.blobs, {"MLmodel": _SKOPS, "model.skops": b"nothing that is known to be dangerous"})
    with pytest.raises(Forbidden, match="a folder of MLflow kept as it is"):
        bundle.load(platform.blobs, found.digest)
    with pytest.raises(Forbidden, match="no trusted key signed it"):
        bundle.load(platform.blobs, found.digest, platform.trust)


_SKOPS = b"""
flavors: {lightgbm: {data: model.skops, serialization_format: skops, skops_trusted_types: [os.system]}}
signature: {inputs: '[{"type": "double", "name": "x"}]'}
"""
