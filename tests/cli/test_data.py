"""`flyball publish`, `flyball data …` and `flyball data quarantine …`: what they print, how they fail, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball.cli import main
from flyball.platform import Platform

Run = Callable[..., tuple[int, str, str]]

CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0", "kind": "DataContract", "id": "flights", "version": "1.0.0", "status": "active",
    "schema": [{"name": "flights", "properties": [
        {"name": "id", "logicalType": "integer", "primaryKey": True},
        {"name": "delay", "logicalType": "number", "logicalTypeOptions": {"minimum": 0}},
        {"name": "tailnum", "logicalType": "string"}]}],
}  # fmt: skip


@pytest.fixture
def flyball(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands on a home with three versions of a dataset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBALL_HOME", str(tmp_path / "home"))
    with closing(Platform.open(tmp_path / "home")) as platform:
        columns = {"tailnum": {"classification": "personal"}}
        platform.declare("Dataset", "flights", key=["id"], columns=columns, contract=CONTRACT)
        platform.declare("Dataset", "late")
    Path("one.csv").write_text("id,delay,tailnum\n1,5.0,N1\n2,0.0,N2\n")
    Path("two.csv").write_text("id,delay,tailnum\n2,9.5,N2\n3,1.5,N3\n")
    Path("bad.csv").write_text("id,delay,tailnum\n4,-9.5,N2\n5,1.5,N3\n")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        out, error = capsys.readouterr()
        return code, out, error

    assert run("publish", "flights", "one.csv")[:2] == (
        0,
        "dataset/flights@1 has 2 rows\n8 checks, 0 rows failed\n",
    )
    assert "3 rows: 1 inserted, 1 updated" in run("publish", "flights", "two.csv", "--upsert", "--note", "day two")[1]
    return run


def items(told: tuple[int, str, str]) -> list[dict[str, Any]]:
    assert told[0] == 0, told[2]
    found: list[dict[str, Any]] = json.loads(told[1])["items"]
    return found


def test_publishing_says_what_became_of_the_rows_and_takes_sql_and_files(flyball: Run, tmp_path: Path) -> None:
    told = json.loads(flyball("publish", "flights", "two.csv", "--upsert", "--json")[1])
    assert told["changes"] == {"inserted": 0, "updated": 0, "unchanged": 2, "repeats": 0}
    assert told["version"]["number"] == 2
    assert "late@1 has 1 rows" in flyball("data", "publish", "late", "select id from flights where delay > 6")[1]
    (tmp_path / "notes" / "en").mkdir(parents=True)
    (tmp_path / "notes" / "en" / "a.txt").write_text("A note that is long enough to tell the language of it.")
    assert flyball("publish", "late", "notes", "--files", "--label-by-folder")[0] == 0
    assert items(flyball("data", "read", "late", "--columns", "path,label", "--json")) == [
        {"path": "en/a.txt", "label": "en"}
    ]
    assert flyball("data", "file", "late", "en/a.txt", "--to", "back.txt")[0] == 0
    assert Path("back.txt").read_bytes() == Path("notes/en/a.txt").read_bytes()
    assert flyball("data", "file", "late", "en/a.tx", "--to", "x.txt")[2].count('did you mean "en/a.txt"') == 1


def test_rows_are_shown_filtered_by_column_and_time_and_saved_whole(flyball: Run) -> None:
    code, out, error = flyball("data", "read", "flights@1", "--limit", "1")
    assert (code, out.split()) == (0, ["ID", "DELAY", "TAILNUM", "1", "5", "N1"]) and "there is more" in error
    assert items(flyball("data", "read", "flights", "--columns", "id", "--json")) == [{"id": 1}, {"id": 2}, {"id": 3}]
    for ending in ("parquet", "csv", "ndjson", "arrow"):
        assert flyball("data", "read", "flights", "--to", f"all.{ending}")[0] == 0
    assert pl.read_parquet("all.parquet").equals(pl.read_ndjson("all.ndjson")) and pl.read_csv("all.csv").height == 3
    assert not list(Path().glob(".*part"))


def test_versions_differences_profiles_and_drift_are_told_in_tables_and_in_json(flyball: Run) -> None:
    _, out, _ = flyball("data", "versions", "flights")
    assert "flights@2" in out and "upsert" in out and "day two" in out and out.count("passed") == 2
    assert [v["number"] for v in items(flyball("data", "versions", "flights", "--json"))] == [2, 1]
    _, out, _ = flyball("data", "diff", "flights", "1")
    assert "compared by id" in out and "rows: 1 added, 0 removed, 1 changed" in out and "~ id 2: delay 0 → 9.5" in out
    told = json.loads(flyball("data", "diff", "flights", "1", "2", "--key", "", "--json")[1])
    assert (told["added"], told["removed"], told["key"]) == (2, 1, [])
    code, out, _ = flyball("data", "profile", "flights@1")
    assert code == 0 and out.startswith("2 rows, 3 columns\n") and "N1 (1)" in out
    assert json.loads(flyball("data", "profile", "flights", "--json")[1])["columns"]["delay"]["greatest"] == 9.5
    _, out, _ = flyball("data", "compare", "flights", "1")
    assert "delay is" in out and "mean 2.5 → 5.333" in out
    for more in ([], ["--exact"]):
        found = items(flyball("data", "drift", "flights", "1", "--json", "--columns", "delay", *more))
        assert [c["column"] for c in found] == ["delay"] and found[0]["w1"] == pytest.approx(17 / 6)
    assert "PSI" in flyball("data", "drift", "flights", "1")[1]
    flyball("data", "read", "flights@1", "--purpose", "a look")
    used = items(flyball("data", "uses", "flights@1", "--json"))
    assert {use["how"] for use in used} >= {"read for a look"} or any("a look" in str(use) for use in used)


def test_a_source_is_probed_and_what_is_wrong_ends_with_1(flyball: Run, tmp_path: Path) -> None:
    with closing(Platform.open(tmp_path / "home")) as platform:
        platform.declare("Dataset", "own", source={"files": "one.csv"}, contract=CONTRACT)
        platform.declare("Dataset", "gone", source={"files": "none.csv"})
    code, out, _ = flyball("data", "probe", "own")
    assert code == 0 and "ready" in out and "one.csv" in out
    code, out, _ = flyball("data", "probe", "gone", "--json")
    assert code == 1 and not json.loads(out)["reachable"] and "none.csv" in json.loads(out)["problems"][0]
    assert "own@1 has 2 rows" in flyball("publish", "own")[1]


def test_a_batch_that_breaks_its_contract_is_shown_fixed_or_dropped(flyball: Run) -> None:
    for _ in range(2):
        code, out, error = flyball("publish", "flights", "bad.csv", "--append")
        assert (code, out) == (1, "") and "it was kept whole as quarantine/flights@1" in error
    Path("bad.csv").write_text("id,delay,tailnum\n4,-9.5,N2\n6,1.5,N3\n")
    flyball("publish", "flights", "bad.csv", "--append")
    batches = items(flyball("data", "quarantine", "list", "--json"))
    assert [(b["ref"], b["state"], b["rows"]) for b in batches] == [
        ("quarantine/flights@2", "held", 2),
        ("quarantine/flights@1", "held", 2),
    ]
    assert "delay.range" in flyball("data", "quarantine", "list", "flights")[1]
    _, out, _ = flyball("data", "quarantine", "show", "flights@1")
    assert "quarantine/flights@1: held, 2 rows" in out and "-9.5" in out and "1.5" not in out.split("_FAILED")[1]
    code, out, error = flyball("data", "quarantine", "fix", "flights@1", "--set", "delay=delay * 2")
    assert code == 1 and "still breaks 1 of 8 rules" in error
    assert flyball("data", "quarantine", "fix", "flights@1", "--set", "delay=abs(delay)")[1] == (
        "dataset/flights@3 has 5 rows\n"
    )
    assert flyball("data", "quarantine", "show", "flights@2", "--all", "--to", "rows.csv")[0] == 0
    rows = pl.read_csv("rows.csv")
    assert rows.columns == ["id", "delay", "tailnum"]
    rows.with_columns(pl.col("delay").abs(), id=pl.col("id") + 10).write_csv("rows.csv.new")
    Path("rows.csv.new").rename("right.csv")
    assert "7 rows" in flyball("data", "quarantine", "fix", "flights@2", "--rows", "right.csv", "--append")[1]
    Path("bad.csv").write_text("id,delay,tailnum\n7,-1,N9\n")
    flyball("publish", "flights", "bad.csv", "--append")
    code, _, error = flyball("data", "quarantine", "release", "flights@3", "--reason", "")
    assert code == 1 and "a reason is needed" in error
    assert "dropped by user/" in flyball("data", "quarantine", "drop", "flights", "--reason", "a test row")[1]
    assert "a test row" in flyball("data", "quarantine", "show", "flights@3")[1]
    assert items(flyball("data", "quarantine", "list", "--state", "held", "--json")) == []


def test_released_rows_say_why(flyball: Run) -> None:
    flyball("publish", "flights", "bad.csv", "--append")
    told = json.loads(flyball("data", "quarantine", "release", "flights", "--reason", "early birds", "--json")[1])
    assert told["ref"] == "dataset/flights@3" and "early birds" in told["metadata"]["note"]


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["publish", "flihgts", "one.csv"], 'did you mean "flights"?; declare it in flyball.yaml', 1),
        (["publish", "flights", "none.csv"], "there is no file none.csv", 1),
        (["publish", "flights", "one.csv", "--append", "--upsert"], "choose one of --append and --upsert", 2),
        (["publish", "flights@1", "one.csv"], "names a version", 2),
        (["publish", "late", "select * from flihgts"], 'did you mean "flights"', 1),
        (["publish", "late", "--files"], "--files needs a folder", 2),
        (["publish", "late", "one.csv", "--label-by-folder"], "goes with --files", 2),
        (["publish", "late"], "has no source of its own", 1),
        (["data", "read", "model/late"], "expected a dataset", 2),
        (["data", "read", "flights@9"], "there is no version 9", 1),
        (["data", "read", "flights", "--columns", "dealy"], 'did you mean "delay"', 1),
        (["data", "read", "flights", "--at", "monday"], "--at: ", 2),
        (["data", "read", "flights", "--at", "2020-01-01T00:00:00Z"], "had no version yet", 1),
        (["data", "read", "flights", "--to", "rows.xls"], "does not end in one of", 1),
        (["data", "read", "flights", "--to", "one.csv"], "is there already", 1),
        (["data", "read", "flights", "--to", "no/rows.csv"], "cannot be written", 1),
        (["data", "versions", "none"], 'there is no dataset "none"', 1),
        (["data", "diff", "flights", "7"], "there is no version 7", 1),
        (["data", "diff", "flights", "1", "--key", "idd"], 'did you mean "id"', 1),
        (["data", "drift", "flights", "1", "--columns", "x"], 'no column "x"', 1),
        (["data", "probe", "flights"], "has no source of its own", 1),
        (["data", "file", "flights", "x", "--to", "y"], "holds rows, not files", 1),
        (["data", "quarantine", "show", "flights@9"], "quarantine/flights", 1),
        (["data", "quarantine", "list", "--state", "hold"], 'did you mean "held"', 1),
        (["data", "quarantine", "fix", "flights"], "say what to change", 2),
        (["data", "quarantine", "fix", "flights", "--set", "age"], "is not COLUMN=SQL", 2),
        (["data", "raed"], 'did you mean "read"', 2),
    ],
)
def test_an_error_is_one_sentence(flyball: Run, arguments: list[str], sentence: str, code: int) -> None:
    found, out, error = flyball(*arguments)
    assert (found, out) == (code, "")
    assert error.startswith("error: ") and error.count("\n") == 1 and sentence in error


def test_a_viewer_sees_classified_columns_masked_everywhere(flyball: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from flyball.governance.identity import Principal

    monkeypatch.setattr("flyball.platform.home.local_user", lambda: Principal("user/vic", "viewer"))
    asked = (("read", "flights"), ("diff", "flights", "1"), ("profile", "flights"), ("compare", "flights", "1"))
    told = [flyball("data", *arguments)[1] for arguments in asked]
    assert not [text for text in told if "N1" in text or "N3" in text]
    code, _, error = flyball("publish", "flights", "one.csv")
    assert code == 1 and "may not publish" in error


def test_a_group_without_a_command_shows_what_there_is(flyball: Run) -> None:
    for group in (["data"], ["data", "quarantine"]):
        code, out, error = flyball(*group)
        assert (code, out) == (2, "") and "Commands:" in error and error.count("\n") > 5
