"""Connections to the control plane that a slow or endless client cannot hold: uvicorn's protocol with limits.

Uvicorn bounds neither the head of a request nor the time that its head and its body take; a client that sends a byte
now and then, or a header without end, would cost a connection and memory for ever. A request that arrives whole, as
nearly all do, sets no timer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["BoundedProtocol"]


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits; the numbers are the class's, so that a test may have others."""

    head_bytes = 64 * 1024  # of request line and headers; MLflow's searches have addresses of some KiB
    head_s = 20.0  # from the first byte, or from the connection, to the end of the headers
    body_s = 60.0  # in each such span a body must move on by …
    body_bytes = 1024  # … so much, unless it is we who do not read

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._is_within = False  # a request that has begun and is not whole
        self._is_body = False
        self._head = 0  # bytes of the head that is not whole yet
        self._received = 0
        self._received_before = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(self.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._is_within and not self._is_body:
            self._head += len(data)
            if self._head > self.head_bytes:
                self._refuse(431, b"Request Header Fields Too Large")
                return
        if self._timer is None and (self._is_within or self.cycle is None or self.cycle.response_complete):
            self._arm(self.body_s if self._is_body else self.head_s)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_within, self._is_body, self._head = True, False, 0

    def on_headers_complete(self) -> None:
        self._disarm()
        self._is_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._disarm()
        self._is_within = self._is_body = False
        super().on_message_complete()

    def _arm(self, seconds: float) -> None:
        self._received_before = self._received
        self._timer = self.loop.call_later(seconds, self._look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Close the connection when what it waits for did not come in time."""
        self._timer = None
        if self._is_body:
            has_moved = self._received - self._received_before >= self.body_bytes
            if has_moved or self.flow.read_paused:
                self._arm(self.body_s)
                return
        if self._is_within:
            self._refuse(408, b"Request Timeout")
        else:
            self.transport.close()  # nobody has asked anything

    def _refuse(self, status: int, words: bytes) -> None:
        """Answer, where no answer has begun, and close: what else comes is not read."""
        self._disarm()
        is_free = self.cycle is None or self.cycle.response_complete or not self.cycle.response_started
        if is_free and not self.pipeline:
            head = b"HTTP/1.1 %d %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % (status, words)
            self.transport.write(head)
        self.transport.close()
