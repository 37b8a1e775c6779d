"""The calls of steps in one run of a pipeline, and the promises of what they will return.

A promise stands for a value that is being computed. In a pipeline's body one may

- hand it to a step, also inside lists, dicts and objects: that is an edge of the graph, and nothing waits;
- unpack it, when its step returns a tuple of known length (`train, test = split(rows)`): nothing waits either;
- use it as the value: `if score > 0.8`, `report["auc"]`, `model.classes_`, `for part in parts`, `f"{score:.3f}"`,
  arithmetic. That waits until the value is there, and raises StepFailed when its step failed;
- pass it through `resolve(x)` (the same as `x.result()`, but plain values pass too) before handing it to a function
  that is no step and looks at types, such as `isinstance` or a library's.

Called directly, without a platform, steps return plain values and all of the above does the same.
"""

from __future__ import annotations

import io
import operator
import pickle
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from flyball.errors import StepFailed

if TYPE_CHECKING:
    from flyball.pipelines.results import Stored
    from flyball.pipelines.steps import Step

__all__ = ["Cancelled", "Execution", "Node", "Promise", "context", "dump", "freeze", "resolve", "thaw"]


class Execution(Protocol):
    """Carries steps out."""

    def call(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take a call of a step into the graph and return a promise, or a tuple of promises."""
        ...

    def value(self, node: Node, index: int) -> Any:
        """Wait for a node and return its value. Raises StepFailed, Cancelled."""
        ...


context: ContextVar[Execution | None] = ContextVar("flyball_execution", default=None)
"""What carries out the steps that are called here; None: they are plain functions."""


class Cancelled(BaseException):
    """The run was cancelled while its body waited. No `Exception`, so that `except Exception` lets it pass."""


@dataclass(eq=False)
class Node:
    """One call of a step."""

    number: int
    step: Step[..., Any]
    params: dict[str, Any]  # short and fit for the record
    arguments: bytes
    inputs: list[tuple[Node, int]]  # in the order in which the arguments name them
    key_inputs: list[tuple[Node, int]]  # in the order in which the key names them
    call_key: str  # what is called with which plain arguments
    state: str = "waiting"  # waiting, running, succeeded, failed, skipped, cancelled
    key: str = ""
    run: str = ""
    attempts: int = 0
    deaths: int = 0
    is_cached: bool = False
    is_told: bool = False  # whether its failure was raised in the body
    seconds: float | None = None
    outputs: list[Stored] = field(default_factory=list)
    error: StepFailed | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def to_dict(self) -> dict[str, Any]:
        """Return what the pages draw."""
        return {
            "number": self.number,
            "name": self.step.name,
            "run": self.run or None,
            "status": self.state,
            "cached": self.is_cached,
            "seconds": self.seconds,
        }


class Promise:
    """The value that a step will return; see the module's description for what may be done with it."""

    __slots__ = ("_execution", "_index", "_node", "_value")

    def __init__(self, execution: Execution, node: Node, index: int) -> None:
        self._execution = execution
        self._node = node
        self._index = index

    def result(self) -> Any:
        """Wait for the value and return it.

        Raises:
            StepFailed: the step, or one that it depends on, failed.
        """
        try:
            return object.__getattribute__(self, "_value")
        except AttributeError:
            self._value = self._execution.value(self._node, self._index)
            return self._value

    def __repr__(self) -> str:
        part = f"[{self._index}]" if self._node.step.outputs else ""
        return f"<promise of {self._node.step.name}{part}: {self._node.state}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be pickled; take its value first: resolve(x)")

    def __getattr__(self, name: str) -> Any:
        # Protocol look-ups by libraries (__array__, __dataframe__…) must not take the promise for the value in part.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return getattr(self.result(), name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.result())

    def __bool__(self) -> bool:
        return bool(self.result())

    def __str__(self) -> str:
        return str(self.result())

    def __format__(self, spec: str) -> str:
        return format(self.result(), spec)

    __hash__ = object.__hash__


def _forward(name: str, function: Callable[..., Any], *, reflected: bool = False) -> None:
    def forwarded(self: Promise, *others: Any) -> Any:
        operands = [self.result(), *map(resolve, others)]
        return function(*(reversed(operands) if reflected else operands))

    forwarded.__name__ = name
    setattr(Promise, name, forwarded)


for _name in ("lt", "le", "gt", "ge", "eq", "ne", "getitem", "contains", "neg", "pos", "abs", "invert"):
    _forward(f"__{_name}__", getattr(operator, _name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor"):
    _plain = _name.rstrip("_")
    _forward(f"__{_plain}__", getattr(operator, _name))
    _forward(f"__r{_plain}__", getattr(operator, _name), reflected=True)
for _name, _function in (("len", len), ("int", int), ("float", float), ("index", operator.index), ("round", round)):
    _forward(f"__{_name}__", _function)
_forward("__call__", lambda value, *args: value(*args))


def resolve(value: Any) -> Any:
    """Return `value` with every promise in it, also inside lists, tuples and dicts, replaced by what was promised.

    Raises:
        StepFailed: a step that the value depends on failed.
    """
    if isinstance(value, Promise):
        return value.result()
    if type(value) in (list, tuple, set):
        return type(value)(resolve(part) for part in value)
    if type(value) is dict:
        return {key: resolve(part) for key, part in value.items()}
    return value


def freeze(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, list[tuple[Node, int]]]:
    """Return the arguments of a call as bytes, and the promises in them in the order that the bytes name them.

    Raises:
        StepFailed: an argument cannot be pickled.
    """
    inputs: list[tuple[Node, int]] = []
    try:
        return dump((args, kwargs), inputs), inputs
    except Exception as error:
        culprit = next((k for k, v in [*enumerate(args, 1), *kwargs.items()] if not _can_be_pickled(v)), None)
        which = f"argument {culprit}" if culprit is not None else "an argument"
        raise StepFailed(
            f"step {name}: {which} cannot be sent to another process ({error}); expected frames, arrays, plain values, "
            "or objects of classes that stand at the top of a module"
        ) from error


def thaw(arguments: bytes, inputs: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, with the values in the place of promises."""
    found: tuple[tuple[Any, ...], dict[str, Any]] = _Unpickler(arguments, inputs).load()
    return found


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, inputs: list[tuple[Node, int]]) -> None:
        super().__init__(stream, protocol=5)
        self._inputs = inputs

    def persistent_id(self, value: Any) -> str | None:
        if type(value) is not Promise:
            return None
        self._inputs.append((value._node, value._index))
        return str(len(self._inputs) - 1)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, inputs: list[Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._inputs = inputs

    def persistent_load(self, number: str) -> Any:
        return self._inputs[int(number)]


def dump(value: Any, inputs: list[tuple[Node, int]]) -> bytes:
    """Return a value pickled; promises in it are added to `inputs` and named by their place there."""
    stream = io.BytesIO()
    _Pickler(stream, inputs).dump(value)
    return stream.getvalue()


def _can_be_pickled(value: Any) -> bool:
    try:
        dump(value, [])
    except Exception:
        return False
    return True
