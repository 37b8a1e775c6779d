"""The manifest of a table as JSON: its columns, and its parts in order.

    {"format": 2, "schema": [["n", "Int64"], …],
     "parts": [[digest, rows, size in bytes, digest of its summary or null, bytes in memory], …]}

Format 1 had neither summaries nor bytes in memory; both are read, format 2 is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from flyball.errors import Corrupt, Incompatible
from flyball.storage.tables import Part, Table

__all__ = ["FORMAT", "encode", "decode"]

FORMAT = 2


def encode(schema: Mapping[str, str], parts: Sequence[Part]) -> bytes:
    """Return the manifest's bytes; the same table always has the same."""
    rows = [[p.digest, p.rows, p.size_bytes, p.summary, p.weight_bytes] for p in parts]
    return orjson.dumps({"format": FORMAT, "schema": list(schema.items()), "parts": rows})


def decode(digest: str, data: bytes) -> Table:
    """Return the table that the blob `digest` holds.

    Raises:
        Corrupt: the blob is not a manifest.
        Incompatible: a later release wrote it.
    """
    try:
        manifest = orjson.loads(data)
        if manifest["format"] > FORMAT:
            raise Incompatible(
                f"the table {digest[:12]} has format {manifest['format']}; this release reads up to {FORMAT}"
            )
        return Table(digest, dict(manifest["schema"]), tuple(Part(*part) for part in manifest["parts"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"the blob {digest} is not a table") from error
