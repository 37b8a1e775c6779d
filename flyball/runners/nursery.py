"""The process that pool workers are born from: it imports a project once, then forks a worker in a few milliseconds.

`python -m flyball.runners.nursery HANDLER FD` is started by `pool`: the function that makes what answers tasks, and a
Unix socket. The first message on it says what else to import. Each further message brings the socket of one worker to
be forked; the answer is its process id.

A process that has threads must not be forked: a lock that one of them holds stays locked in the child for ever. When
importing the project starts worker threads, each worker is therefore a fresh interpreter that imports it again.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import queue
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypedDict

__all__ = ["Plan", "main"]

PID = struct.Struct("!q")
_IDLE_THREADS = ("jemalloc_bg_thd", "polars-ooc")  # they hold no lock that a forked child would miss


class Plan(TypedDict):
    """What workers are made of."""

    path: list[str]  # sys.path
    folder: str
    preload: list[str]  # modules
    handler: str  # module:name of what makes, of `setup`, the function that answers tasks
    setup: bytes


def main(arguments: list[str]) -> None:
    """Serve as the nursery, or with `--worker` as one worker that was not forked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to everyone; the pool's owner ends us
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # `_is_forkable` has looked more closely
    control = socket.socket(fileno=int(arguments[-1]))
    if arguments[0] == "--worker":
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with Connection(control.detach()) as connection:
            plan: Plan = pickle.loads(connection.recv_bytes())
            _prepare(plan)
            _serve(connection, plan)
        return
    with contextlib.suppress(ImportError):  # it may be the project's own; its path comes with the plan
        _imported(arguments[0])
    plan = pickle.loads(_receive(control))
    _prepare(plan)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    can_fork = _is_forkable()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            os._exit(0)  # the owner is gone; workers see the end of their own sockets
        pid = _fork(control, descriptors[0], plan) if can_fork else _spawn(descriptors[0])
        os.close(descriptors[0])
        control.sendall(PID.pack(pid))


def _prepare(plan: Plan) -> None:
    sys.path[:] = plan["path"]
    os.chdir(plan["folder"])
    _imported(plan["handler"])
    for module in plan["preload"]:
        # What cannot be imported is reported by the step that needs it, with its traceback.
        with contextlib.suppress(Exception):
            importlib.import_module(module)


def _is_forkable() -> bool:
    if threading.active_count() > 1:
        return False
    try:
        names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return sys.platform == "linux"
    own = Path("/proc/self/comm").read_text().strip()  # numerical libraries' threads bear it, and survive a fork
    return all(name == own or name.startswith(_IDLE_THREADS) for name in names)


def _fork(control: socket.socket, descriptor: int, plan: Plan) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        random.seed()
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()
        with Connection(descriptor) as connection:
            connection.recv_bytes()  # the plan, which is known here
            _serve(connection, plan)
    finally:
        os._exit(1)


def _spawn(descriptor: int) -> int:
    command = [sys.executable, "-m", "flyball.runners.nursery", "--worker", str(descriptor)]
    return subprocess.Popen(command, pass_fds=[descriptor], env={**os.environ, "PYTHONPATH": _package_root()}).pid


def _serve(connection: Connection, plan: Plan) -> None:
    """Answer tasks one after another until the owner closes the socket, in the middle of one if need be."""
    log = connection.recv_bytes().decode()
    descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks, Path(log)), daemon=True).start()
    answer = _imported(plan["handler"])(plan["setup"])
    while True:
        task = tasks.get()
        os.ftruncate(descriptor, 0)
        done = answer(task, log)
        with contextlib.suppress(OSError):
            connection.send_bytes(done)


def _listen(connection: Connection, tasks: queue.SimpleQueue[bytes], log: Path) -> None:
    try:
        while True:
            tasks.put(connection.recv_bytes())
    except (EOFError, OSError):
        with contextlib.suppress(OSError):
            log.unlink(missing_ok=True)
            log.parent.rmdir()  # the last worker of an owner that was killed
        os._exit(0)


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _receive(control: socket.socket) -> bytes:
    """Return one message that is preceded by its length."""
    header = control.recv(PID.size, socket.MSG_WAITALL)
    if not header:
        os._exit(0)  # the owner changed its mind
    return control.recv(PID.unpack(header)[0], socket.MSG_WAITALL)


def _package_root() -> str:
    return os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(":")


if __name__ == "__main__":
    main(sys.argv[1:])
