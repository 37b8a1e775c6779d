"""A declared routine reaches the snapshot, follows its parts' aliases, and says why where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from flyball.errors import InvalidInput
from flyball.features.functions import keep_function
from flyball.features.requests import on_request
from flyball.platform import Platform
from flyball.serving.snapshot import ServedDeployment, read

ROWS = [{"distance": 0.5, "hour": 1.0}, {"distance": -2.0, "hour": 0.25}]


@on_request(returns={"verdict": str})
def verdict(probability: float) -> dict[str, Any]:
    return {"verdict": "late" if probability > 0.5 else "on time"}


class Plant:
    """A home with models whose versions are registered and served as a user's are."""

    def __init__(self, path: Path) -> None:
        self.at = Platform.open(path)
        self.loop = self.at.loop()
        random = np.random.default_rng(0)
        self.frame = pl.DataFrame(random.normal(size=(200, 2)), schema=["distance", "hour"])
        self.wind = self.frame["distance"] * 2 - self.frame["hour"]
        for name in ("weather", "late"):
            self.at.declare("model", name)
        self.weather(1.0)
        stacked = self.frame.with_columns(self.wind.alias("weather_prediction"))
        model = LogisticRegression().fit(stacked, (self.wind > 1).cast(int))
        self.at.register("late", model, example=stacked[:5])
        self.settle()

    def weather(self, factor: float) -> int:
        model = LinearRegression().fit(self.frame, self.wind * factor)
        return self.at.register("weather", model, example=self.frame[:5]).number

    def settle(self) -> None:
        self.loop.settle()

    def point(self, name: str, number: int) -> None:
        with self.at.ledger.write("test") as writing:
            writing.versions.set_alias("model", name, "champion", number)
        self.settle()

    @property
    def served(self) -> ServedDeployment:
        return read(self.at.home / "serving" / "snapshot.json").deployments["late"]

    def answers(self) -> list[dict[str, Any]]:
        return self.at.predict("late", ROWS)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "home")
    yield made
    made.at.close()


def test_a_part_follows_its_alias_forward_and_back_and_the_log_names_it(plant: Plant) -> None:
    spec = keep_function(verdict, plant.at.home)
    plant.at.declare("feature-view", "verdict", definition=spec.to_dict(), digest=spec.digest)
    routine = {"combine": "chain", "parts": [{"model": "weather"}], "post": ["verdict"]}
    plant.at.declare("deployment", "late", model="late", routine=routine)
    plant.settle()
    first, revision = plant.answers(), plant.served.revision
    assert {answer["version"] for answer in first} == {"late@1+weather@1"}
    assert {answer["outputs"]["verdict"] for answer in first} <= {"late", "on time"}
    plant.point("weather", plant.weather(-1.0))
    second = plant.answers()
    assert plant.served.revision == revision + 1
    assert {answer["version"] for answer in second} == {"late@1+weather@2"}
    assert second[0]["outputs"]["probability"] != first[0]["outputs"]["probability"]
    plant.point("weather", 1)
    third = plant.answers()
    assert [a["outputs"] for a in third] == [a["outputs"] for a in first]
    assert plant.served.revision == revision + 2
    logged = plant.at.prediction(second[0]["id"])
    assert (logged.version, logged.revision) == ("late@1+weather@2", revision + 1)
    links = {(link.what, link.ref) for link in plant.at.provenance(second[0]["id"])}
    assert {("model", "model/late@1"), ("model", "model/weather@2")} <= links
    with pytest.raises(InvalidInput, match="answered by a routine"):
        plant.at.explanation(second[0]["id"])
    generation = read(plant.at.home / "serving" / "snapshot.json").generation
    plant.settle()
    assert read(plant.at.home / "serving" / "snapshot.json").generation == generation


def test_a_routine_that_does_not_fit_is_blocked_and_what_is_served_goes_on(plant: Plant) -> None:
    plant.at.declare("deployment", "late", model="late", routine={"parts": [{"model": "weather"}]})
    plant.settle()
    before = plant.served
    plant.at.declare("deployment", "late", model="late", routine={"combine": "mean", "parts": [{"model": "weather"}]})
    plant.settle()
    conditions = plant.at.resource("deployment/late").status
    assert 'weather and late do not answer "prediction" alike' in str(conditions)
    assert plant.served == before
    assert plant.answers()[0]["version"] == "late@1+weather@1"


def test_a_part_without_a_version_is_waited_for(plant: Plant) -> None:
    plant.at.declare("model", "none")
    plant.at.declare("deployment", "late", model="late", routine={"parts": [{"model": "none"}]})
    plant.settle()
    assert "model/none has no version champion yet" in str(plant.at.resource("deployment/late").status)


@pytest.mark.parametrize(
    ("routine", "why"),
    [
        ({"combine": "router", "parts": [{"model": "weather"}]}, "a router needs by"),
        ({"combine": "mean", "by": "hour", "parts": [{"model": "weather"}]}, "by and when are a router's"),
        ({"parts": [{"model": "weather"}, {"model": "weather@1"}]}, "in the routine twice"),
        ({}, "has parts or functions"),
        ({"combine": "median", "parts": [{"model": "weather"}]}, "combine"),
    ],
)
def test_a_wrong_declaration_is_refused_in_a_sentence(plant: Plant, routine: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        plant.at.declare("deployment", "late", model="late", routine=routine)
