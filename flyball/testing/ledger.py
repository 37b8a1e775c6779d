"""What every ledger must do: subclass `LedgerCases` and give it a `ledger` fixture that yields an empty ledger.

class TestMyLedger(LedgerCases):
    @pytest.fixture
    def ledger(self): ...
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

import pytest

from flyball.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from flyball.ledger import Fence, Ledger
from flyball.ledger.experiments import InputDataset
from flyball.ledger.kinds import RefersTo, Spec, register
from flyball.ledger.points import Point
from flyball.ledger.refs import Ref, ref
from flyball.ledger.runs import Artifact, RunFacts

__all__ = ["LedgerCases"]


@register
class LedgerCase(Spec):
    """The kind that the cases use."""

    size: int = 1
    label: str = ""
    uses: Annotated[str, RefersTo("ledger-case")] | None = None


KIND = "ledger-case"


def together(count: int, act: Callable[[int], object]) -> list[object]:
    """Run `act(0) … act(count - 1)` at the same time; return results, exceptions among them."""
    results: list[object] = [None] * count
    barrier = threading.Barrier(count)

    def one(number: int) -> None:
        barrier.wait(30)
        try:
            results[number] = act(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


class LedgerCases:
    """Cases; each gets an empty ledger."""

    # -- resources

    def test_a_resource_is_read_back_as_it_was_applied(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {"size": 3, "label": "naïve ☃"}, labels={"team": "ops"})
        with ledger.read() as tx:
            found = tx.resources.get(KIND, "x")
        assert (found.spec, found.labels, found.generation, found.revision) == (
            {"size": 3, "label": "naïve ☃"}, {"team": "ops"}, 1, 1,
        )  # fmt: skip

    def test_writing_an_equal_value_writes_nothing(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {"size": 3})
            tx.resources.set_status(KIND, "x", {"n": 1}, action="counted")
            before = tx.journal.last()
        with ledger.write("user/a") as tx:
            assert tx.resources.apply(KIND, "x", {"size": 3}).event is None
            assert tx.resources.set_status(KIND, "x", {"n": 1}, action="counted").event is None
            assert tx.journal.last() == before
            assert tx.resources.get(KIND, "x").revision == 2

    def test_a_page_is_some_by_name_and_says_how_many_there_are(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            for number in range(25):
                tx.resources.apply(KIND, f"x{number:02}", {"size": number % 3, "label": "é" if number % 2 else ""})
        with ledger.read() as tx:
            everything = tx.resources.all(KIND)
            for offset, limit in ((0, 10), (10, 10), (20, 10), (30, 10), (0, 0)):
                assert tx.resources.page(KIND, offset, limit) == (everything[offset : offset + limit], 25)
            found = tx.resources.spec_values(KIND, "size", "label")
            # What is left at its default is not kept.
            assert sorted(found, key=str) == sorted(
                {(r.spec.get("size"), r.spec.get("label")) for r in everything}, key=str
            )
            assert tx.resources.spec_values(KIND, "uses") == [(None,)]
            assert tx.resources.page("dataset", 0, 10) == ([], 0)

    def test_resources_that_lack_a_word_are_passed_over_and_all_others_come_by_name(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            for number in range(450):
                tx.resources.apply(KIND, f"x{number:03}", {"size": number % 7, "label": f"Größe_{number % 2}% 'a'"})
        with ledger.read() as tx:
            everything = tx.resources.all(KIND)
            assert list(tx.resources.likely(KIND)) == everything
            assert list(tx.resources.likely(KIND, ["X04"])) == everything[40:50]
            assert list(tx.resources.likely(KIND, ["x", "e_1"])) == everything[1::2]
            assert list(tx.resources.likely(KIND, ["größe", "%", "'"])) == everything  # left to the caller
            assert list(tx.resources.likely(KIND, ["absent"])) == []

    def test_a_default_written_out_is_no_change(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {})
            assert tx.resources.apply(KIND, "x", {"size": 1}).event is None

    def test_the_generation_counts_specs_and_the_revision_counts_everything(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {"size": 1})
            tx.resources.set_status(KIND, "x", {"n": 1}, action="counted")
            tx.resources.apply(KIND, "x", {"size": 2})
            found = tx.resources.get(KIND, "x")
        assert (found.generation, found.revision) == (2, 3)

    def test_a_stale_revision_is_a_conflict_and_changes_nothing(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {"size": 1})
            tx.resources.apply(KIND, "x", {"size": 2})
        with pytest.raises(Conflict, match="revision 2, not 1"), ledger.write("user/b") as tx:
            tx.resources.apply(KIND, "x", {"size": 3}, revision=1)
        with ledger.read() as tx:
            assert tx.resources.get(KIND, "x").spec == {"size": 2}

    def test_an_unknown_field_is_refused_with_the_field_meant(self, ledger: Ledger) -> None:
        with pytest.raises(InvalidInput, match='unknown field "siz"; did you mean "size"'), ledger.write("u") as tx:
            tx.resources.apply(KIND, "x", {"siz": 3})

    def test_an_unknown_kind_is_refused(self, ledger: Ledger) -> None:
        with pytest.raises(InvalidInput, match="unknown kind"), ledger.write("u") as tx:
            tx.resources.apply("ledger-cas", "x", {})

    @pytest.mark.parametrize("name", ["", "a/b", "a b", "../x", "ä", "x" * 129, ".hidden", "a\x00"])
    def test_a_bad_name_is_refused(self, ledger: Ledger, name: str) -> None:
        with pytest.raises(InvalidInput), ledger.write("u") as tx:
            tx.resources.apply(KIND, name, {})

    def test_a_transaction_that_raises_leaves_neither_change_nor_event(self, ledger: Ledger) -> None:
        with pytest.raises(ZeroDivisionError), ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {})
            _ = 1 / 0
        with ledger.read() as tx:
            assert tx.resources.find(KIND, "x") is None
            assert tx.journal.last() == 0

    def test_a_transaction_for_reading_cannot_write(self, ledger: Ledger) -> None:
        with pytest.raises(Forbidden), ledger.read() as tx:
            tx.resources.apply(KIND, "x", {})

    def test_references_are_indexed_and_follow_the_spec(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {})
            tx.resources.apply(KIND, "y", {"uses": "x@champion"})
            assert tx.resources.referrers(Ref(KIND, "x", "7")) == [Ref(KIND, "y")]
            tx.resources.apply(KIND, "y", {})
            assert tx.resources.referrers(Ref(KIND, "x")) == []

    def test_what_is_referred_to_cannot_be_deleted(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {})
            tx.resources.apply(KIND, "y", {"uses": "x"})
        with pytest.raises(Conflict, match="ledger-case/y refers to it"), ledger.write("user/a") as tx:
            tx.resources.delete(KIND, "x")

    def test_deleting_takes_what_is_owned_along_even_when_it_refers_back(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {})
            tx.resources.apply(KIND, "owned", {"uses": "x"}, owner=f"{KIND}/x")
            tx.resources.apply(KIND, "owned-too", {}, owner=f"{KIND}/owned")
        with ledger.write("user/a") as tx:
            assert len(tx.resources.delete(KIND, "x")) == 3
            assert tx.resources.all(KIND) == []
            assert len(tx.journal.find(action="deleted")) == 3

    def test_two_writers_at_once_never_lose_a_change(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.resources.apply(KIND, "x", {"size": 0})

        def add_one(_number: int) -> None:
            for _attempt in range(200):
                try:
                    with ledger.read() as tx:
                        found = tx.resources.get(KIND, "x")
                    with ledger.write("user/a") as tx:
                        tx.resources.apply(KIND, "x", {"size": found.spec.get("size", 1) + 1}, revision=found.revision)
                    return
                except Conflict:
                    continue

        assert [r for r in together(6, add_one) if isinstance(r, Exception)] == []
        with ledger.read() as tx:
            # size 1 is the default and not kept: 0 + 6 additions
            assert tx.resources.get(KIND, "x").spec == {"size": 6}
            assert tx.journal.verify() == 7

    # -- journal

    def test_the_journal_has_no_gaps_and_verifies(self, ledger: Ledger) -> None:
        def note(number: int) -> None:
            for item in range(10):
                with ledger.write(f"user/{number}") as tx:
                    tx.journal.note("said", "ledger-case/x", {"n": item, "é": [1.5, None, True]})

        assert [r for r in together(4, note) if isinstance(r, Exception)] == []
        with ledger.read() as tx:
            assert [e.seq for e in tx.journal.since(0)] == list(range(1, 41))
            assert tx.journal.verify() == 40

    def test_causes_lead_back_to_the_first(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            first = tx.journal.note("saw", "ledger-case/x")
        with ledger.write("user/a", cause=first.seq) as tx:
            second = tx.journal.note("did", "ledger-case/y")
            third = tx.journal.note("did", "ledger-case/z", cause=second.seq)
            assert [e.seq for e in tx.journal.chain(third.seq)] == [third.seq, second.seq, first.seq]

    def test_events_are_found_by_reference_kind_actor_and_action(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.journal.note("one", "model/late@2")
            tx.journal.note("two", "model/later")
        with ledger.write("user/b") as tx:
            tx.journal.note("one", "deployment/late")
            assert [e.ref for e in tx.journal.find(ref="model/late")] == ["model/late@2"]
            assert len(tx.journal.find(kind="model")) == 2
            assert [e.ref for e in tx.journal.find(actor="user/b")] == ["deployment/late"]
            assert [e.seq for e in tx.journal.find(action="one", limit=1)] == [3]
            assert [e.seq for e in tx.journal.find(before=3)] == [2, 1]

    # -- versions

    def test_versions_count_from_one_and_the_same_bytes_again_are_the_same_version(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            first = tx.versions.publish("model", "late", "a" * 64, metadata={"rows": 1})
            assert tx.versions.publish("model", "late", "a" * 64).number == 1
            second = tx.versions.publish("model", "late", "b" * 64, made_from=[(ref("dataset/f@1"), "trained on")])
            assert (first.number, second.number) == (1, 2)
            assert tx.versions.get("model", "late").number == 2
            assert tx.versions.get("model", "late", 1).metadata == {"rows": 1}

    def test_publishers_at_once_get_different_numbers(self, ledger: Ledger) -> None:
        def publish(number: int) -> int:
            with ledger.write("user/a") as tx:
                return tx.versions.publish("model", "late", f"{number:064x}").number

        assert sorted(map(str, together(6, publish))) == list("123456")

    def test_aliases_move_and_the_past_can_be_asked(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.versions.publish("model", "late", "a" * 64)
            tx.versions.publish("model", "late", "b" * 64)
            tx.versions.set_alias("model", "late", "champion", 1)
            then = tx.versions.alias_history("model", "late")[-1].at
        with ledger.write("user/b") as tx:
            tx.versions.set_alias("model", "late", "champion", 2)
            assert tx.versions.set_alias("model", "late", "champion", 2) is None
            assert tx.versions.get("model", "late", "champion").number == 2
            assert tx.versions.aliases("model", "late", at=then) == {"champion": 1}
            assert tx.versions.aliases("model", "late", at=then - timedelta(seconds=1)) == {}
            tx.versions.set_alias("model", "late", "champion", None)
            assert tx.versions.aliases("model", "late") == {}
            assert [c.number for c in tx.versions.alias_history("model", "late", "champion")] == [1, 2, None]

    def test_an_unknown_version_or_alias_is_not_found_and_never_the_latest_instead(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.versions.publish("model", "late", "a" * 64)
            for wanted in ("2", "champion", "0"):
                with pytest.raises(NotFound):
                    tx.versions.get("model", "late", wanted)
            with pytest.raises(InvalidInput):
                tx.versions.set_alias("model", "late", "latest", 1)

    # -- runs

    def test_a_rewritten_version_keeps_its_number_maker_and_lineage_and_is_noted(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as world:
            first = world.versions.publish(
                "data", "d", "1" * 64, metadata={"rows": 2}, made_from=[(ref("data/x@1"), "of")]
            )
            world.versions.publish("data", "d", "2" * 64)
        with ledger.write("user/b") as world:
            after = world.versions.rewrite("data", "d", 1, "3" * 64, {"rows": 1}, detail={"rows": 1})
            world.versions.rewrite("data", "d", 1, "3" * 64, {"rows": 1})
        assert (after.digest, after.metadata) == ("3" * 64, {"rows": 1})
        assert (after.number, after.actor, after.created_at, after.event) == (
            1,
            "user/a",
            first.created_at,
            first.event,
        )
        with ledger.read() as world:
            assert world.versions.digests("data") == [("data", "d", 1, "3" * 64), ("data", "d", 2, "2" * 64)]
            noted = world.journal.find(ref="data/d@1", action="erased")
            assert [e.detail for e in noted] == [{"from": "1" * 64, "to": "3" * 64, "rows": 1}]
            assert [e.source for e in world.lineage.walk(ref("data/d@1"), "upstream").edges] == ["data/x@1"]
            world.journal.verify()
        with pytest.raises(NotFound), ledger.write("user/b") as world:
            world.versions.rewrite("data", "d", 9, "3" * 64, {})

    def test_a_redacted_event_keeps_its_place_in_the_chain_and_no_other_may_differ(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as world:
            first = world.journal.note("started", "run/1", {"params": {"who": "ann"}})
            world.journal.note("finished", "run/1", {})
        with ledger.write("user/dpo") as world:
            noted = world.journal.redact(first.seq, {"params": {}})
        with ledger.read() as world:
            assert (world.journal.get(first.seq).detail, world.journal.get(first.seq).hash) == (
                {"params": {}},
                first.hash,
            )
            assert (noted.action, noted.detail) == ("redacted", {"event": first.seq, "hash": first.hash})
            assert world.journal.verify() == noted.seq

    def test_what_a_finished_run_keeps_can_be_replaced_when_a_person_must_leave_it(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as world:
            run = world.runs.start("step", "fit", params={"who": "ann", "depth": 3})
            for path in ("a.csv", "b.csv"):
                world.runs.add_artifact(run.id, Artifact(path, "1" * 64, 5))
            world.runs.finish(run.id, "failed", error="no ann", result={"outputs": ["ann"]})
            changed = [Artifact("a.csv", "2" * 64, 4), Artifact("b.csv", "", 0)]
            world.runs.rewrite(run.id, params={"depth": 3}, result={}, error="no", artifacts=changed)
        with ledger.read() as world:
            kept = world.runs.get(run.id)
            assert (kept.params, kept.result, kept.error, kept.status) == ({"depth": 3}, {}, "no", "failed")
            assert world.runs.artifacts(run.id) == [Artifact("a.csv", "2" * 64, 4)]
        ledger.compact()

    def test_a_run_keeps_what_it_was_given(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "late", params={"depth": 6}, of="pipeline/late")
            tx.runs.update(run.id, params={"rate": 0.1}, tags={"x": "1"}, source={"commit": "abc"})
            assert tx.runs.get(run.id).source == {"commit": "abc"}
            with pytest.raises(Conflict, match="already has the parameter depth"):
                tx.runs.update(run.id, params={"depth": 7})
            tx.runs.add_artifact(run.id, Artifact("plots/roc.svg", "a" * 64, 10))
            done = tx.runs.finish(run.id, "succeeded", result={"version": "late@1"})
            assert (done.params, done.tags, done.result) == (
                {"depth": 6, "rate": 0.1}, {"x": "1"}, {"version": "late@1"},
            )  # fmt: skip
            assert done.is_finished
            assert tx.runs.get(run.id[:8]).id == run.id
            assert tx.runs.artifacts(run.id) == [Artifact("plots/roc.svg", "a" * 64, 10)]
            assert tx.runs.finish(run.id, "succeeded").finished_at == done.finished_at
            with pytest.raises(Conflict):
                tx.runs.finish(run.id, "failed")

    def test_metrics_keep_every_point_and_the_latest_by_step(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "late")
            at = int(run.started_at.timestamp() * 1000)
            tx.runs.log(run.id, [Point("loss", 0.5, 2, at), Point("loss", 0.9, 1, at)])
            tx.runs.log(run.id, [Point("loss", math.nan, 3, at), Point("big", math.inf, 0, at)])
            found = tx.runs.get(run.id)
            assert math.isnan(found.metrics["loss"])
            assert found.metrics["big"] == 1.7976931348623157e308
            assert [p.step for p in tx.points.history(run.id, "loss")] == [1, 2, 3]

    def test_runs_are_paged_without_gaps_or_repeats(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            made = {tx.runs.start("training", f"r{n}").id for n in range(25)}
            seen: list[str] = []
            before = None
            while page := tx.runs.find(limit=7, before=before):
                seen += [r.id for r in page]
                before = (page[-1].started_at, page[-1].id)
            assert len(seen) == 25
            assert set(seen) == made

    def test_a_finished_run_is_found_by_what_it_computes(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            done = tx.runs.start("step", "fit", cache_key="k1")
            tx.runs.finish(done.id, "succeeded")
            tx.runs.start("step", "fit", cache_key="k1")
            tx.runs.start("step", "fit", cache_key="k2")
            tx.runs.start("step", "fit")
        with ledger.read() as tx:
            assert [r.id for r in tx.runs.find(cache_key="k1", status=("succeeded",))] == [done.id]
            assert tx.runs.get(done.id).cache_key == "k1"
            assert tx.runs.find(cache_key="k3") == []

    def test_a_deleted_run_is_gone_and_a_running_one_cannot_be_deleted(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "late")
            with pytest.raises(Conflict):
                tx.runs.delete(run.id)
            tx.runs.finish(run.id, "failed", error="boom")
            tx.runs.delete(run.id)
            with pytest.raises(NotFound):
                tx.runs.get(run.id)

    # -- experiments

    def test_the_default_experiment_is_there_and_takes_training_runs_of_nobody(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            assert (tx.experiments.get("0").name, tx.experiments.by_name("Default").id) == ("Default", "0")
            assert tx.experiments.get("0").artifact_location == "mlflow-artifacts:/0"
            assert tx.runs.start("training", "x").experiment == "0"
            assert tx.runs.start("step", "x").experiment is None

    def test_an_experiment_is_found_renamed_and_tagged(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            made = tx.experiments.create("naïve ☃", artifact_location="s3://x/y", tags={"team": "ops"})
            tx.experiments.tag(made.id, {"team": "ml", "empty": ""})
            tx.experiments.untag(made.id, "empty")
            with pytest.raises(NotFound):
                tx.experiments.untag(made.id, "empty")
            tx.experiments.rename(made.id, "other")
            found = tx.experiments.get(made.id)
            assert (found.name, found.tags, found.artifact_location) == ("other", {"team": "ml"}, "s3://x/y")
            assert [e.id for e in tx.experiments.all()] == ["0", made.id]
            assert [e.id for e in tx.experiments.all([made.id, "999"])] == [made.id]
            with pytest.raises(NotFound):
                tx.experiments.by_name("naïve ☃")

    def test_a_name_stays_taken_when_its_experiment_is_deleted(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            made = tx.experiments.create("x")
            tx.experiments.discard(made.id)
            for taken in ("x", "Default"):
                with pytest.raises(Conflict, match="already exists"):
                    tx.experiments.create(taken)
            assert tx.experiments.by_name("x").is_deleted
            with pytest.raises(NotFound):
                tx.experiments.discard(made.id)
            with pytest.raises(Conflict, match="Current state is deleted"):
                tx.experiments.rename(made.id, "y")
            with pytest.raises(Conflict, match="Current state is deleted"):
                tx.experiments.tag(made.id, {"a": "b"})
            with pytest.raises(Conflict, match="Current state is deleted"):
                tx.runs.start("training", "late", experiment=made.id)

    @pytest.mark.parametrize("id", ["abc", "", "-1", "1.5", "1 OR 1=1", "9" * 30, "١"])
    def test_an_experiment_id_that_is_no_number_is_refused(self, ledger: Ledger, id: str) -> None:
        with pytest.raises(InvalidInput, match="Invalid experiment ID"), ledger.read() as tx:
            tx.experiments.get(id)

    def test_runs_go_with_their_experiment_and_come_back_with_it(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            made = tx.experiments.create("x")
            stays, went = (tx.runs.start("training", name, experiment=made.id).id for name in ("stays", "went"))
            tx.runs.discard(went)
        with ledger.write("user/a") as tx:
            before = tx.runs.get(stays).revision
            tx.experiments.discard(made.id)
            assert [r.id for r in tx.runs.find(experiment=made.id, deleted=False)] == []
            assert tx.runs.get(stays).is_deleted
            assert tx.runs.get(stays).revision > before
            with pytest.raises(Conflict):
                tx.runs.restore(stays)
        with ledger.write("user/a") as tx:
            tx.experiments.restore(made.id)
            assert [r.id for r in tx.runs.find(experiment=made.id, deleted=False)] == [stays]
            assert [r.id for r in tx.runs.find(experiment=made.id, deleted=True)] == [went]
            tx.runs.restore(went)
            assert len(tx.runs.find(experiment=made.id, deleted=False)) == 2

    def test_of_two_that_make_one_experiment_at_once_one_is_told_that_it_exists(self, ledger: Ledger) -> None:
        def make(_number: int) -> str:
            with ledger.write("user/a") as tx:
                return tx.experiments.create("x").id

        results = together(6, make)
        assert sorted(type(r).__name__ for r in results) == ["Conflict"] * 5 + ["str"]

    # -- what is told of runs

    def test_a_run_of_an_experiment_may_be_written_and_reopened_after_it_finished(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "x", experiment="0", user="ann", tags={"mlflow.runName": "x"})
            assert tx.runs.revise(run.id, status="succeeded").finished_at is not None
            tx.runs.record(run.id, points=[Point("loss", 0.5, 0, 1)], params={"depth": "6"}, tags={"a": "b"})
            assert tx.runs.revise(run.id, status="running", name="y").status == "running"
            found = tx.runs.get(run.id)
            assert (found.name, found.user, found.actor, found.metrics) == ("y", "ann", "user/a", {"loss": 0.5})
            assert found.tags == {"mlflow.runName": "y", "a": "b"}
            tx.runs.record(run.id, tags={"mlflow.runName": "z"})
            assert tx.runs.get(run.id).name == "z"
            tx.runs.untag(run.id, "a")
            with pytest.raises(NotFound, match="No tag with name: a"):
                tx.runs.untag(run.id, "a")

    def test_what_is_told_of_a_run_is_kept_whole_or_not_at_all(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "x", params={"depth": 6, "on": True})
            tx.runs.record(run.id, params={"depth": "6", "on": "True"})  # as MLflow's client sends what is there
        bad = [
            {"params": {"depth": "7", "new": "1"}},
            {"points": [Point("loss", 1.0, 0, -1)], "params": {"new": "1"}},
            {"points": [Point("loss", 1.0, 2**63, 0)], "tags": {"new": "1"}},
            {"points": [Point("lo\0ss", 1.0, 0, 0)], "tags": {"new": "1"}},
            {"points": [Point("loss\ud800", 1.0, 0, 0)], "tags": {"new": "1"}},
            {"points": [Point("loss", 1.0, 0, 0)], "tags": {"new": "\ud800"}},
        ]
        for told in bad:
            with pytest.raises((Conflict, InvalidInput)), ledger.write("user/a") as tx, tx.part("u", is_checked=True):
                tx.runs.record(run.id, **told)  # type: ignore[arg-type]
        with ledger.read() as tx:
            found = tx.runs.get(run.id)
            assert (found.params, found.tags, found.metrics) == ({"depth": 6, "on": True}, {}, {})

    def test_a_deleted_run_takes_nothing(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "x")
            assert tx.runs.discard(run.id).is_deleted
            assert tx.runs.discard(run.id).is_deleted
            for change in (
                lambda: tx.runs.record(run.id, points=[Point("loss", 1.0, 0, 0)]),
                lambda: tx.runs.record(run.id, tags={"a": "b"}),
                lambda: tx.runs.revise(run.id, name="y"),
                lambda: tx.runs.untag(run.id, "a"),
                lambda: tx.runs.log(run.id, [Point("loss", 1.0, 0, 0)]),
                lambda: tx.runs.add_outputs(run.id, [("m-1", 0)]),
            ):
                with pytest.raises(Conflict, match="Current state is deleted"):
                    change()
            tx.runs.restore(run.id)
            tx.runs.record(run.id, points=[Point("loss", 1.0, 0, 0)])

    def test_data_sets_of_runs_are_kept_once_for_an_experiment(self, ledger: Ledger) -> None:
        flights = InputDataset("flights", "d1", "local", "{}", '{"columns": []}', '{"rows": 3}')
        with ledger.write("user/a") as tx:
            runs = [tx.runs.start("training", "x").id for _ in range(2)]
            for run, context in zip(runs, ("training", "eval"), strict=True):
                tx.runs.add_inputs(run, [(flights, {"mlflow.data.context": context})], ["m-1"])
            again = tx.runs.add_inputs(runs[0], [(flights, {"mlflow.data.context": "other"})], ["m-1", "m-2"])
            assert again.inputs == (
                {"name": "flights", "digest": "d1", "tags": {"mlflow.data.context": "training"}},
                {"model": "m-1"},
                {"model": "m-2"},
            )
            assert tx.runs.add_outputs(runs[0], [("m-3", 4), ("m-3", 5)]).outputs == ({"model": "m-3", "step": 5},)
            assert tx.runs.get(runs[0]).outputs == ({"model": "m-3", "step": 5},)
            assert tx.experiments.datasets("0", [("flights", "d1"), ("none", "d1")]) == {("flights", "d1"): flights}
            assert [used.context for used in tx.experiments.used(["0"])] == ["training", "eval"]

    def test_a_part_that_raises_is_undone_alone(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            tx.runs.start("training", "before")
            with pytest.raises(ZeroDivisionError), tx.part("user/b"):
                tx.runs.start("training", "gone", tags={"word": "gone"})
                raise ZeroDivisionError
            with tx.part("user/c"):
                after = tx.runs.start("training", "after")
            assert (after.actor, tx.journal.last()) == ("user/c", 2)
        with ledger.read() as tx:
            assert {run.name for run in tx.runs.find()} == {"before", "after"}
            assert {hit.name for hit in tx.search.find("kind:run").hits} == {"before", "after"}
            assert tx.journal.verify() == 2

    # -- revisions

    def test_who_reads_on_by_revision_misses_no_change(self, ledger: Ledger) -> None:
        seen: dict[str, RunFacts] = {}
        last = 0

        def read_on() -> None:
            nonlocal last
            with ledger.read() as tx:
                head = tx.run_columns.head()
                seen.update((facts.id, facts) for facts in tx.run_columns.changed(last, ["0"]))
                for id in tx.run_columns.removed(last):
                    seen.pop(id, None)
                last = head

        with ledger.write("user/a") as tx:
            first, second, third = (tx.runs.start("training", f"r{n}").id for n in range(3))
        read_on()
        with ledger.write("user/a") as tx:
            tx.runs.record(first, params={"depth": "6"})
            tx.runs.discard(second)
            tx.runs.finish(third, "failed")
        read_on()
        assert (seen[first].params, seen[second].is_deleted, seen[third].status) == ({"depth": "6"}, True, "failed")
        with ledger.write("user/a") as tx:
            tx.runs.delete(third)
        read_on()
        assert set(seen) == {first, second}

    def test_numbers_follow_the_order_of_commits(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "x").id
        stop = threading.Event()
        seen: list[int] = []

        def write(number: int) -> None:
            if number:
                for step in range(20):
                    with ledger.write(f"user/{number}") as tx:
                        tx.runs.record(run, points=[Point(f"loss{number}", 1.0, step, 0)])
                return
            last = 0
            while not stop.is_set():
                with ledger.read() as tx:
                    numbers = sorted(logged.number for logged in tx.run_columns.logged(last, ["0"]))
                seen.extend(numbers)
                last = max([last, *numbers])

        reader = threading.Thread(target=write, args=(0,))
        reader.start()
        try:
            assert [r for r in together(4, lambda n: write(n + 1)) if r is not None] == []
        finally:
            stop.set()
            reader.join(30)
        with ledger.read() as tx:
            every = sorted(logged.number for logged in tx.run_columns.loose_of_experiment("0"))
        assert len(every) == 80
        assert seen == every[: len(seen)]  # what was read while others wrote has no gap

    # -- points

    def test_points_are_paged_in_order_and_exact_repeats_are_one(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "x").id
            many = [Point("loss", step / 7, step, 5_000 - step) for step in range(200)]
            tx.runs.record(run, points=many)  # enough for a chunk
            tx.runs.record(run, points=many[50:60])
            tx.runs.record(run, points=[Point("loss", math.nan, 7, 9_000), Point("loss", -0.5, 7, 9_000)] * 2)
            tx.runs.record(run, points=[Point("other", 1.0, 0, 0)])
        wanted = [*sorted(many, key=lambda p: p.at_ms), Point("loss", -0.5, 7, 9_000)]
        with ledger.read() as tx:
            found: list[Point] = []
            is_more = True
            while is_more:
                page, is_more = tx.points.page(run, "loss", 37, len(found))
                found += page
            assert found[:-1] == wanted
            assert math.isnan(found[-1].value)
            assert [p.step for p in tx.points.history(run, "loss")][:3] == [0, 1, 2]
            assert tx.points.page(run, "nothing", 10) == ([], False)
            assert tx.runs.get(run).latest["loss"] == many[-1]

    def test_the_newest_value_is_by_step_then_time_then_value(self, ledger: Ledger) -> None:
        told = [
            Point("m", 1.0, 5, 10), Point("m", 9.0, 4, 99), Point("m", 2.0, 5, 11), Point("m", -1.0, 5, 11),
            Point("m", math.nan, 5, 11), Point("low", -3.0, -2, 0), Point("low", -4.0, -7, 0),
        ]  # fmt: skip
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "x").id
            for point in told:
                tx.runs.record(run, points=[point])
            assert tx.runs.get(run).metrics == {"m": 2.0, "low": -3.0}
            tx.runs.revise(run, status="succeeded")
            tx.runs.record(run, points=[Point("m", 8.0, 5, 10), Point("low", 0.5, 3, 0)])
        with ledger.read() as tx:
            assert tx.runs.get(run).metrics == {"m": 2.0, "low": 0.5}
            assert tx.runs.named([run])[0].metrics == {"m": 2.0, "low": 0.5}

    def test_a_sample_keeps_both_ends_and_spreads_over_the_steps_of_all_runs(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            long, short = (tx.runs.start("training", name).id for name in ("long", "short"))
            tx.runs.record(long, points=[Point("loss", float(step), step, step) for step in range(1000)])
            tx.runs.record(short, points=[Point("loss", 0.0, 501, 1), Point("loss", 1.0, 1503, 1)])
            found = tx.points.sample([long, short, "none"], "loss", 10)
            steps = [p.step for p in found[long]]
            assert (steps[0], steps[-1], sorted(steps) == steps, len(steps) <= 14) == (0, 999, True, True)
            assert [p.step for p in found[short]] == [501, 1503]
            part = tx.points.sample([long], "loss", 3, 100, 199)[long]
            assert [p.step for p in part] == [100, 134, 199]
            assert tx.points.sample([long], "nothing", 3) == {}

    def test_points_go_with_their_run(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            run = tx.runs.start("training", "x").id
            tx.runs.record(run, points=[Point("loss", 1.0, step, 0) for step in range(100)])
            tx.runs.record(run, points=[Point("other", 1.0, 0, 0)])
            tx.runs.finish(run, "failed")
            tx.runs.delete(run)
            assert (tx.points.history(run, "loss"), tx.points.history(run, "other")) == ([], [])
            assert list(tx.run_columns.loose([run])) == []

    # -- lineage

    def test_lineage_is_walked_both_ways_without_siblings(self, ledger: Ledger) -> None:
        with ledger.write("user/a") as tx:
            for source, target in [("raw", "data"), ("data", "model"), ("data", "other"), ("model", "served")]:
                tx.lineage.link(Ref("x", source), Ref("x", target), "to")
            assert tx.lineage.link(Ref("x", "raw"), Ref("x", "data"), "to") is False
            graph = tx.lineage.walk(Ref("x", "model"))
            assert graph.nodes == {"x/model": 0, "x/data": 1, "x/raw": 2, "x/served": 1}
            assert "x/other" in tx.lineage.walk(Ref("x", "raw"), "downstream").nodes
            assert tx.lineage.walk(Ref("x", "raw"), limit=2).is_cut

    # -- leases

    def test_one_holder_at_a_time_and_a_late_writer_is_fenced_off(self, ledger: Ledger) -> None:
        fence = ledger.acquire("control", "a", ttl_s=60)
        assert fence is not None
        assert ledger.acquire("control", "b", ttl_s=60) is None
        assert ledger.acquire("control", "a", ttl_s=60) == fence
        taken = ledger.acquire("control", "b", ttl_s=60, is_dead=lambda holder: holder == "a")
        assert taken == Fence("control", "b", fence.epoch + 1)
        with pytest.raises(Unavailable, match="taken over"), ledger.write("a", fence=fence) as tx:
            tx.journal.note("late", "x/y")
        with ledger.write("b", fence=taken) as tx:
            tx.journal.note("fine", "x/y")
        assert taken is not None
        ledger.release(taken)
        assert ledger.acquire("control", "c", ttl_s=60) is not None

    def test_a_lease_that_ran_out_goes_to_the_next(self, ledger: Ledger) -> None:
        assert ledger.acquire("control", "a", ttl_s=-1) is not None
        assert ledger.acquire("control", "b", ttl_s=60) is not None

    def test_of_many_that_ask_at_once_one_gets_the_lease(self, ledger: Ledger) -> None:
        results = together(6, lambda n: ledger.acquire("control", f"h{n}", ttl_s=60))
        assert [r for r in results if isinstance(r, Exception)] == []
        assert sum(r is not None for r in results) == 1
