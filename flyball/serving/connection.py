"""One client's connection: bytes to `Request`, `Response` to bytes, and every limit that a public port needs.

httptools parses; this file decides what a client may cost in bytes, time and requests in work, and keeps the answers
in the order of the requests, also when a client sends several without waiting (RFC 9112 §9.3.2). It knows no route.
Errors found here, before any handler, are the handler's to word.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, cast

import httptools

__all__ = ["Connection", "Handler", "HttpLimits", "Listener", "Request", "Response"]

_log = logging.getLogger("flyball.serving")
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINGER_S = 5.0


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


@dataclass(slots=True)
class Request:
    """One request. Header names are lower case; the path is as sent, percent-encoded, without its query."""

    method: str
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes
    query: bytes = b""


@dataclass(slots=True)
class Response:
    """One answer; `headers` are whole lines, each ended by CR LF."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: bytes = b""


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
        self._since = time.monotonic()  # start of the present phase, or last progress in it
        self._phase = "idle"  # idle → head → body → idle
        self._failed: Response | None = None  # set once: no more is read from this client
        self._paused = False
        self._write_paused = False
        self._lingering = False
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._head_bytes = self._header_bytes = self._body_bytes = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Head and body leave in one write, yet pipelined answers are several: Nagle would hold each for 40 ms.
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio passes it by position)
        self._server.connections.discard(self)
        self._transport = None

    def eof_received(self) -> bool:
        """A client that has closed its sending side still gets the answers it waits for."""
        if self._slots:
            self._slots[-1].close = True
            return True
        return False

    def pause_writing(self) -> None:
        self._write_paused = True
        self._since = time.monotonic()
        self._throttle()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._since = time.monotonic()
        self._throttle()

    def data_received(self, data: bytes) -> None:
        if self._failed is not None or (self._slots and self._slots[-1].close):
            return
        if self._phase == "idle":
            self._phase, self._since = "head", time.monotonic()
        elif self._phase == "body":
            self._since = time.monotonic()
        if self._phase == "head":
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An offer to change the protocol (h2c) is declined by answering in HTTP/1.1 (RFC 9110 §7.8).
            if self._slots:
                self._slots[-1].close = True
            elif self._transport is not None:
                self._transport.close()
        except httptools.HttpParserCallbackError as error:
            if self._failed is None:
                _log.exception("a request could not be read", exc_info=error)
                self._fail(500, "the request could not be read because of a fault in the server")
        except httptools.HttpParserError as error:
            if self._failed is None:
                self._fail(400, f"the request is not HTTP/1.1: {str(error)[:200].lower()}")
        else:
            if self._phase == "head" and self._head_bytes > self._limits.head_bytes:
                self._fail_head()

    # httptools

    def on_message_begin(self) -> None:
        self._phase, self._url, self._headers, self._body = "head", b"", {}, []
        self._header_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self._headers:
            if name == b"content-length":
                self._fail(400, "the request has two Content-Length headers")
            value = self._headers[name] + b", " + value
        self._headers[name] = value
        self._header_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        if self._failed is not None:
            return
        if self._header_bytes + len(self._url) > self._limits.head_bytes:
            self._fail_head()
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
        expects = self._headers.get(b"expect", b"").lower() == b"100-continue"
        # Only when nothing is before it: an interim answer must not overtake a final one.
        if expects and not self._slots and self._transport is not None:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        if self._failed is not None:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._fail_body(None)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._failed is not None:
            return
        parser = self._parser
        path, _, query = self._url.partition(b"?")
        if not path.startswith(b"/") and b"://" in path:  # absolute form (RFC 9112 §3.2.2)
            path = b"/" + path.split(b"://", 1)[1].partition(b"/")[2]
        method = parser.get_method().decode("ascii", "replace")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        http10 = parser.get_http_version() == "1.0"
        close = not parser.should_keep_alive()
        slot = _Slot(method == "HEAD", close, http10)
        self._slots.append(slot)
        self._phase, self._since, self._head_bytes = "idle", time.monotonic(), 0
        self._body = []
        try:
            self._server.handler.handle(Request(method, path, self._headers, body, query), partial(self._answer, slot))
        except Exception as error:
            _log.exception("a handler failed", exc_info=error)
            self._answer(slot, self._server.handler.error(500, "the server failed on this request; its log says why"))
        else:
            self._throttle()

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
            return
        while slots and (response := slots[0].response) is not None:
            slot = slots.popleft()
            close = slot.close or (self._server.stopping and not slots and self._phase == "idle")
            transport.write(_render(response, slot, close, self._server.date))
            if close:
                slots.clear()
                transport.close()
                return
        if self._failed is not None and not slots and not self._lingering:
            # Closing at once while the client still sends would reset the connection, and the answer with it
            # (RFC 9112 §9.6): close our half, discard what comes, and let the client or the clock end it.
            self._lingering = True
            transport.write(_render(self._failed, _Slot(False, True, False), True, self._server.date))
            transport.write_eof()
            return
        if not slots and self._phase == "idle":
            self._since = time.monotonic()
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
        if self._lingering or self._write_paused:
            if age > (_LINGER_S if self._lingering else self._limits.body_s):
                self.abort()
        elif self._phase == "head":
            if age > self._limits.head_s:
                self._fail(408, f"the headers did not arrive within {self._limits.head_s:g} s")
        elif self._phase == "body":
            if age > self._limits.body_s:
                self._fail(408, f"the body made no progress for {self._limits.body_s:g} s")
        elif not self._slots and age > self._limits.idle_s and self._transport is not None:
            self._transport.close()

    def close_when_idle(self) -> None:
        """Close now if nothing is in work; else the last answer closes."""
        if not self._slots and self._phase == "idle" and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection with whatever is unsent."""
        if self._transport is not None:
            self._transport.abort()

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
