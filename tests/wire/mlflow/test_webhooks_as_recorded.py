"""Ours answers about webhooks what MLflow's own server answered, except where the reason stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flyball.platform import Platform
from tests.wire.mlflow.asked_of_webhooks import SCENARIOS
from tests.wire.mlflow.replaying import Answer, play
from tests.wire.mlflow.serving import served
from tests.wire.mlflow.test_as_recorded import _is_as, _is_meant

RECORDED: dict[str, list[Answer]] = json.loads((Path(__file__).parent / "data" / "webhooks.json").read_bytes())[
    "answers"
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Answer]]]:
    """What ours answers to everything, on a new home: the numbers of experiments are then those of the recording."""
    with (
        pytest.MonkeyPatch.context() as environment,
        closing(Platform.open(tmp_path_factory.mktemp("recorded") / "home")) as platform,
        served(platform) as client,
    ):
        environment.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
        environment.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")

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
