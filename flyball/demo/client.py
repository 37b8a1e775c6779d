"""A small HTTP/1.1 client: kept connections, one request on each at a time. Only what the replay needs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from types import TracebackType
from urllib.parse import urlsplit

from flyball.errors import Unavailable

__all__ = ["Client"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_ANSWER_S = 60.0


class Client:
    """Posts JSON to one server over `connections` kept connections; used as an async context manager."""

    def __init__(self, address: str, connections: int = 16) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._connections: list[_Connection | None] = [None] * connections
        self._heads: dict[str, bytes] = {}

    async def post(self, path: str, bodies: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Post bodies, as many at once as there are connections; return status and body of each answer, in order.

        One call at a time. Raises Unavailable when an answer does not come within a minute.
        """
        answers: list[tuple[int, bytes]] = []
        for start in range(0, len(bodies), len(self._connections)):
            wave = bodies[start : start + len(self._connections)]
            asked = [await self._ask(place, path, body) for place, body in enumerate(wave)]
            try:
                async with asyncio.timeout(_ANSWER_S):
                    answers += [await answer for answer in asked]
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

    async def _ask(self, place: int, path: str, body: bytes) -> asyncio.Future[tuple[int, bytes]]:
        connection = self._connections[place]
        if connection is None or connection.is_closed:
            connection = self._connections[place] = await self._connect()
        head = self._heads.get(path)
        if head is None:
            host = f"{self._host}:{self._port}"
            text = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
            head = self._heads[path] = text.encode()
        return connection.ask(b"%b%d\r\n\r\n%b" % (head, len(body), body))

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
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

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

    def _fail(self, message: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable(message))
