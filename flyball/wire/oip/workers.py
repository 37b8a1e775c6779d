"""Several processes that serve one home on one address: started, started again when they die, added and let go.

The process that was asked to serve becomes their parent. It loads no model: it listens, forks, and writes the one
`status.json` that holds of all. A worker that is killed takes with it the requests in work on it and nothing else: who
waits to be accepted waits on the parent's socket, and the next worker is forked from what is imported already.

Workers accept on the same socket (see `serving.server`). grpcio cannot be given one, so for gRPC each binds the port
with SO_REUSEPORT while the parent keeps it from others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from flyball.clock import SYSTEM, format_instant
from flyball.errors import Corrupt, NotFound, Unavailable
from flyball.serving.limits import SharedRates
from flyball.serving.scaling import Scaler
from flyball.serving.sharing import MOST_WORKERS, Board, Place
from flyball.serving.status import DataPlaneStatus, joined, read_status

__all__ = ["Crew", "Worker", "listening", "reserved"]

_log = logging.getLogger("flyball.serving")

_FIRST_DELAY_S = 0.05  # before a worker that died young is started again; doubles while it does
_LONGEST_DELAY_S = 5.0
_YOUNG_S = 5.0
_STOP_S = 20.0  # longer than a worker gives to requests in work
_TICK_S = 0.5


@dataclass(frozen=True)
class Worker:
    """What a worker is given by its parent."""

    place: Place
    listener: socket.socket
    grpc_port: int | None  # None: gRPC is turned off
    rates: SharedRates
    life: int  # a descriptor that ends when the parent does
    told: int  # a descriptor to write to when the status was written
    is_replacing: bool  # others serve: nobody need be accepted before the models are loaded


@dataclass
class _Child:
    pid: int
    began: float
    told: int
    is_ready: bool = False
    leaves_at: float | None = None  # asked to end: when it is killed


@dataclass
class _Crew:
    """What the parent knows of its workers."""

    children: dict[int, _Child] = field(default_factory=dict)  # by place
    due: dict[int, float] = field(default_factory=dict)  # place → when it is started again
    delays: dict[int, float] = field(default_factory=dict)  # place → the delay before its last start


class Crew:
    """The parent. Runs without an event loop and without threads, so that it can fork at any time.

    Arguments:
        home: whose deployments are served.
        listener: the socket that all workers accept on.
        grpc_port: kept from others by `reserved`; None: gRPC is turned off.
        scaler: says how many workers there are to be.
        serve: what a worker does in its process; returns its exit code.
    """

    def __init__(
        self,
        home: Path,
        listener: socket.socket,
        grpc_port: int | None,
        scaler: Scaler,
        serve: Callable[[Worker], int],
    ) -> None:
        self._folder = home / "serving" / "workers"
        self._status = home / "serving" / "status.json"
        self._listener = listener
        self._grpc_port = grpc_port
        self._scaler = scaler
        self._serve = serve
        self._board = Board()
        self._rates = SharedRates()
        self._crew = _Crew()
        self._left: set[int] = set()  # places whose worker was let go; their counts stay
        self._is_stopping = False
        self._was_ready = False
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._life, self._life_end = os.pipe()
        self._whole = DataPlaneStatus(os.getpid(), started_at=format_instant(SYSTEM.now()))

    def run(self, address: str, grpc_address: str) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code: 1 when no worker could start at all."""
        self._whole = replace(self._whole, address=address, grpc_address=grpc_address)
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            path.unlink()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)
        self._selector.register(self._woken, selectors.EVENT_READ)
        for place in range(1, self._scaler.wanted + 1):
            self._start(place)
        code = 0
        while self._crew.children or (self._crew.due and not self._is_stopping):
            self._wait()
            code = self._reap() or code
            self._start_due()
            self._end_overdue()
            if not self._is_stopping:
                self._scale()
        os.close(self._life_end)
        return code

    def _wait(self) -> None:
        """Sleep until a worker tells something, one ends, a signal comes, or there is something due."""
        now = time.monotonic()
        due = min(self._crew.due.values(), default=now + _TICK_S)
        is_told = False
        for key, _ in self._selector.select(max(0.0, min(due - now, _TICK_S))):
            if key.fileobj is self._woken:
                self._obey(self._woken.recv(256))
            else:
                told = int(key.fd)
                if not os.read(told, 4096):
                    self._selector.unregister(told)
                    os.close(told)
                is_told = True
        if is_told:
            self._tell()

    def _obey(self, numbers: bytes) -> None:
        if {int(signal.SIGTERM), int(signal.SIGINT)} & set(numbers) and not self._is_stopping:
            _log.info("stopping %d workers", len(self._crew.children))
            self._is_stopping = True
            for place in list(self._crew.children):
                self._let_go(place)
        if int(signal.SIGHUP) in numbers:
            for child in self._crew.children.values():
                _send(child.pid, signal.SIGHUP)

    # workers

    def _start(self, place: int) -> None:
        told, tell = os.pipe()
        os.set_blocking(told, False)
        is_replacing = bool(self._board.living())
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = self._be_worker(place, tell, is_replacing)
            except BaseException:
                _log.exception("a worker failed")
            finally:
                logging.shutdown()
                os._exit(code)
        os.close(tell)
        self._selector.register(told, selectors.EVENT_READ)
        self._left.discard(place)
        self._crew.children[place] = _Child(pid, time.monotonic(), told)

    def _be_worker(self, place: int, tell: int, is_replacing: bool) -> int:
        """Run as a child: what belongs to the parent is closed, or its end would not be seen."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for key in list(self._selector.get_map().values()):
            if key.fileobj is not self._woken:
                os.close(key.fd)
        self._selector.close()
        self._woken.close()
        self._wake.close()
        os.close(self._life_end)
        os.set_blocking(tell, False)
        mine = Place(self._folder, place, self._board)
        return self._serve(Worker(mine, self._listener, self._grpc_port, self._rates, self._life, tell, is_replacing))

    def _reap(self) -> int:
        """Take note of workers that have ended; return 1 when none could start at all."""
        code = 0
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return code
            if pid == 0:
                return code
            place = next((place for place, child in self._crew.children.items() if child.pid == pid), None)
            if place is None:
                continue
            child = self._crew.children.pop(place)
            self._board.leave(place)
            if child.leaves_at is not None or self._is_stopping:
                self._left.add(place)
                continue
            how = os.waitstatus_to_exitcode(status)
            if not self._was_ready and how == 1:  # it has said why, and the next would say the same
                self._is_stopping, code = True, 1
                for other in list(self._crew.children):
                    self._let_go(other)
                continue
            self._plan_start(place, child, how)

    def _plan_start(self, place: int, child: _Child, how: int) -> None:
        now = time.monotonic()
        if child.is_ready or now - child.began > _YOUNG_S:
            delay = 0.0  # at once: a killed worker is back while its clients try again
        else:
            delay = min(max(self._crew.delays.get(place, 0.0) * 2, _FIRST_DELAY_S), _LONGEST_DELAY_S)
        self._crew.delays[place] = delay
        what = f"signal {-how}" if how < 0 else f"exit code {how}"
        _log.warning("worker %d (process %d) ended with %s; it is started again", place, child.pid, what)
        self._crew.due[place] = now + delay

    def _start_due(self) -> None:
        now = time.monotonic()
        for place in [place for place, at in self._crew.due.items() if at <= now and not self._is_stopping]:
            del self._crew.due[place]
            self._start(place)

    def _let_go(self, place: int) -> None:
        child = self._crew.children[place]
        if child.leaves_at is None:
            child.leaves_at = time.monotonic() + _STOP_S
            _send(child.pid, signal.SIGTERM)

    def _end_overdue(self) -> None:
        for child in self._crew.children.values():
            if child.leaves_at is not None and child.leaves_at < time.monotonic():
                _send(child.pid, signal.SIGKILL)

    def _scale(self) -> None:
        """Start or let go as many as the scaler says; those with the highest numbers go first."""
        wanted = self._scaler.look(self._folder, set(self._board.living()))
        crew = self._crew
        staying = {place for place, child in crew.children.items() if child.leaves_at is None} | set(crew.due)
        if wanted == len(staying):
            return
        _log.info("%d workers instead of %d: %s", wanted, len(staying), self._scaler.reason)
        free = [place for place in range(1, MOST_WORKERS + 1) if place not in crew.children and place not in crew.due]
        for place in free[: max(0, wanted - len(staying))]:
            self._start(place)
        for place in sorted(staying, reverse=True)[: max(0, len(staying) - wanted)]:
            if place in crew.children:
                self._let_go(place)
            else:
                del crew.due[place]
                self._left.add(place)

    # what is told

    def _tell(self) -> None:
        """Write what holds of all workers, once there is something to say."""
        living: dict[str, DataPlaneStatus] = {}
        gone = [self._read(place) for place in (*self._left, *self._crew.due)]
        for place, child in self._crew.children.items():
            found = self._read(place)
            if found is not None and found.pid == child.pid:
                child.is_ready = self._was_ready = True
            if found is not None and found.pid == child.pid and (child.leaves_at is None or self._is_stopping):
                living[str(place)] = found
            else:  # of the one before, from whose counts the new one goes on
                gone.append(found)
        if not living:
            return
        try:
            joined(living, self._whole, [status for status in gone if status is not None]).write(self._status)
        except OSError as error:
            _log.error("%s could not be written: %s", self._status, error.strerror)

    def _read(self, place: int) -> DataPlaneStatus | None:
        try:
            return read_status(self._folder / f"{place}.json")
        except (NotFound, Corrupt):
            return None


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises Unavailable as `HttpServer.start`."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        # The protocol is named because asyncio turns Nagle's delay off only on sockets that name it.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    except (OSError, OverflowError) as error:
        raise _not_listening(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        raise _not_listening(host, port, error) from error
    return listener


def reserved(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port for processes that bind it with SO_REUSEPORT; it must stay open.

    Raises:
        Unavailable: the port is taken, or this system cannot share one.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise Unavailable("several workers cannot share a port for gRPC on this system; set [grpc] enabled = false")
    with listening(host, port) as probe:  # alone: with SO_REUSEPORT another data plane's port would seem to be free
        family, address = probe.family, probe.getsockname()
    keeper = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(address)
    except OSError as error:
        keeper.close()
        raise _not_listening(host, port, error) from error
    return keeper


def _not_listening(host: str, port: int, error: Exception) -> Unavailable:
    reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return Unavailable(
        f"cannot listen on {host}:{port}: {reason.lower()}; stop what uses it or choose another port "
        "(0 picks a free one)"
    )


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
