"""`flyball up`: the control plane in this process, the data plane as its child, until a signal ends both.

The data plane is started first and loads its models while this process imports what it needs. One control plane a
home: a lock on `control.lock`, which the system frees when the process dies, says so at once; the lease in the ledger
holds besides, whoever else acts.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import logging.handlers
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyball import settings
from flyball.cli.app import Home, app
from flyball.errors import FlyballError, Unavailable
from flyball.settings import DEFAULT_PORT, DEFAULT_SERVE_PORT

if TYPE_CHECKING:
    from flyball.cli.supervisor import DataPlane
    from flyball.platform import Platform
    from flyball.serving.tls import Certificates
    from flyball.wire.openlineage.sending import OpenlineageSettings

log = logging.getLogger("flyball.up")

_STOP_S = 9.0  # from the signal to the end of all; what the pages and the loop leave of it is the data plane's
_DRAIN_S = 2  # for pages and API calls in work
_CERTIFICATES_S = 10.0  # how often the files are looked at
_LOOP_S = 1.0  # for each thread of the loop to finish the call it is in; what it did not finish is done anew

Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Of pages and API; 0 picks a free one.")]
ServePort = Annotated[
    int | None,
    typer.Option("--serve-port", min=0, max=65535, show_default=str(DEFAULT_SERVE_PORT), help="Of predictions."),
]
GrpcPort = Annotated[
    int | None,
    typer.Option("--grpc-port", min=0, max=65535, show_default="7072", help="Of predictions over gRPC."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, max=64, show_default="1", help="Processes that answer predictions."),
]
Host = Annotated[str, typer.Option("--host", help="The address to listen on.")]


@app.command()
def up(
    home: Home = None,
    port: Port = DEFAULT_PORT,
    serve_port: ServePort = None,
    grpc_port: GrpcPort = None,
    workers: Workers = None,
    host: Host = "127.0.0.1",
) -> None:
    """Serve a home and keep it as declared, until Ctrl-C."""
    from flyball.cli.supervisor import DataPlane
    from flyball.platform import Platform

    path = Platform.home_of(home)
    ending = _Ending()
    gc.disable()  # until all is imported: looking through it again and again takes a quarter of the time to the start
    with _alone(path), _listening(host, port) as listener:
        _write_logs(path)
        plane = DataPlane(path, host, serve_port, DEFAULT_SERVE_PORT, grpc_port, workers)
        needed = plane.look()
        if needed:
            _bound(host, needed, "--serve-port").close()  # taken by another: said before anything is started
        plane.start()
        try:
            _serve(path, host, listener, plane, ending)
        finally:
            plane.stop(max(1.0, ending.left_s()))
            (path / "control.json").unlink(missing_ok=True)


class _Ending:
    """What ends the process: a signal, or a failure in one of its threads."""

    def __init__(self) -> None:
        self.is_set = threading.Event()
        self._begun = float("inf")
        self.error: FlyballError | None = None
        self._close: Any = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self.end())

    def end(self, error: FlyballError | None = None) -> None:
        """Begin to end."""
        self.error = self.error or error
        self._begun = min(self._begun, time.monotonic())
        self.is_set.set()
        if self._close is not None:
            self._close()

    def left_s(self) -> float:
        """Return the seconds left until all should have ended."""
        return _STOP_S - max(0.0, time.monotonic() - self._begun)

    def closes(self, close: Any) -> None:
        """Say what to call when the end comes; called at once when it has come already."""
        self._close = close
        if self.is_set.is_set():
            close()


def _serve(path: Path, host: str, listener: socket.socket, plane: DataPlane, ending: _Ending) -> None:
    """Serve pages and API, run the loop, watch the data plane; return when it is time to end."""
    from flyball.cli.supervisor import ControlPlane
    from flyball.clock import SYSTEM, format_instant
    from flyball.platform import Platform
    from flyball.serving.tls import TlsSettings
    from flyball.wire.openlineage.sending import Exporter, OpenlineageSettings, receiver_of

    platform = Platform.open(path)
    exporter: Exporter | None = None
    try:
        loop, webhooks = platform.loop(), platform.deliverer()
        lineage = settings.load(OpenlineageSettings, "openlineage", path)
        receiver = receiver_of(lineage, path)
        forwarder = platform.forwarder()
        required = platform.auth_settings.required
        is_asking = not _is_loopback(listener) if required is None else required
        certificates = settings.load(TlsSettings, "tls", path).certificates(path, for_predictions=False)
        server, web = _server(platform, loop, host, listener, lineage, is_asking, certificates)
        address = _shown(listener, certificates is not None)

        def close() -> None:
            web.state.changes.close()
            server.should_exit = True

        def announce() -> None:
            try:
                predictions = plane.wait_until_ready()
            except FlyballError as error:
                ending.end(error)
                return
            plane.watch()
            while not server.started and not ending.is_set.wait(0.01):
                pass
            if predictions is not None and not ending.is_set.is_set():
                with contextlib.suppress(OSError):  # whoever read our output may be gone
                    print(f"flyball is ready: pages {address}  predictions {predictions}  home {path}", flush=True)
                    if is_asking:
                        _tell_first_key(platform, address)

        def act() -> None:
            while not server.started:
                if ending.is_set.wait(0.01):
                    return
            try:
                loop.start()
            except FlyballError as error:
                ending.end(error)
            except Exception:
                log.exception("the controllers could not be made")
                ending.end(Unavailable(f"the controllers could not be made; see {path / 'logs' / 'control-plane.log'}"))
            _resume_erasures(platform)
            _spare_collector()

        threading.Thread(target=act, name="controllers", daemon=True).start()
        webhooks.start()
        if receiver is not None:
            exporter = Exporter(platform.ledger, receiver, path, lineage.namespace)
            exporter.start(lineage.every_s)
        threading.Thread(target=announce, name="announce", daemon=True).start()
        if certificates is not None:
            threading.Thread(target=_watch, args=(certificates, ending), name="certificates", daemon=True).start()
        threading.Thread(target=platform.sealer().run, args=(ending.is_set,), name="sealing", daemon=True).start()
        sweeping = platform.sweeping_timer()
        threading.Thread(target=sweeping.run, args=(ending.is_set,), name="sweeping", daemon=True).start()
        if forwarder is not None:
            threading.Thread(target=forwarder.run, args=(ending.is_set,), name="sink", daemon=True).start()
        ControlPlane(os.getpid(), address, format_instant(SYSTEM.now())).write(path)
        ending.closes(close)
        if not ending.is_set.is_set():
            try:
                server.run(sockets=[listener])
            except SystemExit as error:
                raise Unavailable(
                    f"the pages could not be served; see {path / 'logs' / 'control-plane.log'}"
                ) from error
        ending.is_set.set()
        plane.begin_stop()
        loop.stop(_LOOP_S)
        webhooks.stop(_LOOP_S)
        if exporter is not None:
            exporter.stop(_LOOP_S)
    finally:
        platform.close()
    if ending.error is not None:
        raise ending.error


def _tell_first_key(platform: Platform, address: str) -> None:
    """Make a key where there is none, and say how to log in: nobody could come in otherwise."""
    try:
        if platform.access_keys():
            return
        _, secret = platform.create_key("admin", "admin")
    except FlyballError as error:
        log.warning("no access key could be made: %s", error)
        return
    with contextlib.suppress(OSError):
        print(f"log in at {address}/login with the access key {secret}", flush=True)
        print("it may do everything and is shown this once; flyball key create makes others", flush=True)


def _spare_collector() -> None:
    """Let the garbage collector leave alone what lives as long as the process.

    A page of 25,000 points makes as many tuples, and at Python's own threshold each page would have everything that was
    ever imported looked through several times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def _resume_erasures(platform: Platform) -> None:
    """Carry on, beside everything else, with erasures that a crash has interrupted."""

    def resume() -> None:
        try:
            for erased in platform.resume_erasures():
                log.warning("an erasure that was interrupted is done: %s", erased)
        except FlyballError as error:
            log.warning("an interrupted erasure could not be carried on: %s", error)

    threading.Thread(target=resume, name="erasures", daemon=True).start()


