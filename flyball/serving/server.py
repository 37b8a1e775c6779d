"""The HTTP server: one listening address, one handler, one event loop.

Our own small protocol (`connection.py`) on asyncio, with uvloop when it is there; no framework, because a prediction
through one costs more than the prediction. It knows no route and no model: `wire` gives it the handler.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

from flyball.errors import Unavailable
from flyball.serving.connection import Connection, Handler, HttpLimits, Request, Response

__all__ = ["Handler", "HttpLimits", "HttpServer", "Request", "Response"]

_SWEEP_S = 0.5


class HttpServer:
    """Listens on one address and feeds one handler."""

    def __init__(self, handler: Handler, limits: HttpLimits | None = None) -> None:
        self.handler = handler
        self.limits = limits or HttpLimits()
        self.connections: set[Connection] = set()
        self.stopping = False
        self.date = b""
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address with the port that was free when `port` is 0.

        Raises:
            Unavailable: the port is taken or the address is not this machine's.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=1024)
        except (OSError, OverflowError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            raise Unavailable(
                f"cannot listen on {host}:{port}: {reason.lower()}; stop what uses it or choose another port "
                "(0 picks a free one)"
            ) from error
        self._tick()
        self._sweeper = loop.create_task(self._sweep())
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def stop(self) -> int:
        """Accept no more, let requests in work finish, close; return how many had to be cut off."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.close_when_idle()
        deadline = time.monotonic() + self.limits.drain_s
        while self.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        cut = len(self.connections)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return cut

    async def _sweep(self) -> None:
        """One timer for all connections: a timer each would cost more than the requests."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._tick()
            now = time.monotonic()
            for connection in list(self.connections):
                connection.check_time(now)

    def _tick(self) -> None:
        self.date = b"Date: " + formatdate(usegmt=True).encode() + b"\r\n"
