"""Record what others tell of runs: one thread writes what all of them say, and commits it together.

A commit costs a wait for the disk, however much it holds; so the writer takes everything that waits, writes it in one
transaction and acknowledges each operation after the commit. What is acknowledged is on disk. An operation that
fails leaves the others as they are: it is checked before its first write, or undone alone. When the database itself
refuses the group, each operation is tried alone.

`wire/mlflow`, `fb.run()` and the platform's acts on runs come through here. Nothing here knows who may do it.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from flyball.errors import FlyballError, InvalidInput, Unavailable
from flyball.ledger import Ledger, Transaction
from flyball.ledger.points import Point, PointColumns
from flyball.ledger.runs import NAME_TAG, Run, RunStatus
from flyball.tracking.names import random_name

__all__ = ["LONGEST_PARAM", "LONGEST_TAG", "Desk", "Recorder", "Writer"]

T = TypeVar("T")
Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]

LONGEST_PARAM = 6000
"""Characters of a parameter's value, as in MLflow."""
LONGEST_TAG = 8000
"""Characters of the value of a run's tag, as in MLflow."""

_PARENT_TAG = "mlflow.parentRunId"
_MOST_WAITING = 2_000_000  # points and other values in the queue: some hundred megabytes
_MOST_TOGETHER = 512  # operations of one commit
_HEAVY = 20_000  # values of one commit, beyond which the next operation waits for the next one
_OWN = 8  # what an operation weighs without its values


class Flushing(Protocol):
    """Something that holds back what it will hand to the writer."""

    def flush(self) -> None: ...


class Desk(Protocol):
    """Takes outcomes instead of a `Future` for each: an event loop is woken once by a commit, however many wait."""

    def ticket(self) -> Any:
        """Return what a caller waits with for one outcome."""

    def tell(self, outcomes: list[tuple[Any, Any]]) -> None:
        """Take tickets with their outcomes, of which an exception says why it failed; in the writer's thread."""


@dataclass(slots=True)
class _Operation:
    actor: str
    cause: int | None
    act: Callable[[Transaction], Any]
    is_checked: bool
    weight: int
    future: Any  # or the ticket of a desk
    desk: Desk | None = None


class Writer:
    """The thread that writes for all recorders of a ledger; started by the first operation."""

    def __init__(self, ledger: Ledger, *, most_waiting: int = _MOST_WAITING) -> None:
        self._ledger = ledger
        self._most_waiting = most_waiting
        self._lock = threading.RLock()  # a signal's handler may come in while its own thread holds it
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._process = os.getpid()
        self.holding: weakref.WeakSet[Flushing] = weakref.WeakSet()
        """Who is asked to hand over what is held back, before the writer closes."""
        _writers.add(self)

    def submit(
        self,
        actor: str,
        act: Callable[[Transaction], T],
        *,
        cause: int | None = None,
        is_checked: bool = False,
        weight: int = 0,
        desk: Desk | None = None,
    ) -> Future[T]:
        """Put a change in the queue; its result, or its error, comes after the commit.

        Args:
            act: what to do; it is undone when it raises, and done again when others spoilt its commit.
            is_checked: it raises before its first change or not at all.
            weight: how many values it writes.
            desk: takes the outcome; what is returned is its ticket.

        Raises:
            Unavailable: too much waits already, the writer is closed, or this process was forked from its own.
        """
        if os.getpid() != self._process:
            raise Unavailable("this process was forked from the one that opened the home; open the home in it anew")
        future = Future[T]() if desk is None else desk.ticket()
        operation = _Operation(actor, cause, act, is_checked, weight + _OWN, future, desk)
        with self._lock:
            if self._is_closed:
                raise Unavailable("the home is closed; open it again to record")
            if self._waiting and self._waiting + operation.weight > self._most_waiting:
                raise Unavailable(f"{self._waiting} values wait to be written, which is too many; try again")
            self._waiting += operation.weight
            self._queue.put(operation)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flyball-writer", daemon=True)
                self._thread.start()
        return future

    def close(self, timeout_s: float | None = None) -> None:
        """Write what waits, and end."""
        if os.getpid() != self._process:
            return
        for holder in list(self.holding):
            with suppress(FlyballError):  # it tells whoever ends it
                holder.flush()
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            thread = self._thread
            if is_first and thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        following: _Operation | None = None
        while True:
            operation = following or self._queue.get()
            following = None
            if operation is None:
                return
            together, weight, is_last = [operation], operation.weight, False
            while len(together) < _MOST_TOGETHER:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    is_last = True
                    break
                if weight + more.weight > _HEAVY:
                    following = more
                    break
                together.append(more)
                weight += more.weight
            with self._lock:
                self._waiting -= weight
            self._commit(together)
            if is_last:
                return

    def _commit(self, together: list[_Operation]) -> None:
        wanted = [each for each in together if each.desk is not None or each.future.set_running_or_notify_cancel()]
        outcomes: list[Any]
        try:
            outcomes = self._write(wanted)
        except Exception as error:  # of the database, or of an operation that may have written: nothing is there
            outcomes = [error] if len(wanted) == 1 else self._one_by_one(wanted)
        told: dict[Desk, list[tuple[Any, Any]]] = {}
        for operation, outcome in zip(wanted, outcomes, strict=True):
            if operation.desk is not None:
                told.setdefault(operation.desk, []).append((operation.future, outcome))
            elif isinstance(outcome, Exception):
                operation.future.set_exception(outcome)
            else:
                operation.future.set_result(outcome)
        for desk, found in told.items():
            desk.tell(found)

    def _write(self, operations: list[_Operation]) -> list[Any]:
        """Write operations in one transaction; return the result of each, or its own error."""
        outcomes: list[Any] = []
        if not operations:
            return outcomes
        with self._ledger.write(operations[0].actor) as world:
            for operation in operations:
                try:
                    with world.part(operation.actor, operation.cause, is_checked=operation.is_checked):
                        outcomes.append(operation.act(world))
                except FlyballError as error:
                    outcomes.append(error)
        return outcomes

    def _one_by_one(self, operations: list[_Operation]) -> list[Any]:
        outcomes: list[Any] = []
        for operation in operations:
            # A database that does not answer two of them will not answer the others either.
            if len(outcomes) >= 2 and all(isinstance(outcome, Unavailable) for outcome in outcomes[-2:]):
                outcomes.append(outcomes[-1])
                continue
            try:
                outcomes += self._write([operation])
            except Exception as error:
                outcomes.append(error)
        return outcomes


