"""From the journal to the outbox: which webhooks are told of an event, and what.

A webhook is told of the events after the one that made it, as it stands when the journal is read: within a fraction of
a second of the event while `flyball up` runs, else when it runs again. The outbox and the place in
the journal change in one transaction, so each event gets there once, whatever is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from flyball.delivery.webhooks.events import event_name, is_wanted, mlflow_event
from flyball.delivery.webhooks.messages import cloud_event, delivery_id, mlflow_body
from flyball.delivery.webhooks.settings import WebhookSettings
from flyball.ledger import Fence, Ledger, Transaction
from flyball.ledger.deliveries import Attempt, Delivery
from flyball.ledger.journal import Event
from flyball.ledger.resources import Resource

__all__ = ["ACTOR", "Follower"]

log = logging.getLogger("flyball.webhooks")

ACTOR = "controller/webhook"
_AT_ONCE = 200  # journal events of one transaction, and fewer where they may be told to very many
_TOLD_AT_ONCE = 20_000
_TOO_MANY = "too many deliveries waited for this receiver; send it again when it is back: flyball webhooks redeliver"


@dataclass(frozen=True)
class _Hook:
    resource: Resource
    made: int  # the event that made it

    @property
    def name(self) -> str:
        return self.resource.name


class Follower:
    """Fills the outbox."""

    def __init__(self, ledger: Ledger, settings: WebhookSettings) -> None:
        self._ledger = ledger
        self._settings = settings
        self._seen: int | None = None  # the journal's end when there was nothing left to do
        self._made: dict[tuple[str, str], int] = {}  # by name and time of creation: the event

    def has_webhooks(self) -> bool:
        """Whether there is anybody to tell."""
        with self._ledger.read() as world:
            return world.resources.page("webhook", 0, 1)[1] > 0

    def follow(self, fence: Fence | None = None) -> int:
        """Put all that is new into the outbox; return how many deliveries were put."""
        put = 0
        while True:
            with self._ledger.read() as world:
                last = world.journal.last()
                if last == self._seen:
                    return put
                hooks = self._hooks(world)
                start = last if not hooks else min(hook.made for hook in hooks)
                at = max(world.deliveries.position() or 0, start)
                some = max(1, min(_AT_ONCE, _TOLD_AT_ONCE // max(1, len(hooks))))
                events = world.journal.since(at, some) if hooks else []
                made = [one for event in events for one in self._told(event, hooks, world)]
                counts = world.deliveries.counts() if made or not events else {}
            stray = set(counts) - {hook.name for hook in hooks}
            if not events and not stray:
                self._seen = last
                return put
            with self._ledger.write(ACTOR, fence=fence) as world:
                if stray:
                    world.deliveries.forget(webhooks_but=[hook.name for hook in hooks])
                if events:
                    waiting = {name: states.get("waiting", 0) for name, states in counts.items()}
                    world.deliveries.put(list(self._bounded(made, waiting)))
                    world.deliveries.move(events[-1].seq)
            put += len(made)

    def _hooks(self, world: Transaction) -> list[_Hook]:
        found = [_Hook(one, self._event_of(one, world)) for one in world.resources.all("webhook")]
        self._made = {key: seq for key, seq in self._made.items() if key in {_key(hook.resource) for hook in found}}
        return found

    def _event_of(self, webhook: Resource, world: Transaction) -> int:
        key = _key(webhook)
        if key not in self._made:
            events = world.journal.find(ref=str(webhook.ref), action="created", limit=1)
            self._made[key] = events[0].seq if events else world.journal.last()
        return self._made[key]

    def _told(self, event: Event, hooks: Iterable[_Hook], world: Transaction) -> Iterable[Delivery]:
        ours, name = None, event_name(event)
        theirs, is_asked = None, False
        for hook in hooks:
            spec = hook.resource.spec
            if event.seq <= hook.made or not spec.get("active", True):
                continue
            if spec.get("format") == "mlflow":
                if not is_asked:
                    theirs, is_asked = mlflow_event(event, world), True
                if theirs is None or theirs.name not in spec["events"]:
                    continue
                said, body = theirs.name, mlflow_body(theirs, event.at)
            elif is_wanted(name, spec["events"]):
                said, body = name, ours or cloud_event(event, self._settings.source)
                ours = body
            else:
                continue
            id = delivery_id(hook.name, hook.made, event.seq)
            yield Delivery(hook.name, event.seq, id, said, body, "waiting", event.at, event.at)

    def _bounded(self, made: Iterable[Delivery], waiting: dict[str, int]) -> Iterable[Delivery]:
        for one in made:
            waiting[one.webhook] = waiting.get(one.webhook, 0) + 1
            if waiting[one.webhook] > self._settings.waiting:
                yield replace(one, state="failed", log=(Attempt(one.made_at, 0, error=_TOO_MANY),))
            else:
                yield one


def _key(webhook: Resource) -> tuple[str, str]:
    return webhook.name, str(webhook.created_at)
