"""PyTorch networks as programs of `torch.export`, in their own archive (`.pt2`) and never as a pickle.

What is kept is what the network computes in evaluation mode, operation by operation, for any number of rows: its class
is not needed to load it. The archive is read by `_pt2`, which carries out allowed operations only; `torch.export.load`
reads it too. A network is called with tensors by the names of its `forward`, or, where the example is a frame or a dict
of other names, with one matrix of these columns.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from flyball.errors import Corrupt, InvalidInput, listed
from flyball.models import _frames
from flyball.models.fields import Field
from flyball.models.flavors._pt2 import Program, packed, read, torch
from flyball.models.signature import Column, Signature, infer_signature

__all__ = ["answer", "dump", "load", "packages", "recognises", "signature"]

_FILE = "model.pt2"
_LIBRARY = "torch"


def recognises(model: object) -> bool:
    """An `nn.Module`, also of PyTorch Lightning, or an `ExportedProgram`."""
    made = {(c.__module__, c.__name__) for c in type(model).__mro__}
    return bool(made & {("torch.nn.modules.module", "Module"), ("torch.export.exported_program", "ExportedProgram")})


def answer(model: Any, example: Any) -> dict[str, Column]:
    """Call the network in evaluation mode, as the user would; its own mode comes back."""
    if isinstance(model, bytes) or not hasattr(model, "training"):
        program = read(_archive(model, ()))
        return _named(None, program.run(_tensors(program.inputs, model, example)), len(_rows(example)))
    given = _tensors(_parameters(model), model, example)
    with _evaluating(model), torch().inference_mode():
        found = model(*[one.to(_device(model)) for one in given])
    names, values = _parts(found)
    return _named(names, values, len(given[0]))


def signature(model: Any, example: Any, answers: Mapping[str, Column] | None) -> Signature:
    """From the example: columns, or a tensor for each argument. Raises InvalidInput without an example."""
    if example is None:
        raise InvalidInput("a network does not say what it takes; give example=X[:5] or a signature with an example")
    names = _arguments(model)
    inferred = infer_signature(example, answers)
    if not _is_tensors(names, example):
        return inferred
    tensors = _tensors(names, model, example)
    kinds = [str(one.dtype).rpartition(".")[2] for one in tensors]
    shapes = [(-1, *one.shape[1:]) for one in tensors]
    made = [Field(*one) for one in zip(names, kinds, [False] * len(kinds), [None] * len(kinds), shapes, strict=False)]
    return Signature(tuple(made), inferred.outputs)


def dump(model: Any, signature: Signature, example: Any) -> dict[str, bytes]:
    """`model.pt2`, and `feed.json`: how to build what it takes from checked columns.

    Raises:
        InvalidInput: the network cannot be exported, has a fixed number of rows, or changes itself while it answers.
        Forbidden: it has an operation that is not allowed.
    """
    if example is None:
        raise InvalidInput("a network is kept by following it once; give example=X[:5]")
    names = _arguments(model)
    given = _tensors(names, model, example)
    data = packed(_archive(model, given))
    program = read(data)
    if len(program.inputs) != len(given):
        raise InvalidInput(f"the network takes {listed(program.inputs)}; the example has {len(given)} of these")
    is_matrix = not _is_tensors(names, example)
    feed = {
        "form": "columns" if is_matrix else "tensors",
        "order": [field.name for field in signature.inputs] if is_matrix else list(names[: len(given)]),
        "dtype": str(given[0].dtype).rpartition(".")[2] if is_matrix else None,
        "outputs": list(answer(model, example)),
    }
    alone = [one[:1] for one in given]
    _check_alone(program, alone, [np.asarray(one)[:1] for one in _arrays(program.run(given))])
    return {_FILE: data, "feed.json": json.dumps(feed, sort_keys=True).encode()}


def load(
    files: Mapping[str, bytes],
    manifest: Mapping[str, Any],  # noqa: ARG001
) -> Callable[[Mapping[str, Column]], dict[str, Column]]:
    """Return a function that carries the program out, on one thread. Raises Forbidden, Incompatible, Corrupt."""
    library, program = torch(), read(files[_FILE])
    try:
        feed = json.loads(files["feed.json"])
        order, names = [str(one) for one in feed["order"]], [str(one) for one in feed["outputs"]]
        kind = np.dtype(feed["dtype"]) if feed["form"] == "columns" else None
        wide = len(program.inputs) == (1 if kind is not None else len(order)) and len(names) == len(program.outputs)
    except (ValueError, KeyError, TypeError):
        wide = False
    if not wide:
        raise Corrupt("the model's files contradict each other; register the model again")

    def predict(columns: Mapping[str, Column]) -> dict[str, Column]:
        if kind is not None:
            given = [library.from_numpy(np.column_stack([columns[name].astype(kind) for name in order]))]
        else:
            given = [_from_array(library, columns[name]) for name in order]
        return dict(zip(names, _arrays(program.run(given)), strict=True))

    return predict


def packages() -> tuple[str, ...]:
    """PyTorch and NumPy."""
    return ("torch", "numpy")


def _parameters(model: Any) -> list[str]:
    """Return the names of what `forward` takes, in order."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(model.forward).parameters.values()
    return [one.name for one in found if one.kind in kinds] or ["input"]


def _arguments(model: Any) -> Sequence[str]:
    if hasattr(model, "forward") and hasattr(model, "training"):
        return _parameters(model)
    return read(_archive(model, ())).inputs


