"""The loop: reads the journal, wakes names, lets controllers look at them.

The journal's numbers have no gaps, so the loop remembers the last it saw and misses nothing, whoever wrote it: this
process, the command line, a pipeline's worker. At the start it looks at everything once; nothing else is remembered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from flyball.clock import SYSTEM, Clock
from flyball.control import Blocked, Controller, Outcome, Retry, World
from flyball.control.lease import Lease
from flyball.control.queue import WakeQueue
from flyball.errors import FlyballError, NotFound, Unavailable
from flyball.ledger import Ledger, Transaction
from flyball.ledger.journal import Event
from flyball.ledger.refs import Ref, ref

__all__ = ["ControlSettings", "Loop", "woken_by"]

log = logging.getLogger("flyball.control")


@dataclass(frozen=True)
class ControlSettings:
    """`[control]` in flyball.toml, `FLYBALL_CONTROL_…` in the environment."""

    workers: int = 2  # controllers at work at the same time; long work belongs into runs, not here
    poll_s: float = 0.1  # how often the journal is asked for what other processes wrote


class Loop:
    """Runs the controllers of one home.

    `start()` works in threads until `stop()`; `settle()` works in the caller's thread until nothing is due, for
    tests and for commands without a server.
    """

    def __init__(
        self,
        ledger: Ledger,
        controllers: Iterable[Controller] | Callable[[], Iterable[Controller]],
        clock: Clock = SYSTEM,
        settings: ControlSettings | None = None,
    ) -> None:
        self.ledger = ledger
        self.clock = clock
        self.settings = settings or ControlSettings()
        self._given = controllers  # or what makes them: they import much that a server's first answer does not need
        self.lease = Lease(ledger)
        self.queue = WakeQueue(clock)
        self._seen: int | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._nudged = threading.Event()
        self.is_acting = False

    @cached_property
    def controllers(self) -> dict[str, list[Controller]]:
        """Those of each kind; a kind may have several, and each keeps its own part of the status."""
        found: dict[str, list[Controller]] = {}
        for controller in self._given() if callable(self._given) else self._given:
            found.setdefault(controller.kind, []).append(controller)
        return found

    def start(self) -> None:
        """Work in threads; returns when the controllers are there. Without the lease it stands by until it gets it."""
        assert self.controllers is not None
        self._spawn("control-watch", self._watch)
        for number in range(self.settings.workers):
            self._spawn(f"control-worker-{number}", self._work)

    def stop(self, wait_s: float = 10.0) -> None:
        """Stop the threads, letting each controller finish the call it is in, and give the lease back."""
        self._stopping.set()
        self._nudged.set()
        self.queue.close()
        for thread in self._threads:
            thread.join(wait_s)
        self.lease.release()
        self.is_acting = False

    def nudge(self) -> None:
        """Read the journal now instead of at the next poll."""
        self._nudged.set()

    def settle(self, limit: int = 10_000) -> int:
        """Work in this thread until nothing is due; return how many names were looked at.

        Raises:
            Unavailable: another control plane holds the lease.
        """
        if not self.lease.renew():
            raise Unavailable("another control plane acts on this home; stop it, or let it do the work")
        looked = 0
        while looked < limit:
            self.observe()
            found = self.queue.take()
            if found is None:
                break
            self._look(found)
            looked += 1
        return looked

    def observe(self) -> None:
        """Read the journal and wake what its events concern."""
        with self.ledger.read() as world:
            if self._seen is None:
                self._seen = world.journal.last()
                for resource in world.resources.all():
                    self.wake(resource.ref)
                return
            while events := world.journal.since(self._seen):
                for event in events:
                    for woken in woken_by(event, world):
                        self.wake(woken)
                self._seen = events[-1].seq

    def wake(self, found: Ref, after_s: float = 0.0) -> None:
        """Look at a thing, if it has a controller."""
        if found.kind in self.controllers:
            self.queue.wake(found.resource, after_s)

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        """Hold the lease and follow the journal."""
        renewed = float("-inf")
        while not self._stopping.is_set():
            try:
                if self.clock.monotonic() - renewed >= self.lease.ttl_s / 3:
                    self.is_acting = self.lease.renew()
                    renewed = self.clock.monotonic()
                if self.is_acting:
                    self.observe()
                else:
                    self._seen = None  # whoever acts now changes the world: look at everything on coming back
            except Unavailable as error:
                self.is_acting = self.clock.monotonic() - renewed < self.lease.ttl_s and self.is_acting
                log.warning("the ledger did not answer: %s", error)
            except Exception:
                log.exception("the loop could not read the journal; it goes on")
            self._nudged.wait(self.settings.poll_s)
            self._nudged.clear()

    def _work(self) -> None:
        while not self._stopping.is_set():
            if not self.is_acting:
                self._stopping.wait(self.settings.poll_s)
                continue
            found = self.queue.take(wait_s=1.0)
            if found is not None:
                self._look(found)

    def _look(self, found: Ref) -> None:
        """Let the controller look at one name, and deal with the outcome."""
        world = World(self.ledger, self.clock, f"controller/{found.kind}", self.lease.fence)
        try:
            outcome = _together([c.reconcile(found.name, world) for c in self.controllers[found.kind]])
            self._show(found, outcome, None, world)
        except Exception as error:
            delay = self.queue.failed(found)
            level = logging.WARNING if isinstance(error, FlyballError) else logging.ERROR
            log.log(
                level,
                "%s: %s; again in %.1f s",
                found,
                error,
                delay,
                exc_info=not isinstance(error, FlyballError),
            )
            self._show_quietly(found, error, world)
            return
        self.queue.done(found)
        if isinstance(outcome, Retry):
            self.queue.wake(found, outcome.after_s)

    def _show(self, found: Ref, outcome: Outcome, error: str | None, world: World) -> None:
        """Keep `blocked` and `error` in the status as they are now; writes nothing when nothing changed."""
        wanted = {"blocked": outcome.reason if isinstance(outcome, Blocked) else None, "error": error}
        with world.read() as transaction:
            resource = transaction.resources.find(found.kind, found.name)
        if resource is None or all(resource.status.get(k) == v for k, v in wanted.items()):
            return
        with world.write() as transaction:
            try:
                current = transaction.resources.get(found.kind, found.name)
            except NotFound:
                return
            status = {k: v for k, v in {**current.status, **wanted}.items() if k not in wanted or v is not None}
            action = "failed" if error else ("blocked" if wanted["blocked"] else "unblocked")
            detail = {k: v for k, v in wanted.items() if v is not None}
            transaction.resources.set_status(found.kind, found.name, status, action=action, detail=detail)

    def _show_quietly(self, found: Ref, error: Exception, world: World) -> None:
        text = (
            str(error) if isinstance(error, FlyballError) else f"internal error ({type(error).__name__}); see the log"
        )
        try:
            self._show(found, None, text, world)
        except Exception:
            log.exception("the failure of %s could not be written down", found)


def woken_by(event: Event, world: Transaction) -> list[Ref]:
    """Return whom an event concerns: the thing itself, its owner, and whoever refers to it."""
    changed = ref(event.ref)
    if changed.kind == "run":
        # A run is not a resource: its owner is the resource that it is a run of.
        try:
            run = world.runs.get(changed.name)
        except NotFound:
            return []
        return [ref(run.of).resource] if run.of else []
    found = [changed.resource, *world.resources.referrers(changed)]
    resource = world.resources.find(changed.kind, changed.name)
    if resource is not None and resource.owner is not None:
        found.append(ref(resource.owner).resource)
    return found


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """Return what several controllers of one thing come to: what blocks it, else the earliest time to look again."""
    blocked = next((outcome for outcome in outcomes if isinstance(outcome, Blocked)), None)
    waits = [outcome.after_s for outcome in outcomes if isinstance(outcome, Retry)]
    return blocked or (Retry(min(waits)) if waits else None)
