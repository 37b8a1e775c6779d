"""The far end of the pool: what one worker process does with a task, and how both ends write to each other.

A task names a step and brings its arguments; inputs that other steps made come as references and are read here from
the blob store. The answer holds references too, so that values never pass through the process that directs.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyball.errors import StepFailed
from flyball.pipelines.graph import thaw
from flyball.pipelines.loading import use_project
from flyball.pipelines.results import Stored, load, store
from flyball.storage.blobs import BlobStore

__all__ = ["HANDLER", "LOG_BYTES", "Answer", "Setup", "Task", "answering", "keep_log"]

HANDLER = "flyball.pipelines.tasks:answering"
LOG_BYTES = 1 << 20  # of what a step prints, the last so many bytes are kept
_TRACE_CHARACTERS = 16_000


@dataclass(frozen=True)
class Setup:
    """What a worker is made with. `prepare` is `module:name` of a function that gets `home` once in each worker."""

    blobs: BlobStore
    project: Path
    prepare: str = ""
    home: str = ""


@dataclass(frozen=True)
class Task:
    """A step to carry out."""

    module: str
    qualname: str
    arguments: bytes
    inputs: list[Stored]
    run: str  # the pipeline's run


@dataclass(frozen=True)
class Answer:
    """What came of it: outputs, or an error in one sentence with its traceback; and the log as (digest, size)."""

    outputs: list[Stored]
    error: str | None = None
    trace: str = ""
    log: tuple[str, int] | None = None


def answering(setup: bytes) -> Callable[[bytes, str], bytes]:
    """Return the function that carries out tasks in this process (`HANDLER`)."""
    made: Setup = pickle.loads(setup)
    use_project(made.project)
    if made.prepare:
        module, _, name = made.prepare.partition(":")
        getattr(importlib.import_module(module), name)(made.home)
    return lambda task, log: pickle.dumps(_answer(pickle.loads(task), Path(log), made.blobs), protocol=5)


def keep_log(log: Path, blobs: BlobStore) -> tuple[str, int] | None:
    """Keep the end of a log file and return (digest, size in bytes); None when nothing was printed."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - LOG_BYTES))
            text = stream.read()
    except OSError:
        return None
    return (blobs.put(text), len(text)) if text else None


def _answer(task: Task, log: Path, blobs: BlobStore) -> Answer:
    from flyball.pipelines.execution import run_id

    outputs: list[Stored] = []
    error, trace = None, ""
    token = run_id.set(task.run)
    name = task.qualname
    try:
        step = _found(task)
        name = step.name
        args, kwargs = thaw(task.arguments, [load(stored, blobs) for stored in task.inputs])
        outputs = _stored(step, step.function(*args, **kwargs), blobs)
    except StepFailed as failure:
        error = str(failure)
    except BaseException as failure:  # a user's code may raise anything, also SystemExit; the worker must live on
        error = f"step {name} failed: {_short(failure)}"
        trace = "".join(traceback.format_exception(_without_us(failure)))[-_TRACE_CHARACTERS:]
    finally:
        run_id.reset(token)
    sys.stdout.flush()
    sys.stderr.flush()
    return Answer(outputs, error, trace, keep_log(log, blobs))


def _found(task: Task) -> Any:
    found: Any = importlib.import_module(task.module)
    for part in task.qualname.split("."):
        found = getattr(found, part)
    return found


def _stored(step: Any, value: Any, blobs: BlobStore) -> list[Stored]:
    who = f"step {step.name}"
    if step.outputs is None:
        return [store(value, blobs, who)]
    if not isinstance(value, tuple | list) or len(value) != step.outputs:
        got = f"{len(value)} values" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
        raise StepFailed(f"{who} returned {got}; its declaration says a tuple of {step.outputs}")
    return [store(part, blobs, f"{who} (value {number})") for number, part in enumerate(value, 1)]


def _short(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text[:2000]}" if text else type(error).__name__


def _without_us(error: BaseException) -> BaseException:
    """Leave out of the traceback the lines of this module, which tell the user nothing."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__ and trace.tb_next is not None:
        trace = trace.tb_next
    return error.with_traceback(trace)
