"""What a function is: a digest of its code and of the code and constants of its module that it reaches.

A view is another view when it would compute something else, also when only a helper changed. Comments, layout,
docstrings and the decorator do not count.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

__all__ = ["digest_of_function", "source_of", "text_in"]

_PLAIN = (bool, int, float, str, bytes, type(None))


def source_of(function: Callable[..., Any]) -> str:
    """Return the text of a function without its indentation, empty where Python has none (typed at a prompt)."""
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return ""


def text_in(path: Path, name: str) -> str:
    """Return the text of a function at the top of a file, with its decorators; empty where it cannot be told."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError):
        return ""
    found = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name), None)
    if found is None:
        return ""
    first = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : found.end_lineno]) + "\n"


def digest_of_function(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of what a function computes, as 64 hexadecimal digits.

    It covers the function, its default arguments and closure, and, of its own module, each function, class and plain
    constant that it names, and theirs in turn. Other modules are not followed: versions of libraries are recorded with
    runs.
    """
    parts: dict[str, str] = {}
    _collect(function, parts)
    whole = "\n".join(f"{name}={text}" for name, text in sorted(parts.items()))
    return hashlib.sha256(whole.encode()).hexdigest()


def _collect(function: Any, parts: dict[str, str]) -> None:
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType) or function.__qualname__ in parts:
        return
    parts[function.__qualname__] = _normal(function)
    closure = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *closure]
    for number, value in enumerate(held):
        _add(f"{function.__qualname__}[{number}]", value, function.__module__, parts)
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            _add(name, function.__globals__[name], function.__module__, parts)


def _add(name: str, value: Any, module: str, parts: dict[str, str]) -> None:
    if isinstance(value, FunctionType):
        if value.__module__ == module:
            _collect(value, parts)
    elif isinstance(value, type):
        if value.__module__ == module and name not in parts:
            parts[name] = source_of(value)
            for attribute in vars(value).values():
                _add(name, attribute, module, parts)
    elif _is_plain(value):
        parts.setdefault(name, _written(value))


def _normal(function: FunctionType) -> str:
    source = source_of(function)
    try:
        tree: ast.AST = ast.parse(source) if source else ast.Module([], [])
    except SyntaxError:  # a lambda in the middle of a call
        tree = ast.Module([], [])
    found = next((n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)), None)
    if found is None:
        code = function.__code__
        return f"{code.co_code.hex()} {code.co_names} {_constants(code)}"
    if ast.get_docstring(found, clean=False) is not None:
        found.body = found.body[1:]
    return " ".join([ast.dump(found.args), *(ast.dump(statement) for statement in found.body)])


def _names(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _constants(code: CodeType) -> list[str]:
    return [_written(c) if not isinstance(c, CodeType) else c.co_code.hex() for c in code.co_consts]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(k) and _is_plain(v) for k, v in value.items())
    return isinstance(value, _PLAIN)


def _written(value: Any) -> str:
    """Write a plain value; sets in a fixed order, for hashes of text differ from one process to the next."""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_written, value)))}}}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(map(_written, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_written(k)}: {_written(v)}' for k, v in value.items())}}}"
    return repr(value)


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
