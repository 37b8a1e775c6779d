"""Record a run while it happens: what it was given, what it found, what it left, and what it ran on.

A training loop does not wait for the disk: points are held back, and handed to the recorder about once a second by a
thread of this module. What is held back is written when the run ends, whichever way it ends, when the program exits
and at SIGTERM, unless the program has a handler of its own (which may call `flush`, or exit). `kill -9` loses the
points of the last second or so; `flush` returns when everything logged before is on disk.
"""

from __future__ import annotations

import atexit
import os
import platform
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from flyball.clock import SYSTEM, Clock
from flyball.errors import Conflict, FlyballError, InvalidInput, Unavailable
from flyball.ledger import Ledger, Transaction
from flyball.ledger.artifacts import check_path
from flyball.ledger.points import Point
from flyball.ledger.refs import Ref
from flyball.ledger.runs import Artifact, Run
from flyball.storage.blobs import BlobStore
from flyball.tracking.recording import Recorder

__all__ = ["ActiveRun", "checked_path", "ends_with_program", "environment", "has_ended", "source", "stored"]

T = TypeVar("T")

_HELD_S = 1.0  # how long a point is held back, at most
_HELD_POINTS = 1000  # beyond which they are handed over at once
_MOST_HELD = 1_000_000  # beyond which `log` waits: some hundred megabytes
_AT_A_TIME = 5000  # points of one operation
_AT_A_SIGNAL_S = 10.0  # how long a signal's handler waits for the disk


