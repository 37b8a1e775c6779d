"""`flyball features …`: in tables and in JSON, on a project with a file of views; errors in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from flyball.cli import main
from flyball.platform import Platform

Run = Callable[..., tuple[int, str, str]]
CODE = '''
from datetime import datetime

import polars as pl

import flyball as fb


@fb.feature_view(entity="key", event_time="at", incremental=True, owner="team/flights", tags=["gold"])
def doubled(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Twice what was read."""
    return readings.select("key", "at", twice=pl.col("x") * 2)


@fb.on_request
def when(at: datetime) -> dict:
    return {"hour": at.hour}
'''


@pytest.fixture
def flyball(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands in a project with a dataset of three readings, an hour apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBALL_HOME", str(tmp_path / "home"))
    (tmp_path / "features.py").write_text(CODE)
    at = pl.Series(["2026-01-01T00:00Z", "2026-01-01T01:00Z", "2026-01-01T02:00Z"]).str.to_datetime(time_zone="UTC")
    with closing(Platform.open(tmp_path / "home")) as platform:
        platform.declare("Dataset", "readings", entity=["key"], event_time="at")
        platform.publish("readings", pl.DataFrame({"key": ["a", "b", "a"], "at": at, "x": [1, 2, 3]}))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(("features", *arguments))
        out, error = capsys.readouterr()
        return code, out, error

    return run


def test_views_of_a_file_are_declared_listed_and_shown(flyball: Run) -> None:
    code, out, error = flyball("list")
    assert (code, out) == (0, "") and "flyball features declare FILE.py" in error
    code, out, _ = flyball("declare", "features.py")
    assert code == 0
    assert out.splitlines() == [
        "feature-view/doubled is declared as version 1",
        "feature-view/when is declared as version 1",
    ]
    code, out, _ = flyball("list", "--json")
    doubled, when = json.loads(out)["items"]
    assert (doubled["owner"], doubled["tags"], doubled["function"]) == ("team/flights", ["gold"], "features.py:doubled")
    assert (doubled["state"], doubled["agree"], when["entity"]) == ("declared", None, [])
    code, out, _ = flyball("list")
    assert out.splitlines()[0].split() == [
        "VIEW",
        "STATE",
        "ENTITY",
        "FROM",
        "MEDIAN",
        "AGE",
        "AGREE",
        "USED",
        "BY",
        "OWNER",
    ]
    code, out, error = flyball("show", "doubled")
    assert "Twice what was read." in out and "nothing is stored yet" in error


def test_materialised_it_is_stored_served_and_agrees(flyball: Run) -> None:
    flyball("declare", "features.py:doubled")
    code, out, _ = flyball("materialise", "doubled")
    assert code == 0 and "3 rows stored as feature/doubled@1 from dataset/readings@1" in out
    code, out, _ = flyball("materialise", "feature-view/doubled", "--json")
    again = json.loads(out)
    assert (again["how"], again["version"], again["written"]) == ("unchanged", 1, 0)
    code, out, _ = flyball("agreement", "doubled", "--json")
    found = json.loads(out)
    assert (found["agree"]["value"], found["entities"], found["online_entities"]) == (1.0, 2, 2)
    code, out, _ = flyball("show", "doubled")
    assert "doubled@1" in out and "readings.x" in out
    code, out, _ = flyball("show", "doubled", "--json")
    shown = json.loads(out)
    assert shown["features"] == [
        {"name": "twice", "type": "int64", "nulls": 0.0, "agree": 1.0, "made_of": ["readings.x"]}
    ]
    assert [v["rows"] for v in shown["versions"]] == [3]


def test_pushed_rows_differ_until_they_are_folded_in(flyball: Run, tmp_path: Path) -> None:
    flyball("declare", "features.py:doubled")
    flyball("materialise", "doubled")
    (tmp_path / "new.ndjson").write_text('{"key": "a", "at": "2026-01-01T03:00:00Z", "twice": 99}\n')
    code, out, _ = flyball("push", "doubled", "new.ndjson", "--json")
    assert json.loads(out) == {"view": "doubled", "rows": 1, "written": 1}
    code, out, _ = flyball("agreement", "doubled")
    assert "a: 99 ≠ 6" in out
    code, out, _ = flyball("materialise", "doubled", "--json")
    assert json.loads(out)["pushed_rows"] == 1
    code, out, _ = flyball("agreement", "doubled")
    assert "≠" not in out
    (tmp_path / "wrong.csv").write_text("key,at,twice\nb,2026-01-01T03:00:00Z,4\nb,yesterday,5\n")
    code, out, error = flyball("push", "doubled", "wrong.csv")
    assert (code, out) == (1, "") and 'row 1 pushed to doubled: "at"' in error


def test_a_training_set_is_written_as_each_row_knew_it(flyball: Run, tmp_path: Path) -> None:
    flyball("declare", "features.py")
    asked = pl.DataFrame({"key": ["a", "a"], "asked_at": ["2026-01-01T00:30:00Z", "2026-01-01T05:00:00Z"]})
    asked.with_columns(pl.col("asked_at").str.to_datetime(time_zone="UTC")).write_parquet(tmp_path / "asked.parquet")
    code, out, _ = flyball("training-set", "asked.parquet", "doubled", "-o", "rows.parquet", "--ages")
    assert code == 0 and "2 rows, 4 columns" in out
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    assert (rows["twice"].to_list(), rows["doubled_age_s"].to_list()) == ([2, 6], [1800.0, 10800.0])
    code, _, error = flyball("training-set", "asked.parquet", "doubled", "-o", "rows.txt")
    assert code == 2 and "neither .parquet nor .csv" in error


def test_deprecated_and_retired_views_say_why(flyball: Run) -> None:
    flyball("declare", "features.py:doubled")
    code, out, _ = flyball("deprecate", "doubled", "--reason", "It counts twice.", "--json")
    assert json.loads(out)["retired"] == {"reason": "It counts twice."}
    code, _, error = flyball("retire", "doubled", "--reason", "Gone.", "--use", "tripled")
    assert code == 1 and "tripled" in error
    code, out, _ = flyball("retire", "doubled", "--reason", "Gone.")
    assert (code, out) == (0, "feature-view/doubled is retired\n")
    code, _, error = flyball("materialise", "doubled")
    assert code == 1 and "is retired: Gone." in error


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "doubledd"), 1, 'no feature-view "doubledd"; did you mean "doubled"'),
        (("materialise", "when"), 1, "computed inside the request"),
        (("declare", "nowhere.py"), 1, "there is no file"),
        (("declare", "features.py:dubled"), 1, 'did you mean "doubled"'),
        (("declare", "features.txt"), 2, "is no Python file"),
        (("agreement", "doubled"), 1, "materialise it first"),
        (("push", "doubled", "nowhere.csv"), 1, "nowhere.csv"),
        (("materialise", "model/doubled"), 1, "expected a feature-view"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(flyball: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    flyball("declare", "features.py")
    found, out, error = flyball(*arguments)
    assert (found, out) == (code, "")
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error
