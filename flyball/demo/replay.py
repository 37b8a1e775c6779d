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
    async with Client(address) as client, Client(address, connections=1) as labels:
        sender = _Sender(job, client, labels, state)
        telling: asyncio.Task[None] | None = None
        for number, tick in enumerate(job.stream.ticks):
            await pace.before(tick.start, tick.stop - tick.start)
            for spec, rows in tick.pushes:
                state.pushed += push(spec, rows)
            if due[number]:
                if telling is not None:
                    await telling
                telling = asyncio.create_task(sender.tell(due[number]))
            await sender.ask(tick)
            state.seconds = time.monotonic() - began
            progress(tick.stop)
        if telling is not None:
            await telling
        await sender.tell(due[-1])
        state.seconds = time.monotonic() - began


class _Sender:
    def __init__(self, job: Job, client: Client, labels: Client, state: Replayed) -> None:
        self._job = job
        self._client = client
        self._labels = labels
        self._state = state
        self._predict = f"/v1/models/{job.name}:predict"
        self._label = f"/v1/models/{job.name}:label"

    async def ask(self, tick: Tick) -> None:
        numbers, state = range(tick.start, tick.stop), self._state
        state.sent += len(numbers)
        answers = await self._posted(self._client, self._predict, [self._question(n, tick) for n in numbers])
        for number, answer in zip(numbers, answers, strict=True):
            found = orjson.loads(answer)["predictions"][0]["id"]
            state.ids[number] = found
            state.number_of[found] = number
            state.answered += 1

    async def tell(self, numbers: Sequence[int]) -> None:
        """Tell the truth of requests; of some it is never known."""
        truth, ids = self._job.stream.truth, self._state.ids
        labels = [{"id": ids[n], "label": truth[n]} for n in numbers if truth[n] is not None and ids[n] is not None]
        if labels:
            await self._posted(self._labels, self._label, [orjson.dumps(labels)])
            self._state.labelled += len(labels)

    def _question(self, number: int, tick: Tick) -> bytes:
        record = self._job.stream.records[number]
        if self._job.fault is not None:
            record = self._job.fault.applied(number, record)
        question: dict[str, Any] = {"records": [record]}
        if tick.at is not None and self._job.views:
            question["at"] = format_instant(tick.at)
        if self._job.stream.keys is not None:
            question["key"] = self._job.stream.keys[number]
        return orjson.dumps(question)

    async def _posted(self, client: Client, path: str, bodies: Sequence[bytes]) -> list[bytes]:
        """Return the answers to bodies; those that the data plane was too busy for are sent again."""
        answers: list[bytes] = [b""] * len(bodies)
        left = list(range(len(bodies)))
        for _ in range(_RETRIES):
            again = []
            for place, (status, body) in zip(left, await client.post(path, [bodies[i] for i in left]), strict=True):
                answers[place] = body
                if status == 503:
                    again.append(place)
                elif status != 200:
                    raise StepFailed(f"the data plane answered {status}: {body[:500].decode(errors='replace')}")
            if not again:
                return answers
            left = again
            self._state.retries += len(again)
            await asyncio.sleep(_RETRY_S)
        raise Unavailable(f"the data plane was too busy {_RETRIES} times in a row: {answers[left[0]][:300].decode()}")


def _by_tick(told_at: Sequence[int], ticks: int) -> list[list[int]]:
    """Return the requests whose truth is told at each tick, and after the last."""
    due: list[list[int]] = [[] for _ in range(ticks + 1)]
    for number, tick in enumerate(told_at):
        due[min(tick, ticks)].append(number)
    return due
