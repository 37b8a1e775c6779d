"""How a pipeline's run and its steps stand in the ledger, and where finished steps are found again.

Each call of a step is a run of kind `step` whose parent is the pipeline's run. A step that was not repeated is a run as
well, tagged `cached`, with the outputs of the run that it was taken from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from flyball.errors import Conflict
from flyball.ledger import Ledger, Transaction
from flyball.ledger.runs import Artifact, Run
from flyball.pipelines.graph import Node, Promise
from flyball.pipelines.results import Stored
from flyball.storage.blobs import BlobStore

__all__ = ["Record", "short_params"]

_SHORT = 200  # characters of an argument that the record keeps
_ALL = 1_000_000


class Record:
    """The ledger as one run of a pipeline sees it."""

    def __init__(self, ledger: Ledger, blobs: BlobStore, actor: str, run: str) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._actor = actor
        self._run = run
        self._cause: int | None = None
        self._earlier: dict[str, list[Run]] = {}

    def write(self) -> AbstractContextManager[Transaction]:
        """Open a transaction whose events are caused by the pipeline's run."""
        return self._ledger.write(self._actor, self._cause)

    def open(self) -> Run:
        """Read the run, end what a killed worker left running, and note what it had finished. Raises NotFound."""
        with self._ledger.read() as world:
            run = world.runs.get(self._run)
            steps = world.runs.find(parent=run.id, kind="step", limit=_ALL)
        self._cause = run.event
        left = [step for step in steps if not step.is_finished]
        if left:
            with self.write() as world:
                for step in left:
                    world.runs.finish(step.id, "lost", error="the process that ran it has ended")
        for step in steps:
            if step.status == "succeeded" and step.cache_key is not None and "cached" not in step.tags:
                self._earlier.setdefault(step.cache_key, []).append(step)
        return run

    def current(self) -> Run:
        """Return the run as it stands."""
        with self._ledger.read() as world:
            return world.runs.get(self._run)

    def beat(self, result: Mapping[str, Any]) -> None:
        """Say that the run goes on, and how far it is. Raises Conflict when somebody has ended it."""
        with self.write() as world:
            world.runs.update(self._run, result=result, heartbeat=True)

    def finish(self, status: Any, error: str | None, result: Mapping[str, Any]) -> Run:
        """End the pipeline's run; one that somebody has ended stays as it is."""
        with self.write() as world:
            try:
                return world.runs.finish(self._run, status, error=error, result=result)
            except Conflict:
                return world.runs.get(self._run)

    # -- steps, within a transaction

    def found(self, node: Node, world: Transaction) -> list[Stored] | None:
        """Return the outputs of a finished run that computed the same, when they are still there."""
        earlier = self._earlier.get(node.key, [])
        runs = [earlier.pop()] if earlier else []  # an earlier try of this very run: also for steps without a cache
        if not runs and node.step.cache:
            runs = world.runs.find(cache_key=node.key, status=("succeeded",), limit=1)
        for run in runs:
            outputs = [Stored.from_dict(kept) for kept in run.result.get("outputs", [])]
            if outputs and all(stored.is_there(self._blobs) for stored in outputs):
                return outputs
        return None

    def start(self, node: Node, world: Transaction) -> None:
        """Write down that a step starts, or that it was found (`node.is_cached`)."""
        tags = {"cached": "true"} if node.is_cached else {}
        run = world.runs.start(
            "step", node.step.name, parent=self._run, params=node.params, tags=tags, cache_key=node.key
        )
        node.run = run.id

    def end(self, node: Node, trace: str, log: tuple[str, int] | None, world: Transaction) -> None:
        """Write down how a step ended, as `node.state` says."""
        try:
            if log is not None:
                world.runs.add_artifact(node.run, Artifact("log.txt", *log))
            error = f"{node.error}\n\n{trace}".rstrip() if node.error is not None else None
            result = {
                "outputs": [s.to_dict() for s in node.outputs],
                "attempts": node.attempts,
                "seconds": node.seconds,
            }
            world.runs.finish(node.run, node.state, error=error, result=result)  # type: ignore[arg-type]
        except Conflict:
            return  # somebody ended this step by hand; that stands


def short_params(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments by name, as a record may hold them: plain values, short texts of the rest."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError:
        bound = {**{str(n): v for n, v in enumerate(args, 1)}, **kwargs}
    return {name: _short(value) for name, value in bound.items()}


def _short(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float) or (type(value) is str and len(value) <= _SHORT):
        return value
    if type(value) is Promise:
        return repr(value).partition(":")[0].lstrip("<")
    kind, size = type(value), getattr(value, "shape", None)
    if size is not None and kind.__module__.partition(".")[0] in ("polars", "numpy", "pandas"):
        return f"{kind.__name__} {'×'.join(map(str, size))}"
    if type(value) in (list, tuple, set) and len(value) > 8:
        return f"{kind.__name__} of {len(value)}"
    if type(value) in (list, tuple):
        parts: Iterable[Any] = map(_short, value)
        return list(parts)
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"
