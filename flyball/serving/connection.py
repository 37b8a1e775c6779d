"""One client's connection: bytes to `Request`, `Response` to bytes, and every limit that a public port needs.

httptools parses; this file decides what a client may cost in bytes, time and requests in work, and keeps the answers
in the order of the requests, also when a client sends several without waiting (RFC 9112 §9.3.2). It knows no route.
Errors found here, before any handler, are the handler's to word.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import socket
import sys
import termios
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, cast

import httptools

__all__ = ["Connection", "Handler", "Head", "HttpLimits", "Listener", "Request", "Response"]

_log = logging.getLogger("flyball.serving")
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FRESH_S = 0.5  # in which a client that has come sends its first request
_LINGER_S = 5.0
_MOST_HEADS = 1024  # that are remembered, of at most so many bytes
_MOST_HEAD_BYTES = 1024
# Heads with these are not remembered: they are secret, differ each time, or want more than an answer.
_UNIQUE = frozenset({b"authorization", b"cookie", b"traceparent", b"x-request-id", b"expect", b"transfer-encoding"})
_FRAMING = 16  # bytes that a client may send for one of a body: chunks of a byte take six


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one client may cost."""

    head_bytes: int = 32 * 1024  # request line and headers; more is 431
    body_bytes: int = 64 * 1024 * 1024  # as sent, and once more when decompressed; more is 413
    head_s: float = 10.0  # from the first byte of a request to the end of its headers
    body_s: float = 30.0  # without any progress of a body, or of an answer that the client does not read
    idle_s: float = 75.0  # a kept connection without a request
    pipelined: int = 64  # requests of one connection in work before no more are read from it
    drain_s: float = 15.0  # what a stopping server gives to requests in work
    least_bytes_s: int = 1024  # of a body that comes, or of an answer that is read; slower ones are ended
    bodies_bytes: int = 512 * 1024 * 1024  # of all bodies that are still coming; more is 503
    connections: int | None = None  # the longest idle makes room for one more; None: as the limit of open files allows


@dataclass(slots=True)
class Request:
    """One request. Header names are lower case; the path is as sent, percent-encoded, without its query."""

    method: str
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes
    query: bytes = b""
    caller: str | None = None  # the name of the access key that asks, once the handler has found it


@dataclass(slots=True)
class Response:
    """One answer; `headers` are whole lines, each ended by CR LF."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: bytes = b""


class Head(NamedTuple):
    """What a request says before its body of `length` bytes."""

    method: str
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    length: int


class Handler(Protocol):
    """What answers requests. Called on the event loop: it must not block."""

    def handle(self, request: Request, respond: Callable[[Response], None]) -> None:
        """Answer by calling `respond` once, now or later, on the event loop."""
        ...

    def error(self, status: int, message: str) -> Response:
        """Return the answer to a request that could not be read, or whose answer failed."""
        ...


class Listener(Protocol):
    """What a connection needs of the server that accepted it."""

    handler: Handler
    limits: HttpLimits
    stopping: bool
    date: bytes  # the Date header's line
    connections: set[Connection]
    coming_bytes: int  # of bodies that are not complete
    heads: dict[bytes, Head]  # by their bytes: clients send the same again and again

    def make_room(self) -> bool | None:
        """Whether one more connection can be served, and if not, whether it can be told so (False) or not (None)."""
        ...


class _Slot:
    """The place of one answer in its connection's order."""

    __slots__ = ("close", "head_only", "http10", "response")

    def __init__(self, head_only: bool, close: bool, http10: bool) -> None:
        self.head_only = head_only
        self.close = close
        self.http10 = http10
        self.response: Response | None = None


