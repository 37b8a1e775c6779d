"""What a deployment may take: rates against a bucket computed by hand, requests in flight, time."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time

import pytest

from flyball.errors import FlyballError, InvalidInput, Unavailable
from flyball.serving.kinds import RequestLimits
from flyball.serving.limits import Gate, LocalRates, SharedRates, TooLate, TooMany
from flyball.serving.questions import Answer, Question
from flyball.serving.snapshot import Limits, ServedDeployment, Snapshot, Variant, parse

ANSWER = Answer("late", [], [])


class Told:
    """Keeps what a question got."""

    def __init__(self) -> None:
        self.got: list[Answer | FlyballError | None] = []

    def __call__(self, answer: Answer | None, error: FlyballError | None) -> None:
        self.got.append(answer if error is None else error)


def gate(limits: Limits, rates: LocalRates | None = None) -> tuple[Gate, list[str]]:
    refused: list[str] = []
    return Gate("late", limits, rates or LocalRates(), refused.append), refused


class TestRates:
    def test_bucket_gives_its_burst_then_one_each_interval_as_a_token_bucket_does(self) -> None:
        now, tokens, filled = 100.0, 5.0, 100.0
        rates = LocalRates(lambda: now)
        for step in range(400):
            now = 100.0 + step * 0.03  # 33 a second are asked, 10 a second are allowed
            tokens, filled = min(5.0, tokens + (now - filled) * 10), now
            is_allowed = tokens >= 1 - 1e-9
            tokens -= is_allowed
            assert (rates.take("late", 10, 5) == 0) == is_allowed, step

    def test_the_wait_that_is_told_is_the_one_after_which_there_is_a_token(self) -> None:
        now = 7.0
        rates = LocalRates(lambda: now)
        assert rates.take("late", 4, 1) == 0
        wait = rates.take("late", 4, 1)
        assert wait == pytest.approx(0.25)
        now += wait - 1e-6
        assert rates.take("late", 4, 1) > 0
        now += 2e-6
        assert rates.take("late", 4, 1) == 0

    def test_a_rate_that_is_raised_holds_at_once(self) -> None:
        rates = LocalRates(lambda: 7.0)
        assert rates.take("late", 0.001, 1) == 0
        assert rates.take("late", 0.001, 1) == pytest.approx(1000)
        assert rates.take("late", 1000, 1) == pytest.approx(0.001)

    def test_processes_share_a_bucket_and_one_that_is_killed_holds_up_nobody(self) -> None:
        rates = SharedRates()
        children = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                os._exit(sum(rates.take("late", 0.001, 20) == 0 for _ in range(15)))
            children.append(pid)
        taken = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
        assert taken == 20
        assert rates.take("other", 0.001, 1) == 0

    def test_more_names_than_places_are_let_in(self) -> None:
        rates = SharedRates(places=2)
        assert [rates.take(name, 0.001, 1) for name in "abc"] == [0, 0, 0]
        assert rates.take("a", 0.001, 1) > 0
        assert rates.take("c", 0.001, 1) == 0


class TestGate:
    def test_no_more_than_allowed_are_in_flight_and_an_answer_makes_room(self) -> None:
        late, refused = gate(Limits(concurrency=2))
        leave = [late.enter(Question("late"), Told()) for _ in range(2)]
        with pytest.raises(Unavailable, match="2 requests at a time"):
            late.enter(Question("late"), Told())
        leave[0](ANSWER, None)
        late.enter(Question("late"), Told())
        assert refused == ["concurrency"]
        assert late.in_flight == 2

    def test_workers_share_what_may_be_in_flight(self) -> None:
        late, _ = gate(Limits(concurrency=5))
        late.workers = 2
        for _ in range(3):
            late.enter(Question("late"), Told())
        with pytest.raises(Unavailable):
            late.enter(Question("late"), Told())

    def test_one_key_above_its_rate_leaves_the_others_theirs(self) -> None:
        late, refused = gate(Limits(key_rate=0.01, key_burst=1, rate=0.01, burst=2), LocalRates(lambda: 7.0))
        late.enter(Question("late", caller="greedy"), Told())
        for _ in range(3):
            with pytest.raises(TooMany) as found:
                late.enter(Question("late", caller="greedy"), Told())
            assert found.value.retry_after_s == pytest.approx(100)
        late.enter(Question("late", caller="modest"), Told())
        assert refused == ["key_rate"] * 3

    def test_answer_that_is_late_is_given_up_in_time_and_stays_in_flight_until_it_is_there(self) -> None:
        async def ask() -> tuple[Gate, list[str], Told, Question, float]:
            late, refused = gate(Limits(timeout_s=0.05, concurrency=1))
            told, question = Told(), Question("late")
            began = time.perf_counter()
            leave = late.enter(question, told)
            while not told.got:
                await asyncio.sleep(0.001)
            took = time.perf_counter() - began
            with pytest.raises(Unavailable):
                late.enter(Question("late"), Told())
            leave(ANSWER, None)
            return late, refused, told, question, took

        late, refused, told, question, took = asyncio.run(ask())
        assert isinstance(told.got[0], TooLate)
        assert len(told.got) == 1
        assert question.is_over
        assert 0.04 < took < 2
        assert late.in_flight == 0
        assert refused == ["timeout", "concurrency"]


class TestDeclared:
    def test_limits_of_a_deployment_are_those_of_its_snapshot(self) -> None:
        given = {"concurrency": 4, "timeout_s": 0.5, "body_bytes": 10, "rate": 2.5, "burst": 3, "key_rate": 1.0}
        declared = RequestLimits(**given).model_dump()
        found = Limits(**declared)
        assert {name: getattr(found, name) for name in given} == given
        assert set(declared) <= {field.name for field in dataclasses.fields(Limits)}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("rate", 0),
            ("rate", "fast"),
            ("timeout_s", -1.0),
            ("timeout_s", True),
            ("concurrency", 0),
            ("concurrency", 1.5),
            ("body_bytes", -5),
            ("burst", 0),
            ("key_rate", float("nan")),
            ("queue_rows", None),
        ],
    )
    def test_limit_that_means_nothing_is_refused_with_the_snapshot(self, name: str, value: object) -> None:
        served = ServedDeployment(1, "late", (Variant("champion", "late@1", "0" * 64),))
        document = dataclasses.asdict(Snapshot(1, {"late": served}))
        assert parse(document).deployments["late"].limits == Limits()
        document["deployments"]["late"]["limits"][name] = value
        with pytest.raises(InvalidInput, match=f"limits {name}"):
            parse(document)
