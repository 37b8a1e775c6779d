"""The replay: a stream of requests in time order, over HTTP to the data plane, as a client of the model would send it.

At each tick, what the feeds know by then is pushed, the truths that have turned out are told, and the requests of that
instant are asked at once. The next tick waits for them, because a push of the next would overwrite what they look up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from flyball.clock import format_instant
from flyball.demo.client import Client
from flyball.demo.job import Job, Tick
from flyball.errors import StepFailed, Unavailable
from flyball.features.lookup import ViewSpec

__all__ = ["Pace", "Replayed", "replay"]

_RETRIES = 400  # of one request that the data plane was too busy for
_RETRY_S = 0.02


class Pace(Protocol):
    """Says how fast the replay may go."""

    async def before(self, request: int, count: int) -> None:
        """Return when `count` requests from number `request` on may be sent."""
        ...


@dataclass
class Replayed:
    """What has been sent and answered so far; written by the replay, read by others while it runs."""

    ids: list[str | None]
    number_of: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    answered: int = 0
    retries: int = 0
    labelled: int = 0
    pushed: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, requests: int) -> Replayed:
        """Return the state before the first request."""
        return cls([None] * requests)


async def replay(
    job: Job,
    address: str,
    state: Replayed,
    push: Callable[[ViewSpec, Sequence[dict[str, Any]]], int],
    pace: Pace,
    progress: Callable[[int], None],
) -> None:
    """Send the job's stream; `state` tells how far it has come.

    Raises:
        StepFailed: the data plane refused a request or a label.
        Unavailable: it does not answer.
    """
    began = time.monotonic()
    due = _by_tick(job.stream.told_at, len(job.stream.ticks))
    async with Client(address) as client:
        sender = _Sender(job, client, state)
        telling: asyncio.Task[None] | None = None
        for number, tick in enumerate(job.stream.ticks):
            await pace.before(tick.start, tick.stop - tick.start)
            for spec, rows in tick.pushes:
                state.pushed += push(spec, rows)
            if due[number]:
                if telling is not None:
                    await telling
                telling = asyncio.create_task(sender.tell(due[number]))
            await asyncio.gather(*[sender.ask(i, tick) for i in range(tick.start, tick.stop)])
            state.seconds = time.monotonic() - began
            progress(tick.stop)
        if telling is not None:
            await telling
        await sender.tell(due[-1])
        state.seconds = time.monotonic() - began


class _Sender:
    def __init__(self, job: Job, client: Client, state: Replayed) -> None:
        self._job = job
        self._client = client
        self._state = state
        self._predict = f"/v1/models/{job.name}:predict"
        self._label = f"/v1/models/{job.name}:label"

    async def ask(self, number: int, tick: Tick) -> None:
        record = self._job.stream.records[number]
        if self._job.fault is not None:
            record = self._job.fault.applied(number, record)
        question: dict[str, Any] = {"records": [record]}
        if tick.at is not None and self._job.views:
            question["at"] = format_instant(tick.at)
        self._state.sent += 1
        answer = orjson.loads(await self._post(self._predict, orjson.dumps(question, default=str)))
        found = answer["predictions"][0]["id"]
        self._state.ids[number] = found
        self._state.number_of[found] = number
        self._state.answered += 1

    async def tell(self, numbers: Sequence[int]) -> None:
        """Tell the truth of requests; of some it is never known."""
        truth, ids = self._job.stream.truth, self._state.ids
        labels = [{"id": ids[n], "label": truth[n]} for n in numbers if truth[n] is not None and ids[n] is not None]
        if labels:
            await self._post(self._label, orjson.dumps(labels))
            self._state.labelled += len(labels)

    async def _post(self, path: str, body: bytes) -> bytes:
        for _ in range(_RETRIES):
            status, answer = await self._client.post(path, body)
            if status == 200:
                return answer
            if status != 503:
                raise StepFailed(f"the data plane answered {status}: {answer[:500].decode(errors='replace')}")
            self._state.retries += 1
            await asyncio.sleep(_RETRY_S)
        raise Unavailable(f"the data plane was too busy {_RETRIES} times in a row: {answer[:300].decode()}")


def _by_tick(told_at: Sequence[int], ticks: int) -> list[list[int]]:
    """Return the requests whose truth is told at each tick, and after the last."""
    due: list[list[int]] = [[] for _ in range(ticks + 1)]
    for number, tick in enumerate(told_at):
        due[min(tick, ticks)].append(number)
    return due
