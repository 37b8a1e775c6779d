"""What every ledger keeps of deliveries; a class derived from this gives the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flyball.errors import Forbidden, NotFound
from flyball.ledger.deliveries import Attempt, Delivery
from flyball.ledger.sql.database import SqlLedger

AT = datetime(2026, 5, 3, 14, tzinfo=UTC)


def delivery(webhook: str, event: int, after_s: float = 0) -> Delivery:
    due = AT + timedelta(seconds=after_s)
    return Delivery(webhook, event, f"id-{webhook}-{event}", "model.created", "{ü}", "waiting", AT, due)


class DeliveryCases:
    def test_what_is_put_is_read_back_and_put_once(self, ledger: SqlLedger) -> None:
        with ledger.write("user/a") as world:
            assert world.deliveries.position() is None
            world.deliveries.put([delivery("a", 1), delivery("b", 1)])
            world.deliveries.put([])
            world.deliveries.move(7)
        changed = delivery("a", 1, 60)
        with ledger.write("user/a") as world:
            world.deliveries.put([changed, delivery("a", 2)])
            world.deliveries.move(9)
        with ledger.read() as world:
            assert world.deliveries.position() == 9
            assert world.deliveries.get("a", 1) == delivery("a", 1)
            assert [(one.webhook, one.event) for one in world.deliveries.find()] == [("a", 2), ("a", 1), ("b", 1)]
            assert world.deliveries.find("a", before=2) == [delivery("a", 1)]
            assert world.deliveries.counts() == {"a": {"waiting": 2}, "b": {"waiting": 1}}

    def test_the_oldest_that_waits_of_each_webhook_is_due_and_no_other(self, ledger: SqlLedger) -> None:
        with ledger.write("user/a") as world:
            world.deliveries.put([delivery("a", 2), delivery("a", 1, 60), delivery("b", 3), delivery("c", 4, -5)])
        with ledger.read() as world:
            due = world.deliveries.due((), AT, 10)
            assert [(one.webhook, one.event) for one in due] == [("c", 4), ("b", 3)]
            assert [one.webhook for one in world.deliveries.due(("c",), AT, 10)] == ["b"]
            assert [one.webhook for one in world.deliveries.due((), AT, 1)] == ["c"]
            later = world.deliveries.due((), AT + timedelta(seconds=60), 10)
            assert ("a", 1) in [(one.webhook, one.event) for one in later]

    def test_attempts_are_noted_and_a_delivery_is_put_in_line_again(self, ledger: SqlLedger) -> None:
        attempt = Attempt(AT, 12, 503, "the receiver answered 503")
        with ledger.write("user/a") as world:
            world.deliveries.put([delivery("a", 1)])
            world.deliveries.tried(delivery("a", 1), attempt, "failed", AT)
            world.deliveries.tried(delivery("gone", 1), attempt, "failed", AT)
        with ledger.write("user/a") as world:
            failed = world.deliveries.get("a", 1)
            assert (failed.state, failed.attempts, failed.log) == ("failed", 1, (attempt,))
            assert world.deliveries.due((), AT, 10) == []
            again = world.deliveries.again("a", 1)
            assert (again.state, again.attempts, again.id, again.log) == ("waiting", 0, failed.id, (attempt,))
            with pytest.raises(NotFound):
                world.deliveries.again("gone", 1)
            with pytest.raises(NotFound):
                world.deliveries.get("a", 1 << 80)

    def test_a_log_is_bounded(self, ledger: SqlLedger) -> None:
        with ledger.write("user/a") as world:
            world.deliveries.put([delivery("a", 1)])
            for number in range(50):
                world.deliveries.tried(world.deliveries.get("a", 1), Attempt(AT, number), "waiting", AT)
            found = world.deliveries.get("a", 1)
        assert found.attempts == 50
        assert [one.took_ms for one in found.log] == list(range(30, 50))

    def test_what_ended_long_ago_and_what_is_nobodys_is_forgotten(self, ledger: SqlLedger) -> None:
        with ledger.write("user/a") as world:
            world.deliveries.put([delivery("a", 1), delivery("a", 2), delivery("b", 3)])
            world.deliveries.tried(delivery("a", 1), Attempt(AT, 1, 200), "delivered", AT)
            assert world.deliveries.forget(done_before=AT) == 0
            assert world.deliveries.forget(done_before=AT + timedelta(days=1)) == 1
            assert world.deliveries.forget(webhooks_but=["a"]) == 1
            assert [(one.webhook, one.event) for one in world.deliveries.find()] == [("a", 2)]
            assert world.deliveries.forget(webhooks_but=[]) == 1

    def test_who_only_reads_changes_nothing(self, ledger: SqlLedger) -> None:
        with ledger.read() as world, pytest.raises(Forbidden):
            world.deliveries.put([delivery("a", 1)])
