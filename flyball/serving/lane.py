"""The short way of a request that asks a deployment about one row of numbers, where nothing has to be decided.

Most requests are such: one model takes all keys, no feature is looked up, no limit counts, nothing is masked. What they
have in common is worked out when the lineup is taken up (`lane_of`), and those that arrive in one turn of the loop are
answered together: one matrix, one call of the model, one pass over the rows of the log, one entry in it.

Everything else goes the long way (`Service.ask`), and so does each request of this one with which something is wrong:
it is asked `again`, so that only the long way words refusals. Both give the same answers and the same log.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from flyball.clock import Clock
from flyball.errors import FlyballError
from flyball.models.bundle import LoadedModel
from flyball.models.table import Table
from flyball.serving.batcher import Batcher, Columns
from flyball.serving.limits import Gate
from flyball.serving.lineup import Served
from flyball.serving.metrics import Counters
from flyball.serving.snapshot import Limits, ServedDeployment
from flyball.tracking.predictions import microseconds, new_ids
from flyball.tracking.single_rows import SingleRows, texts_of

__all__ = ["Asked", "Front", "Lane", "Shape", "Turn", "lane_of"]

Keep = Callable[[str, list[bytes], int, Callable[[FlyballError | None], None]], None]
"""Durability, payloads, how many answers they are, and what is called when they are kept or refused."""

Shape = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]
"""Of each output its name, its type, and the sizes of one row's values."""

_log = logging.getLogger("flyball.serving")


class Front(Protocol):
    """Who asks, and knows how its answers are written. Called on the event loop."""

    def answer(self, asked: Asked, turn: Turn, place: int) -> None:
        """Give an answer, which is logged: that of row `place` of a turn."""
        ...

    def again(self, asked: Asked) -> None:
        """Ask the same the long way."""
        ...


class Asked:
    """One request on its way; `context` is its front's."""

    __slots__ = ("context", "front", "received", "trace", "values")

    def __init__(
        self, front: Front, values: list[float | None], received: float, trace: str | None, context: Any
    ) -> None:
        self.front = front
        self.values = values
        self.received = received
        self.trace = trace
        self.context = context


class Turn(NamedTuple):
    """Requests that were answered together: an id for each row, and of each output the JSON of each row's value."""

    ids: list[bytes]
    texts: list[list[bytes]]
    shape: Shape


