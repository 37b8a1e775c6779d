"""What happened and because of what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput, NotFound
from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref

if TYPE_CHECKING:
    pass

from flyball.platform.home import Home

__all__ = ["JournalActs"]

# Of a thing's events, those that `why` starts from when there are any: what people ask about.
TELLING = frozenset(
    {"promoted", "rolled back", "serves", "drifting", "decayed", "fired", "aliased", "published", "refused", "passed"}
)


class JournalActs(Home):
    """What happened and because of what."""

    def why(self, target: str | Ref) -> list[Event]:
        """Return the newest event of a thing that has a cause worth telling, and its causes, newest first.

        Raises:
            NotFound: nothing has happened to it.
        """
        from flyball.delivery.explain import causes

        found = self._ref(target)
        with self._reading() as world:
            if found.kind == "event":
                if not found.name.isdecimal():
                    raise InvalidInput(f"{found} is not an event; write its number: event/812")
                return causes(int(found.name), world)
            if found.kind == "run":
                found = world.runs.get(found.name).ref  # its id may be written short
            events = world.journal.find(ref=str(found), limit=200)
            if not events:
                raise NotFound(f"the journal knows nothing of {found}")
            told = [e for e in events if e.action in TELLING] or events
            return causes(told[0].seq, world)

    def events(self, **filters: Any) -> list[Event]:
        """Return journal events, newest first; see `Journal.find` for the filters."""
        with self._reading() as world:
            return world.journal.find(**filters)

    def story(self, events: Sequence[Event]) -> list[str]:
        """Return a chain of causes as sentences, newest first, as `delivery.explain` words them."""
        from flyball.delivery.explain import story

        with self._reading() as world:
            return story(events, world, self.clock)

    def event(self, seq: int) -> Event:
        """Return one journal event. Raises NotFound."""
        with self._reading() as world:
            return world.journal.get(seq)

    def events_since(self, seq: int, limit: int = 1000) -> list[Event]:
        """Return journal events after a number, oldest first."""
        with self._reading() as world:
            return world.journal.since(seq, limit)

    def last_event(self) -> int:
        """Return the number of the journal's newest event, 0 when it is empty."""
        with self._reading() as world:
            return world.journal.last()

    def sentences(self, events: Iterable[Event]) -> list[str]:
        """Return what each event says, as `delivery.explain` words it."""
        from flyball.delivery.explain import sentence

        with self._reading() as world:
            return [sentence(event, world) for event in events]

    def verify_journal(self) -> int:
        """Check the journal's hashes; return how many events there are. Raises Corrupt."""
        with self._reading() as world:
            return world.journal.verify()
