"""The code that a run was made by, as files: the script and what it imported from its own folder.

Together with the commit and the difference that `runs.source` tells, they are what a run is reproduced from: the files
are exact, whatever was committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["FOLDER", "code_files"]

FOLDER = "code"
"""The folder of a run in which its code is kept."""

_MOST_FILES = 500
_MOST_BYTES = 1_000_000  # of one file: code that people write is smaller
_ELSEWHERE = frozenset({"site-packages", "dist-packages", "node_modules", "__pycache__"})


def code_files() -> dict[str, Path]:
    """Return the script of this process and the modules loaded from below its folder, by path relative to that folder.

    Nothing where there is no script, as in a notebook. Installed packages, hidden folders (an environment `.venv`) and
    environments of other names do not count.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is None:
        return {}
    script = Path(main).absolute()
    if not script.is_file() or script.suffix != ".py" or _ELSEWHERE & set(script.parts):
        return {}
    root = script.parent
    found = {script.name: script}
    for module in list(sys.modules.values()):
        named = getattr(module, "__file__", None)
        if not isinstance(named, str) or not named.endswith(".py"):
            continue
        path = Path(named).absolute()
        if not path.is_relative_to(root) or len(found) >= _MOST_FILES:
            continue
        inner = path.relative_to(root)
        if _ELSEWHERE & set(inner.parts) or any(part.startswith(".") for part in inner.parts) or _is_installed(path):
            continue
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            found[inner.as_posix()] = path
    return found


def _is_installed(path: Path) -> bool:
    return path.is_relative_to(sys.base_prefix) or (sys.prefix != sys.base_prefix and path.is_relative_to(sys.prefix))
