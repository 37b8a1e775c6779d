"""Nested plain values with arrays among them as bytes, and back; never a pickle.

An uncompressed `.npz` whose entry `document` is JSON, in which `{"array": n}` stands for the entry `a<n>`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from flyball.errors import Corrupt

__all__ = ["dumps", "loads"]


def dumps(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of a document of plain values and arrays; equal documents give equal bytes."""
    arrays: list[np.ndarray[Any, Any]] = []

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return {"array": len(arrays) - 1}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    text = json.dumps(plain(document), sort_keys=True, allow_nan=False).encode()
    target = io.BytesIO()
    entries = {f"a{number}": array for number, array in enumerate(arrays)}
    np.savez(target, allow_pickle=False, document=np.frombuffer(text, np.uint8), **entries)
    return target.getvalue()


def loads(data: bytes) -> dict[str, Any]:
    """Read what `dumps` wrote. Raises Corrupt on anything else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            document = json.loads(found["document"].tobytes())
            arrays = {name: found[name] for name in found.files if name != "document"}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise Corrupt(f"the model's compiled form cannot be read: {str(error)[:200]}") from error

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {"array"}:
                return arrays[f"a{value['array']}"]
            return {key: whole(item) for key, item in value.items()}
        return [whole(item) for item in value] if isinstance(value, list) else value

    try:
        read = whole(document)
    except KeyError as error:
        raise Corrupt(f"the model's compiled form lacks its array {error}") from None
    if not isinstance(read, dict):
        raise Corrupt("the model's compiled form is no document")
    return read
