"""The whole loop on real flights with a feed that breaks. `soak/` replays them with nothing wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.platform import Platform
from tests.demo.demos import Demo, processes_of, run


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return run(tmp_path_factory.mktemp("broken") / "home")


@pytest.fixture
def left(broken: Demo) -> Iterator[Platform]:
    platform = Platform.open(broken.home, create=False)
    yield platform
    platform.close()


def test_a_broken_feed_is_noticed_and_the_model_retrained_tried_promoted_and_recovered(broken: Demo) -> None:
    assert broken.code == 0, broken.printed[-4000:] + broken.errors[-2000:]
    found = broken.result
    assert found["ok"] is True
    assert found["drift"]["feature"] == "hour"
    assert found["drift"]["statistic"] > found["drift"]["threshold"]
    assert 12_000 < found["drift"]["at_request"] <= 18_000
    assert found["champion_before"] == "late@1"
    assert found["champion_after"] == "late@2"
    assert found["canary"]["verdict"] == "promoted"
    assert [step["share"] for step in found["canary"]["steps"]] == [25, 50, 100]
    assert found["alerts"]
    assert len(found["retrained"]) == 32


def test_the_new_champion_is_better_than_the_old_one_on_the_same_rows(broken: Demo) -> None:
    quality = broken.result["quality"]
    assert quality["metric"] == "auc"
    for stretch in ("before", "during", "after", "after_old"):
        low, value, high = quality[stretch]
        assert low < value < high
    assert quality["during"][1] < quality["before"][1] - 0.03
    assert quality["after"][1] > quality["after_old"][1] + 0.02
    assert quality["verdict"] == "better"


def test_every_request_is_answered_and_logged_once(broken: Demo) -> None:
    counted = broken.result["requests"]
    assert counted["sent"] == counted["answered"] == counted["logged"] > 40_000


def test_diverted_flights_are_set_aside_by_the_contract(broken: Demo, left: Platform) -> None:
    contract = broken.result["contract"]
    assert contract["checks"] >= 12
    assert contract["rows_failed"] == contract["rows_quarantined"] == 364
    assert left.frame("quarantine/flights@1").collect()["late"].null_count() == 364
    assert broken.result["dataset"] == {"name": "flights", "version": 1, "rows": 83_203}


def test_why_leads_from_the_promotion_back_to_the_drift(broken: Demo) -> None:
    why = " | ".join(broken.result["why"])
    for link in ("promoted by its canary", "passed 2 of 2 gates", "flights@2", "trigger/retrain-late", "hour drifted"):
        assert link in why, why
    assert why.index("promoted") < why.index("passed") < why.index("flights@2") < why.index("hour drifted")


def test_one_prediction_is_followed_back_to_the_files(broken: Demo) -> None:
    lineage = broken.printed[broken.printed.index("one prediction") :]
    for part in ("model/late@2", "dataset/flights@2", "dataset/flights@1", "file/flights.parquet", "weather_then"):
        assert part in lineage


def test_the_journal_of_the_home_is_whole_and_the_project_can_be_applied_again(left: Platform) -> None:
    from flyball.delivery.documents import read_documents

    assert left.verify_journal() > 20
    plan = left.plan(read_documents([left.project / "flyball.yaml"]))
    assert plan.is_empty


def test_no_process_is_left_behind(broken: Demo) -> None:
    assert processes_of(broken.home) == []


def test_a_former_demo_is_replaced_and_anything_else_is_not(broken: Demo, tmp_path: Path) -> None:
    from flyball.demo.main import MARK

    assert json.loads((broken.home / MARK).read_text())["ok"] is True
    (tmp_path / "thesis.txt").write_text("do not touch")
    refused = run(tmp_path)
    assert refused.code == 2
    assert "holds something else than a former demo" in refused.errors
    assert (tmp_path / "thesis.txt").read_text() == "do not touch"
