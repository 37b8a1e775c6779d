"""HTTP/1.1 from raw sockets: limits, order, and what hostile or slow clients get."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from flyball.errors import Unavailable
from flyball.serving.server import HttpLimits, HttpServer, Request, Response

LIMITS = HttpLimits(head_bytes=2000, body_bytes=5000, head_s=0.6, body_s=0.6, idle_s=0.6, pipelined=8, drain_s=5)


class Echo:
    """Answers with what it was asked; `/later` waits until it is released."""

    def __init__(self) -> None:
        self.held: list[Callable[[], None]] = []
        self.asked = threading.Event()

    def handle(self, request: Request, respond: Callable[[Response], None]) -> None:
        if request.path == b"/fault":
            raise RuntimeError("fault")
        answer = Response(200, b"%b %b %b" % (request.method.encode(), request.path, request.body), b"text/plain")
        if request.path == b"/later":
            self.held.append(lambda: respond(answer))
            self.asked.set()
        else:
            respond(answer)

    def error(self, status: int, message: str) -> Response:
        return Response(status, json.dumps({"error": message}).encode())


class Running:
    """A server on a loop in a thread."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.loop = asyncio.new_event_loop()
        self.server = HttpServer(self.echo, LIMITS)
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.port = self.do(self.server.start("127.0.0.1", 0))[1]

    def do(self, work: object) -> object:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)  # type: ignore[arg-type]

    def release(self) -> None:
        for respond in self.echo.held:
            self.loop.call_soon_threadsafe(respond)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def raw(self, *parts: bytes) -> bytes:
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return read_all(connection)

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


@pytest.fixture
def running() -> Iterator[Running]:
    server = Running()
    yield server
    server.close()


LAST = b"GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"


def statuses(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def test_answers_keep_the_order_of_pipelined_requests(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(b"GET /later HTTP/1.1\r\nHost: t\r\n\r\nGET /b HTTP/1.1\r\nHost: t\r\n\r\n" + LAST)
        assert running.echo.asked.wait(10)
        running.release()
        found = read_all(connection)
    assert statuses(found) == [200, 200, 200]
    assert found.index(b"/later") < found.index(b"/b") < found.index(b"/last")


def test_chunked_bodies_arrive_whole_however_they_are_cut(running: Running) -> None:
    message = (
        b"POST /c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        + LAST
    )
    assert b"POST /c hello world" in running.raw(*(message[i : i + 1] for i in range(len(message))))


def test_a_client_that_asks_first_is_told_to_continue(running: Running) -> None:
    head = b"POST /e HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    with running.connect() as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(b"ok")
        assert b"POST /e ok" in read_all(connection)


def test_a_client_that_asks_first_for_too_much_is_refused_at_once(running: Running) -> None:
    found = running.raw(b"POST /e HTTP/1.1\r\nHost: t\r\nContent-Length: 999999\r\nExpect: 100-continue\r\n\r\n")
    assert statuses(found) == [413]
    assert b'{"error": "the body has 999999 bytes' in found


def test_head_gets_the_head_only(running: Running) -> None:
    found = running.raw(b"HEAD /h HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    assert b"Content-Length: 8" in found
    assert found.endswith(b"\r\n\r\n")


def test_http_1_0_is_closed_unless_it_asks(running: Running) -> None:
    assert b"Connection: close" in running.raw(b"GET /x HTTP/1.0\r\n\r\n")
    kept = running.raw(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + LAST)
    assert b"Connection: keep-alive" in kept
    assert statuses(kept) == [200, 200]


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost t\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 3000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 3000, 431),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 6000\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1770\r\n" + b"a" * 6000 + b"\r\n0\r\n\r\n", 413),
        (b"GET /fault HTTP/1.1\r\nConnection: close\r\n\r\n", 500),
    ],
)
def test_every_refusal_is_json_with_its_status(running: Running, message: bytes, status: int) -> None:
    found = running.raw(message)
    assert statuses(found) == [status]
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]


def test_what_came_before_a_bad_request_is_still_answered(running: Running) -> None:
    assert statuses(running.raw(b"GET /a HTTP/1.1\r\nHost: t\r\n\r\nNONSENSE\r\n\r\n")) == [200, 400]


def test_an_offered_protocol_change_is_declined_by_answering(running: Running) -> None:
    found = running.raw(b"GET /u HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
    assert statuses(found) == [200]


@pytest.mark.parametrize(
    ("slow", "status"),
    [(b"", None), (b"GET / HT", 408), (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf", 408)],
)
def test_a_client_that_stalls_is_ended(running: Running, slow: bytes, status: int | None) -> None:
    assert statuses(running.raw(slow)) == ([status] if status else [])


def test_a_stopping_server_finishes_what_is_in_work_and_takes_no_more(running: Running) -> None:
    with running.connect() as connection, running.connect() as idle:
        connection.sendall(b"GET /later HTTP/1.1\r\nHost: t\r\n\r\n")
        assert running.echo.asked.wait(10)
        stopping = asyncio.run_coroutine_threadsafe(running.server.stop(), running.loop)
        assert read_all(idle) == b""
        running.release()
        found = read_all(connection)
        assert statuses(found) == [200]
        assert b"Connection: close" in found
        assert stopping.result(10) == 0
    with pytest.raises(ConnectionRefusedError):
        running.connect()


def test_a_taken_port_is_one_sentence(running: Running) -> None:
    with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{running.port}: .* choose another port"):
        running.do(HttpServer(running.echo).start("127.0.0.1", running.port))


def test_requests_whose_head_was_sent_before_are_answered_like_the_first(running: Running) -> None:
    head = b"POST /echo?q HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    with running.connect() as connection:
        for parts in ([b"abc"], [b"def"], [b"g", b"hi"], [b"jkl" + head + b"mno"], [b"pqr\r\n"], [b"stu"], [b"vwx"]):
            whole = b"".join(parts).replace(head, b"").strip()
            wanted = [whole[at : at + 3] for at in range(0, len(whole), 3)]
            connection.sendall(head + parts[0])
            for part in parts[1:]:
                connection.sendall(part)
            found = b""
            while found.count(b"POST /echo") < len(wanted) or not found.endswith(wanted[-1]):
                part = connection.recv(4096)
                assert part, found
                found += part
            assert [found.split(b"POST /echo ")[place + 1][:3] for place in range(len(wanted))] == wanted
        assert list(running.server.heads) == [head[:-4]]
        connection.sendall(head.replace(b"Host: x", b"Host: x\r\nConnection: close") + b"end")
        assert read_all(connection).endswith(b"POST /echo end")


def test_heads_that_are_secret_or_unique_are_not_remembered_and_others_not_without_end(running: Running) -> None:
    with running.connect() as connection:
        for number in range(2100):
            line = b"Authorization: Bearer s" if number < 3 else b"X-Number: %d" % number
            connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\n%b\r\nContent-Length: 1\r\n\r\nx" % line)
            found = b""
            while not found.endswith(b"POST /echo x"):
                found += connection.recv(4096)
    assert 0 < len(running.server.heads) <= 1024
    assert not any(b"Authorization" in head for head in running.server.heads)
