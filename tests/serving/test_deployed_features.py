"""Features from the ledger into the snapshot: what deployments look up and what the feature server answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from flyball.clock import SYSTEM
from flyball.control import Blocked, World
from flyball.features.lookup import ViewSpec
from flyball.models import bundle
from flyball.platform import Platform
from flyball.serving.deployed_features import FeaturesController
from flyball.serving.deployments import DeploymentController
from flyball.serving.snapshot import Snapshot, read
from flyball.storage.blobs.files import FileBlobs

DIGEST = "ab" * 32


class Plant:
    """A home with a champion of one model, and its deployment's controller."""

    def __init__(self, path: Path) -> None:
        self.path = path / "serving"
        self.at = Platform.open(path)
        self.world = World(self.at.ledger, SYSTEM, "controller")
        self.controller = DeploymentController(self.path, None)  # type: ignore[arg-type]
        model = LogisticRegression().fit(pl.DataFrame({"wind": [0.0, 1.0]}), np.array([0, 1]))
        saved = bundle.save(FileBlobs(path / "blobs"), model, example=pl.DataFrame({"wind": [0.5]}))
        self.at.declare("model", "late")
        with self.world.write() as writing:
            writing.versions.publish("model", "late", saved.digest)
            writing.versions.set_alias("model", "late", "champion", 1)

    def view(self, name: str = "weather", version: int = 1, digest: str = DIGEST) -> dict[str, Any]:
        document = ViewSpec(name, ("airport",), "at", {f"{name}_wind": "float64"}, version=version).to_dict()
        self.at.declare("feature-view", name, definition=document, version=version, digest=digest)
        return document

    def service(self, *pins: tuple[str, int], digest: str = DIGEST) -> None:
        views = [{"view": name, "version": version, "digest": digest} for name, version in pins]
        self.at.declare("feature-service", "service", views=views)

    def look(self) -> Any:
        return self.controller.reconcile("late", self.world)

    @property
    def snapshot(self) -> Snapshot:
        return read(self.path / "snapshot.json")

    @property
    def served(self) -> list[dict[str, Any]]:
        return [dict(d) for d in self.snapshot.deployments["late"].features]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "home")
    yield made
    made.at.close()


def test_a_service_gives_its_pinned_views_once_and_beside_others(plant: Plant) -> None:
    one, two = plant.view("one"), plant.view("two")
    plant.service(("one", 1), ("two", 1))
    plant.at.declare("deployment", "late", model="late", features=["two"], service="service")
    plant.look()
    assert plant.served == [two, one]
    assert dict(plant.snapshot.features) == {"one": one, "two": two}
    assert dict(plant.snapshot.services) == {"service": ["one", "two"]}
    generation = plant.snapshot.generation
    plant.look()
    assert plant.snapshot.generation == generation, "nothing changed, so nothing was written"


def test_a_view_that_moves_on_stays_as_it_was_pinned_and_served(plant: Plant) -> None:
    first = plant.view()
    plant.service(("weather", 1))
    plant.at.declare("deployment", "late", model="late", service="service")
    plant.look()
    second = plant.view(version=2, digest="cd" * 32)
    assert not isinstance(plant.look(), Blocked)
    assert plant.served == [first]
    assert dict(plant.snapshot.features) == {"weather": second}
    plant.service(("weather", 2), digest="cd" * 32)
    plant.look()
    assert plant.served == [second]


def test_a_pin_that_nobody_has_blocks_its_deployment_and_leaves_the_others(plant: Plant) -> None:
    plant.view("other")
    plant.at.declare("deployment", "late", model="late", features=["other"])
    plant.look()
    before = plant.served
    plant.view(version=3)
    plant.service(("weather", 2))
    plant.at.declare("deployment", "late", model="late", features=["other"], service="service")
    outcome = plant.look()
    assert isinstance(outcome, Blocked)
    assert "pins weather@2, but feature-view/weather is declared as weather@3" in outcome.reason
    plant.at.declare("deployment", "second", model="late", features=["other"])
    plant.controller.reconcile("second", plant.world)
    assert plant.served == before
    assert set(plant.snapshot.deployments) == {"late", "second"}
    plant.service(("weather", 3), digest="cd" * 32)  # the same version, other code
    assert isinstance(plant.look(), Blocked)


@pytest.mark.parametrize("kind", ["feature-view", "feature-service"])
def test_features_reach_the_feature_server_without_any_deployment(plant: Plant, kind: str) -> None:
    document = plant.view()
    plant.service(("weather", 1))
    controller = FeaturesController(kind, plant.controller)
    assert controller.reconcile("weather", plant.world) is None
    assert dict(plant.snapshot.features) == {"weather": document}
    assert not plant.snapshot.deployments
