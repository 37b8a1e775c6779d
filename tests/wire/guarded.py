"""The whole control plane over a real home, asking for access keys, answered by a real server in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from flyball.platform import Platform
from flyball.web.pages import mount
from flyball.wire.mlflow.app import Fork
from flyball.wire.native.app import make_app

__all__ = ["guarded"]


@contextmanager
def guarded(platform: Platform) -> Iterator[str]:
    """Serve a platform to those who have a key, and yield the server's address."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen = platform.for_callers()
    web = make_app(seen, admission=platform.admission)
    mount(web, seen)
    whole = Fork(web, seen, admission=platform.admission)
    server = uvicorn.Server(uvicorn.Config(whole, log_config=None, lifespan="off", timeout_graceful_shutdown=2))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        web.state.changes.close()
        server.should_exit = True
        thread.join(10)
