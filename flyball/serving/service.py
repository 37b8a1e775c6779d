"""Predictions on an event loop: the engine's steps with batchers in the middle, and lineups swapped while it runs.

Everything here runs on the loop, except loading models and planning large requests, for which there is a thread each.
Answers come by callback rather than by future, because at thousands of requests a second futures cost as much as HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from flyball.clock import SYSTEM, Clock, format_instant
from flyball.errors import FlyballError, StepFailed, Unavailable
from flyball.models.fields import Field
from flyball.serving.batcher import Batcher, Columns
from flyball.serving.engine import Engine
from flyball.serving.lane import Lane, lane_of
from flyball.serving.limits import Gate, LocalRates, Rates, TooLate
from flyball.serving.lineup import Lineup, ServedVariant
from flyball.serving.metrics import Counters, Gauges, prometheus
from flyball.serving.questions import Answer, Part, Plan, Question
from flyball.serving.residence import HeldModel
from flyball.serving.routines import RoutineModel
from flyball.serving.sharing import Place
from flyball.serving.snapshot import read
from flyball.serving.status import DataPlaneStatus, DeploymentStatus
from flyball.tracking.predictions import Label

__all__ = ["OnAnswer", "Service"]

OnAnswer = Callable[[Answer | None, FlyballError | None], None]
"""Called once, on the event loop."""

_LOOK_S = 0.1  # how often the snapshot's file is looked at: one stat
_STATUS_S = 2.0
_COUNTS_S = 0.25  # how often a worker tells the others what it has counted: what `kill -9` may lose of the counters
_LARGE_ROWS = 2000  # planning so many rows takes milliseconds, in which nobody else would be answered
_FEW_ANSWERS = 8  # are logged by the loop itself where the disk is quick; more are worth waking the log's thread
_MOST_EXPLAINING = 64  # one after the other, on one thread
_log = logging.getLogger("flyball.serving")


class _Answered(NamedTuple):
    """A question that the models have answered and the log has not."""

    plan: Plan
    outputs: list[Columns]
    payloads: list[bytes]
    done: OnAnswer


class Service:
    """Answers questions on the running loop.

    Arguments:
        engine: opened with `deliver=loop.call_soon_threadsafe`.
        address: of the server, for `status.json`.
        rates: of the deployments' limits; those of this process alone when not given.
        place: among the workers that serve the home together; None: this process serves it alone.
    """

    def __init__(
        self,
        engine: Engine,
        address: str = "",
        clock: Clock = SYSTEM,
        *,
        rates: Rates | None = None,
        place: Place | None = None,
    ) -> None:
        self.engine = engine
        self.counters = Counters()
        self.address = address
        self.grpc_address = ""
        self.on_told: Callable[[], None] = lambda: None  # called when the status has been written
        self.is_ready = False  # from the first lineup on, and through every swap
        self.error: str | None = None  # why the newest snapshot is not served
        self._status_path = engine.places.status if place is None else place.status
        if place is not None:
            place.begin(self.counters)
        self._clock = clock
        self._started_at = format_instant(clock.now())
        self._loop = asyncio.get_running_loop()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="serving-loader")
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="serving-planner")
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="serving-explainer")
        self._explaining = 0
        self._batchers: dict[tuple[str, str], Batcher] = {}  # by deployment and bundle
        self._retired: list[Batcher] = []
        self._rates = rates if rates is not None else LocalRates()
        self._place = place
        self._counted = 0.0
        self._gates: dict[str, Gate] = {}
        self._lanes: dict[str, Lane] = {}
        self._log_waiting = 0  # answers that are on their way into the log
        self.connections: Collection[object] = ()  # of the server, to be counted
        self._unlogged: dict[str, list[_Answered]] = {}  # by durability
        self._seen: tuple[int, int, int] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._told = 0.0

    # what is served

    async def start(self) -> None:
        """Load what the snapshot says, then watch it. Without a snapshot nothing is served, and that is well."""
        await self.look()
        self.is_ready = True
        self.tell()
        if self._place is not None:
            self._share(self._place)
        self._watcher = self._loop.create_task(self._watch())

    async def stop(self) -> None:
        """Stop watching, make the log durable. Requests must have been answered before."""
        if self._watcher is not None:
            self._watcher.cancel()
        await self._loop.run_in_executor(None, self.engine.close)
        for batcher in (*self._batchers.values(), *self._retired):
            batcher.close()
        self._loader.shutdown(wait=False)
        self._planner.shutdown(wait=False)
        self._explainer.shutdown(wait=False, cancel_futures=True)
        self.tell()
        if self._place is not None:
            self._share(self._place)

    async def look(self, is_forced: bool = False) -> None:
        """Take up the snapshot if its file has changed; a broken one is reported and the old one goes on."""
        path = self.engine.places.snapshot
        try:
            found = path.stat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        except FileNotFoundError:
            return
        if seen == self._seen and not is_forced:
            return
        self._seen = seen
        try:
            lineup = await self._loop.run_in_executor(self._loader, lambda: self.engine.prepare(read(path)))
            self._adopt(lineup)
            self.error = None
        except FlyballError as error:
            self.error = str(error)
            _log.error("the old snapshot stays: %s", error)
        except Exception as error:
            self.error = f"the snapshot could not be taken up ({type(error).__name__}: {str(error)[:300]})"
            _log.exception("the old snapshot stays")
        self.tell()

    def tell(self) -> None:
        """Write `status.json`. A full disk must not stop predictions, so a failure is only logged."""
        self._told = time.monotonic()
        lineup = self.engine.lineup
        deployments = {}
        for name in sorted({*lineup.served, *lineup.errors}):
            served, refusal = lineup.served.get(name), lineup.errors.get(name)
            revision = served.deployment.revision if served else None
            deployments[name] = DeploymentStatus(
                revision,
                {v.variant.name: v.variant.version for v in served.variants} if served else {},
                refusal.revision if refusal else revision or 0,
                refusal.message if refusal else None,
                refusal.variant if refusal else None,
                self._failures(name),
            )
        status = DataPlaneStatus(
            os.getpid(),
            self.address,
            self._started_at,
            format_instant(self._clock.now()),
            lineup.generation or 0,
            deployments,
            self.error,
            self.counters.summary(),
            self.grpc_address,
        )
        try:
            status.write(self._status_path)
            self.on_told()
        except OSError as error:
            _log.error("%s could not be written: %s", self._status_path, error.strerror)

    def _failures(self, deployment: str) -> dict[str, int]:
        served = self.engine.lineup.served.get(deployment)
        variants = [v.variant for v in (*served.variants, *served.mirrors)] if served else []
        return {v.name: self.counters.failures.get((deployment, v.name, v.version), 0) for v in variants}

    def metrics(self) -> str:
        """Return the counters as Prometheus text: of all workers, where there are several."""
        if self._place is not None:
            return self._place.metrics()
        return prometheus(self.counters, dict(self.engine.freshness.views), {"0": self.gauges()})

    def gauges(self) -> Gauges:
        """Return how this process stands."""
        return Gauges.of_process(
            generation=self.engine.lineup.generation or 0,
            waiting=[(name, batcher.name, batcher.waiting_rows) for (name, _), batcher in self._batchers.items()],
            in_flight={name: gate.in_flight for name, gate in self._gates.items()},
            connections=len(self.connections),
            log_waiting=self._log_waiting,
        )

    # questions

    def ask(self, question: Question, done: OnAnswer) -> None:
        """Answer a question; `done` is called when the answer is logged, or with what was wrong."""
        gate = self._gates.get(question.deployment)
        if gate is not None:
            try:
                done = gate.enter(question, done)
            except FlyballError as error:
                done(None, error)
                return
        count = len(question.records) if isinstance(question.records, list) else 0
        for values in (question.columns or {}).values():
            count = max(count, len(values) if isinstance(values, list | np.ndarray) and np.ndim(values) else 0)
            break
        if count > _LARGE_ROWS:
            planning = self._loop.run_in_executor(self._planner, self.engine.plan, question)
            planning.add_done_callback(lambda future: self._planned_aside(future, done))
            return
        try:
            plan = self.engine.plan(question)
            self._answer(plan, done)
        except FlyballError as error:
            done(None, error)
        except Exception as error:
            _log.exception("a request could not be planned")
            done(None, StepFailed(f"the request could not be planned ({type(error).__name__})"))

    def lane(self, deployment: str) -> Lane | None:
        """Return the short way into a deployment, where it has one and it is open now."""
        lane = self._lanes.get(deployment)
        if lane is None or lane.served is not self.engine.lineup.served.get(deployment) or not lane.is_open:
            return None
        return lane

    def body_bytes(self, deployment: str, most: int) -> int:
        """Return how many bytes a request to a deployment may have, where `most` is the server's own limit."""
        gate = self._gates.get(deployment)
        limit = None if gate is None else gate.limits.body_bytes
        return most if limit is None else min(limit, most)

    def label(self, labels: Sequence[Label], done: Callable[[FlyballError | None], None]) -> None:
        """Log labels; `done` is called when they are durable, or with why none was kept."""

        def on_done(error: FlyballError | None) -> None:
            self.counters.labels += 0 if error else len(labels)
            done(error)

        try:
            self.engine.label(labels, on_done)
        except FlyballError as error:
            done(error)

    def _planned_aside(self, future: asyncio.Future[Plan], done: OnAnswer) -> None:
        try:
            self._answer(future.result(), done)
        except FlyballError as error:
            done(None, error)
        except Exception as error:
            _log.exception("a request could not be planned")
            done(None, StepFailed(f"the request could not be planned ({type(error).__name__})"))

    def _answer(self, plan: Plan, done: OnAnswer) -> None:
        """Have the models called, after their answers have been explained where that is asked for.

        Explained first, so that a request whose explanation is refused is not logged as answered.
        """
        if not plan.question.explain:
            self._call(plan, done)
            return
        if self._explaining >= _MOST_EXPLAINING:
            raise Unavailable(f"{self._explaining} requests wait to be explained already; try again in a moment")
        self._explaining += 1

        def explained(future: asyncio.Future[None]) -> None:
            self._explaining -= 1
            try:
                future.result()
                self._call(plan, done)
            except FlyballError as error:
                done(None, error)
            except Exception as error:
                _log.exception("a request could not be explained")
                done(None, StepFailed(f"the request could not be explained ({type(error).__name__})"))

        self._loop.run_in_executor(self._explainer, self.engine.explain, plan).add_done_callback(explained)

    def _call(self, plan: Plan, done: OnAnswer) -> None:
        """Give each part to its model's batcher; when all have answered, log, then answer."""
        if not plan.ids:
            done(plan.answer([_nothing(part.by.model.signature.outputs) for part in plan.parts]), None)
            return
        if len(plan.parts) == 1:
            self._submit(plan, plan.parts[0], lambda out, error: self._log_all(plan, [out], error, done))
            return
        outputs: list[Columns | None] = [None] * len(plan.parts)
        left = len(plan.parts)
        failed: FlyballError | None = None

        def collect(index: int, out: Columns | None, error: FlyballError | None) -> None:
            nonlocal left, failed
            outputs[index] = out
            failed = failed or error
            left -= 1
            if left == 0:
                self._log_all(plan, outputs, failed, done)

        for index, part in enumerate(plan.parts):
            try:
                self._submit(plan, part, lambda out, error, index=index: collect(index, out, error))  # type: ignore[misc]
            except FlyballError as error:
                collect(index, None, error)

    def _submit(self, plan: Plan, part: Part, done: Callable[[Columns | None, FlyballError | None], None]) -> None:
        def answered(out: Columns | None, error: FlyballError | None) -> None:
            if isinstance(error, StepFailed):
                variant = part.by.variant
                self.counters.failures[plan.served.name, variant.name, variant.version] += 1
            done(out, error)

        try:
            self._batcher(plan.served.name, part.by).submit(part.columns, len(part.ids), answered)
        except Unavailable:
            self.counters.refuse(plan.served.name, "queue")
            raise

    def _log_all(
        self, plan: Plan, outputs: Sequence[Columns | None], error: FlyballError | None, done: OnAnswer
    ) -> None:
        answered = [out for out in outputs if out is not None]
        if plan.question.is_over:  # what nobody got must not stand in the log as an answer
            done(None, TooLate(f"{plan.served.name} did not answer in time"))
            return
        if error is not None or len(answered) < len(plan.parts):
            done(None, error)
            return
        try:
            payloads = self.engine.encoded(plan, answered)
        except FlyballError as refusal:
            self._finish(plan, answered, refusal, done)
            return
        except Exception as fault:  # this is called where nobody else would answer
            _log.exception("an answer of %s could not be logged", plan.served.name)
            self._finish(plan, answered, StepFailed(f"the answer could not be logged ({type(fault).__name__})"), done)
            return
        if not payloads:
            self._finish(plan, answered, None, done)
            return
        durability = plan.served.deployment.log.durability
        waiting = self._unlogged.setdefault(durability, [])
        if not waiting:
            self._loop.call_soon(self._append_waiting, durability)
        waiting.append(_Answered(plan, answered, payloads, done))

    def _append_waiting(self, durability: str) -> None:
        """Log what was answered in this turn together: to wake the log's thread for each costs more than answering."""
        self._append(durability, self._unlogged.pop(durability))

    def _append(self, durability: str, waiting: list[_Answered]) -> None:
        def logged(error: FlyballError | None) -> None:
            for each in waiting:
                try:
                    self._finish(each.plan, each.outputs, error, each.done)
                except Exception:
                    _log.exception("an answer of %s could not be delivered", each.plan.served.name)

        try:
            self._keep(durability, [payload for each in waiting for payload in each.payloads], len(waiting), logged)
        except FlyballError as refusal:
            if len(waiting) == 1:
                logged(refusal)
                return
            for each in waiting:  # a part of them may still find room
                self._append(durability, [each])

    def _keep(
        self, durability: str, payloads: list[bytes], answers: int, done: Callable[[FlyballError | None], None]
    ) -> None:
        """Log answers, then call `done`, which does not raise. Raises FlyballError: none was kept or queued."""
        began = time.perf_counter()
        if answers <= _FEW_ANSWERS and self.engine.append_now(durability, payloads):
            self.counters.logging[durability].observe(time.perf_counter() - began)
            done(None)
            return

        def logged(error: FlyballError | None) -> None:
            self._log_waiting -= answers
            self.counters.logging[durability].observe(time.perf_counter() - began)
            done(error)

        self.engine.append(durability, payloads, logged)
        self._log_waiting += answers

    def _finish(self, plan: Plan, outputs: list[Columns], error: FlyballError | None, done: OnAnswer) -> None:
        if isinstance(error, Unavailable) and plan.served.deployment.log.when_full == "drop":
            self.counters.log_dropped[plan.served.name] += len(plan.ids)
            error = None
        if error is not None:
            if isinstance(error, Unavailable):
                self.counters.log_refusals += 1
                self.counters.refuse(plan.served.name, "log")
            done(None, error)
            return
        seconds = time.perf_counter() - plan.question.received
        for part in plan.parts:
            variant = part.by.variant
            self.counters.answered(plan.served.name, variant.name, variant.version, len(part.ids), seconds)
        done(plan.answer(outputs), None)
        if plan.served.mirrors and plan.is_logged:
            self._mirror(plan)

    def _mirror(self, plan: Plan) -> None:
        """Let mirrors answer the same rows into the log; what they cannot do now is left out."""
        try:
            for part in self.engine.mirrored(plan):
                batcher = self._batcher(plan.served.name, part.by)
                if batcher.waiting_rows > batcher.queue_rows // 2:
                    self.counters.mirrors_skipped += 1
                    continue

                def keep(out: Columns | None, error: FlyballError | None, part: Part = part) -> None:
                    try:
                        if out is not None:
                            self.engine.log_part(plan, part, out)
                    except FlyballError as refusal:
                        error = refusal
                    if isinstance(error, StepFailed):
                        variant = part.by.variant
                        self.counters.failures[plan.served.name, variant.name, variant.version] += 1
                    self.counters.mirrors_skipped += error is not None

                batcher.submit(part.columns, len(part.ids), keep)
        except FlyballError as error:
            self.counters.mirrors_skipped += 1
            _log.debug("a mirror was left out: %s", error)

    # batchers and lineups

    def _batcher(self, deployment: str, by: ServedVariant) -> Batcher:
        key = (deployment, by.variant.bundle)
        found = self._batchers.get(key)
        if found is None:
            limits = self.engine.lineup.find(deployment).deployment.limits
            sizes = self.counters.batches[by.variant.version]
            found = self._batchers[key] = Batcher(
                by.model.predict,
                by.variant.version,
                limits.queue_rows,
                limits.batch_rows,
                lambda rows, _seconds: self._called(deployment, by, sizes, rows),
                by.is_joinable,
                by.model.is_resident if isinstance(by.model, HeldModel | RoutineModel) else None,
            )
        return found

    def _called(self, deployment: str, by: ServedVariant, sizes: Any, rows: int) -> None:
        """Count a call of a model, and what its steps took where it is a routine."""
        sizes.observe(rows)
        if isinstance(by.model, RoutineModel):
            for step, seconds in by.model.steps_taken():
                self.counters.steps[deployment, step].observe(seconds)

    def _adopt(self, lineup: Lineup) -> None:
        """Swap: questions planned before keep the models they were planned with."""
        self.engine.adopt(lineup)
        kept = {
            (name, v.variant.bundle)
            for name, served in lineup.served.items()
            for v in (*served.variants, *served.mirrors)
        }
        for name, served in lineup.served.items():
            gate = self._gates.get(name)
            if gate is None:
                refused = partial(self.counters.refuse, name)
                self._gates[name] = Gate(name, served.deployment.limits, self._rates, refused)
            else:
                gate.limits = served.deployment.limits
        for name in [n for n, gate in self._gates.items() if n not in lineup.served and not gate.in_flight]:
            del self._gates[name]
        self._lanes = self._found_lanes(lineup)
        for key, batcher in list(self._batchers.items()):
            if key not in kept:
                self._retired.append(self._batchers.pop(key))
                continue
            limits = lineup.served[key[0]].deployment.limits
            batcher.queue_rows, batcher.batch_rows = limits.queue_rows, limits.batch_rows

    def _found_lanes(self, lineup: Lineup) -> dict[str, Lane]:
        found = {}
        for name, served in lineup.served.items():
            if self.engine.is_logging(served.deployment.log.durability):
                batcher = partial(self._batcher, name, served.variants[0])
                lane = lane_of(served, batcher, self._gates[name], self.counters, self._keep, self.engine.clock)
                if lane is not None:
                    found[name] = lane
        return found

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._round()
            except Exception:  # a disk that fails for a moment must not end the watch: no snapshot would come in again
                _log.exception("a look at the snapshot failed; it is tried again")

    async def _round(self) -> None:
        await self.look()
        for batcher in [b for b in self._retired if not b.waiting_rows]:
            batcher.close()
            self._retired.remove(batcher)
        if time.monotonic() - self._told > _STATUS_S:
            self.tell()
        if self._place is not None and time.monotonic() - self._counted > _COUNTS_S:
            self._share(self._place)

    def _share(self, place: Place) -> None:
        """Let the other workers know what is counted here, and take the part of the limits that is left by them."""
        self._counted = time.monotonic()
        place.write(self.counters, dict(self.engine.freshness.views), self.gauges())
        workers = max(1, len(place.board.living()))
        for gate in self._gates.values():
            gate.workers = workers


def _nothing(fields: Sequence[Field]) -> Columns:
    """Return the outputs for no rows."""
    return {
        f.name: np.empty(
            (0, *(max(size, 0) for size in (f.shape or (0,))[1:])),
            object if f.dtype == "string" else "datetime64[us]" if f.dtype == "datetime" else f.dtype,
        )
        for f in fields
    }
