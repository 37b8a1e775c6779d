"""The replay: in time order, nothing lost or asked twice, against a real server on a socket."""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from flyball.demo.client import Client
from flyball.demo.faults import Fault
from flyball.demo.job import Job, Sizes, Stream, Tick
from flyball.demo.replay import Replayed, replay
from flyball.errors import InvalidInput, StepFailed, Unavailable
from flyball.features.lookup import ViewSpec

SPEC = ViewSpec("legs", ("tail",), "at", {"delay": "float64"})
MIDNIGHT = datetime(2013, 5, 1, tzinfo=UTC)


class Server:
    """Answers as the data plane does, notes what came in which order, and is too busy for every `busy`-th request."""

    def __init__(self, busy: int = 0, refuse: int = 0) -> None:
        self.seen: list[tuple[str, Any]] = []
        self._busy, self._refuse = busy, refuse
        self._count = itertools.count(1)

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                size = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                body = json.loads(await reader.readexactly(size))
                status, answer = self._answer(head.split()[1], body)
                text = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, path: str, body: Any) -> tuple[int, Any]:
        number = next(self._count)
        if self._busy and number % self._busy == 0:
            return 503, {"error": "busy"}
        if self._refuse and number == self._refuse:
            return 400, {"error": "no input of that name"}
        self.seen.append(("label" if path.endswith(":label") else "ask", body))
        if path.endswith(":label"):
            return 200, {"labelled": len(body)}
        return 200, {"predictions": [{"id": f"id-{body['records'][0]['n']}"}]}


class AtOnce:
    async def before(self, request: int, count: int) -> None:
        del request, count


def _pushed(tick: int) -> tuple[tuple[ViewSpec, list[dict[str, Any]]], ...]:
    return ((SPEC, [{"tail": "N1", "at": MIDNIGHT, "delay": float(tick)}]),)


def _job(ticks: int = 6, a_tick: int = 40, fault: Fault | None = None) -> Job:
    """A stream whose truths are known two ticks later; every seventh never is."""
    total = ticks * a_tick
    stream = Stream(
        records=[{"n": n, "hour": n % 24} for n in range(total)],
        truth=[None if n % 7 == 0 else n % 2 for n in range(total)],
        told_at=[n // a_tick + 2 for n in range(total)],
        ticks=[
            Tick(t * a_tick, (t + 1) * a_tick, MIDNIGHT + timedelta(minutes=10 * t), str(t), _pushed(t))
            for t in range(ticks)
        ],
    )
    sizes = Sizes.of(2000)
    job = Job("late", "flights", "", pl.DataFrame(), {}, "", ("n",), pl.lit(True), "auc", 0.5, stream, sizes)
    return Job(**{**job.__dict__, "fault": fault})


def _replay(job: Job, server: Server) -> tuple[Replayed, list[tuple[str, Any]]]:
    state = Replayed.of(len(job.stream))
    told: list[int] = []

    def push(spec: ViewSpec, rows: Any) -> int:
        assert spec is SPEC
        server.seen.append(("push", rows[0]["delay"]))
        return len(rows)

    async def go() -> None:
        async with server as address:
            await asyncio.wait_for(replay(job, address, state, push, AtOnce(), told.append), 30)

    asyncio.run(go())
    assert told == [tick.stop for tick in job.stream.ticks]
    return state, server.seen


@pytest.mark.parametrize("busy", [0, 5])
def test_every_request_is_answered_once_also_when_the_server_is_often_too_busy(busy: int) -> None:
    job = _job()
    state, seen = _replay(job, Server(busy))
    asked = [body["records"][0]["n"] for what, body in seen if what == "ask"]
    assert sorted(asked) == list(range(len(job.stream)))
    assert state.sent == state.answered == len(job.stream)
    assert state.ids == [f"id-{n}" for n in range(len(job.stream))]
    assert (state.retries > 0) == bool(busy)


def test_a_ticks_pushes_come_before_its_requests_and_after_those_of_the_tick_before() -> None:
    _, seen = _replay(_job(), Server(busy=4))
    ticks = [body if what == "push" else body["records"][0]["n"] // 40 for what, body in seen if what != "label"]
    assert [int(t) for t in ticks] == sorted(int(t) for t in ticks)


def test_truths_are_told_once_when_they_are_known_and_the_last_after_the_end() -> None:
    job = _job()
    state, seen = _replay(job, Server())
    labels = {label["id"]: label["label"] for what, body in seen if what == "label" for label in body}
    expected = {f"id-{n}": t for n, t in enumerate(job.stream.truth) if t is not None}
    assert labels == expected
    assert state.labelled == len(expected)
    first = next(i for i, (what, _) in enumerate(seen) if what == "label")
    assert sum(what == "ask" for what, _ in seen[:first]) >= 80, "a truth was told before it was known"


def test_the_fault_is_in_what_is_asked_from_its_request_on() -> None:
    fault = Fault("hour", [99] * 240, 100, "")
    _, seen = _replay(_job(fault=fault), Server())
    hours = {body["records"][0]["n"]: body["records"][0]["hour"] for what, body in seen if what == "ask"}
    assert all(hours[n] == (99 if n >= 100 else n % 24) for n in range(240))


def test_a_refused_request_ends_the_replay_with_the_servers_reason() -> None:
    with pytest.raises(StepFailed, match=r"400.*no input of that name"):
        _replay(_job(), Server(refuse=50))


def test_a_server_that_is_not_there_is_said() -> None:
    async def ask() -> None:
        async with Client("http://127.0.0.1:1") as client:
            await client.post("/x", [b"{}"])

    with pytest.raises(Unavailable, match="cannot be reached"):
        asyncio.run(ask())


def test_sizes_are_in_proportion_to_the_stream() -> None:
    flights = Sizes.of(42_005)
    assert (flights.window, flights.fault_at, flights.labels) == (2000, 12_000, 7001)
    small = Sizes.of(8_672)
    assert small.fault_at % small.window == 0
    assert small.hold_labels < small.labels < small.fault_at
    with pytest.raises(InvalidInput, match="needs at least"):
        Sizes.of(100)
