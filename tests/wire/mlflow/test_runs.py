"""Runs over MLflow's protocol: what the recording of its server cannot show, since it needs many or much."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx2
import pytest

from flyball.ledger.points import Point
from flyball.platform import Platform
from flyball.wire.mlflow.keys import PARAM_VALUE
from flyball.wire.mlflow.run_values import Fragments
from tests.wire.mlflow.serving import served

_API = "/api/2.0/mlflow/"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with closing(Platform.open(tmp_path_factory.mktemp("runs") / "home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def api(platform: Platform) -> Iterator[httpx2.Client]:
    with served(platform) as client:
        yield client


def post(api: httpx2.Client, path: str, expected: int = 200, **body: Any) -> Any:
    answer = api.post(_API + path, json=body)
    assert answer.status_code == expected, answer.text
    return answer.json()


def get(api: httpx2.Client, path: str, **query: Any) -> Any:
    answer = api.get(_API + path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def new_run(api: httpx2.Client, experiment: str = "0", **more: Any) -> str:
    id: str = post(api, "runs/create", experiment_id=experiment, **more)["run"]["info"]["run_id"]
    return id


def metric(key: str, value: Any, at: int = 1, step: int = 0, **more: Any) -> dict[str, Any]:
    return {"key": key, "value": value, "timestamp": at, "step": step, **more}


def test_a_run_that_was_found_before_is_found_as_it_is_now(api: httpx2.Client) -> None:
    experiment = post(api, "experiments/create", name="kept texts")["experiment_id"]
    runs = [new_run(api, experiment, start_time=number) for number in range(3)]

    def changes() -> Iterator[None]:
        for run in runs:
            post(api, "runs/log-metric", run_id=run, **metric("m", 0.5))
            yield
            post(api, "runs/log-metric", run_id=run, **metric("m", 0.75, 2, 1))
            yield
            post(api, "runs/log-batch", run_id=run, metrics=[metric("many", n / 7, n, n) for n in range(1000)])
            yield
            post(api, "runs/log-parameter", run_id=run, key="p", value="1")
            yield
            post(api, "runs/set-tag", run_id=run, key="t", value="1")
            yield
            post(api, "runs/delete-tag", run_id=run, key="t")
            yield
            used = {"dataset": {"name": "d", "digest": "1", "source_type": "s", "source": "{}"}}
            post(api, "runs/log-inputs", run_id=run, datasets=[used])
            yield
            post(api, "runs/update", run_id=run, status="FINISHED", end_time=7)
            yield
            post(api, "runs/log-metric", run_id=run, **metric("after", 1.0))
            yield
            post(api, "runs/delete", run_id=run)
            yield
            post(api, "runs/restore", run_id=run)
            yield
        post(api, "experiments/delete", experiment_id=experiment)
        yield
        post(api, "experiments/restore", experiment_id=experiment)
        yield

    for _ in changes():
        found = post(api, "runs/search", experiment_ids=[experiment], run_view_type="ALL")["runs"]
        assert found == [get(api, "runs/get", run_id=run)["run"] for run in reversed(runs)]


def test_kept_texts_are_bounded_and_the_oldest_used_go_first() -> None:
    kept = Fragments(size_bytes=100)
    made: list[str] = []

    def make(missing: list[str]) -> dict[str, tuple[int, bytes]]:
        made.extend(missing)
        return {id: (1, id.encode() * 30) for id in missing if id != "gone"}

    assert kept.of({"a": 1, "b": 1, "gone": 1}, make) == [b"a" * 30, b"b" * 30]
    assert kept.of({"b": 1, "a": 1}, make) == [b"b" * 30, b"a" * 30]
    assert kept.of({"c": 1, "d": 1}, make) == [b"c" * 30, b"d" * 30]
    made.clear()
    assert kept.of({"a": 1, "d": 1}, make) == [b"a" * 30, b"d" * 30]
    assert made == []
    kept.of({"b": 1, "a": 2}, make)
    assert made == ["b", "a"]


def test_a_metric_of_a_model_is_logged_on_run_and_model_or_on_neither(api: httpx2.Client) -> None:
    run = new_run(api)
    model = post(api, "logged-models", experiment_id="0", name="m")["model"]["info"]["model_id"]
    post(api, "runs/log-metric", run_id=run, **metric("one", 0.5, model_id=model, dataset_name="d", dataset_digest="9"))
    post(api, "runs/log-batch", run_id=run, metrics=[metric("two", "NaN", model_id=model), metric("three", 3)])
    told = get(api, f"logged-models/{model}")["model"]["data"]["metrics"]
    assert sorted((m["key"], m["value"], m["run_id"]) for m in told) == [("one", 0.5, run), ("two", "NaN", run)]
    assert {m["key"] for m in get(api, "runs/get", run_id=run)["run"]["data"]["metrics"]} == {"one", "two", "three"}

    nobody = f"m-{'0' * 32}"
    wrong = post(api, "runs/log-batch", 404, run_id=run, metrics=[metric("four", 4), metric("x", 1, model_id=nobody)])
    assert wrong["error_code"] == "RESOURCE_DOES_NOT_EXIST" and nobody in wrong["message"]
    assert "four" not in {m["key"] for m in get(api, "runs/get", run_id=run)["run"]["data"]["metrics"]}


def test_a_batch_of_more_than_a_million_bytes_is_refused(api: httpx2.Client) -> None:
    run = new_run(api)
    tags = [{"key": f"t{n}", "value": "v" * 11_000} for n in range(100)]
    wrong = post(api, "runs/log-batch", 400, run_id=run, tags=tags)
    assert wrong["message"].startswith("Batched logging API requests must be at most 1000000 bytes, got a request of")
    post(api, "runs/log-batch", run_id=run, tags=tags[:80])
    kept = {tag["key"]: tag["value"] for tag in get(api, "runs/get", run_id=run)["run"]["data"]["tags"]}
    assert kept["t3"] == "v" * 8000


def test_long_values_are_refused_where_the_server_shall_not_cut(
    api: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(api)
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    long = "v" * (PARAM_VALUE + 1)
    one = post(api, "runs/log-parameter", 400, run_id=run, key="p", value=long)
    several = post(api, "runs/log-batch", 400, run_id=run, tags=[{"key": "t", "value": "v" * 8001}])
    assert one["message"] == "'Param value' exceeds the maximum length of 6000 characters"
    assert several["message"] == "'tags[0].value' exceeds the maximum length of 8000 characters"


def test_many_clients_at_once_lose_nothing_and_one_of_two_parameters_wins(api: httpx2.Client) -> None:
    run = new_run(api)

    def client(number: int) -> int:
        for n in range(20):
            post(api, "runs/log-metric", run_id=run, **metric("m", number + n / 100, n, number))
        given = {"run_id": run, "params": [{"key": "p", "value": str(number)}], "metrics": [metric(f"w{number}", 1)]}
        return api.post(f"{_API}runs/log-batch", json=given).status_code

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(client, range(8)))
    assert sorted(outcomes) == [200] + [400] * 7
    data = get(api, "runs/get", run_id=run)["run"]["data"]
    winner = outcomes.index(200)
    assert data["params"] == [{"key": "p", "value": str(winner)}]
    assert {m["key"] for m in data["metrics"]} == {"m", f"w{winner}"}
    assert len(get(api, "metrics/get-history", run_id=run, metric_key="m")["metrics"]) == 160


def test_pages_of_a_history_join_to_the_whole(api: httpx2.Client) -> None:
    run, chance = new_run(api), random.Random(4)
    points = [
        metric("m", chance.choice([0.0, 1.5, "NaN"]), chance.randint(0, 50), chance.randint(-9, 9)) for _ in range(999)
    ]
    post(api, "runs/log-batch", run_id=run, metrics=points)
    pages, token = [], ""
    while True:
        page = get(api, "metrics/get-history", run_id=run, metric_key="m", max_results=70, page_token=token)
        pages += page["metrics"]
        token = page.get("next_page_token", "")
        if not token:
            break
    distinct = {json.dumps(point, sort_keys=True) for point in points}
    assert len(pages) == len(distinct) and {json.dumps(p, sort_keys=True) for p in pages} == distinct
    assert pages == get(api, "metrics/get-history", run_id=run, metric_key="m")["metrics"]
    assert [(p["timestamp"], p["step"]) for p in pages] == sorted((p["timestamp"], p["step"]) for p in pages)


def test_samples_are_the_first_of_equal_stretches_and_the_last_point(platform: Platform) -> None:
    chance = random.Random(5)
    for _ in range(60):
        given = [
            Point("m", chance.choice([0.0, -1.0, 2.0, math.nan]), chance.randint(-3, 12), chance.randint(0, 5))
            for _ in range(chance.randint(0, 60))
        ]
        run = platform.recorder.create_run().result().id
        platform.recorder.log(run, points=given + chance.sample(given, len(given) // 3)).result()
        first, last = chance.choice([(None, None), (0, 5), (3, 8)])
        count = chance.randint(1, 12)
        within = {
            _key(point)
            for point in given
            if first is None or (point.step >= first and point.step <= (last if last is not None else first))
        }
        found = platform.metric_sample([run], "m", first, last, count).get(run, [])
        assert [_key(point) for point in found] == _stretches(sorted(within), count)


def _key(point: Point) -> tuple[int, int, float, bool]:
    is_nan = math.isnan(point.value)
    return point.step, point.at_ms, 0.0 if is_nan else point.value, is_nan


def _stretches(every: list[Any], count: int) -> list[Any]:
    """Return what SQL's `ntile` and the greatest row choose, as MLflow's server does, one row after the other."""
    if len(every) <= count:
        return every
    chosen, row = [], 0
    for bucket in range(count):
        chosen.append(every[row])
        row += len(every) // count + (bucket < len(every) % count)
    return [*chosen[:-1], every[-1]]
