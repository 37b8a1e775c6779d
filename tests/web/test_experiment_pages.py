"""Experiments as people see them: the deployment's page, the commands, the API and Python say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pages_home import Server
from playwright.sync_api import expect, sync_playwright
from test_browser import CHROMIUM, FLAGS, Visit

from flyball.cli import main
from flyball.errors import Conflict, InvalidInput
from tests.scenarios.late import World, world

ROLLOUT: dict[str, Any] = {
    "strategy": "ab",
    "metric": "reward",
    "minimum_effect": 0.1,
    "planned_units": 5000,
    "guardrails": [{"metric": "latency_ms", "worse_by": 1000}],
    "covariate": "age",
}


def ask(w: World, count: int) -> None:
    """Ask and reward: both variants earn about alike, so that no verdict comes."""
    answers = w.ask(count, label=False)
    w.platform.label({a["id"]: (int(a["id"], 16) % 11) / 10 for a in answers})
    w.settle()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[tuple[World, Server]]:
    with world(tmp_path_factory.mktemp("experiment") / "home", shared_data) as w:
        w.platform.declare("Deployment", "income", model="income@champion", rollout=ROLLOUT)
        w.register(w.fit(w.rows(0, 4_000), weak=True))
        w.settle()
        ask(w, 100)
        w.register(w.fit(w.rows(0, 4_000)))
        w.settle()
        ask(w, 500)
        server = Server(w.platform)
        try:
            yield w, server
        finally:
            server.close()


def test_an_experiment_that_runs_is_told_alike_everywhere(
    running: tuple[World, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    w, server = running
    found = w.platform.experiment_status("income")
    assert (found["state"], found["strategy"], found["challenger"]) == ("running", "ab", "income@2")
    told = found["experiment"]
    assert told["arms"]["champion"]["known"] + told["arms"]["canary"]["known"] == 500
    assert told["difference"]["low"] < 0 < told["difference"]["high"]
    assert not told["guardrails"]["latency_ms"]["is_broken"]
    assert told["sample_ratio_p"] > 0.001
    home = ["--home", str(w.platform.home)]
    assert main(["experiment", "status", "income", *home, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["experiment"] == told
    assert httpx2.get(f"{server.url}/api/rollouts/income").json()["experiment"] == told
    assert main(["experiment", "status", "deployment/income", *home]) == 0
    assert "ab of income@2 beside income@1: running" in capsys.readouterr().out


def test_the_size_is_planned_from_the_answers_of_the_champion(
    running: tuple[World, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    w, server = running
    plan = w.platform.experiment_plan("income")
    assert plan["baseline"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert plan["baseline"]["deviation"] == pytest.approx(0.316, abs=0.05)
    assert plan["baseline"]["units_a_day"] > 0
    larger = w.platform.experiment_plan("income", effect=0.2)
    assert larger["size"]["sequential_units"] == pytest.approx(plan["size"]["sequential_units"] / 4, rel=0.02)
    home = ["--home", str(w.platform.home)]
    assert main(["experiment", "plan", "income", "--effect", "0.2", *home]) == 0
    assert f"planned_units: {larger['size']['sequential_units']}" in capsys.readouterr().out
    over_http = httpx2.get(f"{server.url}/api/rollouts/income/plan", params={"effect": 0.2}).json()
    assert over_http["size"]["fixed_units"] == larger["size"]["fixed_units"]
    assert main(["experiment", "plan", "model/income", *home]) == 2
    assert main(["experiment", "plan", "income", "--effect", "0", *home]) == 1
    assert "smallest effect" in capsys.readouterr().err


def test_what_cannot_be_planned_says_what_is_missing(tmp_path: Path, shared_data: Path) -> None:
    with world(tmp_path / "home", shared_data, strategy="ab") as w:
        with pytest.raises(InvalidInput, match="minimum_effect"):
            w.platform.experiment_plan("income")
        with pytest.raises(Conflict, match="tell the truth of its answers"):
            w.platform.experiment_plan("income", effect=0.1)
        assert w.platform.experiment_status("income")["state"] == "none"
        assert w.platform.experiment_over_time("income") == []


def test_the_history_of_a_deployment_stands_on_the_command_line_and_in_the_api(
    running: tuple[World, Server], capsys: pytest.CaptureFixture[str]
) -> None:
    w, server = running
    assert main(["history", "deployment/income", "--home", str(w.platform.home), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["items"]
    assert [one["action"] for one in told] == ["rollout started", "serves"]
    assert told[0]["until"] is None and told[1]["until"] == told[0]["since"]
    then = httpx2.get(f"{server.url}/api/history/deployment/income", params={"at": told[1]["since"]}).json()["items"]
    assert then == [told[1]]
    before = httpx2.get(f"{server.url}/api/history/deployment/income", params={"at": "2020-05-03T14:00:00Z"})
    assert before.json()["items"] == []
    assert httpx2.get(f"{server.url}/api/history/deployment/nothing").status_code == 404


def test_the_page_shows_arms_interval_and_guardrails_in_every_window(running: tuple[World, Server]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for width, scheme in ((1440, "light"), (400, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            visit = Visit(page, running[1].url)
            visit.open("/deployments/income")
            panel = page.locator("#experiment")
            expect(panel).to_contain_text("A/B experiment of income@2")
            for text in ("latency_ms", "kept", "as declared", "of 5,000 keys", "Outcome known"):
                expect(panel).to_contain_text(text)
            assert visit.overflow() == 0
            assert visit.complaints == []
            page.close()
        browser.close()


LOOKS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a contextual bandit of three arms": (
        {"strategy": "bandit", "policy": "linear_thompson", "context": ["age", "hours_per_week"], "arms": ["rival"]},
        ["Contextual bandit of income@3", "If everyone met it", "arm2", "income@2"],
    ),
    "an experiment that ended": (
        {"strategy": "ab", "planned_units": 200},
        ["A/B experiment of income@2", "rolled back", "no evidence of a difference"],
    ),
}


@pytest.mark.parametrize("name", LOOKS)
def test_arms_by_context_and_what_ended_are_told_on_the_page_in_every_window(
    name: str, tmp_path: Path, shared_data: Path
) -> None:
    rollout, texts = LOOKS[name]
    with world(tmp_path / "home", shared_data) as w:
        w.platform.declare("Deployment", "income", model="income@champion", rollout={"hold_requests": 100, **rollout})
        w.register(w.fit(w.rows(0, 2_000), weak=True))
        w.settle()
        if "arms" in rollout:
            w.register(w.fit(w.rows(0, 1_000), weak=True))
            w.platform.set_alias("income", "rival", 2)
        w.register(w.fit(w.rows(0, 4_000)))
        w.settle()
        for _ in range(3):
            ask(w, 110)
        server = Server(w.platform)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                for width, scheme in ((1440, "light"), (400, "dark")):
                    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
                    visit = Visit(page, server.url)
                    visit.open("/deployments/income")
                    for text in texts:
                        expect(page.locator("#experiment")).to_contain_text(text)
                    assert visit.overflow() == 0
                    assert visit.complaints == []
                    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
                    page.close()
                browser.close()
        finally:
            server.close()
