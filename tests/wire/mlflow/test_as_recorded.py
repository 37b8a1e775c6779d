"""Ours answers what MLflow's own server answered, request by request, except where the reason stands here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flyball.platform import Platform
from tests.wire.mlflow.asked_of_runs import SCENARIOS
from tests.wire.mlflow.replaying import Answer, play
from tests.wire.mlflow.serving import served

_LISTED = re.compile(r" '\{| \['| Error: \(")  # from here on: a set or list of Python, or words of MLflow's database
RECORDED: dict[str, list[Answer]] = json.loads((Path(__file__).parent / "data" / "runs.json").read_bytes())["answers"]


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
        if not (_is_as(theirs, ours) if expected is None else _is_meant(expected, ours)):
            asked = step.get("raw") or step.get("body") or step.get("query")
            wrong.append(f"\n{step['verb']} {step['path']} {asked}\n  {expected or theirs}\n  {ours}")
    assert not wrong, "".join(wrong)


def test_no_answer_is_an_error_of_the_server(answers: dict[str, list[Answer]]) -> None:
    assert [answer for given in answers.values() for answer in given if answer["status"] >= 500] == []


def test_what_is_called_a_difference_is_one() -> None:
    for name, steps in SCENARIOS.items():
        for step, theirs in zip(steps, RECORDED[name], strict=True):
            if {"code", "says", "body"} & set(step.get("ours", ())):
                assert not _is_meant(step["ours"], theirs), (name, step)


def _is_as(theirs: Answer, ours: Answer) -> bool:
    if theirs["status"] != ours["status"]:
        return False
    expected, found = _without_workspaces(theirs["body"]), ours["body"]
    if isinstance(expected, dict) and "error_code" in expected:
        told, said = expected.pop("message"), found.get("message", "")
        return _says(told, said) and expected == {k: v for k, v in found.items() if k != "message"}
    if isinstance(expected, str):  # a page of the framework that MLflow uses: a plain answer without JSON
        return isinstance(found, str)
    return bool(expected == found)


def _says(theirs: str, ours: str) -> bool:
    """Return whether a message is MLflow's, or begins as MLflow's does and goes on to say what was expected."""
    told = _LISTED.split(theirs)[0]
    return ours.startswith(told if told != theirs else told.removesuffix("."))


def _is_meant(expected: dict[str, Any], found: Answer) -> bool:
    body = found["body"]
    if found["status"] != expected["status"]:
        return False
    if "body" in expected:
        return bool(body == expected["body"])
    if "code" in expected and body.get("error_code") != expected["code"]:
        return False
    return "says" not in expected or (isinstance(body, dict) and body.get("message", "").startswith(expected["says"]))


def _without_workspaces(body: Any) -> Any:
    """Return an answer without the name of the workspace: this server has none, as its server-info says."""
    if isinstance(body, dict):
        return {k: _without_workspaces(v) for k, v in body.items() if k != "workspace"}
    return [_without_workspaces(item) for item in body] if isinstance(body, list) else body
