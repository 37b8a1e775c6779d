"""The data plane as a child: start or adopt it, notice its end, start it again, stop it.

It has a session of its own and needs nobody, so a killed control plane leaves it serving; the next `flyball up` adopts
it. What runs is read from two files of the home: `serving/status.json`, which the data plane writes, and
`control.json`, which `flyball up` writes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flyball.control.lease import is_alive
from flyball.errors import Corrupt, FlyballError, InvalidInput, NotFound, Unavailable

__all__ = ["ControlPlane", "DataPlane", "control_plane", "live_data_plane", "post"]

log = logging.getLogger("flyball.up")

_LOOK_S = 0.1
_FIRST_DELAY_S = 0.2  # before a data plane that died is started again; doubles while it dies young
_LONGEST_DELAY_S = 15.0
_YOUNG_S = 10.0
_LOG_BYTES = 20_000_000  # a larger log is put aside at the next start


@dataclass(frozen=True)
class ControlPlane:
    """`control.json`: the process that acts on a home, and where its pages are."""

    pid: int
    address: str
    started_at: str

    def write(self, home: Path) -> None:
        """Replace the document; readers never see half of it."""
        partial = home / f".control.json.{secrets.token_hex(6)}.part"
        partial.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        partial.replace(home / "control.json")


@dataclass(frozen=True)
class LivePlane:
    """A data plane that answers."""

    pid: int
    address: str
    grpc_address: str = ""
    workers: int = 1


def control_plane(home: Path) -> ControlPlane | None:
    """Return the control plane that runs on a home, None when there is none."""
    try:
        found = ControlPlane(**json.loads((home / "control.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    arguments = _arguments(found.pid)
    is_ours = arguments is None or any("flyball" in argument for argument in arguments)
    return found if is_alive(found.pid) and is_ours else None


def live_data_plane(home: Path) -> LivePlane | None:
    """Return the data plane that serves a home and answers, None when there is none."""
    found = _told(home)
    if found is None or not is_alive(found.pid):
        return None
    arguments = _arguments(found.pid)
    is_ours = arguments is None or {"flyball.wire.oip", str(home)} <= set(arguments)
    return found if is_ours and _answers(found.address) else None


def post(url: str, document: Any, timeout_s: float = 60.0) -> Any:
    """Send JSON to a server of ours and return its JSON answer.

    Raises:
        InvalidInput, NotFound, Unavailable: as the server says, in its words.
    """
    body = json.dumps(document, allow_nan=True).encode()
    headers = {"Content-Type": "application/json"}
    if os.environ.get("FLYBALL_TOKEN"):
        headers["Authorization"] = f"Bearer {os.environ['FLYBALL_TOKEN']}"
    request = urllib.request.Request(url, body, headers)
    try:
        with _opener().open(request, timeout=timeout_s) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        try:
            sentence = str(json.loads(error.read())["error"])
        except (ValueError, KeyError, TypeError):
            sentence = f"{url} answered {error.code}"
        kind = NotFound if error.code == 404 else InvalidInput if error.code < 500 else Unavailable
        raise kind(sentence) from None
    except OSError as error:
        raise Unavailable(f"the data plane at {url} does not answer: {error}") from error


class DataPlane:
    """Keeps one data plane running for a home."""

    def __init__(
        self,
        home: Path,
        host: str,
        port: int | None,
        default_port: int,
        grpc_port: int | None = None,
        workers: int | None = None,
    ) -> None:
        self._home = home
        self._workers = workers  # None: as the home's settings say
        self._grpc_port = grpc_port  # None: as the data plane itself chooses
        self._host = host
        self._wanted_port = port  # None: whichever runs already, else the default
        self._port = default_port if port is None else port
        self._log_path = home / "logs" / "data-plane.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._adopted: LivePlane | None = None
        self._replaced: LivePlane | None = None
        self._log_start = 0
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self.address = ""

    @property
    def pid(self) -> int | None:
        """The process that serves."""
        if self._child is not None:
            return self._child.pid
        return self._adopted.pid if self._adopted is not None else None

    def look(self) -> int | None:
        """Adopt the data plane that serves already; return the port that a new one needs, None when there is one."""
        running = live_data_plane(self._home)
        if running is None:
            return self._port
        is_elsewhere = self._wanted_port not in (None, 0) and not running.address.endswith(f":{self._wanted_port}")
        if self._grpc_port not in (None, 0) and not running.grpc_address.endswith(f":{self._grpc_port}"):
            is_elsewhere = True
        if is_elsewhere or self._workers not in (None, running.workers):
            self._replaced = running
            return self._port
        log.info("adopting the data plane %d at %s", running.pid, running.address)
        self._adopted, self.address = running, running.address
        return None

    def start(self) -> None:
        """Start one, unless `look` has adopted one; returns at once."""
        if self._adopted is not None:
            return
        if self._replaced is not None:
            log.info("the data plane %d is stopped, to be started on port %d", self._replaced.pid, self._port)
            _end(self._replaced.pid, 8.0)
        self._spawn()

    def wait_until_ready(self) -> str | None:
        """Wait until it answers, and return its address; None when `stop` came first.

        Raises:
            Unavailable: it ended before it was ready; says why.
        """
        while not self._stopping.is_set():
            if self._adopted is not None:
                return self.address
            assert self._child is not None
            found = _told(self._home)
            if found is not None and found.pid == self._child.pid and _answers(found.address):
                self.address = found.address
                self._port = int(found.address.rsplit(":", 1)[1])
                if found.grpc_address:  # so that it has the same again when it is started again
                    self._grpc_port = int(found.grpc_address.rsplit(":", 1)[1])
                return self.address
            if self._child.poll() is not None:
                raise Unavailable(self._last_words() or f"the data plane ended ({self._how()}); see {self._log_path}")
            self._stopping.wait(0.02)
        return None

    def watch(self) -> None:
        """Start it again whenever it ends, from a thread of its own."""
        self._watcher = threading.Thread(target=self._watch, name="data-plane-watch", daemon=True)
        self._watcher.start()

    def begin_stop(self) -> None:
        """Ask it to end; requests in work are finished."""
        self._stopping.set()
        pid = self.pid
        if pid is not None and self._is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def stop(self, wait_s: float = 8.0) -> None:
        """End it; after `wait_s` by force."""
        self.begin_stop()
        if self._watcher is not None:
            self._watcher.join(1.0)
            self.begin_stop()  # it may have started another at that very moment
        pid = self.pid
        if pid is not None and not _wait(lambda: not self._is_alive(), wait_s):
            log.warning("the data plane %d did not end in %.0f s; it is killed", pid, wait_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _wait(lambda: not self._is_alive(), 1.0)

    def _spawn(self) -> None:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        if self._log_path.exists() and self._log_path.stat().st_size > _LOG_BYTES:
            self._log_path.replace(self._log_path.with_suffix(".log.1"))
        command = [sys.executable, "-m", "flyball.wire.oip", "--home", str(self._home)]
        command += ["--host", self._host, "--port", str(self._port)]
        if self._grpc_port is not None:
            command += ["--grpc-port", str(self._grpc_port)]
        if self._workers is not None:
            command += ["--workers", str(self._workers)]
        with self._log_path.open("ab") as stream:
            self._log_start = stream.tell()
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
        self._adopted = None

    def _watch(self) -> None:
        delay, begun = _FIRST_DELAY_S, time.monotonic()
        while not self._stopping.wait(_LOOK_S):
            if self._is_alive():
                continue
            delay = _FIRST_DELAY_S if time.monotonic() - begun > _YOUNG_S else min(delay * 2, _LONGEST_DELAY_S)
            log.warning("the data plane %s ended (%s); it is started again in %.1f s", self.pid, self._how(), delay)
            if self._stopping.wait(delay):
                return
            try:
                begun = time.monotonic()
                self._spawn()
                self.wait_until_ready()
            except (FlyballError, OSError) as error:
                log.warning("the data plane could not be started: %s", error)

    def _is_alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._adopted is not None and is_alive(self._adopted.pid)

    def _how(self) -> str:
        code = self._child.poll() if self._child is not None else None
        if code is None:
            return "it was not our child"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _last_words(self) -> str | None:
        """Return the error sentence that it left in the log since it was started."""
        with self._log_path.open("rb") as stream:
            stream.seek(self._log_start)
            lines = stream.read(1_000_000).decode(errors="replace").splitlines()
        return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)


def _told(home: Path) -> LivePlane | None:
    from flyball.serving.status import read_status

    try:
        status = read_status(home / "serving" / "status.json")
    except (NotFound, Corrupt):
        return None
    if status.pid <= 0 or not status.address:
        return None
    return LivePlane(status.pid, status.address, status.grpc_address, max(1, len(status.workers)))


def _answers(address: str) -> bool:
    try:
        # It is known by its process; its certificate names the address that clients use, and not this one.
        with _opener(is_known=True).open(f"{address}/health", timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError) as error:
        # Who asks clients for a certificate serves, and has none of ours.
        reason = getattr(error, "reason", error)
        return address.startswith("https:") and isinstance(reason, ssl.SSLError)


def _opener(is_known: bool = False) -> urllib.request.OpenerDirector:
    # Proxies that the environment names are for the world outside, not for a server on this machine.
    context = ssl.create_default_context()
    if is_known:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


def _arguments(pid: int) -> list[str] | None:
    """Return a process's command line, to see that its id still means what it meant; None where that is not told."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None


def _end(pid: int, wait_s: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if _wait(lambda: not is_alive(pid), wait_s):
            return


def _wait(holds: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