class ActiveRun:
    """A run that is going on; a context manager that ends it as succeeded, failed or cancelled.

    A run that nobody ended ends with the program: failed when an error ended that, else succeeded.
    """

    def __init__(self, run: Run, recorder: Recorder, ledger: Ledger, blobs: BlobStore, clock: Clock = SYSTEM) -> None:
        self._run = run
        self._recorder = recorder
        self._ledger = ledger
        self._blobs = blobs
        self._clock = clock
        self._lock = threading.RLock()  # a signal's handler may come in while its own thread holds it
        self._handing = threading.RLock()  # a signal may come while its own thread hands over
        self._points: list[Point] = []
        self._failure: FlyballError | None = None
        self._inputs: list[Ref] = []
        self._is_open = True
        self._process = os.getpid()
        recorder.writer.holding.add(self)
        ends_with_program(self)

    @property
    def id(self) -> str:
        """The run's id, 32 hexadecimal digits."""
        return self._run.id

    @property
    def ref(self) -> Ref:
        return self._run.ref

    @property
    def inputs(self) -> tuple[Ref, ...]:
        """What the run has used so far."""
        return tuple(self._inputs)

    def params(self, **params: Any) -> None:
        """Record parameters. A parameter keeps its first value; another one raises Conflict."""
        self._change(lambda world: world.runs.update(self.id, params=params))

    def tags(self, **tags: str) -> None:
        """Record tags; the last value of each stays."""
        self._change(lambda world: world.runs.update(self.id, tags=tags))

    def log(self, values: Mapping[str, float] | None = None, step: int = 0, **metrics: float) -> None:
        """Append a point to each given metric; it is on disk a second later, or after `flush`.

        Raises:
            InvalidInput: a value is not a number.
            Conflict: the run has ended.
            Unavailable: a million points are held back and the ledger takes none, or this process was forked.
        """
        if not self._is_open:
            raise Conflict(f"run {self.id[:8]} has {self._run.status} and takes no more")
        if os.getpid() != self._process:
            raise Unavailable(f"run {self.id[:8]} is recorded by the process that this one was forked from; log there")
        at = int(self._clock.now().timestamp() * 1000)
        points = []
        for key, value in {**(values or {}), **metrics}.items():
            if isinstance(value, bool | str) or not hasattr(value, "__float__"):
                raise InvalidInput(f"the metric {key} is {value!r}; expected a number")
            points.append(Point(str(key), float(value), int(step), at))
        with self._lock:
            self._points += points
            held = len(self._points)
        if held > _MOST_HELD:
            self.flush()
        elif points:
            _flusher.hold(self, is_urgent=held >= _HELD_POINTS)

    def artifact(self, path: str, data: bytes | os.PathLike[str]) -> Artifact:
        """Keep a file with the run, under a relative path; the same path again replaces it.

        The bytes are read before this returns, so the file may change afterwards.

        Raises:
            InvalidInput: the path is absolute, empty or leads out of the run, or `data` is neither bytes nor a file.
            Conflict: the path is a folder of the run, or one of its folders is a file; or the run has ended.
        """
        return self._keep([(path, data)])[0]

    def artifacts(self, path: str, folder: os.PathLike[str]) -> list[Artifact]:
        """Keep all files of a folder, under a path of the run ("": at its top), in one step.

        Links are not followed: what they lead to may be anything, so they are left out.

        Raises:
            InvalidInput: it is no folder, or a name in it can be no path of a run; nothing was kept.
            Conflict: as `artifact`.
        """
        root = Path(folder)
        if not root.is_dir():
            raise InvalidInput(f"{root} is no folder; give one, or bytes, or a file")
        found = []
        for place, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                file = Path(place, name)
                if file.is_file() and not file.is_symlink():
                    inner = file.relative_to(root).as_posix()
                    found.append((f"{path.rstrip('/')}/{inner}" if path else inner, file))
        return self._keep(found)

    def _keep(self, files: Iterable[tuple[str, Any]]) -> list[Artifact]:
        if not self._is_open:
            raise Conflict(f"run {self.id[:8]} has {self._run.status} and takes no more")
        checked = [(checked_path(path), data) for path, data in files]
        kept = [Artifact(path, *stored(self._blobs, data)) for path, data in checked]

        def keep(world: Transaction) -> None:
            for artifact in kept:
                world.artifacts.keep(self.id, artifact)

        self._change(keep)
        return kept

    def use(self, what: Ref, role: str = "used by") -> None:
        """Record that the run used a version: `run.use(ref("dataset/flights@12"))`."""
        if what in self._inputs:
            return
        self._inputs.append(what)
        self._change(lambda world: world.lineage.link(what, self.ref, role))

    def result(self, **values: Any) -> None:
        """Merge values into the run's result."""
        self._change(lambda world: world.runs.update(self.id, result=values))

    def flush(self) -> None:
        """Write what is held back, and return when it is on disk. Raises what the ledger refused, once."""
        self._hand_over(timeout_s=None)
        with self._lock:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def finish(self, status: Any = "succeeded", error: str | None = None) -> Run:
        """End the run."""
        return self.end(status, error, timeout_s=None)

    def __enter__(self) -> ActiveRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self.finish("cancelled", "stopped by the user")
        else:
            self.finish("failed", describe(error))

    def end(self, status: Any, error: str | None, timeout_s: float | None) -> Run:
        """End the run, waiting so long for the disk; None: as long as it takes."""
        self._hand_over(timeout_s)
        ended = self._recorder.change(lambda world: world.runs.finish(self.id, status, error=error))
        self._run = ended.result(timeout_s)
        self._is_open = False
        has_ended(self)
        if self._failure is not None:
            raise self._failure
        return self._run

    def _change(self, act: Callable[[Transaction], T]) -> T:
        return self._recorder.change(act).result()

    def _hand_over(self, timeout_s: float | None) -> None:
        """Write what is held back. What the ledger cannot take now is held back again."""
        # One at a time: points that the flusher has taken and not yet handed on would be missed by whoever flushes.
        if not self._handing.acquire(timeout=-1 if timeout_s is None else timeout_s):
            return
        try:
            self._hand_over_all(timeout_s)
        finally:
            self._handing.release()

    def _hand_over_all(self, timeout_s: float | None) -> None:
        while True:
            with self._lock:
                points, self._points = self._points[:_AT_A_TIME], self._points[_AT_A_TIME:]
            if not points:
                return
            try:
                written: Future[None] = self._recorder.writer.submit(
                    self._recorder.actor,
                    lambda world, points=points: world.runs.log(self.id, points),  # type: ignore[misc]
                    is_checked=True,
                    weight=len(points),
                )
                written.result(timeout_s)
            except FutureTimeout:
                return  # the writer has them, and may yet come to write them
            except Unavailable as error:
                with self._lock:
                    self._points = points + self._points
                    self._failure = error
                return
            except FlyballError as error:  # the run is gone, or has ended: these points belong nowhere
                self._failure = error

    def _repr_html_(self) -> str:
        from html import escape

        with self._ledger.read() as world:
            run = world.runs.get(self.id)
        rows = "".join(f"<tr><th>{escape(k)}</th><td>{v:.4g}</td></tr>" for k, v in run.metrics.items())
        return f"<b>run {run.id[:8]}</b> {escape(run.name)}: {run.status}<table>{rows}</table>"


class Ending(Protocol):
    """A run that somebody must end."""

    def end(self, status: Any, error: str | None, timeout_s: float | None) -> object: ...


