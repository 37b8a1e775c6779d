"""Whole replays that take a minute each: nothing is found where nothing is wrong, and a table of another kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.demo.demos import Demo, processes_of, run


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return run(tmp_path_factory.mktemp("healthy") / "home", "--no-fault")


def test_nothing_is_found_where_nothing_is_wrong(healthy: Demo) -> None:
    assert healthy.code == 0, healthy.printed[-4000:] + healthy.errors[-2000:]
    found = healthy.result
    assert found["drift"] is None
    assert found["alerts"] == []
    assert found["retrained"] is None
    assert found["canary"] is None
    assert found["champion_before"] == found["champion_after"] == "late@1"
    assert found["requests"]["sent"] == found["requests"]["answered"] == found["requests"]["logged"] > 40_000
    assert processes_of(healthy.home) == []


def test_rented_bicycles_run_through_the_loop_without_the_columns_that_hold_the_answer(
    shared_data: Path, tmp_path: Path
) -> None:
    table = str(shared_data / "bike_sharing" / "hour.csv")
    demo = run(tmp_path / "home", "--data", table, "--target", "cnt", "--time", "dteday")
    assert demo.code == 0, demo.printed[-4000:] + demo.errors[-2000:]
    assert "casual, registered are left out" in demo.printed
    found = demo.result
    assert found["quality"]["metric"] == "r2"
    assert found["quality"]["before"][0] > 0.85
    assert found["alerts"]
    assert found["requests"]["sent"] == found["requests"]["answered"] == found["requests"]["logged"]
    assert processes_of(demo.home) == []


def test_census_income_runs_through_the_loop(shared_data: Path, tmp_path: Path) -> None:
    table = str(shared_data / "adult" / "adult.parquet")
    demo = run(tmp_path / "home", "--data", table, "--target", "over_50k", "--entity", "person_id")
    assert demo.code == 0, demo.printed[-4000:] + demo.errors[-2000:]
    found = demo.result
    assert found["quality"]["metric"] == "auc"
    assert found["drift"]["feature"] == "capital_gain"
    assert found["requests"]["sent"] == found["requests"]["logged"] == 24_421
    assert processes_of(demo.home) == []
