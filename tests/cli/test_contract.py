"""`flyball contract`: what it prints, how it fails, with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import yaml

from flyball.cli import main
from flyball.platform import Platform

PROPERTIES: list[dict[str, Any]] = [
    {"name": "id", "logicalType": "integer", "primaryKey": True},
    {"name": "age", "logicalType": "integer", "logicalTypeOptions": {"minimum": 0}},
    {
        "name": "email",
        "logicalType": "string",
        "classification": "confidential",
        "logicalTypeOptions": {"pattern": "@"},
    },
]


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    error: str


Run = Callable[..., Done]


@pytest.fixture
def flyball(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands in a folder with a contract and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBALL_HOME", "")
    write("people.yaml", PROPERTIES)
    rows = {"id": [1, 2, 3], "age": [4, -5, 6], "email": ["a@b.org", "c@d.org", "secret"]}
    pl.DataFrame(rows).write_csv("people.csv")

    def run(*arguments: str) -> Done:
        code = main(["contract", *arguments])
        return Done(code, *capsys.readouterr())

    return run


def write(path: str, properties: list[dict[str, Any]], version: str = "1.0.0") -> None:
    schema = [{"name": "people", "properties": properties}]
    document = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "people", "version": version, "schema": schema}
    Path(path).write_text(yaml.safe_dump(document))


def test_a_check_shows_rule_checked_failed_and_samples_and_ends_with_1(flyball: Run) -> None:
    done = flyball("check", "people.yaml", "people.csv")
    assert done.code == 1 and done.error == ""
    line = next(line for line in done.out.splitlines() if "age.range" in line)
    assert line.split()[1:5] == ["failed", "age.range", "3", "1"] and "row 1: age = -5" in line
    assert "secret" not in done.out and "email = '***'" in done.out and "id.primary_key" not in done.out
    assert "id.primary_key" in flyball("check", "people.yaml", "people.csv", "--all").out
    pl.DataFrame({"id": [1], "age": [3], "email": ["a@b"]}).write_parquet("good.parquet")
    assert flyball("check", "people.yaml", "good.parquet").code == 0


def test_a_check_as_json_is_the_report(flyball: Run) -> None:
    done = flyball("check", "people.yaml", "people.csv", "--json", "--sample", "1")
    report = json.loads(done.out)
    assert done.code == 1 and report["rows_failed"] == 2 and not report["passed"]
    assert all(len(result["sample"]) <= 1 for result in report["results"])


def test_infer_writes_a_contract_that_the_data_keeps(flyball: Run) -> None:
    done = flyball("infer", "people.csv", "-o", "draft.yaml")
    assert done.code == 0 and "wrote draft.yaml" in done.error
    assert flyball("check", "draft.yaml", "people.csv").code == 0
    again = flyball("infer", "people.csv", "-o", "draft.yaml")
    assert again.code == 1 and "is there already" in again.error
    shown = flyball("infer", "people.csv", "--text", "--name", "folk")
    assert yaml.safe_load(shown.out)["name"] == "folk"
    assert json.loads(flyball("infer", "people.csv", "--json").out)["kind"] == "DataContract"


def test_a_dataset_of_the_home_is_checked_with_what_it_refers_to(flyball: Run, tmp_path: Path) -> None:
    with closing(Platform.open(tmp_path / ".flyball")) as platform:
        for name, rows in (("people", {"id": [1, 2], "shop": ["a", "z"]}), ("shops", {"name": ["a", "b"]})):
            platform.declare("Dataset", name)
            platform.publish(name, rows)
    write(
        "refer.yaml",
        [{"name": "id", "logicalType": "integer"}, {"name": "shop", "relationships": [{"to": "shops.name"}]}],
    )
    done = flyball("check", "refer.yaml", "dataset/people@1")
    assert done.code == 1 and "row 1: shop = 'z'" in done.out
    write("wrong.yaml", [{"name": "shop", "relationships": [{"to": "stores.name"}]}])
    refused = flyball("check", "wrong.yaml", "dataset/people")
    assert refused.code == 1 and "refers to the dataset stores" in refused.error
    assert flyball("infer", "dataset/people").code == 0
    assert flyball("infer", "dataset/nobody").code == 1


def test_diff_lists_changes_and_refuses_a_version_that_does_not_say_so(flyball: Run) -> None:
    write("next.yaml", PROPERTIES[:2])
    done = flyball("diff", "people.yaml", "next.yaml")
    assert done.code == 1 and "email" in done.out and "removed" in done.out and "Number it 2.0.0" in done.error
    write("next.yaml", PROPERTIES[:2], version="2.0.0")
    assert flyball("diff", "people.yaml", "next.yaml").code == 0
    told = json.loads(flyball("diff", "people.yaml", "next.yaml", "--json").out)
    assert told["changes"] == [{"subject": "email", "what": "removed", "breaking": True, "kind": "removed"}]
    assert "mean the same" in flyball("diff", "people.yaml", "people.yaml").error


def test_show_lists_the_rules_and_what_is_not_enforced(flyball: Run, shared_data: Path) -> None:
    done = flyball("show", "people.yaml")
    assert done.code == 0 and "age.range" in done.out and "minimum 0" in done.out
    full = shared_data / "fixtures/odcs/examples/full-example.odcs.yaml"
    told = json.loads(flyball("show", str(full), "--schema", "tbl", "--json").out)
    assert any("retention" in text for text in told["unenforced"])
    assert flyball("show", str(full), "--schema", "tlb").code == 1


def test_what_is_not_there_is_said_in_one_line(flyball: Run) -> None:
    for arguments in (("check", "none.yaml", "people.csv"), ("check", "people.yaml", "none.csv"), ("show", "none.yaml"),
                      ("infer", "none.csv"), ("diff", "people.yaml", "none.yaml")):  # fmt: skip
        done = flyball(*arguments)
        assert done.code == 1 and done.error.startswith("error: ") and "none." in done.error and done.out == ""
    assert flyball("infer", "dataset/people", "--text").code == 2
    assert flyball("chek").code == 2
