"""Real services for tests: started on a free port in a temporary folder, stopped at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["free_port", "postgres_server"]


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
