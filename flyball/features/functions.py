"""Request-time functions on their way to serving: what travels is a description, what is run is a file of the home.

`keep_function` writes an `@on_request` function, with what it needs of its module and nothing else, to a file in
`code/functions` of the home whose name holds its digest. The description names that file, the digest of its bytes and
the digest of the function; a deployment's snapshot carries it. `load_function` imports the file in the data plane: only
from that folder, only when its bytes are those that were kept, and only when the function in it computes what was
declared, which is what training ran. So the code that answers is code that somebody with access to the home put there;
nothing sent over the network is ever run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import os
import re
import secrets
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flyball.errors import Corrupt, InvalidInput, NotFound, StepFailed, did_you_mean, listed
from flyball.features.prepared import Prepared
from flyball.features.requests import OnRequest

__all__ = ["FOLDER", "FunctionSpec", "is_function", "keep_function", "load_function"]

FOLDER = Path("code") / "functions"  # in the home
_FILE = re.compile(r"[A-Za-z0-9_]{1,80}_[0-9a-f]{16}\.py")
_MADE = "from flyball.features.prepared import buckets, calendar, days_off, hashed"
_WORDS: dict[type, str] = {bool: "bool", int: "int64", float: "float64", str: "string", datetime: "datetime"}


@dataclass(frozen=True)
class FunctionSpec:
    """What serving needs to know of an `@on_request` function; `to_dict` is a feature view's `definition`.

    Attributes:
        on_request: the function's name; its presence tells this description from a view's.
        file: the file in `code/functions` of the home.
        file_digest: SHA-256 of the file.
        digest: of what the function computes, see `definitions`.
        inputs: the fields of a request that it takes; those in `optional` may be absent.
        outputs: the features that it returns.
    """

    on_request: str
    file: str
    file_digest: str
    digest: str
    inputs: tuple[str, ...]
    optional: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.on_request

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> FunctionSpec:
        """Read what `to_dict` wrote. Raises InvalidInput on anything else."""
        fields = cls.__annotations__
        for key in document:
            if key not in fields:
                raise InvalidInput(f'a function\'s description has an unknown field "{key}"{did_you_mean(key, fields)}')
        for key, kind in fields.items():
            value = document.get(key)
            is_right = isinstance(value, str) if kind == "str" else isinstance(value, list | tuple)
            if not is_right:
                what = "text" if kind == "str" else "a list"
                raise InvalidInput(f'a function\'s description has {value!r:.40} as its "{key}"; expected {what}')
        values: dict[str, Any] = {k: v if isinstance(v, str) else tuple(map(str, v)) for k, v in document.items()}
        return cls(**values)


def is_function(document: Mapping[str, Any]) -> bool:
    """Whether a description is of a request-time function, not of a view."""
    return "on_request" in document


def keep_function(function: OnRequest, home: Path) -> FunctionSpec:
    """Write the function's file into the home and return the description that serving loads it by.

    The file has the statements at the top of the function's module that bind the names which the function reaches:
    itself, its imports, helpers and constants. The rest of the module is not run where the function is served. Of a
    ready-made one (`prepared`) the file has the call that makes it. Keeping a function again changes nothing; a changed
    one becomes another file, so what is deployed stays as it is.

    Raises:
        InvalidInput: it has no file (typed at a prompt), is not defined at the top of it, or what it returns cannot be
            told from its source.
        Corrupt: its module has changed since it was imported.
        StepFailed: the file cannot be imported by itself.
    """
    name = function.name
    if isinstance(function, Prepared):
        return _kept(function, f"{_MADE}\n\nglobals()[{name!r}] = {function.made}\n".encode(), home)
    if "<locals>" in getattr(function.function, "__qualname__", ""):
        raise InvalidInput(f"{name} is defined inside a function; define it at the top of a file to have it served")
    try:
        path = Path(inspect.getfile(function.function))
        text = path.read_text(encoding="utf-8") if path.suffix == ".py" else None
    except (OSError, TypeError):
        text = None
    if text is None:
        raise InvalidInput(f"{name} has no file (it was typed at a prompt); put it into a .py file and import it")
    return _kept(function, _needed(text, name).encode(), home)


def _kept(function: OnRequest, source: bytes, home: Path) -> FunctionSpec:
    """Write a function's file and see that it can be loaded."""
    name = function.name
    outputs = tuple(function.outputs) if function.outputs is not None else _returned(function)
    digest = hashlib.sha256(source).hexdigest()
    kept = home / FOLDER / f"{re.sub(r'[^A-Za-z0-9_]', '_', name)[:80]}_{digest[:16]}.py"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.parent / f".{secrets.token_hex(6)}.part"
        partial.write_bytes(source)
        partial.replace(kept)
    spec = FunctionSpec(
        name, kept.name, digest, function.digest, tuple(function.inputs), tuple(function.defaults), outputs
    )
    load_function(spec, home)  # what cannot be loaded here cannot be loaded where it is served
    return spec


