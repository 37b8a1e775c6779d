"""Find a function by `module:name` or `file.py:name`, in such a way that every process of a project finds the same.

A file is loaded as a module whose name says where it is (`flyball_file_pipelines` for `pipelines.py`), so that objects
of its classes can be pickled in one process and read in another, also days later. The project's folder is on the path
of imports, so that files can import one another.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from flyball.errors import InvalidInput, NotFound, did_you_mean, listed

__all__ = ["load_function", "load_module", "module_of", "use_project"]

_PREFIX = "flyball_file_"


def use_project(project: Path) -> None:
    """Let imports find the project's modules and files, in this process."""
    folder = str(project.absolute())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
    _finder.project = project.absolute()


def module_of(function: str, project: Path) -> str:
    """Return the name of the module that `module:name` or `file.py:name` stands in."""
    where = function.rpartition(":")[0]
    if not where.endswith(".py"):
        return where
    path = (project / where).absolute()
    if path.is_relative_to(project.absolute()):  # else it is known by its whole path
        path = path.relative_to(project.absolute())
    text = path.with_suffix("").as_posix()
    return _PREFIX + re.sub(r"[^A-Za-z0-9]", lambda m: "".join(f"_{byte:02x}" for byte in m[0].encode()), text)


def load_function(function: str, project: Path) -> Any:
    """Return the function that `module:name`, or `file.py:name` in the project, names.

    Raises:
        NotFound: there is no such file, module or name.
        InvalidInput: importing it raised; says what.
    """
    where, _, name = function.rpartition(":")
    module = load_module(where, project, name)
    if not hasattr(module, name):
        known = _functions(module)
        raise NotFound(f"{where} has no function {name!r}{did_you_mean(name, known)} (it has: {listed(known)})")
    return getattr(module, name)


def load_module(where: str, project: Path, name: str = "views") -> ModuleType:
    """Return a module, or the file of the project, out of which `name` is wanted. Raises as `load_function`."""
    use_project(project)
    if where.endswith(".py") and not (project / where).is_file():
        raise NotFound(f"there is no file {project / where} to take {name} from")
    module_name = module_of(f"{where}:{name}", project)
    there = sys.modules.get(module_name)
    if there is not None and where.endswith(".py") and Path(there.__file__ or "") != (project / where).absolute():
        del sys.modules[module_name]  # the file of the same name of a project that was opened before
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.startswith(error.name):
            raise NotFound(
                f"there is no module {where} to take {name} from; is it installed, or in {project}?"
            ) from error
        raise InvalidInput(f"{where} cannot be imported: {error}") from error
    except Exception as error:
        raise InvalidInput(f"{where} cannot be imported: {type(error).__name__}: {error}") from error


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules whose names were made by `module_of`."""

    project: Path | None = None

    def find_spec(
        self, fullname: str, _path: Any = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(_PREFIX) or self.project is None:
            return None
        text = re.sub(r"(?:_[0-9a-f]{2})+", _decoded, fullname.removeprefix(_PREFIX))
        path = self.project / f"{text}.py"
        return importlib.util.spec_from_file_location(fullname, path) if path.is_file() else None


def _decoded(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("_", "")).decode("utf-8", "replace")


def _functions(module: ModuleType) -> list[str]:
    return [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]


_finder = _Finder()
