"""Find values that occur more than once, in bounded memory.

A key is 64 bits: an integer as it is, anything else by hash (two different keys among ten million share one with a
chance of 3 in a million). Up to `limit` keys are kept in memory (8 bytes each); more are spread over files by
their leading bits, and each file is sorted on its own, so memory does not grow with the table.
Used by `checking` for unique columns and primary keys.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    Keys = npt.NDArray[np.uint64]

__all__ = ["KeyFold", "key_expression"]

_LIMIT = 8_000_000  # keys in memory: 64 MB, and twice that while they are sorted
_PARTS_BITS = 6
_ODD = 0x9E3779B97F4A7C15  # 2⁶⁴ / golden ratio; multiplying by an odd number is a bijection of 64-bit words


class KeyFold:
    """Takes the keys of batches; tells at the end which occurred more than once."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._held: list[Keys] = []
        self._count = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, keys: Keys) -> None:
        """Take the keys of a batch."""
        self._held.append(keys)
        self._count += len(keys)
        if self._count > self._limit:
            self._spill()

    def finish(self) -> tuple[int, Keys]:
        """Return how many rows share their key with another row, and those keys, sorted."""
        import numpy as np

        if self._folder is None:
            return _repeated(_joined(self._held))
        self._spill()
        with self._folder as folder:
            found = [_repeated(np.fromfile(path, dtype=np.uint64)) for path in sorted(Path(folder).iterdir())]
        self._folder = None
        return sum(rows for rows, _ in found), np.sort(_joined([keys for _, keys in found]))

    def _spill(self) -> None:
        import numpy as np

        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="flyball-keys-")
        batches, self._held, self._count = self._held, [], 0
        for keys in batches:
            # One byte a part, so that NumPy sorts by counting.
            parts = ((keys * np.uint64(_ODD)) >> np.uint64(64 - _PARTS_BITS)).astype(np.uint8)
            keys = keys[np.argsort(parts, kind="stable")]
            edges = np.concatenate([[0], np.cumsum(np.bincount(parts, minlength=2**_PARTS_BITS))])
            for part in range(2**_PARTS_BITS):
                with (Path(self._folder.name) / f"{part:02}").open("ab") as file:
                    keys[edges[part] : edges[part + 1]].tofile(file)


def key_expression(columns: list[pl.Expr], dtypes: list[Any]) -> pl.Expr:
    """Return an unsigned 64-bit key of some columns, null where one of them is null."""
    import polars as pl

    plain = [
        c.cast(pl.String) if isinstance(d, pl.Categorical | pl.Enum) else c
        for c, d in zip(columns, dtypes, strict=True)
    ]
    if len(plain) == 1 and dtypes[0].is_integer() and dtypes[0] not in (pl.Int128, pl.UInt128):
        only = plain[0]
        return only if dtypes[0] == pl.UInt64 else only.cast(pl.Int64).reinterpret(signed=False)
    hashed = plain[0].hash() if len(plain) == 1 else pl.struct(c.alias(str(i)) for i, c in enumerate(plain)).hash()
    return pl.when(pl.all_horizontal(c.is_not_null() for c in columns)).then(hashed)


def _joined(batches: list[Keys]) -> Keys:
    import numpy as np

    return np.concatenate(batches) if batches else np.empty(0, dtype=np.uint64)


def _repeated(keys: Keys) -> tuple[int, Keys]:
    import numpy as np

    if len(keys) < 2 or bool(np.all(keys[1:] > keys[:-1])):  # ids that come in order need no sort
        return 0, keys[:0]
    keys = np.sort(keys)
    same = keys[1:] == keys[:-1]
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[1:] |= same
    repeated[:-1] |= same
    return int(repeated.sum()), np.unique(keys[repeated])
