"""The short way of requests about one row beside the long one, through the real server, with the real log."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from planes import Home, Reply, parse_replies

from flyball.serving.engine import Engine
from flyball.serving.server import HttpServer
from flyball.serving.service import Service
from flyball.serving.snapshot import Limits, Logging
from flyball.storage.streams.log import Reader
from flyball.wire.oip.express import record_of, row_of
from flyball.wire.oip.rest import RestHandler

INFER, PREDICT = "/v2/models/late/infer", "/v1/models/late:predict"
LONG = "Content-Encoding: identity\r\n"  # means nothing, and is not for the short way
ROWS: list[list[float]] = [
    [-1.5, 0.25],
    [3, 4],
    [1e-7, -0.0],
    [1e16, 12345.678],
    [0.1, 0.30000000000000004],
    [2.0, 1e22],
]


def tensor(row: Sequence[Any]) -> bytes:
    given = {"name": "rows", "shape": [1, len(row)], "datatype": "FP64", "data": row}
    return json.dumps({"inputs": [given]}).encode()


def record(row: Sequence[Any]) -> bytes:
    return json.dumps({"hour": row[1], "distance": row[0]}).encode()


class Asking:
    """A server in this loop, and what was asked of it."""

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.port = port

    async def ask(self, path: str, bodies: Sequence[bytes], headers: str = "") -> list[Reply]:
        """Send requests in one write, so that they come in one turn, and return the answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for place, body in enumerate(bodies):
            last = "Connection: close\r\n" if place == len(bodies) - 1 else ""
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}{last}Content-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
        found = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        return parse_replies(found)


