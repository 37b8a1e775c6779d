"""Monitors on live traffic: quiet while nothing changes, drifting when an input does, anew with a new champion."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tests.scenarios.late import World, world

WINDOW = 400


def watched(w: World, **fields: object) -> None:
    drift = {"window": WINDOW, "horizon": 20}
    w.platform.declare("Monitor", "income", of="deployment/income", **{"drift": drift, "quality": None, **fields})
    w.register(w.fit(w.rows(0, 4_000)))
    w.settle()


def conditions(w: World) -> dict[str, object]:
    return dict(w.platform.resource("monitor/income").status["conditions"])


def test_the_same_kind_of_rows_raise_no_alarm(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        watched(w)
        w.ask(5 * WINDOW)
        w.settle()
        assert conditions(w) == {}
        assert len(w.platform.monitor_results.of("income", "drift")) == 5
        assert w.platform.resources("alert") == []


def test_a_mirrored_input_is_found_named_and_alerted_and_the_alert_ends_when_it_is_over(
    tmp_path: Path, shared_data: Path
) -> None:
    with world(tmp_path / "home", shared_data) as w:
        watched(w)
        w.ask(WINDOW)
        w.ask(2 * WINDOW, change=(107 - pl.col("age")).alias("age"))
        w.settle()
        found = conditions(w)["drifting"]
        assert isinstance(found, dict)
        assert (found["feature"], found["at_request"]) == ("age", 3 * WINDOW)
        assert found["statistic"] > found["threshold"]
        alert = w.platform.resource("alert/income-drifting")
        assert alert.status["state"] == "firing"
        assert alert.owner == "monitor/income"
        w.ask(2 * WINDOW)
        w.settle()
        assert conditions(w) == {}
        assert w.platform.resource("alert/income-drifting").status["state"] == "resolved"
        actions = [e.action for e in w.platform.events(ref="monitor/income")]
        assert actions.count("drifting") == actions.count("no longer drifting") == 1


def test_one_strange_window_is_no_drift(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        watched(w)
        w.ask(WINDOW)
        w.ask(WINDOW, change=(107 - pl.col("age")).alias("age"))
        w.ask(WINDOW)
        w.settle()
        assert conditions(w) == {}
        results = w.platform.monitor_results.of("income", "drift")
        assert [bool(r["exceeded"]) for r in results] == [False, True, False]


def test_quality_below_its_limit_is_decay_and_critical(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        watched(w, drift=None, quality={"window": WINDOW, "at_least": 0.75, "against_reference": False})
        w.ask(WINDOW)
        w.settle()
        assert conditions(w) == {}
        mirrored = [(107 - pl.col("age")).alias("age"), (17 - pl.col("education_num")).alias("education_num")]
        w.ask(WINDOW, change=pl.struct(mirrored).alias("x").struct.field("age", "education_num"))
        w.settle()
        found = conditions(w)["decayed"]
        assert isinstance(found, dict)
        assert found["value"] < 0.75
        assert w.platform.resource("alert/income-decayed").spec["severity"] == "critical"


def test_a_restarted_monitor_goes_on_where_it_was(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data) as w:
        watched(w)
        w.ask(WINDOW + 100)
        w.settle()
    from flyball.platform import Platform

    platform = Platform.open(tmp_path / "home")
    again = World(platform, pl.read_parquet(shared_data / "adult" / "adult.parquet"))
    again.settle()
    assert [r["number"] for r in platform.monitor_results.of("income", "drift")] == [1]
    platform.close()


def test_a_new_champion_is_watched_with_its_own_reference_from_its_own_answers(
    tmp_path: Path, shared_data: Path
) -> None:
    with world(tmp_path / "home", shared_data) as w:
        watched(w)
        w.ask(3 * WINDOW, change=(107 - pl.col("age")).alias("age"))
        w.settle()
        assert "drifting" in conditions(w)
        w.register(w.fit(w.rows(0, 8_000)))
        for _ in range(30):
            w.ask(60)
            w.settle()
            if w.served() == {"champion": "income@2"}:
                break
        w.settle()
        status = w.platform.resource("monitor/income").status
        assert status["watching"]["version"] == "income@2"
        assert status["conditions"] == {}
        assert w.platform.resource("alert/income-drifting").status["state"] == "resolved"