def ends_with_program(run: Ending) -> None:
    """Let a run that nobody ends be ended when the program ends, and at SIGTERM; `Ending.end` takes it from here."""
    _open_runs.add(run)
    _heed_signal()


def has_ended(run: Ending) -> None:
    """Take back `ends_with_program`."""
    _open_runs.discard(run)


class _Flusher:
    """The thread that hands over what runs hold back."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: set[ActiveRun] = set()
        self._some = threading.Event()
        self._urgent = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, run: ActiveRun, is_urgent: bool) -> None:
        if run not in self._runs or self._thread is None:
            with self._lock:
                self._runs.add(run)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="flyball-flusher", daemon=True)
                    self._thread.start()
            self._some.set()
        if is_urgent:
            self._urgent.set()

    def _work(self) -> None:
        while True:
            self._some.wait()
            self._urgent.wait(_HELD_S)
            self._some.clear()
            self._urgent.clear()
            with self._lock:
                runs, self._runs = self._runs, set()
            for run in runs:
                run._failure = None  # of the time before; what is still held back is tried again
                run._hand_over(timeout_s=None)
                if run._points and run._is_open:
                    self.hold(run, is_urgent=False)


_flusher = _Flusher()
_open_runs: set[Ending] = set()


def _begin_anew() -> None:
    """In a forked process, which has no thread of ours and whose parent ends the runs."""
    global _flusher
    _flusher = _Flusher()
    _open_runs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def _end_all(status: str, error: str | None, timeout_s: float) -> None:
    for run in list(_open_runs):
        with suppress(FlyballError, FutureTimeout):
            run.end(status, error, timeout_s)


@atexit.register
def _at_exit() -> None:
    """End what nobody ended. Runs before the writer's own, which was registered earlier."""
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if error is None:
        _end_all("succeeded", None, 60)
    else:
        _end_all("failed", describe(error), 60)


def _heed_signal() -> None:
    """Write what is held back at SIGTERM, where the program leaves that signal to us."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _at_signal)


def _at_signal(number: int, _frame: Any) -> None:
    _end_all("cancelled", f"stopped by the signal {signal.Signals(number).name}", _AT_A_SIGNAL_S)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # so that whoever waits for this process sees what ended it


def describe(error: BaseException) -> str:
    """Return an error as the run keeps it: one sentence for our own, the traceback's end for a user's."""
    if isinstance(error, FlyballError):
        return str(error)
    return "".join(traceback.format_exception(error))[-8000:]


def checked_path(path: str) -> str:
    """Return the path of a file within a run; see `check_path`. Raises InvalidInput."""
    try:
        return check_path(path)
    except InvalidInput:
        raise InvalidInput(
            f"the artifact path {path[:200]!r} is not a relative path within the run; expected names joined by /, "
            "without .., at most 1,024 bytes"
        ) from None


def stored(blobs: BlobStore, data: Any) -> tuple[str, int]:
    """Keep bytes, or what a file holds, and return digest and size. Raises InvalidInput: it is neither."""
    if isinstance(data, bytes | bytearray | memoryview):
        return blobs.put(bytes(data)), len(data)
    if isinstance(data, str) or not hasattr(data, "__fspath__"):
        raise InvalidInput(
            f"a file is given as bytes or as a pathlib.Path, not as {type(data).__name__}; encode a text: text.encode()"
        )
    if not Path(data).is_file():
        raise InvalidInput(f"{data} is no file")
    digest = blobs.put(data)
    with blobs.open(digest) as kept:  # what was taken in, whatever became of the file meanwhile
        return digest, kept.seek(0, os.SEEK_END)


@cache
def environment() -> dict[str, Any]:
    """Return what a run ran on: Python, installed packages with versions, operating system, cores, memory."""
    import importlib.metadata

    packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "packages": dict(sorted(packages.items(), key=lambda p: p[0].lower())),
    }


def source(folder: Path | None = None) -> dict[str, Any]:
    """Return where the code came from: the script and, in a Git folder, commit, branch and uncommitted changes."""
    folder = folder or Path.cwd()
    found: dict[str, Any] = {"script": Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "interactive"}
    if len(sys.argv) > 1:
        found["arguments"] = sys.argv[1:]
    if os.environ.get("PYTHONHASHSEED", "random") != "random":
        found["hash_seed"] = os.environ["PYTHONHASHSEED"]
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        found["commit"] = commit
        found["branch"] = _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or ""
        diff = _git(folder, "diff", "HEAD", "--", ".") or ""
        found["is_dirty"] = bool(diff)
        if diff:
            found["diff"] = diff[:100_000]
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
