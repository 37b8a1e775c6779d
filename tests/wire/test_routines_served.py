"""A routine in a real data plane: asked as any model, its parts swapped while it runs, its steps told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from planes import Home, Plane, until

from flyball.serving.snapshot import Part, Routine

ROW = {"distance": 1.25, "hour": -0.5}
PREDICT = "/v1/models/late:predict"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    found = Home(tmp_path_factory.mktemp("routine"))
    found.deploy(routine=mean_with(found, "late@2"))
    return found


@pytest.fixture(scope="module")
def plane(home: Home) -> Iterator[Plane]:
    running = Plane(home.path)
    yield running
    running.kill()


def mean_with(home: Home, version: str) -> Routine:
    return Routine("mean", (Part("late", version, home.digests[version]),))


def test_a_routine_is_asked_as_any_model(home: Home, plane: Plane) -> None:
    wanted = (home.probability("late@1", **ROW) + home.probability("late@2", **ROW)) / 2
    (record,) = plane.call("POST", PREDICT, {"records": [ROW]}).json["predictions"]
    assert record["version"] == "late@1+late@2"
    assert record["outputs"]["probability"] == pytest.approx(wanted, abs=1e-12)
    metadata = plane.call("GET", "/v2/models/late/versions/1").json
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["distance", "hour"]
    inputs = [{"name": n, "shape": [1], "datatype": "FP64", "data": [v]} for n, v in ROW.items()]
    answer = plane.call("POST", "/v2/models/late/versions/1/infer", {"inputs": inputs}).json
    tensors = {tensor["name"]: tensor["data"] for tensor in answer["outputs"]}
    assert tensors["probability"] == pytest.approx([wanted], abs=1e-12)


def test_what_each_step_took_is_told(plane: Plane) -> None:
    assert plane.call("POST", PREDICT, {"records": [ROW]}).status == 200
    told = plane.call("GET", "/metrics").body.decode()
    pattern = r'flyball_routine_step_seconds_count\{deployment="late",step="([^"]+)"\} (\d+)'
    counts = {step: int(count) for step, count in re.findall(pattern, told)}
    assert set(counts) == {"late@1", "late@2"}
    assert all(count >= 1 for count in counts.values())


def test_a_part_is_swapped_under_load_and_no_answer_mixes_two_routines(home: Home, plane: Plane) -> None:
    one, two = (home.probability(version, **ROW) for version in ("late@1", "late@2"))
    wanted = {"late@1+late@2": (one + two) / 2, "late@1+late@1": one}

    def ask(_: int) -> str:
        reply = plane.call("POST", PREDICT, {"records": [ROW]})
        assert reply.status == 200
        (record,) = reply.json["predictions"]
        assert record["outputs"]["probability"] == pytest.approx(wanted[record["version"]], abs=1e-12)
        return str(record["version"])

    with ThreadPoolExecutor(4) as pool:
        for number in range(6):
            version = ("late@1", "late@2")[number % 2]
            generation = home.deploy(routine=mean_with(home, version))
            list(pool.map(ask, range(20)))
            until(lambda generation=generation: home.told()["generation"] == generation)
            assert ask(0) == f"late@1+{version}"
