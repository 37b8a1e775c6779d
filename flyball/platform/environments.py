"""A virtual environment with the packages that a run recorded, at their versions, in which the run is made again.

The packages are installed by pip, from wherever pip is set up with, without resolving: what ran was those packages and
no others. Flyball itself is this one, so that the two ends of the comparison understand each other.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from flyball.errors import InvalidInput, Unavailable

__all__ = ["build", "pins"]

_OWN = ("flyball", "pip", "setuptools", "wheel")  # there already, or this Flyball itself
_LIMIT_S = 3600.0
_MISSING = re.compile(
    r"No matching distribution found for (\S+)|Could not find a version that satisfies .*? (\S+==\S+)"
)


def pins(recorded: Mapping[str, Any]) -> list[str]:
    """Return the packages of a recorded environment as `name==version`, without the local part of a version.

    Raises:
        InvalidInput: the run recorded no packages.
    """
    found = {str(canonicalize_name(name)): str(version) for name, version in (recorded.get("packages") or {}).items()}
    kept = [f"{name}=={version.partition('+')[0]}" for name, version in sorted(found.items()) if name not in _OWN]
    if not kept:
        raise InvalidInput("the run recorded no packages, so its environment cannot be built; reproduce it without")
    return kept


def build(recorded: Mapping[str, Any], folder: Path) -> Path:
    """Make an environment in a folder and return its Python.

    Raises:
        InvalidInput: the run recorded no packages.
        Unavailable: that Python is not here, or a package at its version is not to be had.
    """
    wanted = pins(recorded)
    done = _ran([_python(str(recorded.get("python") or "")), "-m", "venv", str(folder)])
    if done.returncode:
        raise Unavailable(f"no virtual environment can be made here: {_last(done.stdout)}")
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    listing = folder / "requirements.txt"
    listing.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    options = ["--disable-pip-version-check", "--no-input", "--quiet", "--no-deps", "--requirement", str(listing)]
    done = _ran([str(python), "-m", "pip", "install", *options])
    if done.returncode:
        missing = _MISSING.search(done.stdout)
        pin = next((group for group in missing.groups() if group), "") if missing else ""
        if pin:
            raise Unavailable(
                f"{pin} is not to be had from where pip is set up to look; the run was made with it. Make it available "
                "(PIP_FIND_LINKS, PIP_INDEX_URL), or reproduce the run without its environment"
            )
        raise Unavailable(f"the packages of the run cannot be installed: {_last(done.stdout)}")
    asked = _ran([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    own = Path(__file__).resolve().parents[1]
    # A file of paths would let in what else is installed beside this Flyball.
    place = Path(asked.stdout.strip()) / own.name
    try:
        place.symlink_to(own, target_is_directory=True)
    except OSError:
        shutil.copytree(own, place)
    return python


def _python(version: str) -> str:
    """Return the program of a Python of the same minor version. Raises Unavailable: there is none here."""
    minor = ".".join(version.split(".")[:2])
    if minor in ("", f"{sys.version_info.major}.{sys.version_info.minor}"):
        return sys.executable
    found = shutil.which(f"python{minor}")
    if found is None:
        raise Unavailable(f"the run was made with Python {version}, and there is no python{minor} here; install it")
    return found


def _ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the environment was not made within {_LIMIT_S:g} s") from None


def _last(output: str) -> str:
    return " ".join(output.split())[-500:]