class Connection(asyncio.Protocol):
    """One client. httptools calls the `on_…` methods while `data_received` feeds it."""

    def __init__(self, server: Listener) -> None:
        self._server = server
        self._limits = server.limits
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._slots: deque[_Slot] = deque()
        self._held: deque[tuple[_Slot, Request]] = deque()  # read, but not yet put to the handler
        self._is_releasing = False
        self._since = time.monotonic()  # start of the present phase, or last progress in it
        self._phase = "idle"  # idle → head → body → idle
        self._failed: Response | None = None  # set once: no more is read from this client
        self._paused = False
        self._write_paused = False
        self._lingering = False
        self._newest: Request | None = None  # the last that was read, if others may be like it
        self._has_ended = False  # the client sends no more
        self._has_asked = False  # at least one whole request has come
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._head_bytes = self._header_bytes = self._body_bytes = 0
        self._coming_bytes = 0  # what the server counts of the body
        self._sent_bytes = 0  # of the body, with what frames it
        self._body_since = 0.0
        self._written_bytes = self._read_bytes = 0  # of answers: by us, and by the client when `_since` was

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Head and body leave in one write, yet pipelined answers are several: Nagle would hold each for 40 ms.
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        has_room = self._server.make_room()
        self._server.connections.add(self)
        if has_room is None:
            self._transport.abort()
        elif not has_room:
            self._fail(503, "the server has as many connections as it can serve; try again in a moment")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio passes it by position)
        self._server.connections.discard(self)
        self._count_coming(0)
        self._held.clear()
        self._transport = None

    def eof_received(self) -> bool:
        """A client that has closed its sending side still gets the answers it waits for."""
        self._has_ended = True
        if self._slots:
            self._slots[-1].close = self._failed is None  # else the error is the last answer
            return True
        return False

    def pause_writing(self) -> None:
        self._write_paused = True
        self._note_reading(time.monotonic())
        self._throttle()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._since = time.monotonic()
        # Not at once: a transport of asyncio's that is closed within this call tells twice that it was lost.
        if self._held:
            asyncio.get_running_loop().call_soon(self._release)
        self._throttle()

    def data_received(self, data: bytes) -> None:
        if self._failed is not None or (self._slots and self._slots[-1].close):
            return
        was_idle = self._phase == "idle"
        if was_idle:
            if self._take_known(data):
                return
            self._phase, self._since = "head", time.monotonic()
        elif self._phase == "body":
            self._since = time.monotonic()
            self._sent_bytes += len(data)
        if self._phase == "head":
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An offer to change the protocol (h2c) is declined by answering in HTTP/1.1 (RFC 9110 §7.8).
            if self._slots:
                self._slots[-1].close = True
            else:
                self._close()
        except httptools.HttpParserCallbackError as error:
            if self._failed is None:
                _log.exception("a request could not be read", exc_info=error)
                self._fail(500, "the request could not be read because of a fault in the server")
        except httptools.HttpParserError as error:
            if self._failed is None:
                self._fail(400, f"the request is not HTTP/1.1: {str(error)[:200].lower()}")
        else:
            newest, self._newest = self._newest, None  # an idle connection keeps no body
            if self._phase == "head" and self._head_bytes > self._limits.head_bytes:
                self._fail_head()
            elif self._phase == "body":
                self._check_body()
            elif was_idle and newest is not None:
                self._remember(data, newest)

    def _take_known(self, data: bytes) -> bool:
        """Take exactly one whole request whose head was read before: the parser is between two, and need not see it."""
        end = data.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES)
        known = self._server.heads.get(data[:end]) if end > 0 else None
        if known is None or len(data) != end + 4 + known.length:
            return False
        slot = _Slot(False, False, False)
        self._slots.append(slot)
        self._has_asked = True
        self._since = time.monotonic()
        self._put(slot, Request(known.method, known.path, known.headers, data[end + 4 :], known.query))
        return True

    def _remember(self, data: bytes, request: Request) -> None:
        """Remember the head of a request that came alone, whole and in one piece."""
        length = len(request.body)
        end = len(data) - length - 4
        if not 0 < end < _MOST_HEAD_BYTES - 4 or data.find(b"\r\n\r\n") != end:
            return
        headers = request.headers
        if headers.get(b"content-length") == b"%d" % length and _UNIQUE.isdisjoint(headers):
            heads = self._server.heads
            if len(heads) >= _MOST_HEADS:
                heads.clear()
            heads[data[:end]] = Head(request.method, request.path, request.query, headers, length)

    # httptools

    def on_message_begin(self) -> None:
        self._phase, self._url, self._headers, self._body = "head", b"", {}, b""
        self._header_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase == "body":  # a trailer, which must not change what the headers said (RFC 9110 §6.5.1)
            return
        name = name.lower()
        if name in self._headers:
            if name in (b"content-length", b"host"):
                self._fail(400, f"the request has two {name.decode().title()} headers")
            value = self._headers[name] + b", " + value
        self._headers[name] = value
        self._header_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        if self._failed is not None:
            return
        if self._header_bytes + len(self._url) > self._limits.head_bytes:
            self._fail_head()
            return
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._fail(505, f"HTTP/{version} is not spoken here; send HTTP/1.1")
            return
        length = self._headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            self._fail_body(int(length))
            return
        coding = self._headers.get(b"transfer-encoding", b"chunked")
        if coding.lower() != b"chunked":
            self._fail(501, f"the transfer coding {coding[:40].decode('latin-1')!r} is not known; send chunked")
            return
        self._phase, self._since = "body", time.monotonic()
        self._body_since, self._sent_bytes = self._since, 0
        expects = self._headers.get(b"expect", b"").lower() == b"100-continue"
        # Only when nothing is before it: an interim answer must not overtake a final one.
        if expects and not self._slots and self._transport is not None:
            self._write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        if self._failed is not None:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._fail_body(None)
        elif not self._body:
            self._body = body
        else:
            # A list of what came would take forty bytes for each that a client sends by itself.
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body

    def on_message_complete(self) -> None:
        if self._failed is not None:
            return
        self._has_asked = True
        parser = self._parser
        path, _, query = self._url.partition(b"?")
        if not path.startswith(b"/") and b"://" in path:  # absolute form (RFC 9112 §3.2.2)
            path = b"/" + path.split(b"://", 1)[1].partition(b"/")[2]
        method = parser.get_method().decode("ascii", "replace")
        body = bytes(self._body)
        self._count_coming(0)
        http10 = parser.get_http_version() == "1.0"
        close = not parser.should_keep_alive()
        slot = _Slot(method == "HEAD", close, http10)
        self._slots.append(slot)
        self._phase, self._since, self._head_bytes = "idle", time.monotonic(), 0
        self._body = b""
        request = Request(method, path, self._headers, body, query)
        # Of several in one read the last is not where the read began, which `_remember` sees by the head's end.
        self._newest = request if method == "POST" and not http10 and not close else None
        self._put(slot, request)

    def _put(self, slot: _Slot, request: Request) -> None:
        # One read may hold thousands of requests, and their answers be a thousand times as large.
        if self._held or self._write_paused or len(self._slots) > self._limits.pipelined:
            self._held.append((slot, request))
            self._throttle()
        else:
            self._handle(slot, request)

    def _handle(self, slot: _Slot, request: Request) -> None:
        try:
            self._server.handler.handle(request, partial(self._answer, slot))
        except Exception as error:
            _log.exception("a handler failed", exc_info=error)
            self._answer(slot, self._server.handler.error(500, "the server failed on this request; its log says why"))
        else:
            self._throttle()

    def _release(self) -> None:
        """Put to the handler what was held back, as far as there is room now."""
        if self._is_releasing:
            return
        self._is_releasing = True
        try:
            while self._held and not self._write_paused and len(self._slots) - len(self._held) < self._limits.pipelined:
                self._handle(*self._held.popleft())
        finally:
            self._is_releasing = False

    # the order of answers

    def _answer(self, slot: _Slot, response: Response) -> None:
        if slot.response is None:
            slot.response = response
            self._flush()

    def _flush(self) -> None:
        """Write every answer whose turn has come."""
        slots, transport = self._slots, self._transport
        if transport is None or transport.is_closing():
            slots.clear()
            self._held.clear()
            return
        while slots and (response := slots[0].response) is not None:
            slot = slots.popleft()
            close = slot.close or (self._server.stopping and not slots and self._phase == "idle")
            self._write(_render(response, slot, close, self._server.date))
            if close:
                slots.clear()
                self._held.clear()
                self._close()
                return
        if self._failed is not None and not slots and not self._lingering:
            # Closing at once while the client still sends would reset the connection, and the answer with it
            # (RFC 9112 §9.6): close our half, discard what comes, and let the client or the clock end it.
            self._lingering = True
            self._since = time.monotonic()
            self._write(_render(self._failed, _Slot(False, True, False), True, self._server.date))
            if self._has_ended or not transport.can_write_eof():  # TLS has no half that could be closed
                self._close()
            else:
                transport.write_eof()
            return
        if not slots and self._phase == "idle" and not self._write_paused:
            self._since = time.monotonic()
        if self._held:
            self._release()
        if self._paused:
            self._throttle()

    def _throttle(self) -> None:
        """Stop reading from a client that does not read its answers or has too many requests in work."""
        if self._transport is None:
            return
        full = self._write_paused or len(self._slots) >= self._limits.pipelined
        if full != self._paused:
            self._paused = full
            if full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # limits

    def check_time(self, now: float) -> None:
        """End a connection that has used up the time of its phase."""
        age = now - self._since
        transport = self._transport
        if transport is None:
            return
        if self._lingering:
            if age > _LINGER_S:
                self.abort()
        elif self._write_paused or transport.is_closing():
            if age > self._limits.body_s:
                if self._count_read() - self._read_bytes < self._limits.least_bytes_s * age:
                    self.abort()
                else:
                    self._note_reading(now)
        elif self._phase == "head":
            if age > self._limits.head_s:
                self._fail(408, f"the headers did not arrive within {self._limits.head_s:g} s")
        elif self._phase == "body":
            if age > self._limits.body_s:
                self._fail(408, f"the body made no progress for {self._limits.body_s:g} s")
            elif now - self._body_since > self._limits.body_s + self._body_bytes / self._limits.least_bytes_s:
                self._fail(408, f"the body comes more slowly than {self._limits.least_bytes_s} bytes a second")
        elif not self._slots and age > self._limits.idle_s:
            self._close()

    def close_when_idle(self) -> None:
        """Close now if nothing is in work; else the last answer closes.

        Who has only just come is about to ask, and could not know that he must not.
        """
        if self.is_idle and (self._has_asked or time.monotonic() - self._since > _FRESH_S):
            self._close()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in work and nothing half sent."""
        return not self._slots and self._phase == "idle"

    @property
    def since(self) -> float:
        """Since when, by the monotonic clock, it has been as it is."""
        return self._since

    def abort(self) -> None:
        """Drop the connection with whatever is unsent."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._written_bytes += len(data)
            self._transport.write(data)

    def _close(self) -> None:
        """Close when the client has read what is written; `check_time` ends one that does not."""
        if self._transport is not None and not self._transport.is_closing():
            self._note_reading(time.monotonic())
            self._transport.close()

    def _note_reading(self, now: float) -> None:
        if self._transport is not None:
            self._since = now
            self._read_bytes = self._count_read()

    def _count_read(self) -> int:
        """Return how many bytes of answers the client's machine has taken."""
        transport = self._transport
        if transport is None:
            return 0
        unread = transport.get_write_buffer_size()
        # The system may hold megabytes, which go on while our buffer stands still.
        with contextlib.suppress(OSError, ValueError):
            held = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            unread += int.from_bytes(held, sys.byteorder)
        return self._written_bytes - unread

    def _count_coming(self, size: int) -> None:
        self._server.coming_bytes += size - self._coming_bytes
        self._coming_bytes = size

    def _check_body(self) -> None:
        """End a request whose body, of which there is more to come, costs too much."""
        self._count_coming(self._body_bytes)
        if self._sent_bytes > self._limits.head_bytes + (1 + _FRAMING) * self._body_bytes:
            self._fail(400, "the body is framed by far more bytes than it has; send larger chunks, without trailers")
        elif self._server.coming_bytes > self._limits.bodies_bytes:
            self._fail(503, "too many bytes of other requests are on their way; try again in a moment")

    def _fail_head(self) -> None:
        self._fail(431, f"the request's headers are longer than {self._limits.head_bytes} bytes")

    def _fail_body(self, length: int | None) -> None:
        size = f"has {length} bytes" if length is not None else "is too large"
        self._fail(413, f"the body {size}; at most {self._limits.body_bytes} bytes are accepted, send it in parts")

    def _fail(self, status: int, message: str) -> None:
        """Answer what stands before, then this error, then close: what follows in the stream cannot be trusted."""
        if self._failed is None:
            self._failed = self._server.handler.error(status, message)
            self._since = time.monotonic()
            self._body = b""
            self._count_coming(0)
            self._flush()


def _render(response: Response, slot: _Slot, close: bool, date: bytes) -> bytes:
    connection = b"Connection: close\r\n" if close else b"Connection: keep-alive\r\n" if slot.http10 else b""
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b%b\r\n%b" % (
        response.status,
        _REASONS.get(response.status, b""),
        response.content_type,
        len(response.body),
        response.headers,
        date,
        connection,
        b"" if slot.head_only else response.body,
    )
