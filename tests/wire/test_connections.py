"""Slow and endless clients, by raw sockets against a real server with short limits; ordinary ones are not disturbed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from flyball.wire.native.connections import BoundedProtocol

SEEN: list[str] = []


class Hasty(BoundedProtocol):
    head_bytes = 16 * 1024
    head_s = 0.4
    body_s = 0.4
    body_bytes = 100


async def _count(request: Request) -> PlainTextResponse:
    length = 0
    try:
        async for part in request.stream():
            length += len(part)
    except ClientDisconnect:
        SEEN.append("cut")
        raise
    return PlainTextResponse(str(length))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/", _count, methods=["GET", "POST"])])
    config = uvicorn.Config(app, http=Hasty, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as found:
        yield found


def told(found: socket.socket) -> bytes:
    """Return what comes until the server closes; it fails when that takes ten seconds."""
    parts = []
    while part := found.recv(65536):
        parts.append(part)
    return b"".join(parts)


def drip(found: socket.socket, piece: bytes, every_s: float) -> bytes:
    """Send a piece again and again until the server closes, and return what it said."""
    found.setblocking(True)
    found.settimeout(every_s)
    said, begun = b"", time.monotonic()
    while time.monotonic() - begun < 10:
        try:
            found.sendall(piece)
            part = found.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return said
        if not part:
            return said
        said += part
    raise AssertionError("the server let it go on")


def test_a_connection_that_asks_nothing_is_closed(port: int) -> None:
    with connected(port) as found:
        assert told(found) == b""


@pytest.mark.parametrize("piece", [b"x-a: b\r\n", b"x"])
def test_a_head_that_never_ends_is_cut_by_its_time(port: int, piece: bytes) -> None:
    with connected(port) as found:
        found.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"x-" if piece == b"x" else b""))
        assert drip(found, piece, 0.05).startswith(b"HTTP/1.1 408")


def test_a_head_that_never_ends_is_cut_by_its_length(port: int) -> None:
    with connected(port) as found:
        found.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nx-long: ")
        drip(found, b"y" * 4096, 0.001)  # the answer may be lost: the server closes while we still send
    with connected(port) as found:
        found.sendall(b"GET /" + b"y" * 17_000)
        assert told(found).startswith(b"HTTP/1.1 431")


def test_line_ends_between_requests_hold_no_connection(port: int) -> None:
    with connected(port) as found:
        found.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert found.recv(65536).startswith(b"HTTP/1.1 200")
        drip(found, b"\r\n", 0.05)


def test_a_body_that_stands_still_or_crawls_is_cut_and_its_reader_told(port: int) -> None:
    SEEN.clear()
    for piece in (b"", b"z"):
        with connected(port) as found:
            found.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc")
            said = drip(found, piece, 0.05) if piece else told(found)
            assert said.startswith(b"HTTP/1.1 408")
    deadline = time.monotonic() + 5
    while len(SEEN) < 2:
        assert time.monotonic() < deadline


def test_a_body_that_moves_on_may_take_as_long_as_it_needs(port: int) -> None:
    with connected(port) as found:
        found.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n")
        pause = threading.Event()
        for _ in range(20):
            pause.wait(0.05)
            found.sendall(b"z" * 200)
        assert found.recv(65536).endswith(b"4000")


def test_requests_one_after_the_other_and_at_once_are_answered(port: int) -> None:
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for size in (0, 10, 300_000):
            assert client.post("/", content=b"x" * size).text == str(size)
    with connected(port) as found:
        found.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert told(found).count(b"HTTP/1.1 200") == 3
