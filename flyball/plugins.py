"""Find an extension by its name.

Whatever can be added (a drift test, a flavour, a rollout strategy, a contract check, a kind) lives in one file of a
package of its family, for instance `flyball/models/flavors/sklearn.py`. The file's name is the name users write.
Other distributions add to a family through the entry-point group `flyball.<family>`; a built-in name wins.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache
from types import ModuleType

from flyball.errors import NotFound, did_you_mean, listed

__all__ = ["find", "names"]


@cache
def _built_in(package: str) -> frozenset[str]:
    family = importlib.import_module(package)
    return frozenset(m.name for m in pkgutil.iter_modules(family.__path__) if not m.name.startswith("_"))


def names(package: str) -> list[str]:
    """Return the sorted names of all extensions of a family, given its package (`"flyball.models.flavors"`)."""
    return sorted(_built_in(package) | {e.name for e in _entry_points(package)})


def find(package: str, name: str) -> ModuleType:
    """Import and return the extension `name` of the family in `package`.

    Raises:
        NotFound: no extension has this name; the message lists those that exist.
    """
    known = names(package)
    if name not in known:
        family = package.rsplit(".", 1)[-1].replace("_", " ")
        raise NotFound(f'there is no "{name}" among the {family}{did_you_mean(name, known)} (known: {listed(known)})')
    if name not in _built_in(package):
        loaded = next(e for e in _entry_points(package) if e.name == name).load()
        assert isinstance(loaded, ModuleType)
        return loaded
    return importlib.import_module(f"{package}.{name}")


@cache
def _entry_points(package: str) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group="flyball." + package.rsplit(".", 1)[-1])
