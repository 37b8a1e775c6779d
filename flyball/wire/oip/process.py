"""The data plane as a process: engine, service, handler and server put together, until a signal ends it.

The platform's supervisor starts it with `python -m flyball.wire.oip`; it reads one document and needs nobody else, so
it serves on when whoever started it is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flyball.errors import FlyballError, Unavailable
from flyball.serving.access_log import AccessLog
from flyball.serving.engine import Engine
from flyball.serving.keys import ServingSettings
from flyball.serving.scaling import Scaler, ScalingSettings
from flyball.serving.server import HttpServer, open_more_files
from flyball.serving.service import Service
from flyball.serving.sharing import Place
from flyball.serving.tls import Certificates, TlsSettings
from flyball.settings import DEFAULT_SERVE_PORT, home_directory, load
from flyball.wire.oip.rest import RestHandler
from flyball.wire.oip.settings import GrpcSettings
from flyball.wire.oip.workers import Crew, Worker, listening, reserved

__all__ = ["main", "serve"]

_CERTIFICATES_S = 10.0  # how often the files are looked at; SIGHUP does it at once
_log = logging.getLogger("flyball.serving")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code: 0 stopped, 1 could not start (2: wrong use, by argparse)."""
    parser = argparse.ArgumentParser("python -m flyball.wire.oip", description="Serve the deployments of a home.")
    parser.add_argument("--home", type=Path, help="default: FLYBALL_HOME, else .flyball")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_SERVE_PORT, help="0 picks a free one")
    parser.add_argument("--grpc-port", type=int, help="default: one above --port, if it is free; 0 picks one")
    parser.add_argument("--workers", type=int, help="processes; default: [serving] workers, 1")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    open_more_files()
    home = home_directory(given.home)
    try:
        serving, scaling = load(ServingSettings, "serving", home), load(ScalingSettings, "scaling", home)
        policy = scaling.policy(serving.workers if given.workers is None else given.workers)
        if policy.is_fixed and policy.minimum == 1:
            return _serve_alone(serve(home, given.host, given.port, given.grpc_port))
        return _serve_together(home, given.host, given.port, given.grpc_port, Scaler(policy))
    except FlyballError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _serve_alone(work: Coroutine[Any, Any, int]) -> int:
    try:
        cut = _run(work)
    except FlyballError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if cut:
        # A model that still computes holds a thread that cannot be ended otherwise; the log is already flushed.
        logging.shutdown()
        os._exit(0)
    return 0


