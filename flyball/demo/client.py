"""A small HTTP/1.1 client: kept connections, requests of one instant pipelined. Only what the replay needs.

Pipelining (RFC 9112 §9.3.2): the requests of an instant are written at once, spread over the connections, and answered
in order; that saves both sides most of their system calls.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from urllib.parse import urlsplit

from flyball.errors import Unavailable

__all__ = ["Client"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_ANSWER_S = 60.0
_MOST_PIPELINED = 16  # on one connection; as many as a server may be expected to take at once

Answer = tuple[int, bytes]


class Client:
    """Posts JSON to one server over `connections` kept connections; used as an async context manager."""

    def __init__(self, address: str, connections: int = 4) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._connections: list[_Connection | None] = [None] * connections

    async def post(self, path: str, bodies: Sequence[bytes]) -> list[Answer]:
        """Post bodies, all at once up to 16 on a connection; return status and body of each answer, in order.

        One call at a time. Raises Unavailable when an answer does not come within a minute.
        """
        answers: list[Answer] = []
        host = f"{self._host}:{self._port}"
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: ".encode()
        size = len(self._connections) * _MOST_PIPELINED
        for start in range(0, len(bodies), size):
            wave = [b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in bodies[start : start + size]]
            try:
                async with asyncio.timeout(_ANSWER_S):
                    answers += await self._exchange(wave)
            except TimeoutError:
                raise Unavailable(f"the data plane did not answer within {_ANSWER_S:g} s") from None
        return answers

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            if connection is not None:
                connection.close()

    async def _exchange(self, requests: Sequence[bytes]) -> list[Answer]:
        step = -(-len(requests) // len(self._connections))
        waiting: list[asyncio.Future[Answer]] = []
        for place, start in enumerate(range(0, len(requests), step)):
            connection = self._connections[place]
            if connection is None or connection.is_closed:
                connection = self._connections[place] = await self._connect()
            waiting += connection.ask(requests[start : start + step])
        return [await answer for answer in waiting]

    async def _connect(self) -> _Connection:
        try:
            _, made = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        except OSError as error:
            raise Unavailable(f"the data plane at {self._host}:{self._port} cannot be reached: {error}") from error
        return made


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiting: deque[asyncio.Future[Answer]] = deque()

    def ask(self, requests: Sequence[bytes]) -> list[asyncio.Future[Answer]]:
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        made = [loop.create_future() for _ in requests]
        self._waiting += made
        self._transport.write(b"".join(requests))
        return made

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (head := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._received) < end:
                return
            status, body = int(self._received[9:12]), bytes(self._received[head + 4 : end])
            del self._received[:end]
            answer = self._waiting.popleft() if self._waiting else None
            if answer is not None and not answer.done():
                answer.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(Unavailable(f"the data plane closed the connection: {exc or 'without an answer'}"))
