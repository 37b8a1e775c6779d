"""The manifest of a bundle: what it lists, how it is written and how it is checked when read."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flyball.errors import Corrupt, Incompatible, InvalidInput
from flyball.models._columns import Column
from flyball.storage.blobs import check_digest

__all__ = [
    "FORMAT",
    "canonical",
    "check_path",
    "differences",
    "environment",
    "plain_columns",
    "read",
]

FORMAT = 1
_KEYS = {"format", "flavor", "files", "signature", "example", "environment", "metadata"}
# The example is for a first look and for the check at load, not a second copy of the training data.
_EXAMPLE_ROWS, _EXAMPLE_BYTES = 20, 256 * 1024


def canonical(document: object) -> bytes:
    """Return JSON with sorted keys and no spaces, so that equal documents have equal digests.

    Raises:
        InvalidInput: something in it is no JSON value (NaN and infinity are none either).
    """
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the bundle's metadata must be plain JSON values: {error}") from None


def read(data: bytes) -> dict[str, Any]:
    """Parse a manifest whose digest has been verified.

    Raises:
        Incompatible: a format that this release does not know.
        Corrupt: it is no manifest.
    """
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError):
        raise Corrupt("the bundle's manifest is not JSON; this digest names something else than a bundle") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise Corrupt("the bundle's manifest states no format; this digest names something else than a bundle")
    if manifest["format"] != FORMAT:
        raise Incompatible(
            f"the bundle has format {manifest['format']}; this release reads {FORMAT}; upgrade Flyball to load it"
        )
    missing = sorted(_KEYS - set(manifest))
    if missing:
        raise Corrupt(f"the bundle's manifest lacks {', '.join(missing)}")
    try:
        for path, entry in manifest["files"].items():
            check_path(path)
            check_digest(str(entry["digest"]))
            if type(entry["size"]) is not int or entry["size"] < 0:
                raise TypeError
    except (InvalidInput, AttributeError, KeyError, TypeError) as error:
        raise Corrupt(f"the bundle's manifest lists its files wrongly ({error})") from None
    return manifest


def check_path(path: str) -> str:
    """Return a relative path of plain parts, else raise InvalidInput; a bundle never reaches outside its folder."""
    parts = path.split("/")
    odd = any(ord(c) < 32 or c in '\\:*?"<>|' for c in path)
    if odd or len(path) > 500 or any(part in ("", ".", "..") for part in parts):
        raise InvalidInput(
            f'{path[:80]!r} cannot be a path in a bundle; expected parts joined by "/", such as docs/a.md'
        )
    return path


def environment(needed: Iterable[str]) -> dict[str, Any]:
    """Return {python, platform, packages: versions of what the flavour needs, installed: all versions}."""
    installed: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"]
        if name:
            installed.setdefault(name.lower().replace("_", "-"), found.version)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}".lower(),
        "packages": {name: installed[name] for name in needed if name in installed},
        "installed": dict(sorted(installed.items())),
    }


def differences(recorded: Mapping[str, Any]) -> list[str]:
    """Say how this environment differs from the recorded one: Python by minor version, needed packages by major."""
    warnings = []
    here, then = platform.python_version(), str(recorded.get("python"))
    if here.split(".")[:2] != then.split(".")[:2]:
        warnings.append(f"saved under Python {then}, loaded under {here}")
    for name, version in sorted(recorded.get("packages", {}).items()):
        try:
            now = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            warnings.append(f"saved with {name} {version}, which is not installed here")
            continue
        if now.split(".")[0] != str(version).split(".")[0]:
            warnings.append(f"saved with {name} {version}, loaded with {now}")
    return warnings


def plain_columns(columns: Mapping[str, Column]) -> dict[str, list[Any]]:
    """Return the first rows of checked columns as JSON values, few enough to stay small; None for a missing value."""
    rows = _EXAMPLE_ROWS
    while True:
        plain = {name: _plain(array[:rows]) for name, array in columns.items()}
        if rows == 1 or len(canonical(plain)) <= _EXAMPLE_BYTES:
            return plain
        rows //= 2


def _plain(array: Column) -> list[Any]:
    if array.dtype.kind == "M":
        return [None if np.isnat(v) else f"{np.datetime_as_string(v, unit='us')}Z" for v in array]
    found = array.tolist()
    return _without_nan(found) if array.dtype.kind == "f" else list(found)


def _without_nan(values: list[Any]) -> list[Any]:
    return [_without_nan(v) if isinstance(v, list) else None if math.isnan(v) else v for v in values]
