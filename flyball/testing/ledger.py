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
from flyball.ledger.kinds import RefersTo, Spec, register
from flyball.ledger.refs import Ref, ref
from flyball.ledger.runs import Artifact, MetricPoint

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
            at = run.started_at
            tx.runs.log(run.id, [MetricPoint("loss", 0.5, 2, at), MetricPoint("loss", 0.9, 1, at)])
            tx.runs.log(run.id, [MetricPoint("loss", math.nan, 3, at), MetricPoint("big", math.inf, 0, at)])
            found = tx.runs.get(run.id)
            assert math.isnan(found.metrics["loss"])
            assert found.metrics["big"] == 1.7976931348623157e308
            assert [p.step for p in tx.runs.history(run.id, "loss")] == [1, 2, 3]

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
