"""Directs the pool: which step runs when and where, what is tried again, and what is given up.

One thread does all of it, so nothing here is locked: it waits for answers, deaths, deadlines and new calls, then
writes everything that this changed in one transaction of the ledger, and sends the next tasks. The body's thread only
adds calls and waits for their `done` events.
"""

from __future__ import annotations

import contextlib
import heapq
import pickle
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from flyball.errors import Conflict, StepFailed
from flyball.pipelines.cache import node_key
from flyball.pipelines.graph import Cancelled, Node
from flyball.pipelines.results import Stored
from flyball.pipelines.tasks import Answer, Task, keep_log

if TYPE_CHECKING:
    from flyball.ledger import Transaction
    from flyball.ledger.runs import Run
    from flyball.pipelines.record import Record
    from flyball.runners.pool import Pool, Worker
    from flyball.storage.blobs import BlobStore

__all__ = ["Dispatcher"]

_LOOK_S = 1.0  # how often the run's own record is read: was it cancelled, was it taken over?
_BEAT_S = 2.0
_FIRST_DELAY_S = 0.5  # before a failed step is tried again; doubles each time
_LONGEST_DELAY_S = 30.0
_MOST_DEATHS = 3  # of worker processes over one step, after which the step is held to be the cause


@dataclass
class _Failure:
    """How a try ended."""

    job: _Job
    error: str
    trace: str
    log: tuple[str, int] | None


@dataclass
class _Job:
    """A step at work."""

    node: Node
    worker: Worker
    began: float
    deadline: float | None


