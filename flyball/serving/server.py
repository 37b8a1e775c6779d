"""The HTTP server: one listening address, one handler, one event loop.

Our own small protocol (`connection.py`) on asyncio, with uvloop when it is there; no framework, because a prediction
through one costs more than the prediction. It knows no route and no model: `wire` gives it the handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import ssl
import time
from email.utils import formatdate

from flyball.errors import Unavailable
from flyball.serving.connection import Connection, Handler, Head, HttpLimits, Request, Response
from flyball.serving.sharing import Place

__all__ = ["Handler", "HttpLimits", "HttpServer", "Request", "Response", "open_more_files"]

_SWEEP_S = 0.5
_COURTESY_S = 0.001  # in which workers with fewer clients may take a new one
_BREATH_S = 0.1  # before the next try when no descriptor is free
_log = logging.getLogger("flyball.serving")
_OWN_FILES = 256  # descriptors that connections leave to the log, the snapshot, models and the library of gRPC
_TOLD = 64  # connections above the most that get an answer which says so
_MOST_CONNECTIONS = 65_536  # where the system sets no limit: each takes some 10 KiB


class HttpServer:
    """Listens on one address and feeds one handler.

    Arguments:
        tls: with it, TLS is spoken.
    """

    def __init__(self, handler: Handler, limits: HttpLimits | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.limits = limits or HttpLimits()
        self.connections: set[Connection] = set()
        self.stopping = False
        self.coming_bytes = 0
        self.heads: dict[bytes, Head] = {}
        self.date = b""
        most = self.limits.connections
        self._most_connections = most if most is not None else _room()
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._shared: _SharedListener | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address with the port that was free when `port` is 0.

        Raises:
            Unavailable: the port is taken or the address is not this machine's.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self),
                host,
                port,
                backlog=1024,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else self.limits.head_s,
            )
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

    def make_room(self) -> bool | None:
        """Whether one more connection can be served; when there are too many, those idle longest are closed.

        False: it can only be told; None: so many are being told already that it must be dropped.
        """
        if len(self.connections) < self._most_connections:
            return True
        idle = sorted((each for each in self.connections if each.is_idle), key=lambda each: each.since)
        for each in idle[: max(1, len(idle) // 100)]:  # several at a time: to look for them takes milliseconds
            each.abort()
        if idle:
            return True
        return False if len(self.connections) < self._most_connections + _TOLD else None

    def start_on(self, listener: socket.socket, place: Place) -> None:
        """Accept on a socket that other processes accept on too; call it when requests can be answered."""
        loop = asyncio.get_running_loop()
        self._tick()
        self._sweeper = loop.create_task(self._sweep())
        self._shared = _SharedListener(self, listener, place, self._tls)

    async def stop(self) -> int:
        """Accept no more, let requests in work finish, close; return how many had to be cut off."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        if self._shared is not None:
            self._shared.close()
        for connection in list(self.connections):
            connection.close_when_idle()
        deadline = time.monotonic() + self.limits.drain_s
        while self.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            for connection in list(self.connections):
                connection.close_when_idle()
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
            if self._shared is not None:
                self._shared.count()

    def _tick(self) -> None:
        self.date = b"Date: " + formatdate(usegmt=True).encode() + b"\r\n"


def open_more_files() -> None:
    """Let this process open as many files as the system allows it, up to what connections can use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + _OWN_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # less is allowed than is said: then it stays as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _room() -> int:
    """Return how many connections there may be: what the process may open, less what it needs itself."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(min(allowed - _OWN_FILES, _MOST_CONNECTIONS), allowed // 2)


class _SharedListener:
    """Accepts on a socket that several processes listen on, so that each gets about as many clients.

    Who is woken first would take all that wait, and clients that keep their connections would stay with it. So whoever
    has more clients than another waits a moment before it takes one more. (SO_REUSEPORT hashes clients to processes:
    of few some get most, and those that wait at a process that dies are lost.)
    """

    def __init__(self, server: HttpServer, listener: socket.socket, place: Place, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._listener = listener
        self._place = place
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._coming: set[asyncio.Task[None]] = set()
        self._is_open = True
        listener.setblocking(False)
        place.board.tell(place.number, 0)
        self._wait()

    def close(self) -> None:
        """Accept no more; who waits is served by the others."""
        self._is_open = False
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._place.board.leave(self._place.number)

    def count(self) -> None:
        """Let the others know how many clients there are."""
        if self._is_open:
            self._place.board.tell(self._place.number, len(self._server.connections) + len(self._coming))

    def _wait(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._listener, self._ready)

    def _ready(self) -> None:
        self.count()
        living = self._place.board.living()
        if living.get(self._place.number, 0) > min(living.values(), default=0):
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_COURTESY_S, self._take_after_all)
        else:
            self._take()

    def _take_after_all(self) -> None:
        if self._is_open:
            self._wait()
            self._take()

    def _take(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another was quicker, or the client has gone
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            _log.error("no connection can be accepted: %s", error.strerror)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_BREATH_S, self._wait)
            return
        client.setblocking(False)
        task = self._loop.create_task(self._connect(client))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        self.count()

    async def _connect(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: Connection(self._server),
                client,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else self._server.limits.head_s,
            )
        except OSError:  # it went, or it does not speak TLS
            client.close()
