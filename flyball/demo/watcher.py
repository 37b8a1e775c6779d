"""What the platform does by itself while the stream is replayed: told as it happens, kept for the report, and waited
for where a stream that is compressed many thousand times would otherwise outrun it.

Real traffic waits for nobody. Here half a year passes in half a minute, and an hour of training would be a month: so
the replay goes no further than two windows ahead of the monitor, slows down while a model is retrained or a canary is
out, and says at the end how long it waited.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flyball.demo.job import Job
from flyball.demo.replay import Replayed
from flyball.errors import FlyballError
from flyball.ledger.journal import Event
from flyball.ledger.refs import ref
from flyball.platform import Platform

__all__ = ["Seen", "Watcher"]

_LOOK_S = 0.25
_AHEAD_WINDOWS = 2  # beyond the last evaluated one
_PATIENCE_S = 20.0  # for the monitor at one window; then the replay goes on and the report says so
_RETRAIN_SHARE = 0.1  # of the stream that may pass while a model is retrained
_RETRAIN_PATIENCE_S = 120.0
_RETRAIN_S = 10.0  # time in which that share passes
_LAST_LOOKS_S = 6.0  # for a rollout that was near its end when the stream ended
_SHORTEST_S = 12.0  # in which the whole stream may pass
_ATTENTIVE_S = 30.0  # the same, while something is noticed or let in: the platform looks twice a second

_STAGES = {
    "drifting": "drift",
    "decayed": "decay",
    "no longer drifting": "monitor",
    "no longer decayed": "monitor",
    "watches": "monitor",
    "fired": "alert",
    "resolved": "alert",
    "triggered": "retrain",
    "passed": "gates",
    "refused": "gates",
    "rollout started": "canary",
    "rollout stepped": "canary",
    "promoted": "promoted",
    "rolled back": "rolled back",
}
_RUN_STAGES = {"queued", "started", "succeeded", "failed", "lost", "cancelled"}


@dataclass
class Seen:
    """What happened, as far as the report and the verdict need it. Events come with the requests sent by then."""

    conditions: list[tuple[Event, int]] = field(default_factory=list)  # drifting, decayed
    alerts: list[Event] = field(default_factory=list)
    retrainings: dict[str, str] = field(default_factory=dict)  # run → its status
    gates: list[Event] = field(default_factory=list)
    rollout: list[Event] = field(default_factory=list)  # of the last one: steps and end
    ends: list[tuple[Event, int]] = field(default_factory=list)  # promoted, rolled back
    failures: list[str] = field(default_factory=list)
    waited_s: float = 0.0
    slowed_s: float = 0.0

    @property
    def promotions(self) -> list[tuple[Event, int]]:
        """The rollouts that ended well, with the requests sent by then."""
        return [(event, sent) for event, sent in self.ends if event.action == "promoted"]

    @property
    def decisions(self) -> list[Event]:
        """Everything that was decided and must be explained."""
        return [*(e for e, _ in self.conditions), *self.gates, *(e for e, _ in self.ends)]


class Watcher(threading.Thread):
    """Follows the journal in a thread of its own; the replay asks `before` each tick."""

    def __init__(self, platform: Platform, job: Job, state: Replayed, tell: Callable[[str, str], None]) -> None:
        super().__init__(name="demo-watcher", daemon=True)
        self.seen = Seen()
        self._platform = platform
        self._job = job
        self._state = state
        self._tell = tell
        self._last = platform.last_event()
        self._evaluated = 0  # requests that the monitor has looked at
        self._is_retraining = False
        self._is_rolling_out = False
        self._is_noticed = False  # and nothing was started because of it yet
        self._began_retraining: int | None = None
        self._next = 0.0
        self._ended: float | None = None
        self._stopping = threading.Event()

    # -- the pace

    async def before(self, request: int, count: int) -> None:
        """Wait as the module's text says; bounded."""
        limit = self._evaluated + (_AHEAD_WINDOWS + 1) * self._job.sizes.window
        if request >= limit:
            await self._wait(lambda: request < self._evaluated + (_AHEAD_WINDOWS + 1) * self._job.sizes.window)
        if self._is_retraining:
            await self._slowly(request, count)
        else:
            is_watchful = self._is_rolling_out or self._is_noticed
            within_s = _ATTENTIVE_S if is_watchful else _SHORTEST_S
            await self._no_faster_than(len(self._job.stream) / within_s, count)

    async def _slowly(self, request: int, count: int) -> None:
        most = max(100.0, len(self._job.stream) * _RETRAIN_SHARE)
        began = self._began_retraining if self._began_retraining is not None else request
        if request - began >= most:
            await self._wait(lambda: not self._is_retraining, _RETRAIN_PATIENCE_S)
        else:
            await self._no_faster_than(most / _RETRAIN_S, count)

    async def _wait(self, is_over: Callable[[], bool], patience_s: float = _PATIENCE_S) -> None:
        began = time.monotonic()
        while not is_over() and time.monotonic() - began < patience_s:
            await asyncio.sleep(0.02)
        self.seen.waited_s += time.monotonic() - began
        if not is_over():
            self._evaluated = max(self._evaluated, self._state.sent)
            self._began_retraining = self._state.sent

    async def _no_faster_than(self, rate: float, count: int) -> None:
        now = time.monotonic()
        self._next = max(self._next, now - 0.05) + count / rate
        if self._next > now:
            await asyncio.sleep(self._next - now)
            self.seen.slowed_s += self._next - now

    # -- following

    def run(self) -> None:
        """Look every so often until stopped."""
        while not self._stopping.wait(_LOOK_S):
            try:
                self.look()
            except FlyballError as error:
                self.seen.failures.append(f"the journal could not be followed: {error}")

    def stop(self) -> None:
        """End the thread after a last look."""
        self._stopping.set()
        self.join(10.0)
        self.look()

    def is_done(self, sent: int) -> bool:
        """Return whether, after the last request, all whole windows are evaluated and nothing is going on that can
        still end: a rollout needs traffic to go on, so it is given a few seconds only."""
        if self._ended is None:
            self._ended = time.monotonic()
        is_evaluated = sent - self._evaluated < self._job.sizes.window
        is_stuck = self._is_rolling_out and time.monotonic() - self._ended > _LAST_LOOKS_S
        if not is_evaluated or self._is_retraining:
            return False
        return is_stuck or (not self._is_rolling_out and self._is_decided())

    def look(self) -> None:
        """Read what is new and tell it."""
        for event in self._platform.events_since(self._last):
            self._last = event.seq
            self._note(event)
        results = self._platform.monitor_results.of(self._job.name, "drift")
        if results:
            number = self._state.number_of.get(results[-1]["to"])
            self._evaluated = max(self._evaluated, 0 if number is None else number + 1)
        busy = self._platform.runs(kind="pipeline", status=("pending", "running"), limit=1)
        if busy and not self._is_retraining:
            self._began_retraining = self._state.sent
        self._is_retraining = bool(busy)

    def _is_decided(self) -> bool:
        """Whether every version of the model has been judged, so that no rollout is still to begin."""
        judged = self._platform.resource(f"model/{self._job.name}").status.get("decided", {})
        aliases = self._platform.aliases("model", self._job.name)
        versions = self._platform.versions("model", self._job.name)
        return "challenger" not in aliases and all(str(v.number) in judged for v in versions)

    def _note(self, event: Event) -> None:
        about = ref(event.ref)
        sent = self._state.sent
        if about.kind == "run":
            self._note_run(event)
            return
        if event.action == "published" and about.kind == "dataset" and about.version != "1":
            self._say("learnt", event)
        stage = _STAGES.get(event.action)
        if stage is None:
            return
        self._say(stage, event)
        if event.action in ("drifting", "decayed") and about.kind == "monitor":
            self._is_noticed = True
            self.seen.conditions.append((event, sent))
        elif event.action == "fired":
            self.seen.alerts.append(event)
        elif event.action in ("passed", "refused"):
            self.seen.gates.append(event)
        elif event.action == "rollout started":
            self.seen.rollout = []
            self._is_rolling_out = True
        elif event.action == "rollout stepped":
            self.seen.rollout.append(event)
        elif event.action in ("promoted", "rolled back") and about.kind == "deployment":
            self.seen.rollout.append(event)
            self.seen.ends.append((event, sent))
            self._is_rolling_out = False
        elif event.action == "triggered" or event.action.startswith("no longer "):
            self._is_noticed = False
        elif event.action == "watches":
            self._is_noticed = False
            self._evaluated = max(self._evaluated, sent)

    def _note_run(self, event: Event) -> None:
        run = self._platform.run(event.ref)
        if run.kind != "pipeline" or event.action not in _RUN_STAGES:
            return
        if event.action in ("succeeded", "failed", "lost", "cancelled"):
            self._say("retrain", event)
        self.seen.retrainings[run.id] = run.status

    def _say(self, stage: str, event: Event) -> None:
        self._tell(stage, f"{self._platform.sentences([event])[0]}  (after request {self._state.sent:,})")
        if event.action in ("passed", "refused"):
            for gate in event.detail.get("gates", []):
                self._tell(stage, f"  {'passed' if gate['passed'] else 'failed'}: {gate['gate']}: {gate['reason']}")