class Dispatcher:
    """Carries out the nodes of one run's graph."""

    def __init__(
        self,
        record: Record,
        blobs: BlobStore,
        pool: Pool,
        run: str,
        is_superseded: Callable[[Run], bool],
        on_cancelled: Callable[[], None],
    ) -> None:
        self.crash: BaseException | None = None
        self.is_cancelled = False
        self.is_superseded = False
        self._record, self._blobs, self._pool, self._run = record, blobs, pool, run
        self._was_taken_over, self._on_cancelled = is_superseded, on_cancelled
        self._nodes: list[Node] = []
        self._inbox: queue.SimpleQueue[Node] = queue.SimpleQueue()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._dependents: dict[Node, list[Node]] = {}
        self._missing: dict[Node, int] = {}
        self._ready: deque[Node] = deque()
        self._later: list[tuple[float, int, _Failure]] = []  # to be tried again
        self._jobs: dict[Connection, _Job] = {}
        self._idle: list[Worker] = []
        self._in_flight: dict[str, list[Node]] = {}  # keys at work, with calls that wait for the same result
        self._ended: list[tuple[Node, str, tuple[str, int] | None]] = []  # to be written down
        self._failures: list[Node] = []
        self._body_has_ended = False
        self._gives_up = False  # what has not started will not
        self._must_cancel = False
        self._stopping = False
        self._looked = self._beaten = time.monotonic()
        self._told = ""
        self._thread = threading.Thread(target=self._guarded, name="pipeline-dispatch", daemon=True)

    # -- for the body's thread

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def add(self, node: Node) -> None:
        """Take a call into the graph. Raises Cancelled."""
        self._check()
        self._nodes.append(node)
        self._inbox.put(node)
        self._ring()

    def wait_for(self, node: Node) -> None:
        """Return when the node has succeeded. Raises StepFailed, Cancelled."""
        node.done.wait()
        self._check()
        if node.error is not None:
            failed = self._cause_of(node)
            failed.is_told = True
            raise StepFailed(f"{failed.error} (run {failed.run[:8]})")

    def finish_all(self) -> None:
        """Wait for every step. Raises StepFailed for the first whose failure the body has not seen; Cancelled."""
        self._body_has_ended = True
        self._ring()
        for node in self._nodes:
            node.done.wait()
        self._check()
        for node in self._nodes:
            if node.state == "failed" and not node.is_told:
                self.wait_for(node)

    def finish_running(self) -> None:
        """Let steps at work end, and start no more."""
        self._gives_up = True
        self._ring()
        for node in self._nodes:
            node.done.wait()

    def cancel(self) -> None:
        """Kill what is at work, and write down that it was cancelled; `stop` waits for that."""
        self._must_cancel = True
        self._ring()

    def stop(self) -> None:
        """End the thread; steps at work are killed."""
        self._stopping = True
        self._ring()
        self._thread.join()
        self._bell.close()
        self._button.close()

    def graph(self) -> dict[str, Any]:
        """Return steps and edges, as the pages draw them."""
        nodes = list(self._nodes)
        edges = {(source.number, node.number) for node in nodes for source, _ in node.inputs}
        return {"steps": [node.to_dict() for node in nodes], "edges": sorted(edges)}

    def _check(self) -> None:
        if self.crash is not None or self.is_cancelled:
            raise Cancelled

    def _cause_of(self, node: Node) -> Node:
        """Return the failed step because of which a step was skipped, or the step itself."""
        while node.state == "skipped":
            node = next((n for n, _ in node.inputs if n.state in ("failed", "skipped")), node)
            if not node.inputs and node.state == "skipped":
                break
        return node

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # enough rings are waiting
            self._button.send(b".")

    # -- the dispatcher's thread

    def _guarded(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            if self._must_cancel:
                self._cancel()
        except BaseException as error:  # the body must be told, whatever it is
            self.crash = error
        finally:
            for worker in [*self._idle, *(job.worker for job in self._jobs.values())]:
                self._pool.discard(worker)
            for node in self._nodes:
                node.done.set()

    def _turn(self) -> None:
        ready = wait([self._bell, *self._jobs, *(w.connection for w in self._idle)], self._patience())
        if self._bell in ready:
            self._bell.recv(1 << 16)
        self._take_in()
        for worker in [w for w in self._idle if w.connection in ready]:  # an idle worker says nothing: it has died
            self._idle.remove(worker)
            self._pool.discard(worker)
        for connection in ready:
            if connection in self._jobs:
                self._answered(self._jobs.pop(connection))
        now = time.monotonic()
        for job in [j for j in self._jobs.values() if j.deadline is not None and j.deadline <= now]:
            self._too_late(job)
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2].job.node)
        if self._body_has_ended and any(not node.is_told for node in self._failures):
            self._gives_up = True
        if self._gives_up:
            for _, _, failure in self._later:
                self._give_up(failure)
            self._later.clear()
        if self._must_cancel:
            self._cancel()
        self._look(now)
        if not self.is_cancelled:
            self._work()

    def _patience(self) -> float:
        now = time.monotonic()
        due = [self._looked + _LOOK_S, *(j.deadline for j in self._jobs.values() if j.deadline is not None)]
        if self._later:
            due.append(self._later[0][0])
        return max(0.0, min(due) - now)

    def _take_in(self) -> None:
        while not self._inbox.empty():
            node = self._inbox.get()
            unfinished = {source for source, _ in node.inputs if source.state not in ("succeeded", "failed", "skipped")}
            for source in unfinished:
                self._dependents.setdefault(source, []).append(node)
            self._missing[node] = len(unfinished)
            if not unfinished:
                self._ready.append(node)

    # -- what came back

    def _answered(self, job: _Job) -> None:
        try:
            answer: Answer = pickle.loads(job.worker.receive())
        except EOFError:
            log = keep_log(job.worker.log, self._blobs)
            self._pool.discard(job.worker)
            self._died(job, log)
            return
        self._idle.append(job.worker)
        if answer.error is None:
            self._succeeded(job.node, answer.outputs, job.began, answer.log)
        else:
            self._failed(job, answer.error, answer.trace, answer.log)

    def _too_late(self, job: _Job) -> None:
        del self._jobs[job.worker.connection]
        log = keep_log(job.worker.log, self._blobs)
        self._pool.discard(job.worker)
        limit = job.node.step.timeout_s
        self._failed(job, f"step {job.node.step.name} took longer than {limit:g} s and was killed", "", log)

    def _died(self, job: _Job, log: tuple[str, int] | None) -> None:
        node = job.node
        node.deaths += 1
        if node.deaths < _MOST_DEATHS:
            self._ready.appendleft(node)
            return
        text = f"step {node.step.name}: its process died {node.deaths} times; was it killed, or out of memory?"
        self._end(node, "failed", job.began, error=StepFailed(text), log=log)

    def _failed(self, job: _Job, error: str, trace: str, log: tuple[str, int] | None) -> None:
        node = job.node
        failure = _Failure(job, error, trace, log)
        tries = node.attempts - node.deaths
        if tries > node.step.retries or self._gives_up:
            self._give_up(failure)
            return
        delay = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** (tries - 1))
        heapq.heappush(self._later, (time.monotonic() + delay, node.number, failure))

    def _give_up(self, failure: _Failure) -> None:
        error = StepFailed(failure.error)
        self._end(failure.job.node, "failed", failure.job.began, error=error, trace=failure.trace, log=failure.log)

    def _succeeded(self, node: Node, outputs: list[Stored], began: float, log: tuple[str, int] | None = None) -> None:
        node.outputs = outputs
        self._end(node, "succeeded", began, log=log)

    def _end(
        self,
        node: Node,
        state: str,
        began: float | None = None,
        *,
        error: StepFailed | None = None,
        trace: str = "",
        log: tuple[str, int] | None = None,
    ) -> None:
        """Set how a node ended, and what follows for those that wait for it; the ledger hears of it in this turn."""
        node.seconds = round(time.monotonic() - began, 6) if began is not None else None
        node.error, node.state = error, state
        self._ended.append((node, trace, log))
        if state == "failed":
            self._failures.append(node)
        for follower in self._in_flight.pop(node.key, []) if not node.is_cached else []:
            self._ready.appendleft(follower)  # finds the result, or tries for itself
        for dependent in self._dependents.pop(node, []):
            self._missing[dependent] -= 1
            if self._missing[dependent] == 0:
                self._ready.append(dependent)

    # -- what goes out

    def _work(self) -> None:
        """Write down what ended, find or start what is ready, in one transaction; then tell and send."""
        while self._ended or self._can_go_on():
            with self._record.write() as world:
                tasks = self._advance(self._idle, world)
            # Only now: what a step builds on must be durable, or a crash would repeat steps whose effects were seen.
            for job, task in tasks:
                self._send(job, task)
            ended, self._ended = self._ended, []
            for node, _, _ in ended:
                node.done.set()
            # Starting a process takes its time: outside of the transaction, and only when nothing was found.
            if self._can_go_on() and not self._idle:
                self._idle += [self._pool.worker() for _ in range(min(len(self._ready), self._room()))]

    def _can_go_on(self) -> bool:
        """Whether anything can be done about the first step in the row."""
        if not self._ready:
            return False
        node = self._ready[0]
        return not node.key or (self._gives_up and not node.run) or self._has_room_for(node)

    def _advance(self, workers: list[Worker], world: Transaction) -> list[tuple[_Job, Task]]:
        tasks: list[tuple[_Job, Task]] = []
        written = 0
        while True:
            for node, trace, log in self._ended[written:]:
                if node.run:
                    self._record.end(node, trace, log, world)
            written = len(self._ended)
            if not self._ready:
                return tasks
            node = self._ready[0]
            if any(source.state != "succeeded" for source, _ in node.inputs) or (self._gives_up and not node.run):
                self._ready.popleft()
                self._end(node, "skipped", error=StepFailed(f"step {node.step.name} was not started"))
            elif not node.key and self._finds(node, world):
                self._ready.popleft()
            elif node.key in self._in_flight and node.step.cache and not node.run:
                self._ready.popleft()
                self._in_flight[node.key].append(node)
                node.key = ""  # to be looked up again
            elif workers and self._has_room_for(node):
                self._ready.popleft()
                tasks.append(self._start(node, workers.pop(), world))
            else:
                return tasks

    def _finds(self, node: Node, world: Transaction) -> bool:
        """Give the node its key; end it when its result is known."""
        node.key = node_key(node.call_key, [s.outputs[index].digest for s, index in node.key_inputs])
        outputs = self._record.found(node, world)
        if outputs is None:
            return False
        node.is_cached = True
        self._record.start(node, world)
        self._succeeded(node, outputs, time.monotonic())
        return True

    def _start(self, node: Node, worker: Worker, world: Transaction) -> tuple[_Job, Task]:
        if not node.run:
            self._record.start(node, world)
        self._in_flight.setdefault(node.key, [])
        node.attempts += 1
        node.state = "running"
        now = time.monotonic()
        limit = node.step.timeout_s
        job = _Job(node, worker, now, None if limit is None else now + limit)
        self._jobs[worker.connection] = job
        inputs = [source.outputs[index] for source, index in node.inputs]
        return job, Task(node.step.module, node.step.qualname, node.arguments, inputs, self._run)

    def _send(self, job: _Job, task: Task) -> None:
        try:
            job.worker.send(pickle.dumps(task, protocol=5))
        except OSError:
            return  # it has died; that shows at once as the end of its connection

    def _has_room_for(self, node: Node) -> bool:
        return not self._jobs or node.step.cpu <= self._room()

    def _room(self) -> int:
        """Return how many processors are free for steps; below one when a step wants more than there are."""
        return max(self._pool.size - sum(job.node.step.cpu for job in self._jobs.values()), 0 if self._jobs else 1)

    # -- the run itself

    def _look(self, now: float) -> None:
        """See whether the run was cancelled or taken over, and say that it goes on."""
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        run = self._record.current()
        self.is_superseded = self._was_taken_over(run)
        if run.is_finished or self.is_superseded:
            self._cancel()
        elif now - self._beaten >= _BEAT_S:
            self._beaten = now
            graph = self.graph()
            told = repr(graph)
            try:
                self._record.beat({"graph": graph} if told != self._told else {})
            except Conflict:
                self._cancel()
            self._told = told

    def _cancel(self) -> None:
        if self.is_cancelled:
            return
        self.is_cancelled = True
        jobs = list(self._jobs.values())
        self._jobs.clear()
        for job in jobs:
            self._pool.discard(job.worker)
            job.node.state = "cancelled"
        if not self.is_superseded:
            with self._record.write() as world:
                for job in jobs:
                    self._record.end(job.node, "", None, world)
        for node in self._nodes:
            node.done.set()
        self._on_cancelled()
