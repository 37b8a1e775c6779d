"""HTTP from clients that mean harm or have bad luck: what they may cost, and that others are served meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from flyball.serving.server import HttpLimits, HttpServer, Request, Response

LIMITS = HttpLimits(
    head_bytes=2000, body_bytes=4_000_000, head_s=5, body_s=0.5, idle_s=0.6, pipelined=8, bodies_bytes=200_000,
    connections=20,
)  # fmt: skip
LARGE = b"x" * 50_000
GET = b"GET /%b HTTP/1.1\r\nHost: t\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST /size HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"


class Answers:
    """`/large` answers much, `/size` the body's length, `/seen` what was sent, `/later` when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.held: list[Callable[[], None]] = []

    def handle(self, request: Request, respond: Callable[[Response], None]) -> None:
        self.asked += 1
        path = request.path
        if path == b"/large":
            respond(Response(200, LARGE, b"text/plain"))
        elif path == b"/size":
            respond(Response(200, b"%d" % len(request.body), b"text/plain"))
        elif path == b"/later":
            self.held.append(lambda: respond(Response(200, b"late", b"text/plain")))
        else:
            shown = {name.decode(): value.decode("latin-1") for name, value in request.headers.items()}
            respond(Response(200, json.dumps({"headers": shown, "body": request.body.decode("latin-1")}).encode()))

    def error(self, status: int, message: str) -> Response:
        return Response(status, json.dumps({"error": message}).encode())


