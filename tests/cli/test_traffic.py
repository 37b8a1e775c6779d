"""`flyball traffic`: rows, slices, groups, JSON, and what Pinot needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flyball.cli import main
from flyball.platform import Platform
from tests.cli.running import declare_late

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traffic")
    declare_late(folder)
    platform = Platform.open(folder)
    platform.loop().settle()
    rows = [{"distance": number / 10, "hour": 1.0 if number % 2 else -1.0} for number in range(20)]
    answers = platform.predict("late", rows)
    platform.label([(answer["id"], 1) for answer in answers[:5]])
    platform.close()
    return folder


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["traffic", *arguments, "--home", str(home)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_newest_rows_are_listed_and_summed_up(run: Run) -> None:
    code, out, _ = run("late", "--limit", "3")
    assert code == 0
    assert out.count("late@1") == 3 and "20 rows; answered within p50" in out


def test_a_slice_is_counted_the_same_before_and_after_sealing(run: Run) -> None:
    asked = ("late", "--where", "input.hour > 0 AND input.distance >= 1", "--labelled", "--json")
    before, after = run(*asked), run(*asked, "--seal")
    assert json.loads(before[1])["rows"] == 0 and "sealed 20 rows and 5 labels" in after[2]
    asked = ("late", "--where", "input.hour > 0", "--json")
    found = json.loads(run(*asked)[1])
    assert found["rows"] == len(found["items"]) == 10
    assert {item["input.hour"] for item in found["items"]} == {1.0}


def test_groups_name_their_share_and_mean(run: Run) -> None:
    code, out, _ = run("deployment/late", "--by", "input.hour")
    assert code == 0
    assert "50.0%" in out and "MEAN PROBABILITY" in out


def test_what_cannot_be_asked_is_said(run: Run) -> None:
    assert run("nothing")[0] == 1
    code, _, error = run("late", "--where", "hour > 0")
    assert code == 1 and 'did you mean "input.hour"' in error
    code, _, error = run("late", "--since", "yesterday-ish")
    assert code == 2 and "an age such as 2h" in error
    code, _, error = run("late", "--pinot", "http://x")
    assert code == 2 and "kafka://" in error


def test_pinot_is_told_the_columns(run: Run) -> None:
    found = json.loads(run("late", "--pinot", "kafka://broker:9092/rows")[1])
    assert found["table"]["tableName"] == found["schema"]["schemaName"] == "flyball_late"
    assert "input_distance" in {one["name"] for one in found["schema"]["dimensionFieldSpecs"]}
