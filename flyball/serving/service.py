"""Predictions on an event loop: the engine's steps with batchers in the middle, and lineups swapped while it runs.

Everything here runs on the loop, except loading models and planning large requests, for which there is a thread each.
Answers come by callback rather than by future, because at thousands of requests a second futures cost as much as HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from flyball.clock import SYSTEM, Clock, format_instant
from flyball.errors import FlyballError, StepFailed, Unavailable
from flyball.models.fields import Field
from flyball.serving.batcher import Batcher, Columns
from flyball.serving.engine import Engine
from flyball.serving.lineup import Lineup, ServedVariant
from flyball.serving.questions import Answer, Part, Plan, Question
from flyball.serving.snapshot import read
from flyball.serving.status import Counters, DataPlaneStatus, DeploymentStatus
from flyball.tracking.predictions import Label

__all__ = ["OnAnswer", "Service"]

OnAnswer = Callable[[Answer | None, FlyballError | None], None]
"""Called once, on the event loop."""

_LOOK_S = 0.1  # how often the snapshot's file is looked at: one stat
_STATUS_S = 2.0
_LARGE_ROWS = 2000  # planning so many rows takes milliseconds, in which nobody else would be answered
_log = logging.getLogger("flyball.serving")


class Service:
    """Answers questions on the running loop.

    Arguments:
        engine: opened with `deliver=loop.call_soon_threadsafe`.
        address: of the server, for `status.json`.
    """

    def __init__(self, engine: Engine, address: str = "", clock: Clock = SYSTEM) -> None:
        self.engine = engine
        self.counters = Counters()
        self.address = address
        self.is_ready = False  # from the first lineup on, and through every swap
        self.error: str | None = None  # why the newest snapshot is not served
        self._clock = clock
        self._started_at = format_instant(clock.now())
        self._loop = asyncio.get_running_loop()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="serving-loader")
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="serving-planner")
        self._batchers: dict[tuple[str, str], Batcher] = {}  # by deployment and bundle
        self._retired: list[Batcher] = []
        self._seen: tuple[int, int, int] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._told = 0.0

    # what is served

    async def start(self) -> None:
        """Load what the snapshot says, then watch it. Without a snapshot nothing is served, and that is well."""
        await self.look()
        self.is_ready = True
        self.tell()
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
        self.tell()

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
        )
        try:
            status.write(self.engine.places.status)
        except OSError as error:
            _log.error("%s could not be written: %s", self.engine.places.status, error.strerror)

    def _failures(self, deployment: str) -> dict[str, int]:
        served = self.engine.lineup.served.get(deployment)
        variants = [v.variant for v in served.variants] if served else []
        return {v.name: self.counters.failures.get((deployment, v.name, v.version), 0) for v in variants}

    def metrics(self) -> str:
        """Return the counters as Prometheus text."""
        waiting = {(name, batcher.name): batcher.waiting_rows for (name, _), batcher in self._batchers.items()}
        views = dict(self.engine.freshness.views)
        return self.counters.prometheus(waiting, self.engine.lineup.generation or 0, views)

    # questions

    def ask(self, question: Question, done: OnAnswer) -> None:
        """Answer a question; `done` is called when the answer is logged, or with what was wrong."""
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
            self._call(plan, done)
        except FlyballError as error:
            done(None, error)

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
            self._call(future.result(), done)
        except FlyballError as error:
            done(None, error)
        except Exception as error:
            _log.exception("a request could not be planned")
            done(None, StepFailed(f"the request could not be planned ({type(error).__name__})"))

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

        self._batcher(plan.served.name, part.by).submit(part.columns, len(part.ids), answered)

    def _log_all(
        self, plan: Plan, outputs: Sequence[Columns | None], error: FlyballError | None, done: OnAnswer
    ) -> None:
        answered = [out for out in outputs if out is not None]
        if error is not None or len(answered) < len(plan.parts):
            done(None, error)
            return
        left = len(plan.parts)
        failed: FlyballError | None = None

        def logged(error: FlyballError | None) -> None:
            nonlocal left, failed
            failed = failed or error
            left -= 1
            if left <= 0:
                self._finish(plan, answered, failed, done)

        try:
            if not self.engine.log(plan, answered, logged):
                left = 1
                logged(None)
        except FlyballError as refusal:
            left = 0
            self._finish(plan, answered, refusal, done)

    def _finish(self, plan: Plan, outputs: list[Columns], error: FlyballError | None, done: OnAnswer) -> None:
        if error is not None:
            self.counters.log_refusals += isinstance(error, Unavailable)
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
                lambda rows, _seconds: sizes.observe(rows),
                by.is_joinable,
            )
        return found

    def _adopt(self, lineup: Lineup) -> None:
        """Swap: questions planned before keep the models they were planned with."""
        self.engine.adopt(lineup)
        kept = {
            (name, v.variant.bundle)
            for name, served in lineup.served.items()
            for v in (*served.variants, *served.mirrors)
        }
        for key, batcher in list(self._batchers.items()):
            if key not in kept:
                self._retired.append(self._batchers.pop(key))
                continue
            limits = lineup.served[key[0]].deployment.limits
            batcher.queue_rows, batcher.batch_rows = limits.queue_rows, limits.batch_rows

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look()
            for batcher in [b for b in self._retired if not b.waiting_rows]:
                batcher.close()
                self._retired.remove(batcher)
            if time.monotonic() - self._told > _STATUS_S:
                self.tell()


def _nothing(fields: Sequence[Field]) -> Columns:
    """Return the outputs for no rows."""
    return {
        f.name: np.empty(
            (0, *(max(size, 0) for size in (f.shape or (0,))[1:])),
            object if f.dtype == "string" else "datetime64[us]" if f.dtype == "datetime" else f.dtype,
        )
        for f in fields
    }
