"""When a trigger starts its pipeline: the decision alone, schedules over summer time, and the controller in a loop."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flyball.data.kinds
import flyball.monitoring.kinds  # noqa: F401
from flyball.clock import format_instant
from flyball.control import Outcome, World
from flyball.control.loop import Loop
from flyball.ledger.refs import Ref
from flyball.ledger.runs import Run
from flyball.ledger.sql import open_ledger
from flyball.ledger.sql.database import SqlLedger
from flyball.pipelines.kinds import Cron, Trigger
from flyball.pipelines.triggers import (
    STANDING,
    Happening,
    Nothing,
    Observed,
    Skip,
    Start,
    TriggerController,
    Wait,
    decide,
    fires,
)
from flyball.testing.clock import FakeClock

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def spec(**fields: Any) -> Trigger:
    return Trigger.model_validate({"on": ["monitor/late.drifting"], "start": "late", **fields})


def drifting(since: datetime = NOON, **fields: Any) -> Happening:
    return Happening("monitor/late.drifting", str(since), "condition", "it drifted", since, cause=7, **fields)


# -- the decision


def test_nothing_happened_nothing_is_done() -> None:
    assert decide(spec(), Observed(next_due=NOON + HOUR), NOON) == Nothing(NOON + HOUR)


def test_a_condition_that_begins_starts_a_run() -> None:
    assert decide(spec(), Observed([drifting()]), NOON) == Start(drifting())


def test_a_condition_that_was_dealt_with_starts_nothing_until_it_has_stood_for_a_while_after_the_run() -> None:
    seen = Observed([drifting()], {drifting().source: drifting().token}, [NOON], ended_at=NOON)
    assert decide(spec(), seen, NOON) == Nothing(NOON + STANDING)
    assert decide(spec(), seen, NOON + STANDING) == Start(drifting())
    assert decide(spec(cool_down="6h"), seen, NOON + STANDING) == Nothing(NOON + 6 * HOUR)
    assert decide(spec(cool_down="6h"), seen, NOON + 6 * HOUR) == Start(drifting())


def test_the_same_condition_begun_anew_counts_at_once() -> None:
    seen = Observed([drifting(NOON + HOUR)], {drifting().source: drifting().token}, [NOON], ended_at=NOON)
    assert isinstance(decide(spec(), seen, NOON + HOUR), Start)


def test_one_run_at_a_time() -> None:
    assert decide(spec(), Observed([drifting()], is_running=True), NOON) == Wait("its run has not ended")


def test_a_run_waits_for_the_cool_down_of_the_last_one() -> None:
    seen = Observed([drifting()], starts=[NOON - 2 * HOUR], ended_at=NOON - HOUR)
    found = decide(spec(cool_down="3h"), seen, NOON)
    assert found == Wait("cools down until 2026-03-04T14:00:00.000000Z (3h after its last run)", NOON + 2 * HOUR)
    assert isinstance(decide(spec(cool_down="3h"), seen, NOON + 2 * HOUR), Start)


@pytest.mark.parametrize(
    ("budget", "starts", "free_at"),
    [
        ("1 an hour", [-30], 30),
        ("3 a day", [-1430, -60, -10], 10),
        ("3 a day", [-2000, -1430, -60, -10], 10),
        ("2 a day", [-1430, -60, -10], 1440 - 60),
        ("1 a week", [-10], 7 * 1440 - 10),
    ],
)
def test_a_budget_counts_starts_in_the_window_that_ends_now(budget: str, starts: list[int], free_at: int) -> None:
    seen = Observed([drifting()], starts=[NOON + timedelta(minutes=m) for m in starts])
    found = decide(spec(budget=budget), seen, NOON)
    until = NOON + timedelta(minutes=free_at)
    assert isinstance(found, Wait)
    assert found.until == until
    assert f"the budget of {budget} is used up; the next start is free at {format_instant(until)}" == found.reason
    assert isinstance(decide(spec(budget=budget), seen, until), Start)
    assert isinstance(decide(spec(budget=budget), seen, until - timedelta(seconds=1)), Wait)


def test_of_several_happenings_the_first_is_the_cause() -> None:
    late = Happening("dataset/flights", "2", "version", "flights@2 was published", NOON - HOUR)
    assert decide(spec(), Observed([drifting(), late]), NOON) == Start(late)


def test_it_waits_for_labels_when_it_says_so() -> None:
    wanted = spec(after_labels=500)
    found = decide(wanted, Observed([drifting(labels=499)]), NOON)
    assert isinstance(found, Wait)
    assert found.reason == "499 of 500 labelled answers are there"
    assert isinstance(decide(wanted, Observed([drifting(labels=500)]), NOON), Start)


def test_a_paused_trigger_starts_nothing_and_lets_schedules_pass() -> None:
    due = Happening("0 4 * * * UTC", "t", "schedule", "due", NOON)
    assert isinstance(decide(spec(paused=True), Observed([drifting()]), NOON), Wait)
    assert decide(spec(paused=True), Observed([due]), NOON) == Skip(due)


def test_a_schedule_that_was_missed_is_made_up_for_once_or_skipped() -> None:
    due = Happening("0 4 * * * UTC", "t", "schedule", "due", NOON - HOUR)
    assert decide(spec(), Observed([due]), NOON) == Start(due)
    assert decide(spec(missed="skip"), Observed([due]), NOON) == Skip(due)
    assert decide(spec(missed="skip"), Observed([due]), NOON - HOUR) == Start(due)


# -- schedules


def local(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).isoformat()


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # New York springs forward at 02:00 on 8 March 2026 and falls back at 02:00 on 1 November 2026.
        ("30 1 * * *", "2026-03-07T12:00-05:00", ["2026-03-08T01:30-05:00", "2026-03-09T01:30-04:00"]),
        ("30 2 * * *", "2026-03-07T12:00-05:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
        ("30 1 * * *", "2026-10-31T12:00-04:00", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        ("0 4 * * 1", "2026-03-02T12:00-05:00", ["2026-03-09T04:00-04:00", "2026-03-16T04:00-04:00"]),
        ("0 4 * * 1", "2026-10-26T12:00-04:00", ["2026-11-02T04:00-05:00", "2026-11-09T04:00-05:00"]),
    ],
)
def test_schedules_keep_local_time_over_summer_time_and_fire_once(cron: str, after: str, expected: list[str]) -> None:
    schedule = Cron(cron=cron, zone="America/New_York")
    at = datetime.fromisoformat(after).astimezone(UTC)
    for wanted in expected:
        at = fires(schedule, at)
        assert at.isoformat() == local(wanted)


# -- the controller over a ledger


class Pipelines:
    """Stands in for the pipeline controller: it leaves queued runs alone."""

    kind = "pipeline"

    def reconcile(self, _name: str, _world: World) -> Outcome:
        return None


class Traffic:
    def __init__(self) -> None:
        self.labelled = 0

    def frame(self, _deployment: str) -> pl.DataFrame:
        ids = [f"{n:032x}" for n in range(20)]
        return pl.DataFrame({"id": ids, "label": [1 if n < self.labelled else None for n in range(20)]})


class Desk:
    """A ledger with pipeline/late, monitor/late and dataset/flights, and a loop under a fake clock."""

    def __init__(self, ledger: SqlLedger, clock: FakeClock) -> None:
        self.ledger, self.clock, self.traffic = ledger, clock, Traffic()
        self.loop = Loop(ledger, [TriggerController(self.traffic), Pipelines()], clock)
        with ledger.write("user/ada") as tx:
            tx.resources.apply("dataset", "flights", {})
            tx.resources.apply("monitor", "late", {"of": "deployment/late"})
            tx.resources.apply("pipeline", "late", {"function": "flows.py:late", "params": {"depth": 6, "n": 1}})

    def trigger(self, **fields: Any) -> None:
        made = {"on": ["monitor/late.drifting"], "start": "late", **fields}
        with self.ledger.write("user/ada") as tx:
            tx.resources.apply("trigger", "retrain", made)
        self.loop.settle()

    def drift(self, is_on: bool = True, first: str = "") -> None:
        holds = {"drifting": {"since": format_instant(self.clock.now()), "summary": "it drifted", "from": first}}
        with self.ledger.write("controller/monitor") as tx:
            status = {"conditions": holds if is_on else {}}
            tx.resources.set_status("monitor", "late", status, action="drifting" if is_on else "no longer drifting")
        self.loop.settle()

    def publish(self, digest: str, run: str | None = None) -> None:
        with self.ledger.write("user/ada") as tx:
            tx.versions.publish("dataset", "flights", digest, run=run)
        self.loop.settle()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.loop.settle()

    @property
    def runs(self) -> list[Run]:
        with self.ledger.read() as tx:
            return list(reversed(tx.runs.find(of="pipeline/late", kind="pipeline")))

    @property
    def status(self) -> dict[str, Any]:
        with self.ledger.read() as tx:
            return dict(tx.resources.get("trigger", "retrain").status)

    def end(self, status: Any = "succeeded") -> None:
        with self.ledger.write("worker/1") as tx:
            done = tx.runs.finish(self.runs[-1].id, status)
            last = {"run": done.id, "status": status}
            tx.resources.set_status("pipeline", "late", {"last": last}, action="ran")
        self.loop.settle()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    clock = FakeClock(NOON)
    opened = open_ledger(tmp_path, clock=clock)
    yield Desk(opened, clock)
    opened.close()


def test_drift_queues_one_run_that_says_why(desk: Desk) -> None:
    desk.trigger(params={"n": 2})
    desk.drift(first="0f")
    desk.advance(600)
    (run,) = desk.runs
    assert run.params == {"depth": 6, "n": 2}
    assert run.tags == {"trigger": "retrain", "because": "monitor/late.drifting", "from": "0f"}
    assert run.status == "pending"
    with desk.ledger.read() as tx:
        assert run.event is not None
        assert [e.action for e in tx.journal.chain(run.event)] == ["queued", "drifting"]
        (event,) = tx.journal.find(ref="trigger/retrain", action="triggered")
    assert event.detail == {"run": run.id, "because": "it drifted", "number": 1, "budget": "3 a day"}


def test_a_condition_that_holds_through_a_failing_run_is_not_repeated_at_once(desk: Desk) -> None:
    desk.trigger()
    desk.drift()
    desk.end("failed")
    desk.advance(60)
    assert len(desk.runs) == 1
    desk.advance(STANDING.total_seconds())
    assert len(desk.runs) == 2


def test_a_new_version_queues_a_run_but_not_one_that_the_run_itself_made(desk: Desk) -> None:
    desk.publish("a" * 64)
    desk.trigger(on=["dataset/flights"])
    assert desk.runs == []
    desk.publish("b" * 64)
    assert [r.tags["because"] for r in desk.runs] == ["dataset/flights@2"]
    with desk.ledger.write("worker/1") as tx:
        child = tx.runs.start("step", "collect", parent=desk.runs[0].id)
    desk.publish("c" * 64, run=child.id)
    desk.publish("d" * 64, run=desk.runs[0].id)
    desk.end()
    assert len(desk.runs) == 1
    desk.publish("e" * 64)
    assert len(desk.runs) == 2


def test_a_schedule_fires_on_time_and_once_after_a_long_sleep(desk: Desk) -> None:
    desk.trigger(on=[{"cron": "0 13 * * *", "zone": "UTC"}], budget="10 a day")
    assert desk.status["next"] == "2026-03-04T13:00:00.000000Z"
    desk.advance(3599)
    assert desk.runs == []
    desk.advance(1)
    assert len(desk.runs) == 1
    desk.end()
    desk.advance(10 * 86400 + 1800)
    assert len(desk.runs) == 2
    assert desk.status["handled"] == {"0 13 * * * UTC": "2026-03-14T13:00:00.000000Z"}
    desk.end()
    assert desk.status["next"] == "2026-03-15T13:00:00.000000Z"


def test_a_missed_schedule_is_skipped_when_it_says_so(desk: Desk) -> None:
    desk.trigger(on=[{"cron": "0 13 * * *", "zone": "UTC"}], missed="skip")
    desk.advance(86400)
    assert desk.runs == []
    assert desk.status["next"] == "2026-03-05T13:00:00.000000Z"
    desk.advance(3600)
    assert len(desk.runs) == 1


def test_a_schedule_that_fires_each_minute_catches_up_quickly_after_a_year(desk: Desk) -> None:
    desk.trigger(on=[{"cron": "* * * * *", "zone": "UTC"}])
    desk.advance(365 * 86400 + 30)
    assert len(desk.runs) == 1
    assert desk.status["handled"]["* * * * * UTC"] == "2027-03-04T12:00:00.000000Z"


def test_over_budget_it_says_until_when_and_goes_on_then(desk: Desk) -> None:
    desk.trigger(budget="1 a day")
    desk.drift()
    desk.end()
    desk.drift(False)
    desk.advance(3600)
    desk.drift()
    assert len(desk.runs) == 1
    assert "the budget of 1 a day is used up; the next start is free at 2026-03-05T12:00" in desk.status["waiting"]
    desk.advance(23 * 3600)
    assert len(desk.runs) == 2
    assert "waiting" not in desk.status


def test_labels_are_counted_from_the_window_where_the_condition_began(desk: Desk) -> None:
    desk.trigger(after_labels=5)
    desk.traffic.labelled = 14
    desk.drift(first=f"{10:032x}")
    assert desk.runs == []
    before = desk.status
    desk.advance(1)
    assert desk.status == before
    desk.traffic.labelled = 15
    desk.advance(1)
    assert len(desk.runs) == 1


def test_a_paused_trigger_is_shown_as_blocked_and_goes_on_when_it_is_resumed(desk: Desk) -> None:
    desk.trigger(paused=True)
    desk.drift()
    desk.advance(60)
    assert desk.runs == []
    assert desk.status["blocked"] == "paused; it drifted"
    desk.trigger(paused=False)
    assert len(desk.runs) == 1
    assert "blocked" not in desk.status


def test_at_rest_nothing_is_written(desk: Desk) -> None:
    desk.trigger(on=["monitor/late.drifting", "dataset/flights", {"cron": "0 4 * * 1"}])
    with desk.ledger.read() as tx:
        before = tx.journal.last()
    for _ in range(5):
        desk.loop.queue.wake(Ref("trigger", "retrain"))
        desk.advance(60)
    with desk.ledger.read() as tx:
        assert tx.journal.last() == before


def test_a_condition_waits_while_the_version_of_the_last_run_is_being_tried() -> None:
    happening = Happening("monitor/late.decayed", "2", "condition", "late decayed", NOON)
    spec = Trigger(on=["monitor/late.decayed"], start="late")
    found = decide(spec, Observed(happenings=[happening], trying="late@2"), NOON)
    assert isinstance(found, Wait)
    assert found.reason == "late@2 is being tried"
    assert isinstance(decide(spec, Observed(happenings=[happening]), NOON), Start)
