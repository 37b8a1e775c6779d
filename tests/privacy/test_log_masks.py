"""What a contract protects reaches the prediction log masked, unless the deployment says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from flyball.errors import InvalidInput
from flyball.platform import Platform
from flyball.tracking.exploring import Explorer

ROWS = pl.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "hour": [1.0, 2.0, 3.0, 4.0]})


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform.open(tmp_path / "home")
    opened.declare("dataset", "people", columns={"age": {"classification": "personal"}})
    version = opened.publish("people", ROWS)
    opened.declare("model", "late")
    opened.register("late", LogisticRegression().fit(ROWS, [0, 0, 1, 1]), example=ROWS, trained_on=version.version.ref)
    yield opened
    opened.close()


def logged(platform: Platform, **log: Any) -> list[Any]:
    platform.declare("deployment", "late", model="late", log=log)
    platform.loop().settle()
    platform.predict("late", ROWS.to_dicts())
    platform.engine.close()
    return sorted(Explorer(platform.home / "traffic").rows("late")["input.age"].to_list())


def test_a_protected_input_is_a_hash_in_the_log(platform: Platform) -> None:
    found = logged(platform)
    assert all(isinstance(value, str) and len(value) == 32 for value in found)
    assert len(set(found)) == ROWS.height


def test_what_the_deployment_clears_is_kept_as_it_is(platform: Platform) -> None:
    assert logged(platform, clear=["age"]) == ROWS["age"].to_list()


def test_a_share_of_the_requests_and_their_durability_are_declared(platform: Platform) -> None:
    assert logged(platform, requests=1.0, durability="os", when_full="drop", clear=["age"]) == ROWS["age"].to_list()
    for wrong in ({"requests": 1.5}, {"durability": "memory"}, {"when_full": "wait"}, {"requests": "some"}):
        with pytest.raises(InvalidInput):
            platform.declare("deployment", "late", model="late", log=wrong)
