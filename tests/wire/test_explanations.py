"""Explanations with a prediction, over HTTP and gRPC, from a real data plane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from planes import Home, Plane

ROW = {"distance": 1.25, "hour": -0.5}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    found = Home(tmp_path_factory.mktemp("explained"))
    found.deploy()
    return found


@pytest.fixture(scope="module")
def plane(home: Home) -> Iterator[Plane]:
    running = Plane(home.path)
    yield running
    running.kill()


def by_hand(home: Home, row: dict[str, float]) -> tuple[float, dict[str, float]]:
    """Coefficient times (value − mean of the example), and the score of that mean."""
    model = home.models["late@1"]
    example = np.random.default_rng(3).normal(size=(200, 2))[:3].mean(axis=0)
    weights = dict(zip(("distance", "hour"), model.coef_[0], strict=True))
    given = {name: weights[name] * (row[name] - mean) for name, mean in zip(weights, example, strict=True)}
    return float(model.intercept_[0] + model.coef_[0] @ example), given


def test_records_are_explained_where_the_request_asks_for_it(home: Home, plane: Plane) -> None:
    body = {"records": [ROW, {"distance": 0.0, "hour": 2.0}], "explain": True}
    found = plane.call("POST", "/v1/models/late:predict", body).json["predictions"]
    for row, record in zip(body["records"], found, strict=True):
        base, contributions = by_hand(home, row)
        told = record["explanation"]
        assert (told["method"], told["output"], told["scale"]) == ("linear", "probability", "log-odds")
        assert told["base"] == pytest.approx(base, abs=1e-12)
        assert told["contributions"] == pytest.approx(contributions, abs=1e-12)
        assert told["base"] + sum(told["contributions"].values()) == pytest.approx(told["score"], abs=1e-12)
        assert 1 / (1 + np.exp(-told["score"])) == pytest.approx(record["outputs"]["probability"])
    plain = plane.call("POST", "/v1/models/late:predict", {"records": [ROW]}).json["predictions"]
    assert "explanation" not in plain[0]


def test_tensors_are_explained_in_tensors_also_where_outputs_are_named(home: Home, plane: Plane) -> None:
    inputs = [{"name": n, "shape": [1], "datatype": "FP64", "data": [v]} for n, v in ROW.items()]
    body: dict[str, Any] = {"inputs": inputs, "parameters": {"explain": True}, "outputs": [{"name": "probability"}]}
    answer = plane.call("POST", "/v2/models/late/infer", body).json
    base, contributions = by_hand(home, ROW)
    tensors = {tensor["name"]: tensor for tensor in answer["outputs"]}
    assert list(tensors) == ["probability", "explanation", "explanation_base", "explanation_score"]
    assert tensors["explanation"]["shape"] == [1, 2]
    names = json.loads(answer["parameters"]["explanation_inputs"])
    assert dict(zip(names, tensors["explanation"]["data"], strict=True)) == pytest.approx(contributions, abs=1e-12)
    assert tensors["explanation_base"]["data"] == pytest.approx([base])


def test_grpc_answers_the_same_explanation(home: Home, plane: Plane) -> None:
    address = plane.call("GET", "/health").json["grpc"]
    client = triton.InferenceServerClient(address.removeprefix("grpc://"))
    inputs = []
    for name, value in ROW.items():
        tensor = triton.InferInput(name, [1], "FP64")
        tensor.set_data_from_numpy(np.array([value]))
        inputs.append(tensor)
    answer = client.infer("late", inputs, parameters={"explain": True})
    _, contributions = by_hand(home, ROW)
    assert answer.as_numpy("explanation")[0].tolist() == pytest.approx(list(contributions.values()), abs=1e-12)
    assert answer.get_response().parameters["explanation_scale"].string_param == "log-odds"
    with pytest.raises(Exception, match="true or false"):
        client.infer("late", inputs, parameters={"explain": "yes"})
    client.close()


def test_a_wrong_wish_is_refused_and_nothing_is_logged(plane: Plane) -> None:
    before = plane.call("GET", "/v2/models/late/stats").json["model_stats"][0]["inference_count"]
    wrong = plane.call("POST", "/v1/models/late:predict", {"records": [ROW], "explain": 1})
    assert (wrong.status, wrong.json["error"]) == (400, '"explain" is neither true nor false')
    many = plane.call("POST", "/v1/models/late:predict", {"records": [ROW] * 101, "explain": True})
    assert many.status == 400
    assert "at most 100" in many.json["error"]
    after = plane.call("GET", "/v2/models/late/stats").json["model_stats"][0]["inference_count"]
    assert after == before


def test_explanations_at_once_do_not_mix_and_neighbours_are_answered(home: Home, plane: Plane) -> None:
    def ask(number: int) -> tuple[int, Any]:
        row = {"distance": number / 7, "hour": 1.0}
        body = {"records": [row], "explain": True} if number % 2 else {"records": [row]}
        return number, plane.call("POST", "/v1/models/late:predict", body).json["predictions"][0]

    with ThreadPoolExecutor(8) as pool:
        for number, record in pool.map(ask, range(60)):
            row = {"distance": number / 7, "hour": 1.0}
            assert record["outputs"]["probability"] == pytest.approx(home.probability("late@1", **row), rel=1e-12)
            if number % 2:
                assert record["explanation"]["contributions"] == pytest.approx(by_hand(home, row)[1], abs=1e-12)


def test_the_log_has_explained_predictions_as_all_others(home: Home, plane: Plane) -> None:
    from flyball.tracking.traffic import TrafficReader

    record = plane.call("POST", "/v1/models/late:predict", {"records": [ROW], "explain": True}).json["predictions"][0]
    found = TrafficReader(Path(home.traffic)).find(record["id"])
    assert found is not None
    assert found.outputs["probability"] == record["outputs"]["probability"]
    assert set(found.outputs) == {"prediction", "probability"}
