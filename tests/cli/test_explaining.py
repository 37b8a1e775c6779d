"""`flyball predict --explain`, `flyball explain`, `flyball why prediction/…`: without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flyball.cli import main
from flyball.platform import Platform
from tests.cli.running import declare_late

Run = Callable[..., tuple[int, str, str]]
RECORD = '{"distance": 1.5, "hour": -0.25}'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    declare_late(folder)
    platform = Platform.open(folder)
    platform.declare("deployment", "hidden", model="late", log={"mask": ["distance"]})
    platform.loop().settle()
    platform.close()
    return folder


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--home", str(home)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_an_explanation_comes_with_the_answer_and_again_from_the_log(run: Run) -> None:
    code, out, _ = run("predict", "late", RECORD, "--explain", "--json")
    (answer,) = json.loads(out)["items"]
    told = answer["explanation"]
    assert code == 0
    assert told["base"] + sum(told["contributions"].values()) == pytest.approx(told["score"], abs=1e-12)
    again = json.loads(run("explain", answer["id"], "--json")[1])
    assert again == told
    code, out, _ = run("explain", f"prediction/{answer['id']}")
    assert code == 0
    assert "probability, in log-odds (linear)" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["distance", f"{told['contributions']['distance']:+.4g}"] in lines


def test_a_prediction_names_all_that_it_comes_from(run: Run) -> None:
    id = json.loads(run("predict", "late", RECORD, "--json")[1])["items"][0]["id"]
    code, out, _ = run("why", f"prediction/{id}", "--json")
    assert code == 0
    links = {link["what"]: link for link in json.loads(out)["items"]}
    assert links["deployment"]["ref"] == "deployment/late"
    assert links["deployment"]["said"] == "revision 1"
    assert links["model"]["ref"] == "model/late@1"
    assert links["routed by"]["said"].startswith("serves at ")
    assert run("why", "prediction", id)[0] == 0
    code, _, error = run("why", "prediction/0198f")
    assert code != 0
    assert "holds no prediction" in error


def test_a_masked_prediction_is_not_explained_by_its_hashes(run: Run) -> None:
    id = json.loads(run("predict", "hidden", RECORD, "--json")[1])["items"][0]["id"]
    code, _, error = run("explain", id)
    assert code != 0
    assert "masked or were erased" in error
