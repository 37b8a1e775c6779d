"""Requests joined into calls of a model, without a timer.

A model that answers a batch in about a millisecond is called on the event loop itself, once a turn, with all that
arrived in that turn. A slower one is called on a worker thread, and what arrives while it computes is the next batch.
Which of the two is decided before each call by a running estimate. Either way a lone request never waits for company.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from flyball.errors import FlyballError, StepFailed, Unavailable
from flyball.models.table import Table

__all__ = ["INLINE_S", "Batcher", "Columns", "Done", "Estimate", "call_model"]

Columns = Mapping[str, np.ndarray[Any, Any]]
"""Arrays by name, all with the same first dimension: the rows."""

Done = Callable[[Columns | None, FlyballError | None], None]
"""Called once, on the event loop, with a request's outputs or with why there are none."""

INLINE_S = 0.002  # handing a batch to a thread and back costs 0.1–0.3 ms, and a stall of 2 ms harms nobody
_SMALL_ROWS = 4
_NEWEST = 0.2  # weight of the newest observation

_log = logging.getLogger("flyball.serving")


def call_model(predict: Callable[[Columns], Columns], columns: Columns, rows: int, name: str) -> Columns:
    """Call a model and check that it gave one output a row.

    Raises:
        StepFailed: the model raised or gave another number of rows; errors of Flyball's own pass as they are.
    """
    try:
        outputs = predict(columns)
    except FlyballError:
        raise
    except Exception as error:
        raise StepFailed(f"{name} failed on this request ({type(error).__name__}: {str(error)[:200]})") from error
    for output, values in outputs.items():
        if len(values) != rows:
            raise StepFailed(f'{name} gave {len(values)} values of its output "{output}" for {rows} rows')
    return outputs


