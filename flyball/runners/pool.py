"""A pool of worker processes that start quickly, can be killed one by one, and end when their owner ends.

Workers are forked from a `nursery` that has imported the project. The owner sends each worker one task at a time and
waits on all of them at once: `multiprocessing.connection.wait([w.connection for w in …])`. A worker that dies shows as
the end of its connection.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from flyball.errors import Unavailable
from flyball.runners.nursery import PID, Plan

__all__ = ["Pool", "Worker"]

_TRIES = 3  # to get a worker, with a new nursery each time


class Worker:
    """One worker process: send it a task, receive its answer."""

    def __init__(self, connection: Connection, pid: int, log: Path) -> None:
        self.connection = connection
        self.pid = pid
        self.log = log

    def send(self, task: bytes) -> None:
        """Hand over a task. Raises OSError when the worker is gone."""
        self.connection.send_bytes(task)

    def receive(self) -> bytes:
        """Return the answer to the task. Raises EOFError when the worker died."""
        try:
            return self.connection.recv_bytes()
        except OSError as error:  # a reset connection is an end as well
            raise EOFError from error

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.connection.close()


class Pool:
    """Makes workers; a context manager that ends all of them.

    Args:
        size: how many processors steps may use together.
        handler: `module:name` of a function that gets `setup` in each worker and returns the function that answers a
            task: `(task: bytes, log: str) -> bytes`.
        setup: bytes for the handler; None when they are not known yet: then call `begin` before the first `worker`,
            and the interpreter starts meanwhile.
        preload: modules that workers need, imported once.
    """

    def __init__(self, size: int, handler: str, setup: bytes | None = b"", preload: Sequence[str] = ()) -> None:
        self.size = size
        self._handler = handler
        self._plan: Plan | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="flyball-pool-"))
        self._count = 0
        self._workers: list[Worker] = []
        self._open_nursery()
        if setup is not None:
            self.begin(setup, preload)

    def begin(self, setup: bytes, preload: Sequence[str] = ()) -> None:
        """Say what workers are made with; `sys.path` and the current folder are taken as they are now."""
        path = [str(Path(entry).absolute()) for entry in sys.path]
        handler, folder = self._handler, str(Path.cwd())
        self._plan = Plan(path=path, folder=folder, preload=list(preload), handler=handler, setup=setup)
        self._send_plan()

    def worker(self) -> Worker:
        """Return a fresh worker.

        Raises:
            Unavailable: no process can be started.
        """
        for attempt in range(_TRIES):
            try:
                return self._worker()
            except (OSError, EOFError) as error:
                if attempt == _TRIES - 1:
                    raise Unavailable(f"no worker process can be started: {error}") from error
                self._close_nursery()
                self._open_nursery()
                self._send_plan()
        raise AssertionError("unreachable")

    def discard(self, worker: Worker) -> None:
        """Kill a worker and forget it."""
        worker.kill()
        worker.log.unlink(missing_ok=True)
        if worker in self._workers:
            self._workers.remove(worker)

    def close(self) -> None:
        """Kill all workers."""
        for worker in list(self._workers):
            worker.kill()
        self._workers.clear()
        self._close_nursery()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _worker(self) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"w"], [theirs.fileno()])
        answer = self._control.recv(PID.size, socket.MSG_WAITALL)
        if len(answer) < PID.size:
            ours.close()
            raise EOFError("the process that makes workers has ended")
        self._count += 1
        log = self._scratch / f"worker-{self._count}.log"
        worker = Worker(Connection(ours.detach()), PID.unpack(answer)[0], log)
        worker.send(pickle.dumps(self._plan))
        worker.send(str(log).encode())
        self._workers.append(worker)
        return worker

    def _open_nursery(self) -> None:
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-m", "flyball.runners.nursery", self._handler, str(theirs.fileno())]
        with theirs:
            self._nursery = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env={**os.environ, **_path()}
            )

    def _send_plan(self) -> None:
        plan = pickle.dumps(self._plan)
        self._control.sendall(PID.pack(len(plan)) + plan)

    def _close_nursery(self) -> None:
        self._control.close()
        try:
            self._nursery.wait(1.0)
        except subprocess.TimeoutExpired:
            self._nursery.kill()
            self._nursery.wait()


def _path() -> dict[str, str]:
    """Let the child find this very package, wherever it was imported from."""
    root = str(Path(__file__).resolve().parents[2])
    return {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
