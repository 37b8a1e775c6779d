"""Any Python function or class as a model: its module's source text is kept and run again at load.

The model is a function `f(columns) -> outputs`, or a class made without arguments whose instance has
`predict(columns)`; columns and outputs are dicts name → NumPy array (one bare array is called "prediction"). It lives
in a module that imports only what is installed where it is served.

**Loading runs that source.** The digest proves that it is the code that was saved, not that the code is harmless: such
a model is as trustworthy as whoever published it.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from flyball.errors import Corrupt, InvalidInput, StepFailed
from flyball.models import _frames
from flyball.models.signature import Column, Signature, infer_signature
from flyball.storage.blobs import digest_of

__all__ = ["answer", "dump", "load", "packages", "recognises", "signature"]


def recognises(model: object) -> bool:
    """A function, or a class with a `predict` method."""
    return isinstance(model, FunctionType) or (isinstance(model, type) and hasattr(model, "predict"))


def answer(model: Any, example: Any) -> dict[str, Column]:
    """Call the model with the example as checked columns."""
    columns = infer_signature(example).columns_from(_frames.values_of(example), subject="the model's example")
    return _outputs(_callable(model)(columns))


def signature(model: Any, example: Any, answers: Mapping[str, Column] | None) -> Signature:  # noqa: ARG001
    """From the example, since code does not say what it takes. Raises InvalidInput without one."""
    if example is None:
        raise InvalidInput("a Python model needs a signature or an example, because code does not say what it takes")
    return infer_signature(example, answers)


def dump(model: Any, signature: Signature, example: Any) -> dict[str, bytes]:  # noqa: ARG001
    """The source of the model's module, and the name in it.

    Raises:
        InvalidInput: a lambda, a closure, an object, or code of a notebook or shell, which has no file.
    """
    name = getattr(model, "__qualname__", type(model).__qualname__)
    if not recognises(model):
        raise InvalidInput(
            f"a {name} object cannot be kept as source; pass a function, or a class with predict(columns)"
        )
    if "<lambda>" in name or "<locals>" in name or getattr(model, "__closure__", None):
        what = "a lambda" if "<lambda>" in name else f"{name}, which is defined inside a function,"
        raise InvalidInput(f"{what} cannot be kept as source; define it with def at the top of a module")
    try:
        path = Path(inspect.getfile(model))
        source = path.read_bytes() if path.suffix == ".py" else None
    except (OSError, TypeError):
        source = None
    if source is None:
        raise InvalidInput(
            f"{name} has no source file (it was typed into a notebook or a shell); put it into a module and import it"
        )
    if isinstance(model, FunctionType) and not _holds(
        compile(source, str(path), "exec", dont_inherit=True), model.__code__
    ):
        raise InvalidInput(f"the file of {name} has changed since it was imported; import it again, then save")
    return {"source.py": source, "entry.json": json.dumps({"name": name}).encode()}


def load(
    files: Mapping[str, bytes],
    manifest: Mapping[str, Any],  # noqa: ARG001
) -> Callable[[Mapping[str, Column]], dict[str, Column]]:
    """Run the source in a fresh module and return the model in it. Raises StepFailed when the source itself fails."""
    source = files["source.py"]
    module = ModuleType(f"flyball_model_{digest_of(source)[:16]}")
    # Dataclasses and typing look their module up by its name.
    sys.modules[module.__name__] = module
    found: Any = module
    try:
        exec(compile(source, f"{module.__name__}.py", "exec", dont_inherit=True), vars(module))
        for part in json.loads(files["entry.json"])["name"].split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise Corrupt(f"the model's source does not define its entry: {error}") from None
    except Exception as error:
        raise StepFailed(f"the model's source fails when run by itself: {type(error).__name__}: {error}") from error
    call = _callable(found)
    return lambda columns: _outputs(call(columns))


def packages() -> tuple[str, ...]:
    """Only NumPy is known; what else the source imports stands in the manifest's list of all packages."""
    return ("numpy",)


def _callable(model: Any) -> Callable[[Mapping[str, Column]], Any]:
    found: Callable[[Mapping[str, Column]], Any] = model().predict if isinstance(model, type) else model
    return found


def _outputs(answers: Any) -> dict[str, Column]:
    named = answers if isinstance(answers, Mapping) else {"prediction": answers}
    return {str(name): np.asarray(values) for name, values in named.items()}


def _holds(code: CodeType, wanted: CodeType) -> bool:
    return any(
        isinstance(c, CodeType) and ((c.co_qualname == wanted.co_qualname and c == wanted) or _holds(c, wanted))
        for c in code.co_consts
    )
