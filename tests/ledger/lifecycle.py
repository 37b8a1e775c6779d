"""What every ledger must do with promotion requests and papers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flyball.errors import Conflict, NotFound
from flyball.ledger import Ledger
from flyball.ledger.refs import Ref
from flyball.testing.ledger import together

__all__ = ["LifecycleCases"]

VERSION = Ref("model", "late", "2")


class LifecycleCases:
    """Cases; each gets an empty ledger."""

    def test_a_request_keeps_its_evidence_reviews_and_decision(self, ledger: Ledger) -> None:
        with ledger.write("user/ann") as tx:
            until = tx.journal.note("began", "model/late").at + timedelta(days=1)
            asked = tx.promotions.ask(VERSION, "lab", "field", "naïve ☃", {"checks": [{"passed": True}]}, until)
            assert (asked.state, asked.asked_by, asked.expires_at) == ("open", "user/ann", until)
            assert tx.journal.get(asked.event).detail["request"] == asked.id
        for who, verdict in (("bob", "refused"), ("bob", "approved"), ("cem", "approved")):
            with ledger.write(f"user/{who}") as tx:
                tx.promotions.review(asked.id, "approved" if verdict == "approved" else "refused", f"{who} looked")
        with ledger.read() as tx:
            found = tx.promotions.get(asked.id)
            assert found.evidence == {"checks": [{"passed": True}]} and found.reason == "naïve ☃"
            assert [(r.actor, r.verdict) for r in found.reviews] == [
                ("user/bob", "refused"), ("user/bob", "approved"), ("user/cem", "approved")
            ]  # fmt: skip
            assert sorted(found.approvals()) == ["user/bob", "user/cem"]
            assert (found.standing(until - timedelta(seconds=1)), found.standing(until)) == ("open", "expired")
        with ledger.write("user/dan") as tx:
            done = tx.promotions.decide(asked.id, "withdrawn", comment="no longer")
            assert (done.state, done.decided_by) == ("withdrawn", "user/dan")
            event = tx.journal.get(done.decided_event or 0)
            assert (event.action, event.cause, event.ref) == ("withdrawn", asked.event, "model/late@2")
            with pytest.raises(NotFound, match="there is no promotion request 99"):
                tx.promotions.get(99)

    def test_requests_are_found_newest_first_and_paged(self, ledger: Ledger) -> None:
        with ledger.write("user/ann") as tx:
            for number in range(1, 6):
                made = Ref("model", "late" if number % 2 else "early", str(number))
                asked = tx.promotions.ask(made, "lab", "field", "", {})
                if number == 3:
                    tx.promotions.decide(asked.id, "expired")
        with ledger.read() as tx:
            ids = [request.id for request in tx.promotions.find()]
            assert ids == sorted(ids, reverse=True) and len(ids) == 5
            assert [r.id for r in tx.promotions.find(limit=2, before=ids[1])] == ids[2:4]
            assert [r.ref.version for r in tx.promotions.find(kind="model", name="late", states=["open"])] == ["5", "1"]
            assert tx.promotions.find(name="late", number=3, to="field", states=["open"]) == []

    def test_every_edit_of_a_paper_stays_and_an_equal_one_writes_nothing(self, ledger: Ledger) -> None:
        with ledger.write("user/ann") as tx:
            first = tx.papers.write("card", VERSION, {"texts": {"limits": "x"}}, "began", after=0)
            before = tx.journal.last()
            assert tx.papers.write("card", VERSION, {"texts": {"limits": "x"}}) == first
            assert tx.journal.last() == before
            second = tx.papers.write("card", VERSION, {"texts": {}}, after=1)
            with pytest.raises(Conflict, match="has edit 2 by user/ann by now, not 1"):
                tx.papers.write("card", VERSION, {}, after=1)
        with ledger.read() as tx:
            assert tx.papers.all("card", VERSION) == [second, first]
            assert tx.papers.get("card", VERSION, 1) == first
            assert tx.papers.get("risk", VERSION) is None and tx.papers.get("card", VERSION, 3) is None

    def test_who_holds_a_request_sees_what_others_did_before(self, ledger: Ledger) -> None:
        with ledger.write("user/ann") as tx:
            asked = tx.promotions.ask(VERSION, "lab", "field", "", {})

        def agree(number: int) -> str:
            with ledger.write(f"user/u{number}") as tx:
                tx.versions.hold()
                if tx.promotions.get(asked.id, hold=True).state != "open":
                    return "late"
                reviewed = tx.promotions.review(asked.id, "approved", "")
                if len(reviewed.approvals()) == 2:
                    tx.promotions.decide(asked.id, "approved", reviewed.reviews[-1].event)
            return "said"

        assert sorted(map(str, together(6, agree))) == ["late"] * 4 + ["said"] * 2
