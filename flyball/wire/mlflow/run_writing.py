"""How writes to a run are waited for and, when they fail, refused in MLflow's words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

from flyball.errors import Conflict, NotFound
from flyball.ledger.runs import as_text
from flyball.platform import Platform
from flyball.tracking.recording import Recorder
from flyball.wire.mlflow.experiments import inactive
from flyball.wire.mlflow.fields import text
from flyball.wire.mlflow.refusals import Refused, invalid, not_found

__all__ = ["RUN", "awaited", "existing", "no_run", "refusal", "written"]

RUN = text("run_id", required=True, aka="run_uuid")
"""The field that names a run."""


class _LoopDesk:
    """Tells an event loop what became of the operations of a commit, waking it once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._wake = loop.call_soon_threadsafe
        self.ticket = loop.create_future

    def tell(self, outcomes: list[tuple[Any, Any]]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            self._wake(_settle, outcomes)


def _settle(outcomes: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for ticket, outcome in outcomes:
        if ticket.done():  # its client has gone
            continue
        if isinstance(outcome, Exception):
            ticket.set_exception(outcome)
        else:
            ticket.set_result(outcome)


_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopDesk] = WeakKeyDictionary()


def awaited(platform: Platform) -> Recorder:
    """Return the recorder of who asks, whose methods return what the running loop can wait for."""
    loop = asyncio.get_running_loop()
    desk = _desks.get(loop)
    if desk is None:
        desk = _desks[loop] = _LoopDesk(loop)
    return platform.recorder.at(desk)


async def written(
    platform: Platform, run: str, future: Any, params: Mapping[str, str] | None = None, is_batch: bool = False
) -> Any:
    """Wait for a write to a run.

    Args:
        platform: to look why it failed.
        run: the run's id.
        future: of the write, or its ticket (`awaited`).
        params: the parameters that were to be written.
        is_batch: whether they were a list.

    Raises:
        Refused: there is no such run, it is deleted, a parameter would change, or a measured model is not there.
    """
    try:
        return await (asyncio.wrap_future(future) if isinstance(future, Future) else future)
    except (NotFound, Conflict) as error:
        raise await asyncio.to_thread(refusal, platform, run, error, params or {}, is_batch) from None


def refusal(
    platform: Platform,
    run: str,
    error: NotFound | Conflict,
    params: Mapping[str, str] | None = None,
    is_batch: bool = False,
) -> Refused:
    """Return why a run could not be written, as MLflow says it."""
    try:
        found = platform.run_whole(run)
    except NotFound:
        return no_run(run)
    if isinstance(error, NotFound):  # of something else that the request names
        return not_found(str(error))
    if found.is_deleted:
        return inactive("run", run)
    there = {key: as_text(value) for key, value in found.params.items()}
    changed = [(key, there[key], value) for key, value in (params or {}).items() if there.get(key, value) != value]
    if not changed:
        return invalid(str(error))
    if not is_batch:
        key, old, new = changed[0]
        return invalid(
            f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{old}' for "
            f"run ID='{run}'. Attempted logging new value '{new}'."
        )
    told = [{"key": key, "old_value": old, "new_value": new} for key, old, new in changed]
    return invalid(f"Changing param values is not allowed. Params were already logged='{told}' for run ID='{run}'.")


@contextmanager
def existing(run: str) -> Iterator[None]:
    """Say in MLflow's words that a run is not there."""
    try:
        yield
    except NotFound:
        raise no_run(run) from None


def no_run(run: str) -> Refused:
    """Return the refusal of a run that is not there."""
    return not_found(f"Run with id={run} not found")