class Recorder:
    """Records in the name of an actor; every method returns at once, `.result()` waits for the commit."""

    def __init__(self, writer: Writer, actor: str, desk: Desk | None = None) -> None:
        self.writer = writer
        self.actor = actor
        self._desk = desk

    def at(self, desk: Desk) -> Recorder:
        """Return the same recorder, whose methods return tickets of a desk instead of futures."""
        return Recorder(self.writer, self.actor, desk)

    def create_run(
        self,
        experiment: str = "0",
        name: str | None = None,
        user: str = "",
        started_at: datetime | None = None,
        tags: Mapping[str, str] | None = None,
        id: str | None = None,
        kind: str = "training",
        **options: Any,
    ) -> Future[Run]:
        """Start a run in an experiment; a run without a name gets one. `options` are those of `Runs.start`.

        Raises (the future, too):
            InvalidInput: `name` and the tag that names a run differ.
            NotFound, Conflict: there is no such experiment; it is deleted, or `id` is taken.
        """
        kept = dict(tags or {})
        named = kept.get(NAME_TAG)
        if name and named and name != named:
            raise InvalidInput(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                f"(run_name='{name}', mlflow.runName='{named}')."
            )
        chosen = name or named or random_name()
        kept[NAME_TAG] = chosen
        options.setdefault("parent", kept.get(_PARENT_TAG))

        def start(world: Transaction) -> Run:
            return world.runs.start(
                kind,
                chosen,
                id=id,
                tags=kept,
                experiment=experiment,
                user=user or None,
                started_at=started_at,
                **options,
            )

        return self._submit(start, len(kept))

    def log(
        self,
        run_id: str,
        points: Iterable[Point] = (),
        params: Pairs = (),
        tags: Pairs = (),
        truncate: bool | None = True,
    ) -> Future[None]:
        """Add points, parameters and tags to a run, all or none.

        Args:
            truncate: cut values that are too long (`LONGEST_PARAM`, `LONGEST_TAG`), as MLflow does; false refuses
                them, None keeps them whole.

        Raises (the future, too):
            InvalidInput: a value is too long, a parameter is given twice, or a point cannot be kept.
            NotFound, Conflict: see `Runs.record`.
        """
        if not (params or tags):
            alone = PointColumns.of(points)
            return self._submit(lambda world: world.runs.record(run_id, points=alone), len(alone))
        kept_points = PointColumns.of(points)
        kept_params = _fitting(_once(params), LONGEST_PARAM, "parameter", truncate)
        kept_tags = _fitting(dict(tags), LONGEST_TAG, "tag", truncate)
        return self._submit(
            lambda world: world.runs.record(run_id, points=kept_points, params=kept_params, tags=kept_tags),
            len(kept_points) + len(kept_params) + len(kept_tags),
        )

    def update_run(
        self,
        run_id: str,
        status: RunStatus | None = None,
        ended_at: datetime | None = None,
        name: str | None = None,
    ) -> Future[Run]:
        """Set what is told of a run; what is None stays. See `Runs.revise`."""
        return self._submit(lambda world: world.runs.revise(run_id, status=status, ended_at=ended_at, name=name))

    def change(self, function: Callable[[Transaction], T], cause: int | None = None) -> Future[T]:
        """Do any other change, in the order of the queue; it is undone when it raises."""
        return self.writer.submit(self.actor, function, cause=cause, desk=self._desk)

    def _submit(self, act: Callable[[Transaction], T], weight: int = 0) -> Future[T]:
        return self.writer.submit(self.actor, act, is_checked=True, weight=weight, desk=self._desk)


def _once(pairs: Pairs) -> dict[str, Any]:
    """Return parameters by key. Raises InvalidInput when a key comes twice with different values."""
    if isinstance(pairs, Mapping):
        return dict(pairs)
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise InvalidInput(f"Duplicate parameter keys have been submitted: {key}. Give each parameter once")
        found[key] = value
    return found


def _fitting(values: dict[str, Any], longest: int, what: str, truncate: bool | None) -> dict[str, Any]:
    if truncate is None:
        return values
    for key, value in values.items():
        if isinstance(value, str) and len(value) > longest:
            if not truncate:
                raise InvalidInput(f"the {what} {key[:80]!r} has {len(value)} characters; expected at most {longest}")
            values[key] = value[:longest]
    return values


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for writer in list(_writers):
        writer.close(timeout_s=60)