class Running:
    """A server on a loop in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: HttpLimits = LIMITS) -> None:
        self.answers = Answers()
        self.loop = loop
        self.server = HttpServer(self.answers, limits)
        self.thread = threading.Thread(target=loop.run_forever)
        self.thread.start()
        self.port = self.do(self.server.start("127.0.0.1", 0))[1]

    def do(self, work: object) -> object:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)  # type: ignore[arg-type]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def raw(self, data: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def release(self) -> None:
        for respond in self.answers.held:
            self.loop.call_soon_threadsafe(respond)

    def unread_bytes(self) -> int:
        """What the server holds of answers that clients do not read."""

        async def count() -> int:
            transports = [each._transport for each in self.server.connections]
            return sum(each.get_write_buffer_size() for each in transports if each is not None)

        return self.do(count())  # type: ignore[return-value]

    def close(self) -> None:
        self.do(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while part := connection.recv(1 << 16):
        found += part
    return found


def statuses(data: bytes) -> list[int]:
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d\d\d) ", data)]


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        threading.Event().wait(0.01)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    server = Running(request.param())
    yield server
    server.close()


def test_a_client_that_pipelines_and_does_not_read_costs_one_answer_and_not_a_thousand(running: Running) -> None:
    wanted = 1000  # of 50 kB each: 50 MB, asked for in 30 kB
    with running.connect() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        stalled.sendall(GET % b"large" * wanted + LAST)
        until(lambda: running.unread_bytes() > 0)
        assert statuses(running.raw(LAST)) == [200]
        assert running.unread_bytes() < 1_000_000
        assert running.answers.asked < 200
        stalled.settimeout(20)
        found, length = 0, 0
        while part := stalled.recv(1 << 20):
            length += len(part)
            found += part.count(b"HTTP/1.1 200")
        assert length > wanted * len(LARGE)  # who reads in the end gets everything


def test_a_client_that_reads_nothing_is_ended_and_one_that_reads_slowly_is_not(running: Running) -> None:
    with running.connect() as stalled, running.connect() as slow:
        for each in (stalled, slow):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            each.sendall(GET % b"large" * 200 + LAST)
        read, began = 0, time.monotonic()
        while time.monotonic() - began < 2:  # three times as long as the limit
            read += len(slow.recv(50_000))
            threading.Event().wait(0.05)
        rest = read_all(slow)
        assert read + len(rest) > 200 * len(LARGE)
        assert len(read_all(stalled)) < 100 * len(LARGE)


def test_an_answer_that_was_the_last_and_is_not_read_does_not_hold_its_connection(running: Running) -> None:
    with running.connect() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        stalled.sendall(GET % b"large" * 200 + LAST)
        until(lambda: running.unread_bytes() > 0)
        until(lambda: not running.server.connections)


def test_a_body_of_single_bytes_takes_no_more_memory_than_its_length(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(CHUNKED)
        connection.sendall(b"1\r\nx\r\n" * 150_000)
        connection.sendall(b"0\r\n\r\n" + LAST)
        found = read_all(connection)
    assert statuses(found) == [200, 200]
    assert b"\r\n\r\n150000HTTP" in found


@pytest.mark.parametrize("endless", [b"x-%06d: y\r\n", b"1;e%06d\r\nx\r\n"[:-5], b""])
def test_trailers_and_extensions_without_end_are_cut(running: Running, endless: bytes) -> None:
    with running.connect() as connection:
        connection.sendall(CHUNKED + (b"0\r\n" if endless.startswith(b"x-") else b"1;"))
        found = b""
        try:
            for number in range(100_000):
                connection.sendall(endless % number if endless.startswith(b"x-") else b"e" * 100)
        except OSError:
            pass
        connection.setblocking(True)
        try:
            found = read_all(connection)
        except ConnectionResetError:
            return  # it was told, but still sent
        assert statuses(found) == [400]


def test_a_trailer_changes_nothing_that_the_headers_said(running: Running) -> None:
    found = running.raw(
        b"POST /seen HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n"
        b"2\r\nab\r\n0\r\nX-A: 2\r\nAuthorization: Bearer stolen\r\n\r\n" + LAST
    )
    seen = json.loads(found.split(b"\r\n\r\n")[1].partition(b"HTTP/1.1")[0])
    assert seen["headers"]["x-a"] == "1"
    assert "authorization" not in seen["headers"]
    assert seen["body"] == "ab"


def test_a_body_that_crawls_is_ended_although_it_never_stands_still(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(b"POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 9000\r\n\r\n")
        connection.settimeout(0.05)
        said, began = b"", time.monotonic()
        while not said:
            assert time.monotonic() - began < 8, "it may crawl for ever"
            connection.sendall(b"z")
            try:
                said = connection.recv(4096)
            except TimeoutError:
                continue
        assert statuses(said) == [408]


def test_many_bodies_at_once_are_bounded_and_then_served_again(running: Running) -> None:
    head = b"POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 70000\r\nConnection: close\r\n\r\n"
    clients = [running.connect() for _ in range(5)]
    try:
        for each in clients:
            each.sendall(head + b"z" * 60_000)
        readable, _, _ = select.select(clients, [], [], 10)
        assert {status for each in readable for status in statuses(each.recv(4096))} == {503}
    finally:
        for each in clients:
            each.close()
    until(lambda: running.server.coming_bytes == 0)
    assert statuses(running.raw(head + b"z" * 70_000)) == [200]


def test_the_longest_idle_make_room_for_those_that_ask(running: Running) -> None:
    idle = [running.connect() for _ in range(20)]
    try:
        for _ in range(30):
            assert statuses(running.raw(LAST)) == [200]
        assert len(running.server.connections) <= 20
    finally:
        for each in idle:
            each.close()


def test_where_nobody_is_idle_one_more_is_told_so(running: Running) -> None:
    busy = [running.connect() for _ in range(20)]
    try:
        for each in busy:
            each.sendall(GET % b"later")
        until(lambda: len(running.answers.held) == 20)
        found = running.raw(b"")
        assert statuses(found) == [503]
        assert b"as many connections as it can serve" in found
    finally:
        running.release()
        for each in busy:
            assert each.recv(4096).startswith(b"HTTP/1.1 200")
            each.close()


@pytest.mark.parametrize("path", [b"last", b"later"])
def test_a_client_that_has_closed_its_sending_side_gets_its_answers(running: Running, path: bytes) -> None:
    with running.connect() as connection:
        connection.sendall(GET % path + b"POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        if path == b"later":
            until(lambda: bool(running.answers.held))
            running.release()
        assert statuses(read_all(connection)) == [200, 200]


def test_an_error_is_told_to_a_client_that_has_closed_its_sending_side(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(GET % b"later" + b"NONSENSE\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        until(lambda: bool(running.answers.held))
        running.release()
        assert statuses(read_all(connection)) == [200, 400]


def test_a_reset_in_the_middle_of_an_answer_harms_nobody(running: Running) -> None:
    for _ in range(20):
        connection = running.connect()
        connection.sendall(GET % b"large" * 50 + GET % b"later")
        connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    running.release()
    until(lambda: not running.server.connections)
    assert statuses(running.raw(LAST)) == [200]


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "message",
    [
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0, 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: +4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0x4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\nHost: t\nContent-Length: 0\n\n",
        b"GET / HTTP/1.1\r\nHost: t\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\rX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n",
        b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: t\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: t\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_differently_is_refused_and_nothing_after_it_is_read(
    running: Running, message: bytes
) -> None:
    found = running.raw(message + SMUGGLED)
    (status,) = statuses(found)
    assert status in (400, 501, 505), found
    assert b"smuggled" not in found
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]
