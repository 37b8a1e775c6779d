"""Stages, promotion requests and reviews, with several people and a clock that is moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from flyball.control.loop import Loop
from flyball.delivery.promotion import PromotionController
from flyball.errors import Conflict, Forbidden, InvalidInput, NotFound
from flyball.governance.identity import Principal
from flyball.ledger.versions import Version
from flyball.platform import Platform
from flyball.testing.clock import FakeClock

DAY_S = 86_400.0
GATES = [{"metric": "auc", "at_least": 0.7}]
STAGES: list[dict[str, Any]] = [
    {"name": "development"},
    {"name": "staging", "checks": [{"metric": "auc", "at_least": 0.6}]},
    {
        "name": "production",
        "alias": "champion",
        "checks": GATES,
        "approvers": {"role": "editor", "people": ["olga"], "at_least": 2},
        "expires": "2d",
    },
    {"name": "archived"},
]


class World:
    """A home with a model `late` that people move by hand, and people who do."""

    def __init__(self, home: Path) -> None:
        self.clock = FakeClock(datetime(2026, 5, 1, 12, tzinfo=UTC))
        self.home = Platform.open(home, Principal("user/root", "admin"), self.clock)
        self.ann, self.bob, self.cem = (self.as_(name, "editor") for name in ("ann", "bob", "cem"))
        self.olga = self.as_("olga", "operator")
        self.vera = self.as_("vera", "viewer")
        self.loop = Loop(self.home.ledger, [PromotionController()], self.clock)

    def as_(self, name: str, role: str) -> Platform:
        return self.home.as_(Principal(f"user/{name}", role))

    def declare(self, **spec: Any) -> None:
        self.home.declare("Model", "late", **{"promotion": "by hand", "stages": STAGES, **spec})

    def publish(self, auc: float = 0.75, by: str = "user/ann", **metadata: Any) -> Version:
        found = {"auc": {"low": auc - 0.02, "value": auc, "high": auc + 0.02}}
        number = len(self.home.versions("model", "late")) + 1
        with self.home.ledger.write(by) as world:
            known = {"metric": "auc", "evaluation": {"rows": 500, "metrics": found}, **metadata}
            return world.versions.publish("model", "late", f"{number:064}", metadata=known)

    def to_production(self, version: Version) -> None:
        self.ann.promote(version.ref, "staging", "looks good")
        self.to_production_from_staging(version)

    def to_production_from_staging(self, version: Version) -> None:
        request = self.ann.promote(version.ref, "production", "better")
        self.bob.review(request.id, "approved")
        self.cem.review(request.id, "approved")

    def stage(self, version: Version) -> str:
        return self.home.stage_of(version.ref).name

    def actions(self, version: Version) -> list[str]:
        return [event.action for event in reversed(self.home.events(ref=str(version.ref)))][1:]


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    with closing(made.home):
        yield made


def test_a_version_goes_up_by_a_request_that_two_others_approve(w: World) -> None:
    w.declare()
    made = w.publish()
    assert w.stage(made) == "development"
    assert w.ann.promote("late@1", "staging", "first try").state == "approved"
    assert w.stage(made) == "staging"
    request = w.ann.promote("late@1", "Production", "beats what we have")
    assert (request.state, request.before, request.to, w.stage(made)) == ("open", "staging", "production", "staging")
    assert w.bob.review(request.id, "approved", "checked the slices").state == "open"
    assert w.bob.review(request.id, "approved", "again").state == "open"  # the same person counts once
    done = w.olga.review(request.id, "approved", "fine for operations")  # named, though an operator
    assert (done.state, done.decided_by, done.approvals()) == ("approved", "user/olga", ("user/bob", "user/olga"))
    assert (w.stage(made), w.home.aliases("model", "late")) == ("production", {"champion": 1})
    assert w.actions(made) == ["asked", "staged", "asked", "approved", "approved", "aliased", "staged"]
    assert w.home.verify_journal() > 0


def test_stages_that_ask_something_are_not_left_out(w: World) -> None:
    w.declare()
    w.publish()
    with pytest.raises(Conflict, match="on the way to production stands staging"):
        w.ann.promote("late@1", "production")
    with pytest.raises(InvalidInput, match='no stage "producton"; did you mean "production"'):
        w.ann.promote("late@1", "producton")
    with pytest.raises(Conflict, match="is in development already"):
        w.ann.promote("late@1", "development")
    with pytest.raises(NotFound):
        w.ann.promote("late@9", "staging")


def test_what_a_stage_checks_is_said_with_the_figure(w: World) -> None:
    w.declare()
    weak = w.publish(auc=0.65)
    w.ann.promote(weak.ref, "staging")
    with pytest.raises(Conflict, match=r"late@1 may not enter production yet: auc at least 0.7: auc is 0.650"):
        w.ann.promote(weak.ref, "production")
    assert w.home.requests() == w.home.requests(states=["approved"])  # nothing was kept of what was not asked


@pytest.mark.parametrize(
    ("who", "why"),
    [("ann", "user/ann asked for it"), ("vera", "is viewer and may not decide about production; that is for the role")],
)
def test_who_may_not_decide_is_told_why(w: World, who: str, why: str) -> None:
    w.declare()
    version = w.publish(by="user/zoe")
    w.ann.promote(version.ref, "staging")
    request = w.ann.promote(version.ref, "production")
    with pytest.raises(Forbidden, match=why):
        getattr(w, who).review(request.id, "approved")
    assert w.home.request(request.id).request.reviews == ()
    assert why in str(getattr(w, who).request(request.id).why_not)


def test_who_made_a_version_may_not_agree_to_it(w: World) -> None:
    w.declare()
    with w.home.ledger.write("user/cem") as world:
        run = world.runs.start("training", "fit")
    with w.home.ledger.write("user/bob") as world:
        metadata = {"evaluation": {"metrics": {"auc": {"low": 0.8, "value": 0.8, "high": 0.8}}}}
        world.versions.publish("model", "late", "a" * 64, metadata=metadata, run=run.id)
    w.ann.promote("late@1", "staging")
    request = w.ann.promote("late@1", "production")
    for maker in (w.bob, w.cem):  # who registered it, and who ran the training
        with pytest.raises(Forbidden, match="made late@1, and another person must decide"):
            maker.review(request.id, "approved")
        with pytest.raises(Forbidden):
            maker.review(request.id, "refused", "no")


def test_separation_of_duties_can_be_loosened(w: World) -> None:
    production = {**STAGES[2], "approvers": {"separate_duties": False}}
    w.declare(stages=[STAGES[0], production])
    w.publish()
    request = w.ann.promote("late@1", "production")
    assert w.ann.review(request.id, "approved").state == "approved"


def test_a_refusal_ends_a_request_and_says_why(w: World) -> None:
    w.declare()
    version = w.publish()
    w.ann.promote(version.ref, "staging")
    request = w.ann.promote(version.ref, "production")
    w.bob.review(request.id, "approved")
    with pytest.raises(InvalidInput, match="a refusal needs a comment"):
        w.cem.review(request.id, "refused", "  ")
    assert w.cem.review(request.id, "refused", "the slice of night flights is too weak").state == "refused"
    with pytest.raises(Conflict, match=f"request {request.id} is refused already, by user/cem"):
        w.bob.review(request.id, "approved")
    assert w.stage(version) == "staging"
    told = w.home.sentences(w.home.events(ref=str(version.ref), action="refused"))
    assert told == ["cem refused late@1 for production: the slice of night flights is too weak"]
    assert w.ann.promote(version.ref, "production", "mended").state == "open"  # it may be asked again


def test_a_request_runs_out_also_while_somebody_reviews_it(w: World) -> None:
    w.declare()
    version = w.publish()
    w.ann.promote(version.ref, "staging")
    request = w.ann.promote(version.ref, "production")
    w.bob.review(request.id, "approved")
    w.clock.advance(2 * DAY_S - 1)
    assert w.cem.inbox().mine[0].request.id == request.id  # cem reads it, a second before its end
    w.clock.advance(1)
    with pytest.raises(Conflict, match=r"ran out at 2026-05-03 12:00 UTC; ask again: flyball promote late@1"):
        w.cem.review(request.id, "approved")
    found = w.home.request(request.id)
    assert (found.state, found.request.state, len(found.request.reviews)) == ("expired", "expired", 1)
    assert (w.actions(version)[-1], w.stage(version)) == ("expired", "staging")
    assert w.ann.promote(version.ref, "production").state == "open"


def test_the_loop_notes_that_a_request_ran_out(w: World) -> None:
    w.declare()
    version = w.publish()
    w.ann.promote(version.ref, "staging")
    request = w.ann.promote(version.ref, "production")
    w.loop.settle()
    w.clock.advance(2 * DAY_S + 1)
    w.loop.settle()
    assert w.home.request(request.id).request.state == "expired"
    assert w.home.events(action="expired")[0].actor == "controller/model"


def test_a_request_is_withdrawn_by_who_asked_or_an_admin(w: World) -> None:
    w.declare()
    version = w.publish()
    w.ann.promote(version.ref, "staging")
    first = w.ann.promote(version.ref, "production")
    with pytest.raises(Forbidden, match="user/ann asked for it"):
        w.bob.withdraw(first.id)
    assert w.ann.withdraw(first.id, "a better one comes").state == "withdrawn"
    second = w.bob.promote(version.ref, "production")
    assert w.home.withdraw(second.id).state == "withdrawn"
    with pytest.raises(Conflict, match="is withdrawn already"):
        w.cem.review(second.id, "approved")


def test_the_same_thing_is_asked_once_also_by_two_at_the_same_time(w: World) -> None:
    w.declare()
    version = w.publish()
    w.ann.promote(version.ref, "staging")
    errors = _together([lambda who=who: who.promote(version.ref, "production") for who in (w.ann, w.bob, w.cem)])
    assert len([error for error in errors if error is None]) == 1
    assert all("asked for that already, as request 2" in str(error) for error in errors if error is not None)


def test_two_reviews_at_once_are_both_kept_and_let_it_in_once(w: World) -> None:
    w.declare()
    version = w.publish()
    w.ann.promote(version.ref, "staging")
    request = w.ann.promote(version.ref, "production")
    assert _together([lambda who=who: who.review(request.id, "approved") for who in (w.bob, w.cem)]) == [None, None]
    done = w.home.request(request.id).request
    assert (done.state, sorted(done.approvals())) == ("approved", ["user/bob", "user/cem"])
    assert w.actions(version).count("staged") == 2


def test_an_approval_and_a_refusal_at_once_leave_one_decision(w: World) -> None:
    w.declare(stages=[STAGES[0], {**STAGES[2], "approvers": {"at_least": 1}}])
    version = w.publish()
    request = w.ann.promote(version.ref, "production")
    errors = _together(
        [lambda: w.bob.review(request.id, "approved"), lambda: w.cem.review(request.id, "refused", "no")]
    )
    assert len([error for error in errors if isinstance(error, Conflict)]) == 1
    is_in = w.home.request(request.id).state == "approved"
    assert (w.stage(version) == "production") == is_in


def test_what_may_no_longer_enter_is_not_let_in_by_the_last_approval(w: World) -> None:
    gate = {"metric": "auc", "against": "champion"}
    w.declare(stages=[STAGES[0], {**STAGES[2], "checks": [gate], "approvers": {"at_least": 1}}])
    better = {"champion": "late@1", "metrics": {"auc": {"verdict": "better", "reason": "clearly"}}}
    w.publish(), w.publish(comparison=better), w.publish(comparison=better)
    first = w.ann.promote("late@1", "production")
    w.bob.review(first.id, "approved")
    second, third = (w.ann.promote(f"late@{number}", "production") for number in (2, 3))
    w.bob.review(second.id, "approved")
    with pytest.raises(Conflict, match=r"late@3 may no longer enter production: .*auc was not compared"):
        w.bob.review(third.id, "approved")
    assert w.home.request(third.id).request.reviews == ()  # compared with late@1, and late@2 is in use by now
    assert w.home.aliases("model", "late") == {"champion": 2}


def test_who_is_displaced_retires_and_rolling_back_moves_stage_and_alias(w: World) -> None:
    w.declare()
    one, two = w.publish(), w.publish()
    w.to_production(one)
    w.clock.advance(3600)
    w.to_production(two)
    assert (w.stage(one), w.stage(two)) == ("archived", "production")
    w.clock.advance(3600)
    assert w.as_("olga", "operator").rollback("model/late") == "late@1"
    assert (w.stage(one), w.stage(two)) == ("production", "archived")
    assert w.home.aliases("model", "late") == {"champion": 1}
    with w.home.ledger.read() as world:  # and so it stands in the notes, which MLflow's clients read
        assert [world.notes.get("model", "late", n).stage for n in (1, 2)] == ["production", "archived"]
    with pytest.raises(Conflict, match="on the way to production stands staging"):
        w.ann.promote(two.ref, "production")  # who has retired begins anew


def test_what_serves_does_not_just_leave(w: World) -> None:
    w.declare()
    version = w.publish()
    w.to_production(version)
    w.home.declare("Deployment", "late", model="late@champion")
    with pytest.raises(Conflict, match="late@1 serves deployment/late"):
        w.ann.promote(version.ref, "archived")
    w.home.delete("deployment/late")
    assert w.ann.promote(version.ref, "archived", "no longer needed").state == "approved"
    assert (w.stage(version), w.home.aliases("model", "late")) == ("archived", {})


def test_the_history_says_who_was_in_production_when_and_on_what_evidence(w: World) -> None:
    w.declare()
    one, two = w.publish(auc=0.71), w.publish(auc=0.8)
    w.to_production(one)
    first = w.clock.now()
    w.clock.advance(10 * DAY_S)
    w.to_production(two)
    w.clock.advance(DAY_S)
    w.home.rollback("model/late")
    w.clock.advance(DAY_S)

    def in_production(at: datetime) -> Any:
        found = [standing for standing in w.home.history("late", at) if standing.stage == "production"]
        assert len(found) <= 1
        return found[0] if found else None

    assert in_production(datetime(2026, 4, 30, tzinfo=UTC)) is None
    then = in_production(datetime(2026, 5, 3, 14, tzinfo=UTC))
    assert (then.ref, then.since, then.actor) == (one.ref, first, "user/cem")
    assert [review.actor for review in then.request.reviews] == ["user/bob", "user/cem"]
    assert then.gates[0]["reason"] == "auc is 0.710 [0.690, 0.730]"
    assert in_production(datetime(2026, 5, 11, 13, tzinfo=UTC)).ref == two.ref
    assert in_production(w.clock.now()).actor == "user/root"
    lasting = {(s.stage, str(s.ref)) for s in w.home.history("late") if s.until is None}
    assert lasting == {("production", "model/late@1"), ("archived", "model/late@2")}


def test_models_without_stages_have_the_default_ones(w: World) -> None:
    w.home.declare("Model", "late", gates=GATES)
    one = w.publish(auc=0.72)
    assert [s.stage.name for s in w.home.stages("late")] == ["development", "staging", "production", "archived"]
    w.loop.settle()
    assert (w.stage(one), w.home.aliases("model", "late")) == ("production", {"champion": 1})
    two = w.publish(auc=0.9)
    assert w.ann.promote(two.ref, "staging").state == "approved"
    assert w.ann.promote(two.ref, "production").state == "approved"
    assert (w.stage(one), w.stage(two)) == ("archived", "production")
    w.loop.settle()
    assert w.home.aliases("model", "late") == {"champion": 2}


def test_the_gates_own_request_is_what_approve_reviews(w: World) -> None:
    w.home.declare("Model", "late", gates=GATES, approve={"by": "person"})
    w.publish()
    w.loop.settle()
    waiting = w.bob.inbox().mine
    assert [(c.request.asked_by, c.request.to, c.why_not) for c in waiting] == [
        ("controller/model", "production", None)
    ]
    assert "flyball approve model/late@1" in w.home.resource("model/late").status["blocked"]
    with pytest.raises(Forbidden, match="is operator and may not decide"):
        w.olga.approve("late@1")
    w.ann.approve("late@1", "go")  # who made it may, where the model just asks for a person
    w.loop.settle()
    assert w.home.aliases("model", "late") == {"champion": 1}
    decided = w.home.resource("model/late").status["decided"]["1"]
    assert (decided["outcome"], decided["reviews"][0]["by"]) == ("champion", "user/ann")
    with pytest.raises(Conflict, match="waits for nobody's agreement"):
        w.ann.approve("late@1")


def test_agreeing_before_the_gate_has_asked_is_a_request_too(w: World) -> None:
    w.home.declare("Model", "late", gates=GATES, approve={"by": "person"})
    w.publish()
    w.bob.approve("late@1")
    w.loop.settle()
    assert w.home.aliases("model", "late") == {"champion": 1}
    assert [case.state for case in w.home.requests()] == ["approved"]


def test_a_version_that_people_refuse_is_decided(w: World) -> None:
    w.home.declare("Model", "late", approve={"by": "person"})
    w.publish()
    w.loop.settle()
    w.bob.review(1, "refused", "it learnt from the wrong year")
    w.loop.settle()
    assert w.home.resource("model/late").status["decided"]["1"]["outcome"] == "refused"
    assert "blocked" not in w.home.resource("model/late").status
    assert w.home.aliases("model", "late") == {}


def test_versions_go_up_declared_stages_by_themselves_as_far_as_people_let_them(w: World) -> None:
    w.declare(promotion="automatic")
    version = w.publish()
    w.loop.settle()
    assert w.stage(version) == "staging"
    [case] = w.bob.inbox().mine
    assert (case.request.asked_by, case.missing) == ("controller/model", 2)
    w.bob.review(case.request.id, "approved")
    w.cem.review(case.request.id, "approved")
    w.loop.settle()
    assert (w.stage(version), w.home.aliases("model", "late")) == ("production", {"champion": 1})
    weak = w.publish(auc=0.5)
    w.loop.settle()
    assert w.home.resource("model/late").status["decided"]["2"]["outcome"] == "refused"
    assert w.stage(weak) == "development"


def test_the_stage_follows_an_alias_that_somebody_else_moved(w: World) -> None:
    w.declare()
    one, two = w.publish(), w.publish()
    w.to_production(one)
    with w.home.ledger.write("controller/deployment") as world:  # as a canary does at its end
        world.versions.set_alias("model", "late", "champion", 2)
    assert (w.stage(one), w.stage(two)) == ("archived", "production")
    w.loop.settle()
    with w.home.ledger.read() as world:
        assert [world.notes.get("model", "late", n).stage for n in (1, 2)] == ["archived", "production"]


def test_a_version_that_was_displaced_and_deleted_does_not_hold_the_others_up(w: World) -> None:
    w.declare()
    one, two = w.publish(), w.publish()
    w.to_production(one)
    with w.home.ledger.write("controller/deployment") as world:
        world.versions.set_alias("model", "late", "champion", 2)
    w.home.delete_version("late", 1)
    w.loop.settle()
    assert "error" not in w.home.resource("model/late").status
    assert w.stage(two) == "production"
    with pytest.raises(Conflict, match="no earlier champion to go back to"):
        w.home.rollback("model/late")


def test_the_inbox_tells_mine_from_others_and_what_was_decided(w: World) -> None:
    w.declare()
    for _ in range(3):
        version = w.publish()
        w.ann.promote(version.ref, "staging")
    first, _, third = (w.ann.promote(f"late@{n}", "production") for n in (1, 2, 3))
    w.bob.review(first.id, "approved")
    w.bob.review(third.id, "refused", "not now")
    inbox = w.bob.inbox()
    assert [case.request.ref.version for case in inbox.mine] == ["2"]
    assert [case.request.ref.version for case in inbox.others] == ["1"]  # bob has said what he has to say
    assert inbox.decided[0].request.id == third.id
    assert [c.request.ref.version for c in w.ann.inbox().others] == ["2", "1"]
    assert [c.request.ref.version for c in w.cem.inbox().mine] == ["2", "1"]


def test_what_an_mlflow_client_sets_goes_the_same_way(w: World) -> None:
    w.declare()
    version, weak = w.publish(), w.publish(auc=0.5)
    with pytest.raises(Conflict, match=r"late@2 may not enter staging yet: auc at least 0.6: auc is 0.500"):
        w.ann.set_stage("late", weak.number, "Staging")
    assert w.ann.set_stage("late", 1, "Staging").note.stage == "staging"
    with pytest.raises(Forbidden, match="ask them: flyball promote late@1 --to production"):
        w.ann.set_stage("late", 1, "Production")
    with pytest.raises(Forbidden, match="the alias champion of model/late is bound to its stage production"):
        w.ann.set_alias("late", "champion", 2)
    w.to_production_from_staging(version)
    for act in (lambda: w.ann.remove_alias("late", "champion"), lambda: w.ann.delete_version("late", 1)):
        with pytest.raises(Forbidden):
            act()
    w.ann.set_alias("late", "baseline", 2)  # bound to no stage
    assert w.home.aliases("model", "late") == {"champion": 1, "baseline": 2}


def test_on_a_model_by_hand_a_stage_is_just_set(w: World) -> None:
    w.home.create_model("plain")
    w.home.create_version("plain", "runs:/x/model")
    assert w.ann.set_stage("plain", 1, "Production").note.stage == "Production"
    assert (w.home.stage_of("plain@1").name, w.home.requests()) == ("Production", [])
    assert w.ann.promote("plain@1", "archived", "old").to == "Archived"
    assert [s.stage for s in w.home.history("plain")] == ["Archived", "Production"]


def _together(acts: list[Any]) -> list[Exception | None]:
    errors: list[Exception | None] = [None] * len(acts)
    barrier = threading.Barrier(len(acts))

    def one(number: int) -> None:
        barrier.wait(30)
        try:
            acts[number]()
        except Exception as error:
            errors[number] = error

    threads = [threading.Thread(target=one, args=(n,)) for n in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


def test_on_the_default_stages_mlflows_four_names_are_a_promotion(w: World) -> None:
    w.home.declare("model", "simple")
    for _ in range(2):
        w.home.register("simple", LogisticRegression().fit([[0.0], [1.0]], [0, 1]), example=np.array([[0.5]]))
    assert w.ann.set_stage("simple", 1, "Staging").note.stage == "staging"
    w.ann.set_stage("simple", 1, "Production")
    assert w.home.stage_of("simple@1").name == "production" and w.home.aliases("model", "simple")["champion"] == 1
    w.ann.set_stage("simple", 1, "Production")  # twice is once
    assert len(w.home.history("simple")) == 2
    w.ann.set_stage("simple", 2, "Production", archived="Archived")
    assert w.home.stage_of("simple@1").name == "archived" and w.home.aliases("model", "simple")["champion"] == 2
    assert [one.number for one in w.home.latest_versions("simple", ["Production"])] == [2]
    w.ann.set_stage("simple", 1, "Staging")
    w.ann.set_stage("simple", 1, "")
    assert w.home.stage_of("simple@1").name == "development"
