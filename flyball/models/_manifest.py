"""The manifest of a bundle: what it lists, how it is written and how it is checked when read."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flyball.errors import Corrupt, Incompatible, InvalidInput
from flyball.models._columns import Column
from flyball.storage.blobs import check_digest

__all__ = [
    "FILES",
    "FORMAT",
    "MANIFEST",
    "canonical",
    "check_path",
    "check_paths",
    "plain_columns",
    "read",
    "resources",
]

FORMAT = 1
MANIFEST = "manifest.json"  # in an exported bundle, beside the folder of its files
FILES = "files/"
_KEYS = {"format", "flavor", "files", "signature", "example", "environment", "metadata"}
# The example is for a first look and for the check at load, not a second copy of the training data.
_EXAMPLE_ROWS, _EXAMPLE_BYTES = 20, 256 * 1024
_TYPES = {"flavor": str, "files": dict, "environment": dict, "metadata": dict}
# Names that open a device on Windows, whatever their ending.
_DEVICES = frozenset({"aux", "con", "nul", "prn", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))})


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
        manifest = json.loads(data, object_pairs_hook=_once)
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
    odd = [key for key, kind in _TYPES.items() if not isinstance(manifest[key], kind)]
    if odd:
        raise Corrupt(f"the bundle's manifest has a {odd[0]} of another kind than expected")
    try:
        check_paths(manifest["files"])
        for entry in manifest["files"].values():
            check_digest(str(entry["digest"]))
            if type(entry["size"]) is not int or entry["size"] < 0:
                raise TypeError
    except (InvalidInput, AttributeError, KeyError, TypeError) as error:
        raise Corrupt(f"the bundle's manifest lists its files wrongly ({error})") from None
    return manifest


def check_path(path: str) -> str:
    """Return a relative path of plain parts, else raise InvalidInput; a bundle never reaches outside its folder."""
    parts = path.split("/")
    odd = any(ord(c) < 32 or c in '\\:*?"<>|' or "\ud800" <= c <= "\udfff" for c in path)
    odd = odd or any(part.endswith((".", " ")) or part.partition(".")[0].lower() in _DEVICES for part in parts)
    if odd or len(path) > 500 or any(part in ("", ".", "..") for part in parts):
        raise InvalidInput(
            f'{path[:80]!r} cannot be a path in a bundle; expected parts joined by "/", such as docs/a.md'
        )
    return path


def check_paths(paths: Iterable[str]) -> None:
    """Refuse paths that no folder can hold side by side on every system, else raise InvalidInput.

    Two paths that differ in case or Unicode form only are one file on some systems, and the second would replace the
    first; and a path cannot be both a file and a folder.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", check_path(path)).casefold())
        other = files.get(folded) or folders.get(folded)
        parents = ["/".join(folded.split("/")[:depth]) for depth in range(1, folded.count("/") + 1)]
        other = other or next((files[parent] for parent in parents if parent in files), None)
        if other is not None:
            raise InvalidInput(
                f"{path[:80]!r} and {other[:80]!r} would be one file on some systems; rename one of them"
            )
        files[folded] = path
        folders.update(dict.fromkeys(parents, path))


def resources(digest: str, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the files of an exported bundle, path → SHA-256: the manifest, and what it lists below `files/`."""
    return {MANIFEST: digest, **{FILES + path: entry["digest"] for path, entry in manifest["files"].items()}}


def plain_columns(columns: Mapping[str, Column]) -> dict[str, list[Any]]:
    """Return the first rows of checked columns as JSON values, few enough to stay small; None for a missing value."""
    rows = _EXAMPLE_ROWS
    while True:
        plain = {name: _plain(array[:rows]) for name, array in columns.items()}
        if rows == 1 or len(canonical(plain)) <= _EXAMPLE_BYTES:
            return plain
        rows //= 2


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object whose names stand once; which of two counts is up to the reader, so there may be no two."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _plain(array: Column) -> list[Any]:
    if array.dtype.kind == "M":
        return [None if np.isnat(v) else f"{np.datetime_as_string(v, unit='us')}Z" for v in array]
    found = array.tolist()
    return _without_nan(found) if array.dtype.kind == "f" else list(found)


def _without_nan(values: list[Any]) -> list[Any]:
    return [_without_nan(v) if isinstance(v, list) else None if math.isnan(v) else v for v in values]
