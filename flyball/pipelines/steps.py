"""`@step` and `@pipeline`: plain functions that can also be run by the platform.

    @fb.step(retries=2, timeout="10m")
    def fit(rows: pl.DataFrame, depth: int = 6) -> Model: ...

    @fb.pipeline
    def late(depth: int = 6) -> str:
        train, test = split(load())
        return evaluate(fit(train, depth), test)

`late(depth=8)` is a plain call: everything runs here, in order, under the debugger. When the platform runs the
pipeline, a call of a step returns a promise at once and the step runs in another process as soon as its inputs are
there; what one may do with a promise stands in `flyball.pipelines.graph`.

Importing this module must stay cheap: every project file does, in every worker.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, overload

from flyball.errors import InvalidInput
from flyball.pipelines.graph import context, resolve

__all__ = ["Pipeline", "Step", "pipeline", "resolve", "step"]

P = ParamSpec("P")
R = TypeVar("R")


class _Wrapped(Generic[P, R]):
    """A user's function with a name, and where it can be found again by another process."""

    def __init__(self, function: Callable[P, R], name: str | None) -> None:
        if not isinstance(function, types.FunctionType):
            raise InvalidInput(f"{function!r} cannot be decorated; write it as a plain function: def name(…)")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise InvalidInput(
                f"{function.__name__} is a generator or async function; expected one that returns a value"
            )
        functools.update_wrapper(self, function)  # type: ignore[arg-type]
        self.function: Callable[P, R] = function
        self.name = name or function.__name__
        self.module = function.__module__
        self.qualname = function.__qualname__

    @property
    def file(self) -> Path:
        """The file that the function stands in."""
        return Path(inspect.getfile(self.function))

    def __reduce__(self) -> str:
        return self.qualname  # like a function: by where it stands

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.name}>"


class Step(_Wrapped[P, R]):
    """A function that is one unit of work of a pipeline; made by `@step`."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        retries: int = 0,
        timeout_s: float | None = None,
        cpu: int = 1,
        cache: bool = True,
        outputs: int | None = None,
    ) -> None:
        super().__init__(function, name)
        self.retries = retries
        self.timeout_s = timeout_s
        self.cpu = cpu
        self.cache = cache
        self.outputs = outputs if outputs is not None else _outputs_of(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        execution = context.get()
        if execution is None:
            return self.function(*args, **kwargs)
        promised: R = execution.call(self, args, kwargs)
        return promised


class Pipeline(_Wrapped[P, R]):
    """A function whose calls of steps make a graph; made by `@pipeline`.

    Attributes:
        name: its name, `function`: what it does, `module`, `qualname` and `file`: where it stands.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def reference(self, project: Path) -> str:
        """Return how a Pipeline resource names this function: `file.py:name` within the project, else `module:name`."""
        try:
            return f"{self.file.resolve().relative_to(project.resolve()).as_posix()}:{self.qualname}"
        except ValueError:
            return f"{self.module}:{self.qualname}"


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: str | float | None = None,
    cpu: int = 1,
    cache: bool = True,
    outputs: int | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    timeout: str | float | None = None,
    cpu: int = 1,
    cache: bool = True,
    outputs: int | None = None,
) -> Any:
    """Make a function a step.

    Args:
        name: what it is called in records; default: the function's name.
        retries: how often it is tried again when it raises or takes too long, after 0.5 s, 1 s, 2 s… up to 30 s.
        timeout: longest time for one try (`"10m"`, or seconds); then its process is killed.
        cpu: how many processors it keeps busy; others wait until so many are free.
        cache: whether an earlier result of the same code and inputs may be used. Switch it off for a step that reads
            or changes the outside world. A finished step is not repeated when its own run is resumed, in either case.
        outputs: how many values it returns, so that `a, b = split(x)` makes two promises; default: from a return
            annotation like `tuple[A, B]`.

    Raises:
        InvalidInput: an option is out of range, or what is decorated is no plain function.
    """
    for option, value, least in (("retries", retries, 0), ("cpu", cpu, 1), ("outputs", outputs or 1, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidInput(f"a step's {option} is {value!r}; expected a whole number of at least {least}")
    timeout_s = None
    if timeout is not None:
        from flyball.clock import parse_duration

        timeout_s = parse_duration(timeout).total_seconds()
        if timeout_s == 0:
            raise InvalidInput("a step's timeout is 0; write it like 90s or 10m, or leave it out for none")

    def decorate(found: Callable[..., Any]) -> Step[..., Any]:
        return Step(found, name=name, retries=retries, timeout_s=timeout_s, cpu=cpu, cache=cache, outputs=outputs)

    return decorate if function is None else decorate(function)


@overload
def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]: ...
@overload
def pipeline(*, name: str | None = None) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a function a pipeline. Raises InvalidInput when what is decorated is no plain function."""

    def decorate(found: Callable[..., Any]) -> Pipeline[..., Any]:
        return Pipeline(found, name)

    return decorate if function is None else decorate(function)


def _outputs_of(function: Callable[..., Any]) -> int | None:
    """Return how many values the return annotation promises, None when it is not a tuple of fixed length."""
    annotation = function.__annotations__.get("return")
    if isinstance(annotation, str):
        # Only the outermost tuple matters; the names in it may stand for types that are imported for checking alone.
        text = annotation.strip()
        if not text.startswith(("tuple[", "Tuple[", "typing.Tuple[")) or not text.endswith("]"):
            return None
        return _parts_of(text[text.index("[") + 1 : -1])
    if typing.get_origin(annotation) is not tuple:
        return None
    parts = typing.get_args(annotation)
    return None if Ellipsis in parts else len(parts)


def _parts_of(text: str) -> int | None:
    """Return how many comma-separated parts there are at the outermost level."""
    depth, parts = 0, [""]
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    kept = [part.strip() for part in parts if part.strip()]
    return None if "..." in kept else len(kept)
