"""Ours answers what MLflow's own server answered, request by request, except where the reason stands here."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flyball.platform import Platform
from tests.wire.mlflow import asked_of_files, asked_of_registry, asked_of_runs
from tests.wire.mlflow.replaying import Answer, play
from tests.wire.mlflow.serving import served

_LISTED = re.compile(r" '\{| \['| Error: \(")  # from here on: a set or list of Python, or words of MLflow's database
_ASKED = {"runs": asked_of_runs, "files": asked_of_files, "registry": asked_of_registry}
SCENARIOS = {(about, name): steps for about, module in _ASKED.items() for name, steps in module.SCENARIOS.items()}


def _recorded(about: str) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = json.loads((Path(__file__).parent / "data" / f"{about}.json").read_bytes())[
        "answers"
    ]
    return found


RECORDED = {(about, name): answers for about in _ASKED for name, answers in _recorded(about).items()}
_Answers = dict[tuple[str, str], list[Answer]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> _Answers:
    """What ours answers to everything, each subject on a new home: numbers are then those of the recording."""
    found: _Answers = {}
    for about, module in _ASKED.items():
        with (
            closing(Platform.open(tmp_path_factory.mktemp(about) / "home")) as platform,
            served(platform) as client,
        ):

            def send(
                verb: str,
                path: str,
                query: list[tuple[str, str]],
                body: bytes | None,
                headers: dict[str, str],
                client: httpx2.Client = client,
            ) -> tuple[int, str]:
                answer = client.request(verb, path, params=query, content=body, headers=headers)
                return answer.status_code, answer.text

            found |= {(about, name): list(play(send, steps)) for name, steps in module.SCENARIOS.items()}
    return found


def test_every_request_has_a_recorded_answer() -> None:
    assert {key: len(steps) for key, steps in SCENARIOS.items()} == {key: len(a) for key, a in RECORDED.items()}


@pytest.mark.parametrize("key", SCENARIOS, ids=[" of ".join(reversed(key)) for key in SCENARIOS])
def test_answers_are_those_of_mlflow(key: tuple[str, str], answers: _Answers) -> None:
    wrong = []
    for step, theirs, ours in zip(SCENARIOS[key], RECORDED[key], answers[key], strict=True):
        expected = step.get("ours")
        if not (_is_as(theirs, ours) if expected is None else _is_meant(expected, ours)):
            asked = step.get("raw") or step.get("body") or step.get("query")
            wrong.append(f"\n{step['verb']} {step['path']} {asked}\n  {expected or theirs}\n  {ours}")
    assert not wrong, "".join(wrong)


def test_no_answer_is_an_error_of_the_server(answers: _Answers) -> None:
    assert [answer for given in answers.values() for answer in given if answer["status"] >= 500] == []


def test_what_is_called_a_difference_is_one() -> None:
    for name, steps in asked_of_runs.SCENARIOS.items():
        for step, theirs in zip(steps, RECORDED["runs", name], strict=True):
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
