"""Record a run while it happens: what it was given, what it found, what it left, and what it ran on.

Metrics are buffered and written in batches, so that a training loop does not wait for the disk; what is buffered is
written when the run ends, whichever way it ends.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from flyball.clock import SYSTEM, Clock
from flyball.errors import FlyballError, InvalidInput
from flyball.ledger import Ledger
from flyball.ledger.refs import Ref
from flyball.ledger.runs import Artifact, MetricPoint, Run
from flyball.storage.blobs import BlobStore

__all__ = ["ActiveRun", "environment", "source"]

_FLUSH_POINTS = 200
_FLUSH_S = 1.0


class ActiveRun:
    """A run that is going on; a context manager that ends it as succeeded, failed or cancelled."""

    def __init__(self, run: Run, ledger: Ledger, blobs: BlobStore, actor: str, clock: Clock = SYSTEM) -> None:
        self._run = run
        self._ledger = ledger
        self._blobs = blobs
        self._actor = actor
        self._clock = clock
        self._points: list[MetricPoint] = []
        self._flushed = clock.monotonic()
        self._lock = threading.Lock()
        self._inputs: list[Ref] = []

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
        with self._ledger.write(self._actor) as world:
            world.runs.update(self.id, params=params)

    def tags(self, **tags: str) -> None:
        """Record tags; the last value of each stays."""
        with self._ledger.write(self._actor) as world:
            world.runs.update(self.id, tags=tags)

    def log(self, values: Mapping[str, float] | None = None, step: int = 0, **metrics: float) -> None:
        """Append a point to each given metric.

        Raises:
            InvalidInput: a value is not a number.
        """
        now = self._clock.now()
        points = []
        for key, value in {**(values or {}), **metrics}.items():
            if isinstance(value, bool | str) or not hasattr(value, "__float__"):
                raise InvalidInput(f"the metric {key} is {value!r}; expected a number")
            points.append(MetricPoint(key, float(value), int(step), now))
        with self._lock:
            self._points += points
            is_due = len(self._points) >= _FLUSH_POINTS or self._clock.monotonic() - self._flushed > _FLUSH_S
        if is_due:
            self.flush()

    def artifact(self, path: str, data: bytes | os.PathLike[str]) -> Artifact:
        """Keep a file with the run, under a relative path.

        Raises:
            InvalidInput: the path is absolute, empty or leads out of the run.
        """
        parts = Path(path).parts
        if not parts or path.startswith(("/", "\\")) or ".." in parts or "\x00" in path:
            raise InvalidInput(f"the artifact path {path!r} is not a relative path within the run")
        size = len(data) if isinstance(data, bytes) else Path(data).stat().st_size
        kept = Artifact("/".join(parts), self._blobs.put(data), size)
        with self._ledger.write(self._actor) as world:
            world.runs.add_artifact(self.id, kept)
        return kept

    def use(self, what: Ref, role: str = "used by") -> None:
        """Record that the run used a version: `run.use(ref("dataset/flights@12"))`."""
        if what in self._inputs:
            return
        self._inputs.append(what)
        with self._ledger.write(self._actor) as world:
            world.lineage.link(what, self.ref, role)

    def result(self, **values: Any) -> None:
        """Merge values into the run's result."""
        with self._ledger.write(self._actor) as world:
            world.runs.update(self.id, result=values)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._lock:
            points, self._points = self._points, []
            self._flushed = self._clock.monotonic()
        if points:
            with self._ledger.write(self._actor) as world:
                world.runs.log(self.id, points)

    def finish(self, status: Any = "succeeded", error: str | None = None) -> Run:
        """End the run."""
        self.flush()
        with self._ledger.write(self._actor) as world:
            self._run = world.runs.finish(self.id, status, error=error)
        return self._run

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

    def _repr_html_(self) -> str:
        from html import escape

        with self._ledger.read() as world:
            run = world.runs.get(self.id)
        rows = "".join(f"<tr><th>{escape(k)}</th><td>{v:.4g}</td></tr>" for k, v in run.metrics.items())
        return f"<b>run {run.id[:8]}</b> {escape(run.name)}: {run.status}<table>{rows}</table>"


def describe(error: BaseException) -> str:
    """Return an error as the run keeps it: one sentence for our own, the traceback's end for a user's."""
    if isinstance(error, FlyballError):
        return str(error)
    return "".join(traceback.format_exception(error))[-8000:]


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
