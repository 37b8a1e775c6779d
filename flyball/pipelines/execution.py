"""Carry a pipeline out: its body here, its steps in a pool of processes, everything written down as it happens.

    with Pool(2, HANDLER, setup) as pool:
        run = execute(late, {"depth": 8}, ledger=ledger, blobs=blobs, actor="user/ada", run=run.id, pool=pool)

`flyball.worker` calls this for queued runs. When it is called again for the same run, after a crash, finished steps
are found and not repeated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.pipelines.cache import call_key, code_key
from flyball.pipelines.graph import Cancelled, Node, Promise, context, freeze, resolve
from flyball.pipelines.results import load

if TYPE_CHECKING:
    from flyball.ledger import Ledger
    from flyball.ledger.runs import Run
    from flyball.pipelines.dispatch import Dispatcher
    from flyball.pipelines.steps import Pipeline, Step
    from flyball.runners.pool import Pool
    from flyball.storage.blobs import BlobStore

__all__ = ["current_run", "execute", "run_id", "workbench"]

workbench: ContextVar[Any] = ContextVar("flyball_workbench", default=None)
"""The platform that a running pipeline and its steps work with; None outside of one."""

run_id: ContextVar[str | None] = ContextVar("flyball_run", default=None)

_KEPT_VALUE = 20_000  # characters of a pipeline's returned value that its record keeps


def current_run() -> str | None:
    """Return the id of the pipeline run that this code is part of, in its body and in its steps; None outside."""
    return run_id.get()


def execute(
    pipeline: Pipeline[..., Any],
    params: Mapping[str, Any],
    *,
    ledger: Ledger,
    blobs: BlobStore,
    actor: str,
    run: str,
    pool: Pool,
    is_superseded: Callable[[Run], bool] = lambda _run: False,
    on_cancelled: Callable[[], None] = lambda: None,
    before_end: Callable[[], None] = lambda: None,
) -> Run:
    """Carry out a run that has been started, and return it as it ended.

    Args:
        params: arguments of the pipeline, by name.
        actor: who acts, for the journal.
        run: the id of the run; steps become its children.
        pool: where steps run; made with `tasks.HANDLER` and a `tasks.Setup`.
        is_superseded: whether another process has taken the run over; asked every second with the run as it stands.
        on_cancelled: called in another thread once the run was cancelled or taken over, steps having been killed.
        before_end: called before the end is written down; after that, nothing can be added to the run.

    Raises:
        NotFound: no such run.
        Unavailable: the ledger did not answer; the run is left as it is, to be taken up again.
    """
    from flyball.pipelines.dispatch import Dispatcher
    from flyball.pipelines.record import Record
    from flyball.tracking.runs import describe

    record = Record(ledger, blobs, actor, run)
    record.open()
    dispatcher = Dispatcher(record, blobs, pool, run, is_superseded, on_cancelled)
    body = _Body(dispatcher, blobs)
    tokens = context.set(body), run_id.set(run)
    status, error, value = "succeeded", None, None
    dispatcher.start()
    try:
        value = resolve(pipeline.function(**_arguments(pipeline, params)))
        dispatcher.finish_all()
    except Cancelled:
        status = "cancelled"
    except KeyboardInterrupt:
        status, error = "cancelled", None if dispatcher.is_cancelled else "stopped by the user"
        dispatcher.cancel()
    except BaseException as raised:
        status, error = "failed", describe(raised)
        dispatcher.finish_running()
    finally:
        context.reset(tokens[0])
        run_id.reset(tokens[1])
        dispatcher.stop()
    if dispatcher.crash is not None:
        raise dispatcher.crash
    if dispatcher.is_superseded:
        return record.current()
    before_end()
    return record.finish(status, error, {"graph": dispatcher.graph(), **_told(value)})


class _Body:
    """The `graph.Execution` that a pipeline's body calls its steps through."""

    def __init__(self, dispatcher: Dispatcher, blobs: BlobStore) -> None:
        self._dispatcher = dispatcher
        self._blobs = blobs
        self._codes: dict[Step[..., Any], str] = {}
        self._count = 0

    def call(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from flyball.pipelines.record import short_params

        if "<locals>" in step.qualname or step.module == "__main__":
            raise InvalidInput(
                f"step {step.name} stands inside a function or a notebook, where other processes do not find it; "
                "move it to the top of a file"
            )
        arguments, inputs = freeze(step.name, args, kwargs)
        if step not in self._codes:
            self._codes[step] = code_key(step)
        options = (step.outputs, step.cache)  # an uncached step's key is its own, so that no other call finds it
        key, key_inputs = call_key(self._codes[step], args, kwargs, options)
        self._count += 1
        params = short_params(step.function, args, kwargs)
        node = Node(self._count, step, params, arguments, inputs, key_inputs, key)
        self._dispatcher.add(node)
        promises = tuple(Promise(self, node, index) for index in range(step.outputs or 1))
        return promises if step.outputs else promises[0]

    def value(self, node: Node, index: int) -> Any:
        self._dispatcher.wait_for(node)
        return load(node.outputs[index], self._blobs)


def _arguments(pipeline: Pipeline[..., Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments if the pipeline takes them. Raises InvalidInput."""
    signature = inspect.signature(pipeline.function)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for name in params:
        if name not in signature.parameters and not takes_any:
            known = list(signature.parameters)
            near = did_you_mean(name, known)
            raise InvalidInput(f'pipeline {pipeline.name} has no parameter "{name}"{near} (it has: {listed(known)})')
    try:
        signature.bind(**params)
    except TypeError as error:
        raise InvalidInput(f"pipeline {pipeline.name}: {error}; give it with the run or in the declaration") from None
    return dict(params)


def _told(value: Any) -> dict[str, Any]:
    """Return what the record keeps of a pipeline's value: the value when it is plain and short, else a text of it."""
    from flyball.pipelines.results import is_plain

    try:
        text = repr(value)
    except Exception:  # a user's class may do anything here
        text = f"a {type(value).__qualname__}"
    if is_plain(value) and len(text) <= _KEPT_VALUE:
        return {"value": value}
    return {"value": None, "text": text[:200]}