class Estimate:
    """How long a call of a model takes, from what it took: a fixed part and a part for each row."""

    def __init__(self) -> None:
        self.fixed_s: float | None = None
        self.row_s = 0.0

    def seconds(self, rows: int) -> float:
        """Return the expected seconds of a call; infinite before the first one."""
        return float("inf") if self.fixed_s is None else self.fixed_s + self.row_s * rows

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one call."""
        if self.fixed_s is None:
            self.fixed_s = seconds
        elif rows <= _SMALL_ROWS:
            self.fixed_s += _NEWEST * (seconds - self.fixed_s)
        else:
            self.row_s += _NEWEST * (max(seconds - self.fixed_s, 0.0) / rows - self.row_s)
            # A model that was slow when it was last asked for one row must be able to become fast again.
            self.fixed_s = min(self.fixed_s, seconds)


class _Job:
    """One request in the queue: its columns, how far it has been taken, and its outputs so far."""

    __slots__ = ("columns", "done", "failed", "finished", "kind", "parts", "rows", "taken")

    def __init__(self, columns: Columns, rows: int, done: Done) -> None:
        self.columns = columns
        self.rows = rows
        self.done = done
        self.kind = _kind(columns)
        self.taken = self.finished = 0
        self.parts: list[tuple[int, Columns]] = []
        self.failed: FlyballError | None = None


def _kind(columns: Columns) -> Any:
    """What must be equal for columns to be joined; `None` for tables, which one model has with one set of columns."""
    return None if type(columns) is Table else [(a.dtype.char, a.shape[1:]) for a in columns.values()]


_Piece = tuple[_Job, int, int]  # a job's rows from … to


class Batcher:
    """The queue of one model. All methods are called on the event loop.

    Arguments:
        predict: columns in, columns out; called on the loop or on the batcher's own thread, never twice at a time.
        name: the model's version, for messages.
        queue_rows: rows that may wait; more are refused.
        batch_rows: rows in one call; a request with more is cut into several, between which others get their turn.
        on_batch: told (rows, seconds) of each call.
        is_resident: asked before each call; a model that is not in memory is never called on the loop.
        is_joinable: False for a model whose first size is fixed: each request is a call of its own, never cut.
    """

    def __init__(
        self,
        predict: Callable[[Columns], Columns],
        name: str,
        queue_rows: int = 4096,
        batch_rows: int = 256,
        on_batch: Callable[[int, float], None] | None = None,
        is_joinable: bool = True,
        is_resident: Callable[[], bool] | None = None,
    ) -> None:
        self.name = name
        self.queue_rows = queue_rows
        self.batch_rows = batch_rows
        self.waiting_rows = 0  # queued or in a call
        self.estimate = Estimate()
        self._predict = predict
        self._on_batch = on_batch
        self._is_joinable = is_joinable
        self._is_resident = is_resident
        self._queue: deque[_Job] = deque()
        self._is_scheduled = False  # a turn is booked, or the worker is busy
        self._loop = asyncio.get_running_loop()
        self._worker: ThreadPoolExecutor | None = None

    def submit(self, columns: Columns, rows: int, done: Done) -> None:
        """Queue one request, whose rows have been checked against the signature.

        Raises:
            Unavailable: the queue is full; nothing was queued.
        """
        if self.waiting_rows and self.waiting_rows + rows > self.queue_rows:
            raise Unavailable(
                f"the queue is full: {self.waiting_rows} rows wait for {self.name} and at most {self.queue_rows} may; "
                "try again in a moment"
            )
        self.waiting_rows += rows
        self._queue.append(_Job(columns, rows, done))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def is_quick(self, rows: int) -> bool:
        """Whether a call for so many rows may be made on the loop now: nothing waits, and it takes about 1 ms."""
        return (
            not self._is_scheduled
            and rows <= self.batch_rows
            and self.estimate.seconds(rows) <= INLINE_S
            and (self._is_resident is None or self._is_resident())
        )

    def call(self, columns: Columns, rows: int) -> Columns:
        """Call the model now, where `is_quick` says so. Raises as `call_model`."""
        began = time.perf_counter()
        outputs = call_model(self._predict, columns, rows, self.name)
        seconds = time.perf_counter() - began
        self.estimate.observe(rows, seconds)
        if self._on_batch is not None:
            self._on_batch(rows, seconds)
        return outputs

    def close(self) -> None:
        """Let the worker go when it has finished; call it when nothing waits any more."""
        if self._worker is not None:
            self._worker.shutdown(wait=False)

    def _turn(self) -> None:
        pieces = self._take()
        rows = sum(stop - start for _, start, stop in pieces)
        if self.estimate.seconds(rows) <= INLINE_S and (self._is_resident is None or self._is_resident()):
            began = time.perf_counter()
            results = self._jointly(pieces)
            if results is not None:
                self._finish(pieces, results, time.perf_counter() - began)
                return
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"model-{self.name}")
        self._worker.submit(self._in_thread, pieces)

    def _in_thread(self, pieces: list[_Piece]) -> None:
        began = time.perf_counter()
        results = self._jointly(pieces)
        seconds = time.perf_counter() - began
        if results is None:
            # One request's rows may have spoilt the call for its neighbours: each alone.
            results = [result for piece in pieces for result in self._jointly([piece]) or []]
        try:
            self._loop.call_soon_threadsafe(self._finish, pieces, results, seconds)
        except RuntimeError:
            _log.warning("the server stopped before %s had answered", self.name)

    def _take(self) -> list[_Piece]:
        """Take rows from the front of the queue, of jobs whose columns can be joined."""
        if not self._is_joinable:
            job = self._queue.popleft()
            return [(job, 0, job.rows)]
        pieces: list[_Piece] = []
        room = self.batch_rows
        kind = self._queue[0].kind
        while self._queue and (room > 0 or not pieces) and self._queue[0].kind == kind:
            job = self._queue.popleft()
            start = job.taken
            job.taken = min(start + room, job.rows)
            pieces.append((job, start, job.taken))
            room -= job.taken - start
            if job.taken < job.rows:
                self._queue.append(job)  # to the back: others get their turn between the parts of a large request
                break
        return pieces

    def _jointly(self, pieces: list[_Piece]) -> list[Columns | FlyballError] | None:
        """Return the outputs or the error of each piece; None when a call for several failed. Never raises."""
        sizes = [stop - start for _, start, stop in pieces]
        try:
            outputs = call_model(self._predict, _join(pieces), sum(sizes), self.name)
        except Exception as error:
            return [_own(error, self.name)] if len(pieces) == 1 else None
        if len(pieces) == 1:
            return [outputs]
        results: list[Columns | FlyballError] = []
        at = 0
        for size in sizes:
            results.append({name: values[at : at + size] for name, values in outputs.items()})
            at += size
        return results

    def _finish(self, pieces: list[_Piece], results: list[Columns | FlyballError], seconds: float) -> None:
        rows = sum(stop - start for _, start, stop in pieces)
        self.estimate.observe(rows, seconds)
        self.waiting_rows -= rows
        if self._queue:
            self._loop.call_soon(self._turn)
        else:
            self._is_scheduled = False
        if self._on_batch is not None:
            self._on_batch(rows, seconds)
        for (job, start, stop), result in zip(pieces, results, strict=True):
            if isinstance(result, FlyballError):
                job.failed = job.failed or result
            else:
                job.parts.append((start, result))
            job.finished += stop - start
            if job.finished == job.rows:
                outputs = None if job.failed else _assemble(job.parts)
                try:
                    job.done(outputs, job.failed)
                except Exception:
                    _log.exception("an answer of %s could not be delivered", self.name)


def _join(pieces: list[_Piece]) -> Columns:
    if len(pieces) == 1:
        job, start, stop = pieces[0]
        if stop - start == job.rows:
            return job.columns
        if type(job.columns) is Table:
            return job.columns.part(start, stop)
        return {name: values[start:stop] for name, values in job.columns.items()}
    names = pieces[0][0].columns
    if type(names) is Table:
        return Table.joined([cast(Table, job.columns).part(start, stop) for job, start, stop in pieces])
    whole = all(stop - start == job.rows for job, start, stop in pieces)
    if whole:
        return {name: np.concatenate([job.columns[name] for job, _, _ in pieces]) for name in names}
    return {name: np.concatenate([job.columns[name][a:b] for job, a, b in pieces]) for name in names}


def _assemble(parts: list[tuple[int, Columns]]) -> Columns:
    if len(parts) == 1:
        return parts[0][1]
    parts.sort(key=lambda part: part[0])
    return {name: np.concatenate([columns[name] for _, columns in parts]) for name in parts[0][1]}


def _own(error: Exception, name: str) -> FlyballError:
    if isinstance(error, FlyballError):
        return error
    return StepFailed(f"{name} failed on this request ({type(error).__name__}: {str(error)[:200]})")
