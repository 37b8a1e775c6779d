"""The journal in sentences, over a real ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flyball.delivery.explain import causes, sentence, story, told
from flyball.delivery.states import reason_of, state_of
from flyball.ledger.journal import GENESIS, Event
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.platform import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with closing(Platform.open(tmp_path / "home")) as opened:
        opened.declare("dataset", "flights")
        opened.declare("model", "late")
        opened.declare("deployment", "late", model="late")
        opened.declare("monitor", "late", of="deployment/late")
        opened.declare("pipeline", "late", function="pipelines.py:late")
        opened.declare("trigger", "retrain-late", on=["monitor/late.drifting"], start="late")
        yield opened


def retrained(platform: Platform) -> Event:
    """Note what a retraining notes, each link with its cause, and return the last event."""
    gates = [{"gate": "auc at least 0.6", "passed": True, "reason": "auc is 0.712"}]
    with platform.ledger.write("controller/monitor") as world:
        world.versions.publish("dataset", "flights", "d" * 64, metadata={"rows": 48_210, "note": "1,830 of them new"})
        drift = {"summary": "previous_delay drifted: W1 0.41 > 0.05 in a window of 1,800 requests"}
        status = {"conditions": {"drifting": drift}}
        drifting = world.resources.set_status("monitor", "late", status, action="drifting", detail=drift).event
    assert drifting is not None
    with platform.ledger.write("controller/trigger", drifting.seq) as world:
        run = world.runs.start(
            "pipeline", "late", of="pipeline/late", status="pending", tags={"trigger": "retrain-late"}
        )
        detail = {"run": run.id, "number": 1, "budget": "3 a day"}
        world.resources.set_status("trigger", "retrain-late", {"last_run": run.id}, action="triggered", detail=detail)
    with platform.ledger.write("user/worker") as world:
        facts = {"trained_on": "dataset/flights@1"}
        world.versions.publish("model", "late", "a" * 64, metadata={})
        made = world.versions.publish("model", "late", "b" * 64, metadata=facts, run=run.id)
    with platform.ledger.write("controller/model", made.event) as world:
        decided = {"decided": {"2": {"outcome": "challenger", "gates": gates}}}
        detail = {"version": "late@2", "gates": gates}
        passed = world.resources.set_status("model", "late", decided, action="passed", detail=detail).event
        assert passed is not None
        appointed = world.versions.set_alias("model", "late", "challenger", 2, cause=passed.seq)
    with platform.ledger.write("controller/deployment", appointed) as world:
        rollout = {"challenger": "late@2", "champion": "late@1", "share": 5}
        begun = world.resources.set_status(
            "deployment", "late", {"rollout": rollout}, action="rollout started", detail=rollout
        ).event
        assert begun is not None
        ended = {**rollout, "reason": "auc 0.712 [0.701, 0.723] against 0.655 [0.643, 0.667]"}
        last = world.resources.set_status(
            "deployment", "late", {"serving": {}}, action="promoted", detail=ended, cause=begun.seq
        ).event
    assert last is not None
    return last


def test_a_promotion_is_told_back_to_its_first_cause_as_the_tour_shows_it(platform: Platform) -> None:
    last = retrained(platform)
    chain = platform.why("deployment/late")
    assert chain[0] == last
    with platform.ledger.read() as world:
        text = told(chain, world)
    text = re.sub(r"run [0-9a-f]{8}", "run 41f3", re.sub(r"\d\d:\d\d(:\d\d)?", "14:02", text))
    assert text.splitlines() == [
        "late@2 has served deployment/late since 14:02",
        "└─ late@2 was promoted by its canary: auc 0.712 [0.701, 0.723] against 0.655 [0.643, 0.667]",
        "   └─ late@2 passed 1 of 1 gates; no approval needed",
        "      └─ late@2 was trained by run 41f3 of pipeline/late on flights@1 (48,210 rows; 1,830 of them new)",
        "         └─ run 41f3 of pipeline/late was started by trigger/retrain-late (1st of 3 a day)",
        "            └─ monitor/late: previous_delay drifted: W1 0.41 > 0.05 in a window of 1,800 requests, at 14:02",
    ]


def test_the_cause_of_a_version_is_the_run_that_made_it(platform: Platform) -> None:
    last = retrained(platform)
    with platform.ledger.read() as world:
        plain, whole = world.journal.chain(last.seq), causes(last.seq, world)
    assert [e.action for e in plain] == ["promoted", "rollout started", "aliased", "passed", "published"]
    assert [e.action for e in whole[len(plain) :]] == ["queued", "drifting"]


def test_a_run_without_a_cause_was_caused_by_the_run_that_contains_it(platform: Platform) -> None:
    with platform.ledger.write("user/ann") as world:
        outer = world.runs.start("pipeline", "late", of="pipeline/late")
        inner = world.runs.start("training", "fit", parent=outer.id)
        assert inner.event is not None
        assert [e.ref for e in causes(inner.event, world)] == [f"run/{inner.id}", f"run/{outer.id}"]


def test_every_event_of_a_busy_home_is_a_sentence_even_when_its_subject_is_gone(platform: Platform) -> None:
    retrained(platform)
    for kind, name in (("trigger", "retrain-late"), ("monitor", "late"), ("deployment", "late"), ("model", "late")):
        platform.delete(Ref(kind, name))
    events = platform.events(limit=1000)
    said = platform.sentences(events)
    assert all(text and not text.startswith(" ") and "None" not in text for text in said)
    assert "model/late was deleted by " in "\n".join(said)
    assert [e for e in events if e.action == "promoted"]


@pytest.mark.parametrize(
    ("action", "subject", "actor", "detail", "said"),
    [
        ("created", "model/late", "user/ann", {"generation": 1}, "model/late was declared by ann"),
        (
            "changed",
            "model/late",
            "user/ann",
            {"fields": {"metric": [None, "auc"]}},
            "model/late was changed by ann: metric none → auc",
        ),
        ("deleted", "alert/late-drifting", "user/ann", {"with": "monitor/late"},
         "alert/late-drifting was deleted with monitor/late"),
        ("aliased", "model/late@3", "user/ann", {"alias": "champion", "from": 2, "to": 3},
         "late@3 became champion after late@2"),
        ("aliased", "model/late", "x/y", {"alias": "challenger", "from": 2, "to": None},
         "late@2 is no longer challenger"),
        ("rollout stepped", "deployment/late", "x/y", {"challenger": "late@2", "share": 25, "reason": "500 answers"},
         "late@2 went on to 25 % of deployment/late: 500 answers"),
        ("rolled back", "deployment/late", "user/ann", {"challenger": "late@2", "reason": "a person ended it"},
         "late@2 was rolled back by ann: a person ended it"),
        ("watches", "monitor/late", "x/y", {"version": "late@1"}, "monitor/late watches late@1"),
        ("no longer drifting", "monitor/late", "x/y", {}, "monitor/late is no longer drifting"),
        ("fired", "alert/a", "x/y", {"summary": "auc is 0.6"}, "alert/a fired: auc is 0.6"),
        ("resolved", "alert/a", "x/y", {"because": "late@2 serves now"}, "alert/a is resolved: late@2 serves now"),
        ("failed", "run/0123456789", "x/y", {"name": "fit", "error": "Traceback\n\nValueError: no rows"},
         "run 01234567 of fit failed: ValueError: no rows"),
        ("lost", "run/0123456789", "x/y", {"name": "fit"}, "run 01234567 of fit was lost"),
        ("succeeded", "run/0123456789", "x/y", {"name": "fit", "metrics": {"auc": 0.71234, "odd": None}},
         "run 01234567 of fit succeeded (auc 0.712)"),
        ("refused", "model/late", "x/y",
         {"version": "late@2", "gates": [{"gate": "auc at least 0.6", "passed": False, "reason": "auc is 0.5"}]},
         "late@2 was refused; auc at least 0.6: auc is 0.5"),
        ("approved", "model/late@2", "user/ann", {}, "ann agreed to late@2"),
        ("triggered", "trigger/t", "x/y", {"run": "run/0123456789", "reason": "monitor/late.drifting"},
         "trigger/t started run 01234567: monitor/late.drifting"),
        ("ran", "pipeline/late", "x/y", {"run": "0123456789", "status": "failed"},
         "pipeline/late ran: run 01234567 failed"),
        ("blocked", "model/late", "x/y", {"blocked": "a person must agree"}, "model/late waits: a person must agree"),
        ("failed", "monitor/late", "x/y", {"error": "no log"},
         "monitor/late could not be brought to what is wanted: no log"),
        ("silenced", "alert/a", "user/ann", {"reason": "known"}, "alert/a: silenced: known"),
    ],
)  # fmt: skip
def test_each_action_has_its_sentence(
    platform: Platform, action: str, subject: str, actor: str, detail: dict[str, object], said: str
) -> None:
    event = Event(1, datetime(2026, 1, 2, tzinfo=UTC), actor, action, subject, detail, None, GENESIS)
    with platform.ledger.read() as world:
        assert sentence(event, world) == said


def test_what_happened_on_another_day_is_told_with_its_date(platform: Platform) -> None:
    event = Event(1, datetime(2020, 1, 2, 12, tzinfo=UTC), "x/y", "serves", "deployment/late", {"version": "late@1"},
                  None, GENESIS)  # fmt: skip
    with platform.ledger.read() as world:
        (line,) = story([event], world)
    assert re.fullmatch(r"late@1 has served deployment/late since 2020-01-0[123] \d\d:\d\d:\d\d", line)


def test_the_chain_may_begin_with_any_event_or_run(platform: Platform) -> None:
    last = retrained(platform)
    assert platform.why(f"event/{last.seq}") == platform.why("deployment/late")
    run = platform.runs(kind="pipeline")[0]
    assert platform.why(f"run/{run.id[:8]}")[0].ref == str(run.ref)
    assert ref(platform.why("model/late")[0].ref).kind == "model"


@pytest.mark.parametrize(
    ("kind", "status", "state", "reason"),
    [
        ("deployment", {}, "declared", None),
        ("trigger", {"handled": {}}, "ready", None),
        ("trigger", {"waiting": "cools down"}, "waiting", "cools down"),
        ("deployment", {"serving": {}}, "serving", None),
        ("deployment", {"serving": {}, "rollout": {}}, "rolling out", None),
        ("deployment", {"blocked": "no champion"}, "blocked", "no champion"),
        ("monitor", {"watching": {}}, "watching", None),
        ("monitor", {"watching": {}, "conditions": {"drifting": {"summary": "x drifted"}}}, "drifting", "x drifted"),
        ("monitor", {"conditions": {"drifting": {}, "decayed": {}}, "blocked": "b"}, "decayed", "b"),
        ("alert", {"state": "firing"}, "firing", None),
        ("pipeline", {"last": {"status": "failed"}}, "failed", None),
        ("model", {"decided": {"9": {"outcome": "champion"}, "10": {"outcome": "refused"}}}, "refused", None),
        ("dataset", {"error": "it broke"}, "failed", "it broke"),
    ],
)
def test_a_state_is_one_word_and_never_better_than_the_status(
    kind: str, status: dict[str, object], state: str, reason: str | None
) -> None:
    resource = Resource(kind, "x", {}, status)
    assert (state_of(resource), reason_of(resource)) == (state, reason)
