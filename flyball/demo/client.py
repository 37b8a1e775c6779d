"""A small HTTP/1.1 client: kept connections, one request on each at a time. Only what the replay needs."""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from urllib.parse import urlsplit

from flyball.errors import Unavailable

__all__ = ["Client"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_ANSWER_S = 60.0


class Client:
    """Posts JSON to one server over up to `connections` connections; used as an async context manager."""

    def __init__(self, address: str, connections: int = 16) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._free: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()
        self._all: list[_Connection] = []
        for _ in range(connections):
            self._free.put_nowait(None)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer. Raises Unavailable when there is none within a minute."""
        connection = await self._free.get()
        try:
            if connection is None or connection.is_closed:
                connection = await self._connect()
            head = f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
            return await connection.ask(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        finally:
            self._free.put_nowait(connection)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._all:
            connection.close()

    async def _connect(self) -> _Connection:
        try:
            _, made = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        except OSError as error:
            raise Unavailable(f"the data plane at {self._host}:{self._port} cannot be reached: {error}") from error
        self._all.append(made)
        return made


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        assert self._transport is not None
        self._transport.write(request)
        patience = loop.call_later(_ANSWER_S, self._give_up)
        try:
            return await self._answer
        finally:
            patience.cancel()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._received, 0, head + 2)
        end = head + 4 + (int(length[1]) if length else 0)
        if len(self._received) < end:
            return
        status, body = int(self._received[9:12]), bytes(self._received[head + 4 : end])
        del self._received[:end]
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._fail(f"the data plane closed the connection: {exc or 'without an answer'}")

    def _give_up(self) -> None:
        self._fail(f"the data plane did not answer within {_ANSWER_S:g} s")
        self.close()

    def _fail(self, message: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable(message))