def _watch(certificates: Certificates, ending: _Ending) -> None:
    """Take up a certificate that was renewed."""
    while not ending.is_set.wait(_CERTIFICATES_S):
        certificates.refresh()


def _server(
    platform: Platform,
    loop: Any,
    host: str,
    listener: socket.socket,
    lineage: OpenlineageSettings,
    is_asking: bool,
    certificates: Certificates | None,
) -> tuple[Any, Any]:
    """Return the HTTP server, not yet running, and its application; `is_asking` for access keys."""
    import uvicorn

    from flyball.web.pages import mount
    from flyball.wire.mlflow.app import Fork
    from flyball.wire.native.app import make_app
    from flyball.wire.native.connections import BoundedProtocol
    from flyball.wire.openlineage.routes import add_lineage

    if not is_asking and not _is_loopback(listener):
        log.warning("whoever reaches %s may do everything here: there is no login", _shown(listener))
    hosts, takes_addresses = _hosts(host, listener), not _is_loopback(listener)
    admission = platform.admission if is_asking else None
    seen = platform.for_callers() if is_asking else platform
    web = make_app(seen, loop=loop, hosts=hosts, takes_addresses=takes_addresses, admission=admission)
    add_lineage(web, seen, lineage.namespace)
    mount(web, seen)
    whole = Fork(web, seen, hosts, takes_addresses, admission)

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are ours: they end the event streams and the data plane too

    options: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": _DRAIN_S,
    }
    options |= {"http": BoundedProtocol, "ws": "none", "lifespan": "off"}
    config = uvicorn.Config(whole, **options)
    if certificates is not None:
        config.load()
        config.ssl = certificates.context  # uvicorn would make one of its own, which takes up no renewed certificate
    return Server(config), web


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the home's lock.

    Raises:
        Unavailable: another `flyball up` holds it; names it.
    """
    import fcntl

    from flyball.cli.supervisor import control_plane

    with (home / "control.lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = control_plane(home)
            who = f"process {other.pid} at {other.address}" if other is not None else "another process"
            raise Unavailable(f"flyball up runs on {home} already: {who}; use it, or stop it first") from None
        yield


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen for pages and API before anything is started.

    Raises:
        Unavailable: the port is taken or the address is not this machine's.
    """
    with _bound(host, port, "--port") as listener:
        listener.listen(2048)
        listener.setblocking(False)
        yield listener


def _bound(host: str, port: int, option: str) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        # The protocol is named because asyncio turns Nagle's delay off only on sockets that name it.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}: {error.strerror}; choose an address of this machine") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {reason}; stop what uses it or choose another with {option} "
            "(0 picks a free one)"
        ) from error
    return listener


def _is_loopback(listener: socket.socket) -> bool:
    import ipaddress

    return ipaddress.ip_address(str(listener.getsockname()[0]).partition("%")[0]).is_loopback


def _hosts(host: str, listener: socket.socket) -> list[str]:
    """Return the names under which this server may be asked for."""
    return [host] if _is_loopback(listener) else [host, socket.gethostname(), socket.getfqdn()]


def _shown(listener: socket.socket, is_secure: bool = False) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if is_secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _write_logs(home: Path) -> None:
    """Log to the home, warnings also to stderr."""
    folder = home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    kept = logging.handlers.RotatingFileHandler(folder / "control-plane.log", maxBytes=20_000_000, backupCount=1)
    shown = logging.StreamHandler(sys.stderr)
    shown.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in (kept, shown):
        handler.setFormatter(form)
        root.addHandler(handler)
