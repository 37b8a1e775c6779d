"""The environment of a bundle, locked when it is saved: Python, platform, and every package that the model needs.

Needed is what the flavour says, what Python source in the bundle imports, and Flyball itself, each with all that it
requires in turn, at the versions that were installed when the model proved that it answers. Versions come from what is
installed (importlib.metadata), so nothing is resolved again and nothing is fetched.
"""

from __future__ import annotations

import ast
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution
from typing import Any

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

__all__ = ["differences", "imported", "locked", "recorded", "requirements"]

_LICENCE_LENGTH = 100  # of a licence's name; some packages put the whole text into the field


def recorded(needed: Iterable[str]) -> dict[str, Any]:
    """Return what a manifest says of the environment it is saved in.

    Args:
        needed: distributions that loading the model needs.

    Returns:
        {python, platform, packages: name → version of the needed ones, locked: name → {version, requires, licence} of
        those and of all that they require, installed: name → version of everything}. Names are normalised (PEP 503).
    """
    installed = _installed()
    roots = [canonicalize_name(name) for name in needed]
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}".lower(),
        "packages": {name: installed[name].version for name in dict.fromkeys(roots) if name in installed},
        "locked": locked([*roots, "flyball"], installed),
        "installed": {name: found.version for name, found in sorted(installed.items())},
    }


def locked(needed: Iterable[str], installed: Mapping[str, Distribution] | None = None) -> dict[str, dict[str, Any]]:
    """Return name → {version, requires, licence} of installed distributions and of what they require, by name.

    Requirements with extras and markers count as they hold here; what is not installed is left out.
    """
    known = _installed() if installed is None else installed
    requires: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(str(canonicalize_name(name)), "") for name in needed]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen or name not in known:
            continue
        seen.add((name, extra))
        requires.setdefault(name, set())
        for text in known[name].requires or ():
            wanted = _holding(text, extra)
            if wanted is None:
                continue
            other = str(canonicalize_name(wanted.name))
            if other in known:
                requires[name].add(other)
                todo += [(other, ""), *((other, each) for each in wanted.extras)]
    return {
        name: {
            "version": known[name].version,
            "requires": sorted(requires[name] - {name}),
            "licence": _licence(known[name]),
        }
        for name in sorted(requires)
    }


def requirements(environment: Mapping[str, Any]) -> str:
    """Return the locked packages of a recorded environment as requirements, one `name==version` a line.

    It names no index and no file, so that it installs from whatever the machine is set up with; nor a local version,
    such as the `+cpu` of PyTorch, which only the index has that built it.
    """
    found = environment.get("locked") or {name: {"version": v} for name, v in environment.get("packages", {}).items()}
    return "".join(f"{name}=={package['version'].partition('+')[0]}\n" for name, package in sorted(found.items()))


def imported(sources: Iterable[bytes]) -> set[str]:
    """Return the distributions whose modules some Python sources import; text that is no Python imports nothing."""
    modules: set[str] = set()
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    if not modules:
        return set()
    known = importlib.metadata.packages_distributions()
    return {str(canonicalize_name(name)) for module in modules for name in known.get(module, ())}


def differences(environment: Mapping[str, Any]) -> list[str]:
    """Say how this environment differs from a recorded one: Python by minor version, needed packages by major."""
    warnings = []
    here, then = platform.python_version(), str(environment.get("python"))
    if here.split(".")[:2] != then.split(".")[:2]:
        warnings.append(f"saved under Python {then}, loaded under {here}")
    for name, version in sorted(environment.get("packages", {}).items()):
        try:
            now = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            warnings.append(f"saved with {name} {version}, which is not installed here")
            continue
        if now.split(".")[0] != str(version).split(".")[0]:
            warnings.append(f"saved with {name} {version}, loaded with {now}")
    return warnings


def _installed() -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(str(canonicalize_name(name)), distribution)
    return found


def _holding(text: str, extra: str) -> Requirement | None:
    """Return a requirement if its marker holds here; with an extra, one that only the extra asks for."""
    try:
        wanted = Requirement(text)
        if wanted.marker is None:
            return wanted if not extra else None
        return wanted if wanted.marker.evaluate({"extra": extra}) else None
    except (InvalidRequirement, UndefinedEnvironmentName):
        return None  # of an old package; what it means is unknown


def _licence(distribution: Distribution) -> str | None:
    """Return an SPDX expression (PEP 639), else the name in the classifiers, else a short licence field."""
    metadata = distribution.metadata
    stated = metadata.get_all("License-Expression")
    if stated:
        return str(stated[0])
    classified = [str(c).rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or () if "License ::" in str(c)]
    named = [name for name in classified if name != "OSI Approved"]
    if named:
        return " OR ".join(sorted(set(named))) if len(named) > 1 else named[0]
    field = str((metadata.get_all("License") or [""])[0]).strip()
    is_name = field and "\n" not in field and len(field) <= _LICENCE_LENGTH and field.upper() != "UNKNOWN"
    return field if is_name else None