def served(home: Home, work: Callable[[Asking], Awaitable[None]]) -> list[dict[str, Any]]:
    """Serve a home in this process, do the work, and return the documents of the log."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        service = Service(Engine(home.path, writer="test", deliver=loop.call_soon_threadsafe))
        server = HttpServer(RestHandler(service))
        _, port = await server.start("127.0.0.1", 0)
        await service.start()
        asking = Asking(service, port)
        try:
            for _ in range(50):  # only a model that is known to be quick is asked the short way
                await asking.ask(INFER, [tensor([1.0, 2.0])])
                if service.lane("late") is not None:
                    break
            await work(asking)
        finally:
            await server.stop()
            await service.stop()

    asyncio.run(run())
    payloads, _ = Reader(home.traffic / "predictions").read()
    return [json.loads(payload) for payload in payloads]


def without_ids(reply: Reply) -> tuple[int, bytes, list[tuple[str, str]]]:
    headers = {k: v for k, v in reply.headers.items() if k not in ("date", "connection", "content-length")}
    ids = re.compile(r"[0-9a-f]{32}")
    return (
        reply.status,
        ids.sub("id", reply.body.decode()).encode(),
        [(k, ids.sub("id", v)) for k, v in headers.items()],
    )


def same_row(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in ("ids", "at", "latency_us")}


@pytest.mark.parametrize(("path", "form"), [(INFER, tensor), (PREDICT, record)])
def test_both_ways_give_the_same_answers_and_the_same_log(
    tmp_path: Path, path: str, form: Callable[[Sequence[Any]], bytes]
) -> None:
    home = Home(tmp_path)
    home.deploy()
    answers: dict[str, list[Reply]] = {}
    trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"

    async def work(asking: Asking) -> None:
        lane = asking.service.lane("late")
        assert lane is not None
        assert (row_of if path == INFER else record_of)(form(ROWS[0]), lane) == ROWS[0]
        answers["short"] = await asking.ask(path, [form(row) for row in ROWS])
        answers["long"] = await asking.ask(path, [form(row) for row in ROWS], LONG)
        answers["traced"] = await asking.ask(path, [form(ROWS[0])], trace)
        counted = asking.service.counters.requests["late", "champion", "late@1"]
        assert counted == sum(asking.service.counters.latency["late", "champion", "late@1"].counts)
        assert asking.service.gauges().in_flight == {"late": 0}

    documents = served(home, work)
    assert [without_ids(reply) for reply in answers["short"]] == [without_ids(reply) for reply in answers["long"]]
    said = [reply.headers["x-flyball-prediction-id"] for reply in answers["short"] + answers["long"]]
    by_id = {document["ids"]: document for document in documents}
    assert len(set(said)) == 2 * len(ROWS)
    short, long = said[: len(ROWS)], said[len(ROWS) :]
    assert [same_row(by_id[id_]) for id_ in short] == [same_row(by_id[id_]) for id_ in long]
    assert [list(by_id[id_]) for id_ in short] == [list(by_id[id_]) for id_ in long]
    for row, id_ in zip(ROWS, short, strict=True):
        wanted = home.probability("late@1", *row)
        assert by_id[id_]["outputs"]["probability"] == pytest.approx(wanted, rel=1e-12)
        assert by_id[id_]["inputs"] == {"distance": float(row[0]), "hour": float(row[1])}
    (traced,) = answers["traced"]
    assert by_id[traced.headers["x-flyball-prediction-id"]]["trace"] == "0af7651916cd43dd8448eb211c80319c"


def test_a_row_that_the_model_does_not_take_is_refused_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.deploy()
    found: list[Reply] = []
    rows: list[list[float]] = [[1.0, 2.0], [1.7e308, 1.7e308], [3.0, 4.0]]

    async def work(asking: Asking) -> None:
        assert asking.service.lane("late") is not None
        found.extend(await asking.ask(INFER, [tensor(row) for row in rows]))
        assert asking.service.gauges().in_flight == {"late": 0}

    served(home, work)
    assert [reply.status for reply in found] == [200, 400, 200]
    for place in (0, 2):
        answered = next(o for o in found[place].json["outputs"] if o["name"] == "probability")["data"]
        assert answered == [pytest.approx(home.probability("late@1", *rows[place]), rel=1e-12)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (INFER, b'{"inputs":[{"name":"r","shape":[1.0,2],"datatype":"FP64","data":[1,2]}]}'),
        (INFER, b'{"inputs":[{"name":"r","shape":[true,2],"datatype":"FP64","data":[1,2]}]}'),
        (INFER, b'{"inputs":[{"name":"r","shape":[1,2],"datatype":"FP64","data":[1,null]}]}'),
        (INFER, b'{"inputs":[{"name":"r","shape":[1,2],"datatype":"FP64","data":[1,true]}]}'),
        (INFER, b'{"inputs":[{"name":"r","shape":[1,2],"datatype":"FP64","data":[[1,2]]}]}'),
        (INFER, b'{"inputs":[{"name":"r","shape":[1,2],"datatype":"FP64","data":[1]}]}'),
        (INFER, b'{"inputs":[{"name":"r","shape":[1,2],"datatype":"INT64","data":[1,2]}]}'),
        (INFER, b'{"inputs":[{"name":"r","shape":[1,2],"datatype":"FP64","data":[1,2]}],"id":"mine"}'),
        (INFER, b'{"inputs":[{"name":"r","shape":[1,2],"datatype":"FP64","data":[1,2]'),
        (PREDICT, b'{"distance":1,"minute":2}'),
        (PREDICT, b'{"distance":1,"hour":null}'),
        (PREDICT, b'{"distance":1,"hour":"2"}'),
        (PREDICT, b'[{"distance":1,"hour":2}]'),
        (PREDICT, b"{"),
    ],
)
def test_what_is_not_quite_a_row_is_answered_as_ever(tmp_path: Path, path: str, body: bytes) -> None:
    home = Home(tmp_path)
    home.deploy()

    async def work(asking: Asking) -> None:
        lane = asking.service.lane("late")
        assert lane is not None
        assert (row_of if path == INFER else record_of)(body, lane) is None
        short, long = await asking.ask(path, [body]), await asking.ask(path, [body], LONG)
        assert [without_ids(reply) for reply in short] == [without_ids(reply) for reply in long]

    served(home, work)


@pytest.mark.parametrize(
    "settings",
    [
        {"key": "hour"},
        {"mask": ("hour",)},
        {"log": Logging(requests=0.5)},
        {"limits": Limits(timeout_s=5.0)},
        {"limits": Limits(rate=100.0)},
    ],
)
def test_a_deployment_in_which_something_is_decided_has_no_short_way(tmp_path: Path, settings: dict[str, Any]) -> None:
    home = Home(tmp_path)
    home.deploy(**settings)

    async def work(asking: Asking) -> None:
        assert [reply.status for reply in await asking.ask(INFER, [tensor([1.0, 2.0])])] == [200]
        assert asking.service.lane("late") is None

    served(home, work)
