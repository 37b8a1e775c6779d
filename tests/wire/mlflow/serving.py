"""MLflow's routes over a real home, answered by a real server in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import uvicorn

from flyball.platform import Platform
from flyball.wire.mlflow.app import MlflowApp, make_routes

__all__ = ["served"]


@contextmanager
def served(platform: Platform) -> Iterator[httpx2.Client]:
    """Serve a platform and yield a client of the server."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(MlflowApp(make_routes(platform)), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10)