def load_function(spec: FunctionSpec, home: Path) -> OnRequest:
    """Import a kept function.

    Raises:
        InvalidInput: the description names no file of the folder.
        NotFound: the file or the function in it is not there.
        Corrupt: the file, or what the function computes, is not what was declared.
        StepFailed: the file cannot be imported here.
    """
    folder = (home / FOLDER).resolve()
    path = folder / spec.file
    if not _FILE.fullmatch(spec.file) or path.resolve().parent != folder:
        raise InvalidInput(f"the function {spec.name} names the file {spec.file[:80]!r}, which is none of {folder}")
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {path} to take {spec.name} from; declare the function again") from None
    if hashlib.sha256(source).hexdigest() != spec.file_digest:
        raise Corrupt(f"the file {path} has changed since {spec.name} was declared; declare the function again")
    module_name = f"flyball_function_{path.stem}"
    module = sys.modules.get(module_name)
    if module is None:
        found = importlib.util.spec_from_file_location(module_name, path)
        assert found is not None and found.loader is not None  # the name ends with .py
        module = importlib.util.module_from_spec(found)
        sys.modules[module_name] = module  # dataclasses and typing look their module up by its name
        try:
            # The bytes that were checked, not those that the loader would read a moment later.
            exec(compile(source, os.fspath(path), "exec", dont_inherit=True), vars(module))
        except BaseException as error:
            del sys.modules[module_name]
            if isinstance(error, KeyboardInterrupt):
                raise
            raise StepFailed(
                f"the file of the function {spec.name} cannot be imported where it is served "
                f"({type(error).__name__}: {str(error)[:200]}); let it import only what is installed there"
            ) from error
    function = getattr(module, spec.name, None)
    if not isinstance(function, OnRequest):
        raise NotFound(f"the file {path} has no @on_request function called {spec.name}")
    if function.digest != spec.digest:
        raise Corrupt(
            f"the function {spec.name} computes something else than when it was declared; declare it again, and train "
            "with it"
        )
    return function


def _returned(function: OnRequest) -> tuple[str, ...]:
    """Return the names of the features from the dict literals that a function returns."""
    advice = f'say what it returns: @on_request(returns={{"hour": int, …}}) above {function.name}'
    try:
        tree = ast.parse(textwrap.dedent(function.text))
    except SyntaxError:
        raise InvalidInput(f"what {function.name} returns cannot be told from its source; {advice}") from None
    found: dict[str, None] = {}
    returns = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    for value in returns:
        keys = value.keys if isinstance(value, ast.Dict) else [None]
        for key in keys:
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                raise InvalidInput(f"what {function.name} returns cannot be told from its source; {advice}")
            found[key.value] = None
    if not found:
        raise InvalidInput(f"{function.name} returns nothing that its source names ({listed(found)}); {advice}")
    return tuple(found)


def _needed(text: str, name: str) -> str:
    """Return the statements at the top of a module that bind the names which one of its functions reaches."""
    statements = ast.parse(text).body
    bound = [_bound(statement) for statement in statements]
    reached, waiting, chosen = {name}, [name], set[int]()
    while waiting:
        wanted = waiting.pop()
        for number, names in enumerate(bound):
            if wanted in names and number not in chosen:
                chosen.add(number)
                loaded = {node.id for node in ast.walk(statements[number]) if isinstance(node, ast.Name)} | names
                waiting += loaded - reached
                reached |= loaded
    lines = text.splitlines(keepends=True)
    found = []
    for number, statement in enumerate(statements):
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if number in chosen or is_future:
            decorators = [node.lineno for node in getattr(statement, "decorator_list", ())]
            # Whole lines, as written: the digest of a class is of its text.
            found.append("".join(lines[min([statement.lineno, *decorators]) - 1 : statement.end_lineno]).rstrip("\n"))
    return "\n\n".join(dict.fromkeys(found)) + "\n"


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement at the top of a module binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    found: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return found