def _is_tensors(names: Sequence[str], example: Any) -> bool:
    """Whether an example is tensors by the network's own names; else it is the columns of one matrix."""
    if isinstance(example, np.ndarray):
        return True
    return isinstance(example, Mapping) and list(example) == list(names[: len(example)])


def _tensors(names: Sequence[str], model: Any, example: Any) -> list[Any]:
    """Return what the network is called with. Raises InvalidInput: texts, missing names, or no rows."""
    library = torch()
    if isinstance(example, np.ndarray):
        found = [_from_array(library, example)]
    elif _is_tensors(names, example):
        found = [_from_array(library, np.asarray(values)) for values in example.values()]
    else:
        columns = _frames.values_of(example)
        texts = [d.name for d in _frames.describe(example) if d.dtype not in ("bool", "int64", "float64") or d.shape]
        if texts:
            raise InvalidInput(
                f"the network is given one matrix of the example's columns, but {listed(texts, 5)} are no numbers; "
                f"encode them, or give tensors by the names of forward ({listed(names)})"
            )
        rows = [np.asarray([np.nan if v is None else v for v in values], _kind(model)) for values in columns.values()]
        found = [library.from_numpy(np.column_stack(rows))]
    if any(one.ndim == 0 or not len(one) for one in found) or len({len(one) for one in found}) > 1:
        raise InvalidInput("each tensor of the example needs the same number of rows as its first size, and at least 1")
    return found


def _rows(example: Any) -> Any:
    return example if isinstance(example, np.ndarray) else next(iter(_frames.values_of(example).values()))


def _kind(model: Any) -> Any:
    """Return the type of the network's own fractions, in which a matrix of columns is given to it."""
    held = model.parameters() if hasattr(model, "parameters") and not isinstance(model, bytes) else ()
    found = next((str(one.dtype).rpartition(".")[2] for one in held if one.dtype.is_floating_point), "float32")
    return np.dtype(found if found in ("float16", "float64") else "float32")


def _device(model: Any) -> Any:
    return next((one.device for one in model.parameters()), torch().device("cpu"))


def _from_array(library: Any, array: Column) -> Any:
    try:
        return library.from_numpy(np.array(array, copy=None if array.flags.writeable else True, order="C"))
    except TypeError:
        raise InvalidInput(f"a network takes numbers; the example has {array.dtype}") from None


def _archive(model: Any, given: Sequence[Any]) -> bytes:
    """Return the network as `torch.export` writes it. Raises InvalidInput: it cannot be exported."""
    if isinstance(model, bytes):
        return model
    library = torch()
    made = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about its own parts
        try:
            program = model if not hasattr(model, "training") else _exported(library, model, given)
            library.export.save(program, made)
        except Exception as error:  # whatever forward raises, and a dozen types of PyTorch's own
            why = " ".join(str(error).split())[:400]
            raise InvalidInput(
                f"torch.export cannot follow the network: {type(error).__name__}: {why}; forward must not branch on "
                "the values of tensors and must take any number of rows"
            ) from None
    return made.getvalue()


def _exported(library: Any, model: Any, given: Sequence[Any]) -> Any:
    copied = copy.deepcopy(model).cpu().eval()
    # Of a size that is 1 when it is followed, PyTorch concludes that it is always 1.
    followed = tuple(library.cat([one, one]) if len(one) == 1 else one for one in given)
    shapes = tuple({0: library.export.Dim("rows")} for _ in followed)
    with library.no_grad():
        program = library.export.export(copied, followed, dynamic_shapes=shapes)
        return program.run_decompositions({})  # without in-place operations, and otherwise as it was written


@contextmanager
def _evaluating(model: Any) -> Any:
    """Put a network into evaluation mode, part by part, and back."""
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


def _parts(found: Any) -> tuple[list[str] | None, list[Any]]:
    """Return the names and tensors of an answer; names are None where it has none."""
    if isinstance(found, Mapping):
        names, values = [str(name) for name in found], list(found.values())
    else:
        names, values = None, list(found) if isinstance(found, (tuple, list)) else [found]
    strange = [type(one).__name__ for one in values if type(one).__module__.partition(".")[0] != _LIBRARY]
    if strange or not values:
        raise InvalidInput(
            f"forward returns {listed(strange) or 'nothing'} where a tensor is expected, or several, or a dict of them"
        )
    return names, values


def _named(names: Sequence[str] | None, values: Sequence[Any], rows: int) -> dict[str, Column]:
    if names is None:
        names = ["prediction"] if len(values) == 1 else [f"output_{at}" for at in range(len(values))]
    found = dict(zip(names, _arrays(values), strict=True))
    short = [name for name, one in found.items() if one.ndim == 0 or len(one) != rows]
    if short:
        raise InvalidInput(f"the answer {listed(short)} of the network has not one entry a row")
    return found


def _arrays(values: Sequence[Any]) -> list[Column]:
    """Return tensors as arrays; fractions that are one a row as float64, which is how columns travel."""
    found = []
    for one in values:
        plain = one.detach().cpu()
        array = (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()
        found.append(array.astype(np.float64) if array.ndim == 1 and array.dtype.kind == "f" else array)
    return found


def _check_alone(program: Program, alone: Sequence[Any], wanted: Sequence[Column]) -> None:
    """Prove that one row is answered as among others; a network that looks at its neighbours cannot be served."""
    for found, expected in zip(_arrays(program.run(alone)), wanted, strict=True):
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise InvalidInput(
                "the network answers a row otherwise when it is asked for alone than among others; rows must not "
                "depend on one another, for requests are joined"
            )
