"""Real services for tests: started on a free port in a temporary folder, stopped at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["free_port", "kafka_cluster", "postgres_server", "redis_server", "s3_server", "web_server"]


def free_port() -> int:
    """Return a port of the loopback address that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server in `folder`; yield its URL without a database name."""
    binaries = _postgres_binaries()
    data, port = folder / "data", free_port()
    prefix: list[str] = []
    if os.getuid() == 0:  # the server refuses to run as root
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        for parent in [folder, *folder.parents]:
            if parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        shutil.chown(folder, "postgres", "postgres")
    run = {"check": True, "capture_output": True, "text": True, "cwd": folder, "timeout": 120}
    initdb = [*prefix, str(binaries / "initdb"), "-D", str(data), "-U", "flyball", "-A", "trust", "-E", "UTF8", "-N"]
    subprocess.run(initdb, **run)  # type: ignore[call-overload]
    options = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    server = subprocess.Popen(
        [*prefix, str(binaries / "postgres"), "-D", str(data), *options],
        stdout=(folder / "log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        _wait_for(port, server, folder / "log")
        yield f"postgresql://flyball@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def redis_server(folder: Path, *options: str, port: int | None = None) -> Iterator[str]:
    """Run a Redis server in `folder`, without keeping anything on disk; yield its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port() if port is None else port
    binary = shutil.which("redis-server")
    assert binary, "Redis is not installed; `make services` installs it"
    own = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([binary, *own, *options], stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while b"Ready to accept connections" not in (folder / "log").read_bytes():
            assert server.poll() is None, f"Redis ended: {(folder / 'log').read_text()[-2000:]}"
            assert time.monotonic() < deadline, "Redis did not become ready within half a minute"
            time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait(30)


def _postgres_binaries() -> Path:
    for candidate in [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]:
        if (candidate / "initdb").exists():
            return candidate
    found = shutil.which("initdb")
    assert found, "PostgreSQL is not installed; `make services` installs it"
    return Path(found).resolve().parent


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, f"PostgreSQL ended: {log.read_text()[-2000:]}"
        ready = log.read_text().count("ready to accept connections")
        if ready:
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                return
        time.sleep(0.05)
    raise AssertionError("PostgreSQL did not become ready within a minute")


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's S3 in a process of its own; yield its endpoint. It asks for no particular credentials."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_open(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def kafka_cluster() -> Iterator[str]:
    """Run librdkafka's own mock of a cluster with one broker; yield its `host:port`. Topics appear when written to."""
    from confluent_kafka import Producer

    home = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
    broker = next(iter(home.list_topics(timeout=30).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    home.flush(10)


@contextmanager
def web_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve GET requests by `answer` in a thread; yield the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _wait_until_open(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended at its start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not become ready within a minute")