class Lane:
    """The short way into one deployment, as long as one lineup serves it. Made by `lane_of`.

    Attributes:
        served: the deployment; name, variant, version: who answers.
        names: the inputs; width: how many they are; row_shape: `[1, width]` as text; kinds: the types of their values.
    """

    def __init__(
        self, served: Served, batcher: Callable[[], Batcher], gate: Gate, counters: Counters, keep: Keep, clock: Clock
    ) -> None:
        by = served.variants[0]
        fields = by.model.signature.inputs
        self.name, self.variant, self.version = served.name, by.variant.name, by.variant.version
        self.width = len(fields)
        self._is_nullable = all(field.nullable for field in fields)
        self.row_shape = repr([1, self.width])
        self.kinds = frozenset({int, float, type(None)} if self._is_nullable else {int, float})
        self.names = tuple(field.name for field in fields)
        self._places = {name: place for place, name in enumerate(self.names)}
        self.served = served
        self._durability = served.deployment.log.durability
        self._find_batcher = batcher
        self._batcher: Batcher | None = None
        self._gate = gate
        self._counters = counters
        self._keep = keep
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._asked: list[Asked] = []
        self._rows: dict[Shape, SingleRows] = {}
        self._is_shut = False  # outputs that it cannot write

    @property
    def is_open(self) -> bool:
        """Whether a request may take this way now: its model is quick, and does not compute for somebody else."""
        batcher = self._batcher
        if batcher is None:
            batcher = self._batcher = self._find_batcher()
        count = len(self._asked) + 1
        return not self._is_shut and count <= batcher.queue_rows and batcher.is_quick(count)

    def ask(self, asked: Asked) -> None:
        """Take a request, of `width` values of the `kinds`; call it only when `is_open`."""
        self._gate.in_flight += 1
        waiting = self._asked
        waiting.append(asked)
        if len(waiting) == 1:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        asked, self._asked = self._asked, []
        assert self._batcher is not None
        try:
            matrix = np.array([each.values for each in asked], np.float64)
            if not math.isfinite(np.vdot(matrix, matrix)):
                asked, matrix = self._without_unfit(asked, matrix)
            if not asked:
                return
            if not self._batcher.is_quick(len(asked)):
                self._again(asked)
                return
            outputs = self._batcher.call(Table(self.names, self._places, matrix), len(asked))
            self._log(asked, matrix, outputs)
        except FlyballError:
            self._again(asked)  # alone each of them is refused for its own fault only
        except Exception:
            _log.exception("requests to %s could not be answered together", self.name)
            self._again(asked)

    def _without_unfit(self, asked: list[Asked], matrix: Any) -> tuple[list[Asked], Any]:
        """Send rows that hold what the model does not take the long way, and return the others."""
        is_unfit = (np.isinf(matrix) if self._is_nullable else ~np.isfinite(matrix)).any(1)
        if not is_unfit.any():  # missing values that may be, or a sum that was too large
            return asked, matrix
        self._again([each for each, unfit in zip(asked, is_unfit, strict=True) if unfit])
        fit = [each for each, unfit in zip(asked, is_unfit, strict=True) if not unfit]
        return fit, np.ascontiguousarray(matrix[~is_unfit])

    def _log(self, asked: list[Asked], matrix: Any, outputs: Columns) -> None:
        texts = [texts_of(values) for values in outputs.values()]
        written = [text for text in texts if text is not None]
        if len(written) < len(texts):
            self._is_shut = True
            self._again(asked)
            return
        shape: Shape = tuple((name, values.dtype, values.shape[1:]) for name, values in outputs.items())
        rows = self._rows.get(shape)
        if rows is None:
            lists = [(name, bool(sizes)) for name, _, sizes in shape]
            revision = self.served.deployment.revision
            rows = SingleRows(self.name, revision, self.variant, self.version, self.names, lists)
            self._rows[shape] = rows
        turn = Turn([id_.encode() for id_ in new_ids(len(asked))], written, shape)
        now = time.perf_counter()
        payloads = rows.encode(
            microseconds(self._clock.now()),
            turn.ids,
            [int((now - each.received) * 1e6) for each in asked],
            [each.trace for each in asked],
            matrix,
            written,
        )
        self._keep(self._durability, payloads, len(asked), lambda error: self._finish(asked, turn, error))

    def _finish(self, asked: list[Asked], turn: Turn, error: FlyballError | None) -> None:
        if error is not None:
            self._again(asked)  # whether it is refused then, or answered without being logged, is for that way to say
            return
        self._gate.in_flight -= len(asked)
        self._count(asked)
        for place, each in enumerate(asked):
            try:
                each.front.answer(each, turn, place)
            except Exception:
                _log.exception("an answer of %s could not be delivered", self.name)

    def _count(self, asked: Sequence[Asked]) -> None:
        key = (self.name, self.variant, self.version)
        self._counters.requests[key] += len(asked)
        self._counters.rows[key] += len(asked)
        latency = self._counters.latency[key]
        bounds, counts, now = latency.bounds, latency.counts, time.perf_counter()
        for each in asked:
            seconds = now - each.received
            counts[bisect_left(bounds, seconds)] += 1
            latency.total += seconds

    def _again(self, asked: Sequence[Asked]) -> None:
        self._gate.in_flight -= len(asked)
        for each in asked:
            try:
                each.front.again(each)
            except Exception:
                _log.exception("a request to %s could not be asked again", self.name)


def lane_of(
    served: Served, batcher: Callable[[], Batcher], gate: Gate, counters: Counters, keep: Keep, clock: Clock
) -> Lane | None:
    """Return the short way into a deployment, or None where something has to be decided for each request."""
    deployment, limits = served.deployment, served.deployment.limits
    plain_limits = Limits(limits.queue_rows, limits.batch_rows, limits.request_rows)
    # Whatever a deployment can have besides is unknown here, and so is no plain deployment's.
    plain = ServedDeployment(
        deployment.revision,
        deployment.salt,
        deployment.variants,
        log=deployment.log,
        limits=plain_limits,
        clear=deployment.clear,
    )
    if deployment != plain or len(served.variants) != 1 or served.mirrors or deployment.log.requests < 1:
        return None
    by = served.variants[0]
    fields = by.model.signature.inputs
    if type(by.model) is not LoadedModel or by.looked_up is not None or by.extra or not by.is_joinable:
        return None
    if by.request is None or len(fields) < 2 or any(f.dtype != "float64" or f.shape is not None for f in fields):
        return None
    return Lane(served, batcher, gate, counters, keep, clock)
