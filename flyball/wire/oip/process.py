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
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from flyball.errors import FlyballError
from flyball.serving.engine import Engine
from flyball.serving.server import HttpServer
from flyball.serving.service import Service
from flyball.settings import DEFAULT_SERVE_PORT, home_directory
from flyball.wire.oip.rest import RestHandler

__all__ = ["main", "serve"]

_log = logging.getLogger("flyball.serving")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code: 0 stopped, 1 could not start (2: wrong use, by argparse)."""
    parser = argparse.ArgumentParser("python -m flyball.wire.oip", description="Serve the deployments of a home.")
    parser.add_argument("--home", type=Path, help="default: FLYBALL_HOME, else .flyball")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=DEFAULT_SERVE_PORT, help="0 picks a free one")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        cut = _run(serve(home_directory(given.home), given.host, given.port))
    except FlyballError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if cut:
        # A model that still computes holds a thread that cannot be ended otherwise; the log is already flushed.
        logging.shutdown()
        os._exit(0)
    return 0


async def serve(home: Path, host: str, port: int) -> int:
    """Serve a home until a signal; return how many connections had to be cut off.

    Raises:
        Unavailable: the address cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    service = Service(Engine(home, writer="data_plane", deliver=loop.call_soon_threadsafe))
    server = HttpServer(RestHandler(service))
    bound_host, bound_port = await server.start(host, port)
    shown = f"[{bound_host}]" if ":" in bound_host else bound_host
    service.address = f"http://{shown}:{bound_port}"
    stopped = asyncio.Event()
    looks: set[asyncio.Task[None]] = set()

    def look_again() -> None:
        task = loop.create_task(service.look(is_forced=True))
        looks.add(task)
        task.add_done_callback(looks.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, look_again)
    await service.start()
    # What is loaded now stays; the collector need not walk through it while requests wait.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError):  # whoever read our output may be gone
        print(f"serving {len(service.engine.lineup.served)} deployments on {service.address}", flush=True)
    await stopped.wait()
    _log.info("stopping: finishing requests in work")
    cut = await server.stop()
    await service.stop()
    return cut


def _run(work: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:  # not on every system; asyncio's own loop does the same, slower
        return asyncio.run(work)
    return int(uvloop.run(work))
