"""What a call of a step computes, as a digest: its code, all project code that it reaches, and its inputs.

A step's code is its bytecode (so comments, blank lines and docstrings do not matter) with its defaults, and whatever
of the project it names: functions, classes, modules, other steps, and the values of constants; of those the same again.
Of installed libraries and of Flyball only the names count: upgrading one does not repeat steps. An input is known by
the digest of its stored value, so a step that comes to the same result as before does not repeat the steps after it.

What is read from outside (files, databases, the clock) is not seen: such a step says `cache=False`.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from flyball.pipelines.graph import Node, Promise, dump
from flyball.pipelines.results import arrow_bytes

__all__ = ["call_key", "code_key", "node_key"]

_HAS_DOCSTRING = 0x4000000  # CO_HAS_DOCSTRING, Python 3.14 and later
_UNTOLD = frozenset(  # of a class: what says where it stands, or is made from the rest
    f"__{name}__"
    for name in (
        *("dict", "weakref", "doc", "module", "qualname", "slots", "match_args", "signature", "abstractmethods"),
        *("dataclass_fields", "dataclass_params", "annotations", "annotate", "annotate_func", "annotations_cache"),
        *("static_attributes", "firstlineno", "parameters", "orig_bases"),
    )
)


def code_key(function: Any) -> str:
    """Return the digest of a function, step or class, and of all project code that it reaches."""
    found = _Digest(_top(getattr(function, "__module__", "") or ""))
    found.reference(function)
    return found.hexdigest()


def call_key(
    code: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: tuple[Any, ...]
) -> tuple[str, list[tuple[Node, int]]]:
    """Return the digest of a call without its promises, and the promises in the order in which `node_key` takes them.

    Raises:
        TypeError, PicklingError: an argument cannot be pickled.
    """
    found = _Digest("")
    found.tag("call", code)
    found.value(options)
    found.value(args)
    for name in sorted(kwargs):
        found.tag(name)
        found.value(kwargs[name])
    return found.hexdigest(), found.inputs


def node_key(call: str, inputs: list[str]) -> str:
    """Return the digest of a call whose promised inputs have the given digests."""
    return hashlib.sha256("\n".join([call, *inputs]).encode()).hexdigest()


class _Digest:
    """Takes in values one after another; equal values in equal order give equal digests, in any process."""

    def __init__(self, package: str) -> None:
        self._hash = hashlib.sha256()
        self._package = package
        self._path: list[int] = []  # the containers that we are in
        self._known: dict[int, Any] = {}  # code taken in, by id; kept, so that no id is given to something else
        self._modules: set[tuple[str, frozenset[str]]] = set()
        self.inputs: list[tuple[Node, int]] = []

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def tag(self, *texts: str) -> None:
        self.data("\x1f".join(texts).encode("utf-8", "surrogatepass"))

    def data(self, data: Any) -> None:
        view = memoryview(data)
        self._hash.update(b"%d:" % view.nbytes)
        self._hash.update(view)

    # -- values

    def value(self, value: Any) -> None:
        kind = type(value)
        if value is None or kind in (bool, int, float, complex, str):
            self.tag(kind.__name__, repr(value))
        elif kind in (bytes, bytearray):
            self.tag(kind.__name__)
            self.data(value)
        elif kind is Promise:
            self.tag("promise")
            self.inputs.append((value._node, value._index))
        elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | types.ModuleType) or _is_code(
            value
        ):
            self.reference(value)
        elif id(value) in self._path:  # a list that holds itself
            self.tag("again", str(self._path.index(id(value))))
        else:
            self._path.append(id(value))
            self._compound(value, kind)
            self._path.pop()

    def _compound(self, value: Any, kind: type) -> None:
        module = kind.__module__.partition(".")[0]
        if kind in (list, tuple):
            self.tag(kind.__name__, str(len(value)))
            for part in value:
                self.value(part)
        elif kind is dict:
            self.tag("dict", str(len(value)))
            for key, part in value.items():
                self.value(key)
                self.value(part)
        elif kind in (set, frozenset):
            self.tag(kind.__name__, *sorted(self._of(part) for part in value))
        elif isinstance(value, enum.Enum):
            self.tag("enum", kind.__module__, kind.__qualname__, value.name)
        elif isinstance(value, PurePath):
            self.tag("path", str(value))
        elif isinstance(value, functools.partial):
            self.tag("partial")
            self.value([value.func, value.args, value.keywords])
        elif module == "numpy" and kind.__name__ == "ndarray" and not value.dtype.hasobject:
            self.tag("array", value.dtype.str, repr(value.dtype.descr), str(value.shape))
            self.data(value.tobytes())
        elif module == "polars" and kind.__name__ in ("DataFrame", "Series"):
            frame = value if kind.__name__ == "DataFrame" else value.to_frame()
            self.tag("polars", kind.__name__, repr(frame.schema))
            self.data(arrow_bytes(frame))
        elif dataclasses.is_dataclass(value) and "__getstate__" not in vars(kind):
            self._typed(kind)
            for field in dataclasses.fields(value):
                self.tag(field.name)
                self.value(getattr(value, field.name, None))
        else:
            self._typed(kind)
            self.data(dump(value, self.inputs))

    def _typed(self, kind: type) -> None:
        self.tag("object", kind.__module__, kind.__qualname__)
        if self._is_local(kind.__module__):
            self.reference(kind)

    def _of(self, value: Any) -> str:
        inner = _Digest(self._package)
        inner.value(value)
        self.inputs += inner.inputs
        return inner.hexdigest()

    # -- code

    def reference(self, found: Any, names: frozenset[str] = frozenset()) -> None:
        """Take in what code refers to; `names` are those that the code uses, for looking into modules."""
        found = _unwrapped(found)
        if isinstance(found, types.ModuleType):
            self._module(found, names)
            return
        module = getattr(found, "__module__", None) or ""
        self.tag("reference", module, getattr(found, "__qualname__", type(found).__qualname__))
        if not self._is_local(module) or self._is_known(found):
            return
        if isinstance(found, types.FunctionType):
            self._function(found)
        elif isinstance(found, type):
            self._class(found)

    def _is_known(self, found: Any) -> bool:
        if id(found) in self._known:
            return True
        self._known[id(found)] = found
        return False

    def _function(self, function: types.FunctionType) -> None:
        names = self._code(function.__code__)
        self._constant(function.__defaults__)
        self._constant(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self._constant(cell.cell_contents, names)
            except ValueError:  # not yet filled
                self.tag("empty cell")
        for name in sorted(names):
            if name in function.__globals__:
                self.tag("global", name)
                self._constant(function.__globals__[name], names)
        for module in _imported_by(function.__code__, function.__globals__.get("__package__") or ""):
            self._module(module, names)

    def _code(self, code: types.CodeType) -> frozenset[str]:
        """Take in bytecode and constants; return the names in it, of nested functions too."""
        self.tag("code", str(code.co_argcount), str(code.co_posonlyargcount), str(code.co_kwonlyargcount))
        self.data(code.co_code)
        self.tag(*code.co_names, "", *code.co_varnames, "", *code.co_freevars, "", *code.co_cellvars)
        names = set(code.co_names)
        for number, constant in enumerate(code.co_consts):
            if isinstance(constant, types.CodeType):
                names |= self._code(constant)
            elif number == 0 and _has_docstring(code):
                self.tag("docstring")
            else:
                self._constant(constant)
        return frozenset(names)

    def _class(self, kind: type) -> None:
        for base in kind.__bases__:
            self.reference(base)
        self.tag(repr(vars(kind).get("__annotations__", {})))
        for name in sorted(vars(kind)):
            if name in _UNTOLD or name.startswith(("__pydantic_", "_abc_")):
                continue
            found = vars(kind)[name]
            if isinstance(found, types.MemberDescriptorType | types.GetSetDescriptorType):
                continue
            self.tag("attribute", name)
            if isinstance(found, property):
                for part in (found.fget, found.fset, found.fdel):
                    self._constant(part)
            else:
                self._constant(found)

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> None:
        self.tag("module", module.__name__)
        if not self._is_local(module.__name__) or (module.__name__, names) in self._modules:
            return
        self._modules.add((module.__name__, names))
        used = sorted(name for name in names if name in vars(module))
        for name in used:
            self.tag("member", name)
            self._constant(vars(module)[name], names)
        if not used:  # handed on as a whole
            source = Path(module.__file__ or "")
            self.data(source.read_bytes() if source.is_file() else b"")

    def _constant(self, value: Any, names: frozenset[str] = frozenset()) -> None:
        """Take in a value that code refers to; of one that cannot be told in bytes (a lock, a connection) the type."""
        if isinstance(value, types.ModuleType):
            self._module(value, names)
            return
        if _is_code(value) or isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            self.reference(value)
            return
        try:
            told = _Digest(self._package)
            told._path, told._known, told._modules = list(self._path), self._known, self._modules
            told.value(value)
            self.tag(told.hexdigest())
        except Exception:  # whatever pickling raises
            self.tag("untold", type(value).__module__, type(value).__qualname__)

    def _is_local(self, module: str) -> bool:
        top = _top(module)
        if top == "flyball":
            return self._package == "flyball"
        return bool(top) and (top == self._package or _is_project(top))


def _unwrapped(found: Any) -> Any:
    """Return the function behind steps, methods, `functools.wraps` and the like."""
    for _ in range(100):
        inner = getattr(found, "function", None) if _is_step(found) else None
        if isinstance(found, types.MethodType | classmethod | staticmethod):
            inner = found.__func__
        elif not isinstance(found, type | types.FunctionType):
            inner = inner or getattr(found, "__wrapped__", None)
        if inner is None:
            return found
        found = inner
    return found


def _is_step(value: Any) -> bool:
    return type(value).__module__ == "flyball.pipelines.steps"


def _is_code(value: Any) -> bool:
    return (
        _is_step(value)
        or isinstance(value, types.MethodType | classmethod | staticmethod)
        or (not isinstance(value, type) and inspect.isroutine(getattr(value, "__wrapped__", None)))
    )


def _has_docstring(code: types.CodeType) -> bool:
    if sys.version_info >= (3, 14):
        return bool(code.co_flags & _HAS_DOCSTRING)
    is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
    return bool(is_function) and (code.co_consts[0] is None or isinstance(code.co_consts[0], str))


def _imported_by(code: types.CodeType, package: str) -> Iterator[types.ModuleType]:
    """Yield the project's modules that the code imports when it runs."""
    before: list[Any] = [None, None]
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            level = before[0] if isinstance(before[0], int) else 0
            name = "." * level + str(instruction.argval)
            try:
                full = importlib.util.resolve_name(name, package)
                if _is_project(_top(full)):
                    yield importlib.import_module(full)
            except (ImportError, ValueError):
                continue  # the step itself will say so when it runs
        before = [before[1], instruction.argval]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imported_by(constant, package)


def _top(module: str) -> str:
    return module.partition(".")[0]


@cache
def _is_project(top: str) -> bool:
    """Whether a top-level module stands outside the interpreter's and the installed libraries' folders."""
    if top == "__main__":
        return True
    if top in sys.stdlib_module_names or top == "flyball":
        return False
    try:
        spec = sys.modules[top].__spec__ if top in sys.modules else importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    places = [spec.origin] if spec and spec.has_location else list((spec and spec.submodule_search_locations) or [])
    if not places or not places[0]:
        return False
    path = str(Path(places[0]).resolve())
    return not path.startswith(_library_folders()) and "site-packages" not in path and "dist-packages" not in path


@cache
def _library_folders() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in names)
