"""From a decorated view to its declaration and back: what is declared, where its code is, whether both still agree."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flyball.errors import Conflict, listed
from flyball.features.kinds import FeatureView as Declared
from flyball.features.specs import ViewSpec
from flyball.features.views import FeatureView

__all__ = ["check_declared", "declaration", "reference_of"]

_BY_FILE = "flyball_file_"  # how modules are called that were loaded by their file and cannot be imported by name


def declaration(
    view: FeatureView, spec: ViewSpec, before: Mapping[str, Any] | None = None, reference: str = ""
) -> dict[str, Any]:
    """Return the spec of `feature-view/<name>` for a decorated view.

    Args:
        spec: the view's light description.
        before: the spec that is declared now; what people said there stays (status, owner, materialise…).
        reference: where the code is, see `reference_of`; empty: as before.
    """
    known = dict(before or {})
    known |= {"definition": spec.to_dict(), "digest": view.digest, "version": view.version}
    said = {
        "description": " ".join((view.__doc__ or "").split()),
        "owner": view.owner,
        "tags": list(view.tags),
        "function": reference,
        "text": view.text,
    }
    return known | {field: value for field, value in said.items() if value}


def reference_of(view: FeatureView, project: Path) -> str:
    """Return how another process finds the view: `file.py:name` in the project, else `module:name`; empty: it does not.

    A view of a notebook, of the script that is running, or inside a function is found by nobody else.
    """
    function = inspect.unwrap(view.function)
    module = getattr(function, "__module__", "") or ""
    attributes = vars(sys.modules.get(module, object)) if module in sys.modules else {}
    name = next((name for name, value in attributes.items() if value is view), None)
    if name is None or module == "__main__":
        return ""
    try:
        path = Path(inspect.getsourcefile(function) or "").resolve().relative_to(project.resolve())
    except (ValueError, TypeError):
        return "" if module.startswith(_BY_FILE) else f"{module}:{name}"
    if path.suffix != ".py":
        return ""
    return f"{path.as_posix()}:{name}"


def check_declared(view: FeatureView, spec: ViewSpec, declared: Declared) -> None:
    """Raise Conflict unless the code at hand is what was declared, because look-ups go by the declaration.

    Args:
        view: as loaded from its file.
        spec: its light description on the data set as it is now.
    """
    where = f"the code of feature-view/{view.name} ({declared.function or 'in Python'})"
    again = "declare it again, for example with: flyball features declare FILE.py"
    if view.version == declared.version and declared.digest is not None and view.digest != declared.digest:
        raise Conflict(
            f"{where} computes something else than what is declared as version {declared.version}; raise version= and "
            f"{again}"
        )
    ours, theirs = spec.to_dict(), ViewSpec.from_dict(declared.definition).to_dict()
    differing = [field for field in ours if ours[field] != theirs[field]]
    if differing:
        raise Conflict(f"{where} differs from its declaration in {listed(differing)}; {again}")
