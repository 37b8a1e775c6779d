"""A/B, shadow, blue/green and bandit with the data plane as a process of its own, asked over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from flyball.delivery.states import reason_of
from tests.scenarios.late import INPUTS, World, world
from tests.wire.planes import Plane

BOUND_S = 40.0


class Live:
    """A world whose requests are answered by a data plane of its own; `reward` tells what an answer was worth."""

    def __init__(self, world: World, plane: Plane) -> None:
        self.world = world
        self.plane = plane
        self.answers: list[dict[str, Any]] = []

    def register(self, *, weak: bool) -> None:
        self.world.register(self.world.fit(self.world.rows(0, 4_000), weak=weak))
        self.settle()

    def settle(self) -> None:
        """Let controllers work, and wait until the data plane serves what they wrote."""
        self.world.settle()
        until(lambda: self.revision() == self.status()["serving"]["revision"], "the data plane serves the newest table")

    def ask(self, keys: range, headers: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """Ask a row for each key in one request, and return the answers."""
        part = self.world.frame.slice(26_000 + keys.start, len(keys))
        records = [{**row, "user": f"user {key}"} for key, row in zip(keys, _rows(part), strict=True)]
        reply = self.plane.call("POST", "/v1/models/income:predict", {"records": records}, headers)
        assert reply.status == 200, reply.body
        found: list[dict[str, Any]] = orjson.loads(reply.body)["predictions"]
        self.answers += [{**one, "truth": truth} for one, truth in zip(found, part["over_50k"], strict=True)]
        return found

    def reward(self, answers: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> None:
        labels = [{"id": one["id"], "label": value(one)} for one in answers]
        reply = self.plane.call("POST", "/v1/models/income:label", {"labels": labels})
        assert reply.status == 200, reply.body

    def status(self) -> dict[str, Any]:
        return dict(self.world.platform.resource("deployment/income").status)

    def revision(self) -> int | None:
        path = self.world.platform.home / "serving" / "status.json"
        found = orjson.loads(path.read_bytes())["deployments"].get("income") if path.exists() else None
        return found["revision"] if found else None

    def shares(self) -> dict[str, float]:
        return {v["name"]: v["weight"] for v in self.status()["serving"]["variants"]}


@contextmanager
def live(home: Path, shared_data: Path, **rollout: Any) -> Iterator[Live]:
    with world(home, shared_data) as opened:
        opened.platform.declare(
            "Deployment", "income", model="income@champion", key="user", rollout={"hold_requests": 100, **rollout}
        )
        plane = Plane(home)
        try:
            found = Live(opened, plane)
            found.register(weak=True)
            found.register(weak=False)
            yield found
        finally:
            plane.kill()


def test_an_ab_experiment_promotes_what_earns_more_and_the_history_says_what_served(
    tmp_path: Path, shared_data: Path
) -> None:
    with live(tmp_path / "home", shared_data, strategy="ab", planned_units=2000) as one:
        assert one.shares() == {"champion": 50.0, "canary": 50.0}
        during = one.world.platform.clock.now()
        answers = one.ask(range(800))
        again = one.ask(range(200))
        variants = [a["variant"] for a in answers]
        assert [a["variant"] for a in again] == variants[:200]  # a user stays with his arm
        one.reward(answers, lambda a: 0.2 if a["variant"] == "champion" else 9.9)  # told wrongly at first
        one.reward(answers, lambda a: (1.0 if a["variant"] == "champion" else 1.2) + (int(a["id"], 16) % 7) / 10)
        one.settle()
        last = one.status()["last_rollout"]
        assert last["verdict"] == "promoted"
        assert "its metric is better by +0." in last["reason"]
        assert last["experiment"]["arms"]["canary"]["known"] == variants.count("canary")
        assert last["experiment"]["difference"]["low"] > 0
        assert one.world.platform.aliases("model", "income") == {"champion": 2}
        (then,) = one.world.platform.served("income", during)
        assert then.text == "income@1 50 %, income@2 50 %"
        assert one.world.platform.served("income")[0].text == "income@2 100 %"
        assert (
            "promoted by its A/B experiment"
            in one.world.platform.sentences(one.world.platform.why("deployment/income"))[0]
        )


def test_a_tester_meets_the_variant_that_he_names(tmp_path: Path, shared_data: Path) -> None:
    with live(tmp_path / "home", shared_data, strategy="ab", planned_units=50) as one:
        for variant in ("champion", "canary"):
            answers = one.ask(range(200), {"x-flyball-variant": variant})
            assert {a["variant"] for a in answers} == {variant}
            one.reward(answers, lambda a: float(a["variant"] == "canary"))
        one.settle()
        told = one.world.platform.experiment_status("income")
        assert told["state"] == "running"  # what testers asked for is no evidence, nor a broken split
        assert [arm["units"] for arm in told["experiment"]["arms"].values()] == [0, 0]
        assert one.world.platform.traffic.frame("income")["forced"].all()


def test_three_arms_compete_and_the_best_is_promoted(tmp_path: Path, shared_data: Path) -> None:
    with live(tmp_path / "home", shared_data, strategy="ab", planned_units=2000, arms=["rival", "1"]) as one:
        assert 'has no alias "rival"' in str(reason_of(one.world.platform.resource("deployment/income")))
        assert one.shares() == {"champion": 100.0}
        one.register(weak=False)
        one.world.platform.set_alias("income", "rival", 3)
        one.settle()
        assert one.shares() == {"champion": 50.0, "canary": 25.0, "arm2": 25.0}
        answers = one.ask(range(900))
        assert {a["version"] for a in answers if a["variant"] == "arm2"} == {"income@3"}
        worth = {"champion": 0.1, "canary": 0.2, "arm2": 0.9}
        one.reward(answers, lambda a: worth[a["variant"]] + (int(a["id"], 16) % 7) / 100)
        assert set(one.world.platform.experiment_status("income")["experiment"]["differences"]) == {"canary", "arm2"}
        one.settle()
        last = one.status()["last_rollout"]
        assert last["verdict"] == "promoted" and "better by arm2 +0." in last["reason"]
        assert one.world.platform.aliases("model", "income")["champion"] == 3


def test_a_contextual_bandit_sends_each_request_to_the_arm_that_is_better_for_it(
    tmp_path: Path, shared_data: Path
) -> None:
    rollout = {"strategy": "bandit", "policy": "linear_thompson", "context": ["age"], "planned_units": 1500}
    with live(tmp_path / "home", shared_data, **rollout) as one:
        ages = one.world.frame.slice(26_000, 1200)["age"].to_list()
        middle = sorted(ages)[len(ages) // 2]

        def earns(answer: dict[str, Any]) -> float:  # the champion for the young, the challenger for the old
            return float((answer["variant"] == "canary") == (by_id[answer["id"]] > middle))

        by_id: dict[str, int] = {}
        for start in range(0, 800, 100):
            answers = one.ask(range(start, start + 100))
            by_id |= dict(zip((a["id"] for a in answers), ages[start : start + 100], strict=True))
            one.reward(answers, earns)
            one.settle()
        answers = one.ask(range(800, 1200))
        by_id |= dict(zip((a["id"] for a in answers), ages[800:1200], strict=True))
        assert sum(earns(a) for a in answers) / 400 > 0.75  # a fixed arm earns 0.5
        rows = one.world.platform.traffic.frame("income").tail(400)
        assert rows["propensity"].is_between(0.049, 0.951).all()
        values = one.world.platform.experiment_status("income")["experiment"]["values"]
        for found in values.values():
            assert abs(found["value"] - 0.5) < 4 * found["error"] + 0.05
        one.reward(one.ask(range(1200, 1900)), lambda a: float(a["variant"] == "canary"))
        one.settle()
        assert one.status()["last_rollout"]["verdict"] == "promoted"
        assert "contextual" not in one.status()["serving"]


def test_a_shadow_answers_copies_only_and_is_reported_on(tmp_path: Path, shared_data: Path) -> None:
    with live(
        tmp_path / "home", shared_data, strategy="shadow", share=100, hold_labels=100, roll_back_if={"quality": "worse"}
    ) as one:
        assert one.status()["serving"]["mirrors"][0]["version"] == "income@2"
        for start in range(0, 400, 50):
            answers = one.ask(range(start, start + 50))
            assert {a["version"] for a in answers} == {"income@1"}  # nobody meets the shadow
            truths = {a["id"]: float(a["truth"]) for a in one.answers}
            one.reward(answers, lambda a, known=truths: known[a["id"]])  # type: ignore[misc]
        until(lambda: shadows(one) == 400, "all copies are answered")
        one.settle()
        last = one.status()["last_rollout"]
        assert last["verdict"] == "reported"
        rows = one.world.platform.traffic.frame("income")
        both = rows.filter(pl.col("variant") == "champion").join(
            rows.filter(pl.col("variant") == "shadow"), on="id", suffix=".shadow"
        )
        expected = (both["output.prediction"] == both["output.prediction.shadow"]).mean()
        assert last["agreement"]["requests"] == 400
        assert last["agreement"]["outputs"]["prediction"]["equal"] == expected
        assert last["comparison"]["verdict"] == "better"
        assert one.world.platform.aliases("model", "income") == {"champion": 1}
        assert "mirrors" not in one.status()["serving"]


def test_blue_green_switches_when_both_are_loaded_and_back_by_hand_without_losing_a_request(
    tmp_path: Path, shared_data: Path
) -> None:
    with live(tmp_path / "home", shared_data, strategy="blue_green", hold="1h") as one:
        one.settle()
        assert one.shares() == {"champion": 0.0, "canary": 100.0}
        assert {a["version"] for a in one.ask(range(50))} == {"income@2"}
        assert one.world.platform.rollback("income") == "income@1"
        one.settle()
        assert {a["version"] for a in one.ask(range(50))} == {"income@1"}
        assert [t.text for t in one.world.platform.served("income")] == [
            "income@1 100 %", "income@2 100 %", "income@1 100 %", "income@1 100 %",
        ]  # fmt: skip


def test_a_bandit_gives_more_traffic_to_what_earns_more(tmp_path: Path, shared_data: Path) -> None:
    with live(tmp_path / "home", shared_data, strategy="bandit", planned_units=900) as one:
        earns = {"champion": 0.2, "canary": 0.8}
        assert one.shares()["canary"] == 50.0
        for start in range(0, 600, 150):
            answers = one.ask(range(start, start + 150))
            one.reward(answers, lambda a: float(int(a["id"], 16) % 10 < 10 * earns[a["variant"]]))
            one.settle()
        assert one.shares() == {"champion": 5.0, "canary": 95.0}
        answers = one.ask(range(600, 900))
        assert sum(a["variant"] == "canary" for a in answers) > 250
        one.reward(answers, lambda a: float(int(a["id"], 16) % 10 < 10 * earns[a["variant"]]))
        one.settle()
        assert one.status()["last_rollout"]["verdict"] == "promoted"
        assert one.world.platform.aliases("model", "income") == {"champion": 2}


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds, for a bounded time."""
    end = time.monotonic() + BOUND_S
    while not holds():
        assert time.monotonic() < end, f"not within {BOUND_S:g} s: {what}"
        time.sleep(0.02)


def shadows(one: Live) -> int:
    one.world.platform.traffic.refresh()
    return one.world.platform.traffic.frame("income").filter(pl.col("variant") == "shadow").height


def _rows(part: pl.DataFrame) -> Iterator[dict[str, Any]]:
    return part.select(INPUTS).iter_rows(named=True)