def _serve_together(home: Path, host: str, port: int, grpc_port: int | None, scaler: Scaler) -> int:
    """Be the parent of workers; return the exit code. Raises Unavailable: an address cannot be listened on."""
    settings = load(GrpcSettings, "grpc", home)
    tls = load(TlsSettings, "tls", home).certificates(home)  # said here, before anything is started
    with listening(host, port) as listener:
        bound_host, bound_port = listener.getsockname()[:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        address = f"{'http' if tls is None else 'https'}://{shown}:{bound_port}"
        keeper: socket.socket | None = None
        if settings.enabled:
            import flyball.wire.oip.grpc  # noqa: F401 (once, rather than in each worker)

            keeper = _kept_port(settings, host, bound_port if port else 0, grpc_port)
        grpc_bound = None if keeper is None else int(keeper.getsockname()[1])
        # What is imported is shared by all workers as long as the collector does not write to it.
        gc.collect()
        gc.freeze()

        def work(worker: Worker) -> int:
            return _serve_alone(serve(home, host, bound_port, grpc_bound, worker))

        with contextlib.suppress(OSError):  # whoever read our output may be gone
            print(f"serving with {scaler.wanted} workers on {address}", flush=True)
        with keeper or contextlib.nullcontext():
            crew = Crew(home, listener, grpc_bound, scaler, work)
            return crew.run(address, f"{shown}:{grpc_bound}" if grpc_bound is not None else "")


def _kept_port(settings: GrpcSettings, host: str, port: int, chosen: int | None) -> socket.socket:
    wanted = settings.port if chosen is None else chosen
    try:
        return reserved(host, (port + 1 if port else 0) if wanted is None else wanted)
    except Unavailable:
        if wanted is not None:
            raise
        return reserved(host, 0)


async def serve(home: Path, host: str, port: int, grpc_port: int | None = None, worker: Worker | None = None) -> int:
    """Serve a home until a signal; return how many connections had to be cut off.

    Args:
        worker: what the parent gives, when this process is one of several.

    Raises:
        Unavailable: an address cannot be listened on.
        InvalidInput: a setting in `[grpc]`, `[serving]` or `[tls]` is wrong.
    """
    settings = load(GrpcSettings, "grpc", home)
    certificates = load(TlsSettings, "tls", home).certificates(home)
    loop = asyncio.get_running_loop()
    place = None if worker is None else worker.place
    writer = "data_plane" if place is None else f"data_plane_{place.number}"
    engine = Engine(home, writer=writer, deliver=loop.call_soon_threadsafe)
    service = Service(engine, rates=None if worker is None else worker.rates, place=place)
    access_log = _access_log(home, place)
    server = HttpServer(
        RestHandler(service, access_log=access_log), tls=None if certificates is None else certificates.context
    )
    service.connections = server.connections
    stopped = asyncio.Event()
    looks: set[asyncio.Task[None]] = set()

    def look_again() -> None:
        if certificates is not None:
            certificates.refresh()
        task = loop.create_task(service.look(is_forced=True))
        looks.add(task)
        task.add_done_callback(looks.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, look_again)
    if worker is None:
        bound_host, bound_port = await server.start(host, port)
    else:
        bound_host, bound_port = worker.listener.getsockname()[:2]
        loop.add_reader(worker.life, stopped.set)  # readable at its end only: the parent is gone
        service.on_told = partial(_tell, worker.told)
        if not worker.is_replacing:
            server.start_on(worker.listener, worker.place)
    shown = f"[{bound_host}]" if ":" in bound_host else bound_host
    service.address = f"{'http' if certificates is None else 'https'}://{shown}:{bound_port}"
    grpc: Any = None
    if worker is None or not worker.is_replacing:
        grpc = await _start_grpc(
            service, settings, host, bound_port if port else 0, grpc_port, worker, certificates, access_log
        )
    if worker is not None and worker.grpc_port is not None:
        service.grpc_address = f"{shown}:{worker.grpc_port}"
    elif grpc is not None:
        service.grpc_address = f"{shown}:{grpc.port}"
    await service.start()
    if worker is not None and worker.is_replacing:
        server.start_on(worker.listener, worker.place)
        grpc = await _start_grpc(service, settings, host, bound_port, grpc_port, worker, certificates, access_log)
    # What is loaded now stays; the collector need not walk through it while requests wait.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError):  # whoever read our output may be gone
        if worker is None:
            print(f"serving {len(service.engine.lineup.served)} deployments on {service.address}", flush=True)
            if grpc is not None:
                print(f"and for gRPC on {service.grpc_address}", flush=True)
    watching = loop.create_task(_watch_certificates(certificates)) if certificates is not None else None
    await stopped.wait()
    _log.info("stopping: finishing requests in work")
    if watching is not None:
        watching.cancel()
    drain_s = server.limits.drain_s
    cut, _ = await asyncio.gather(server.stop(), grpc.stop(drain_s) if grpc is not None else asyncio.sleep(0))
    await service.stop()
    if access_log is not None:
        access_log.close()
    return cut


def _access_log(home: Path, place: Place | None) -> AccessLog | None:
    serving = load(ServingSettings, "serving", home)
    if serving.access_log is None:
        return None
    path = home / serving.access_log
    if place is not None:  # two that put the same file aside would lose one of them
        path = path.with_stem(f"{path.stem}-{place.number}")
    return AccessLog(path, serving.access_share, serving.access_log_mb << 20)


def _tell(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError, BrokenPipeError):  # it has enough to read, or is gone
        os.write(descriptor, b".")


async def _watch_certificates(certificates: Certificates) -> None:
    while True:
        await asyncio.sleep(_CERTIFICATES_S)
        certificates.refresh()


async def _start_grpc(
    service: Service,
    settings: GrpcSettings,
    host: str,
    port: int,
    chosen: int | None,
    worker: Worker | None,
    certificates: Certificates | None,
    access_log: AccessLog | None,
) -> Any:
    """Return the gRPC server, listening; None when it is turned off.

    A port that nobody has chosen must not keep predictions from being served: when it is taken, another is.
    """
    if not settings.enabled:
        return None
    from flyball.wire.oip.grpc import GrpcServer  # who turns it off is spared what grpcio loads

    server = GrpcServer(service, settings, certificates, access_log)
    if worker is not None and worker.grpc_port is not None:
        await server.start(host, worker.grpc_port, is_shared=True)
        return server
    wanted = settings.port if chosen is None else chosen
    try:
        await server.start(host, (port + 1 if port else 0) if wanted is None else wanted)
    except Unavailable as error:
        if wanted is not None:
            raise
        await server.start(host, 0)
        _log.warning("%s; port %d is used instead", str(error).partition(";")[0], server.port)
    return server


def _run(work: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:  # not on every system; asyncio's own loop does the same, slower
        return asyncio.run(work)
    return int(uvloop.run(work))
