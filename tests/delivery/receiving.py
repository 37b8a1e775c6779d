"""A receiver of webhooks: a real HTTP server that answers, fails, hangs, hangs up or talks nonsense as it is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Received", "Receiver", "receiving", "verified", "wait_for"]


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def message(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers.get("webhook-id") or self.headers["x-mlflow-delivery-id"]


class Receiver:
    """What came, and how to answer: by path a list of behaviours, of which the last stays.

    A behaviour is a status, a function called with the handler, or one of "hang", "close", "garbage", "drip", "huge".
    """

    def __init__(self) -> None:
        self.got: list[Received] = []
        self.behaviours: dict[str, list[Any]] = {}
        self.over = threading.Event()
        self.url = ""

    def at(self, path: str) -> list[Received]:
        return [one for one in self.got if one.path == path]

    def next_behaviour(self, path: str) -> Any:
        left = self.behaviours.get(path) or [200]
        return left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def receiving(certificate: Path | None = None) -> Iterator[Receiver]:
    """Serve a receiver; with a certificate and its key, over TLS."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append(Received(self.path, headers, body))
            behaviour = receiver.next_behaviour(self.path)
            with suppress(OSError):
                self._behave(behaviour)

        def _behave(self, behaviour: Any) -> None:
            self.close_connection = True
            if isinstance(behaviour, int):
                self.send_response(behaviour)
                self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")
            elif behaviour == "hang":
                receiver.over.wait(30)
            elif behaviour == "garbage":
                self.wfile.write(b"\x00\xff not http at all\r\n\r\n")
            elif behaviour == "drip":
                for _ in range(300):
                    self.wfile.write(b"H")
                    if receiver.over.wait(0.1):
                        break
            elif behaviour == "huge":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                for _ in range(100):
                    self.wfile.write(b"x" * 1_000_000)
            elif callable(behaviour):
                behaviour(self)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None: ...  # who hangs up on it, or trusts it not, means to

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        server.server_close()


def wait_for(holds: Callable[[], Any], limit_s: float = 15.0) -> Any:
    """Return what `holds` returns once it is true."""
    end = time.monotonic() + limit_s
    tick = threading.Event()
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come true in time"
        tick.wait(0.02)
    return found


def verified(got: Received, key: bytes, front: str) -> bool:
    """Check a signature as a receiver does: HMAC-SHA256 over `id.timestamp.body`, in base64 behind `v1,`."""
    id, stamp = (
        got.headers[f"{front}-delivery-id" if front == "x-mlflow" else "webhook-id"],
        got.headers[f"{front}-timestamp"],
    )
    made = hmac.new(key, id.encode() + b"." + stamp.encode() + b"." + got.body, hashlib.sha256).digest()
    return got.headers[f"{front}-signature"] == "v1," + base64.b64encode(made).decode()
