"""The pool with real processes: they start, answer, die and end with their owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flyball.control.lease import is_alive
from flyball.runners.pool import Pool, Worker

HANDLER = "tests.runners.handlers:telling"


def wait_until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def ask(worker: Worker, task: bytes) -> bytes:
    worker.send(task)
    assert worker.connection.poll(20)
    return worker.receive()


def test_workers_answer_tasks_one_after_another_and_keep_their_log() -> None:
    with Pool(2, HANDLER, b"made with this") as pool:
        first, second = pool.worker(), pool.worker()
        assert ask(first, b"setup") == b"made with this"
        assert [ask(first, b"pid"), ask(second, b"pid")] == [str(first.pid).encode(), str(second.pid).encode()]
        assert ask(first, b"print") == "héllo\n".encode()
        assert ask(first, b"print") == "héllo\n".encode()  # the log of one task, not of both
        assert ask(first, b"random") != ask(second, b"random")


def test_what_was_imported_once_is_there_in_every_worker_and_works_after_the_fork() -> None:
    with Pool(2, HANDLER, preload=["polars"]) as pool:
        workers = [pool.worker(), pool.worker()]
        for worker in workers:
            assert b"polars" in ask(worker, b"modules").split()
            assert ask(worker, b"polars") == b"3000"
        assert len({ask(worker, b"parent") for worker in workers}) == 1


def test_a_project_that_starts_threads_when_imported_gets_fresh_interpreters() -> None:
    with Pool(2, HANDLER, preload=["tests.runners.busy_module"]) as pool:
        for worker in (pool.worker(), pool.worker()):
            assert b"tests.runners.busy_module" in ask(worker, b"modules").split()
            assert ask(worker, b"polars") == b"3000"


def test_a_module_that_cannot_be_imported_does_not_stop_the_pool() -> None:
    with Pool(1, HANDLER, preload=["no.such.module"]) as pool:
        assert ask(pool.worker(), b"still here") == b"still here"


def test_a_killed_worker_is_the_end_of_its_connection() -> None:
    with Pool(2, HANDLER) as pool:
        worker = pool.worker()
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.connection.poll(20)
        with pytest.raises(EOFError):
            worker.receive()
        pool.discard(worker)
        assert ask(pool.worker(), b"next") == b"next"


def test_workers_are_made_again_when_the_process_that_makes_them_was_killed() -> None:
    with Pool(2, HANDLER) as pool:
        nursery = int(ask(pool.worker(), b"parent"))
        os.kill(nursery, signal.SIGKILL)
        wait_until(lambda: not is_alive(nursery))
        assert ask(pool.worker(), b"again") == b"again"


def test_closing_leaves_no_process_and_no_file_behind() -> None:
    pool = Pool(2, HANDLER)
    workers = [pool.worker(), pool.worker()]
    nursery = int(ask(workers[0], b"parent"))
    folder = workers[0].log.parent
    pool.close()
    wait_until(lambda: not any(is_alive(pid) for pid in (nursery, *(w.pid for w in workers))))
    assert not folder.exists()


def test_workers_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom flyball.runners.pool import Pool\n"
        f"pool = Pool(2, {HANDLER!r})\n"
        "workers = [pool.worker(), pool.worker()]\n"
        "workers[0].send(b'parent')\n"
        "print(*(w.pid for w in workers), workers[0].receive().decode(), flush=True)\n"
        "sys.stdin.read()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 3
    owner.kill()
    owner.communicate(timeout=10)
    wait_until(lambda: not any(map(is_alive, pids)))
    wait_until(lambda: not list(tmp_path.iterdir()))
