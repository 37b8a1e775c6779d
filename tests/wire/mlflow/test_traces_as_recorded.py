"""Ours answers about traces, sets and scorers what MLflow's own server answered, except where the reason stands."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flyball.platform import Platform
from tests.wire.mlflow.asked_of_traces import SCENARIOS
from tests.wire.mlflow.replaying import Answer, play
from tests.wire.mlflow.serving import served
from tests.wire.mlflow.test_as_recorded import _is_as, _is_meant

_NOW = re.compile(r"20[2-9]\d-\d\d-\d\dT[\d:.]+Z")
_SAID = {"2024-01-01T00:00:00Z", "2024-01-01T00:00:00.500Z", "2024-01-01T00:00:01.250Z", "2023-11-14T22:13:20Z"}
_RANDOM = {"digest", "scorer_id", "created_time", "last_update_time", "creation_time"}
_SORTED = {"tags", "request_metadata", "assessments", "experiment_ids"}
RECORDED: dict[str, list[Answer]] = json.loads((Path(__file__).parent / "data" / "traces.json").read_bytes())["answers"]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Answer]]]:
    """What ours answers to everything, on a new home: the numbers of experiments are then those of the recording."""
    with (
        closing(Platform.open(tmp_path_factory.mktemp("recorded") / "home")) as platform,
        served(platform) as client,
    ):

        def send(
            verb: str, path: str, query: list[tuple[str, str]], body: bytes | None, headers: dict[str, str]
        ) -> tuple[int, str]:
            answer = client.request(verb, path, params=query, content=body, headers=headers)
            return answer.status_code, answer.text

        yield {name: list(play(send, steps)) for name, steps in SCENARIOS.items()}


def test_every_request_has_a_recorded_answer() -> None:
    assert {name: len(steps) for name, steps in SCENARIOS.items()} == {n: len(a) for n, a in RECORDED.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_answers_are_those_of_mlflow(name: str, answers: dict[str, list[Answer]]) -> None:
    wrong = []
    for step, theirs, ours in zip(SCENARIOS[name], RECORDED[name], answers[name], strict=True):
        expected = step.get("ours")
        if not (_is_as(_settled(theirs), _settled(ours)) if expected is None else _is_meant(expected, ours)):
            asked = step.get("raw") or step.get("body") or step.get("query")
            wrong.append(
                f"\n{step['verb']} {step['path']} {asked}\n  {expected or _settled(theirs)}\n  {_settled(ours)}"
            )
    assert not wrong, "".join(wrong)


def test_no_answer_is_an_error_of_the_server(answers: dict[str, list[Answer]]) -> None:
    assert [answer for given in answers.values() for answer in given if answer["status"] >= 500] == []


def _settled(found: Any, key: str = "") -> Any:
    """Return an answer without what is random or now; what has no order is sorted."""
    if isinstance(found, dict):
        return {name: _settled(value, name) for name, value in found.items()}
    if isinstance(found, list):
        kept = [_settled(item) for item in found]
        return sorted(kept, key=lambda item: json.dumps(item, sort_keys=True)) if key in _SORTED else kept
    if key in _RANDOM:
        return "{random}"
    if key == "next_page_token":  # it has the place behind the offset
        return json.loads(base64.b64decode(found))["offset"]
    if key == "records":
        return [_settled(record) for record in json.loads(found)]
    if isinstance(found, str) and found not in _SAID:
        return _NOW.sub("{now}", found)
    return found
