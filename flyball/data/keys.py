"""Find values that occur more than once, in bounded memory.

A key is 64 bits: an integer as it is, anything else by hash. `KeyFold` takes the keys of batches and tells at the end
how many rows share theirs and which. Integers that lie close together, as ids do, are bits of a map: two bits a
possible id. Others are kept (8 bytes each) up to a limit, then spread over files by their leading bits, and each
file is sorted on its own, so memory does not grow with the table. Two different texts share a hash among ten million
with a chance of 3 in a million; `checking` looks at the values themselves before it calls them equal.
Used by `checking` for unique columns and primary keys, by the check `reference` for the keys referred to.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.data.bitmaps import BitMap

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    Keys = npt.NDArray[np.uint64]
    Marks = npt.NDArray[np.bool_]

__all__ = ["KeyFold", "Repeats", "is_integer_key", "key_expression", "spread"]

_LIMIT = 12_000_000  # keys in memory: 96 MB, and twice that while they are sorted
_PARTS_BITS = 6
_STEP = 131_072  # integers taken at once: what repeats among them is found in a table that fits a cache
_SLOTS = 2**20
_ODD = 0x9E3779B97F4A7C15  # 2⁶⁴ / golden ratio; multiplying by an odd number is a bijection of 64-bit words


class Repeats:
    """The keys that occurred more than once; `rows` is how many rows have one of them."""

    def __init__(self, rows: int, keys: BitMap | Keys) -> None:
        self.rows = rows
        self._keys = keys

    def contains(self, keys: Keys) -> Marks:
        """Return for each key whether it is one of them, (len(keys),)."""
        import numpy as np

        if not self.rows:
            return np.zeros(len(keys), dtype=bool)
        if isinstance(self._keys, BitMap):
            return self._keys.contains(keys.view(np.int64))
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        return np.asarray(self._keys[at] == keys)

    def marks(self, key: pl.Expr) -> pl.Expr:
        """Return whether a row's key is one of them, false where it is null."""
        import polars as pl

        def marked(keys: pl.Series) -> pl.Series:
            found = pl.Series(keys.name, self.contains(keys.fill_null(0).to_numpy()))
            return found & keys.is_not_null() if keys.null_count() else found

        return key.map_batches(marked, return_dtype=pl.Boolean, is_elementwise=True) if self.rows else pl.lit(False)


class KeyFold:
    """Takes the keys of batches; tells at the end which occurred more than once."""

    def __init__(self, limit: int = _LIMIT, *, integers: bool = False) -> None:
        self._limit = limit
        self._held: list[Keys] = []
        self._count = self._total = self._beyond = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._seen: BitMap | None = BitMap() if integers else None
        self._twice: BitMap | None = BitMap() if integers else None
        self._slots: npt.NDArray[np.int32] | None = None

    def add(self, keys: Keys) -> None:
        """Take the keys of a batch."""
        if self._seen is not None and len(keys) and not self._take_integers(keys):
            self._give_up_map(self._total)
        if self._seen is None:
            self._hold(keys)
        self._total += len(keys)

    def finish(self) -> Repeats:
        """Return the keys that more than one row has."""
        import numpy as np

        if self._seen is not None and self._twice is not None:
            return Repeats(self._total - len(self._seen) + len(self._twice), self._twice)
        if self._folder is None:
            held, self._held = _joined(self._held), []
            rows, keys = _repeated(held)
            return Repeats(rows + self._beyond, keys)
        self._spill()
        with self._folder as folder:
            found = [_repeated(np.fromfile(path, dtype=np.uint64)) for path in sorted(Path(folder).iterdir())]
        self._folder = None
        keys = np.sort(_joined([keys for _, keys in found]))
        return Repeats(sum(rows for rows, _ in found) + self._beyond, keys)

    def _take_integers(self, keys: Keys) -> bool:
        import numpy as np

        assert self._seen is not None and self._twice is not None
        numbers = keys.view(np.int64)
        low, high = int(numbers.min()), int(numbers.max())
        if not self._seen.fits(low, high) or not self._twice.fits(low, high):
            return False
        for at in range(0, len(numbers), _STEP):
            step = numbers[at : at + _STEP]
            if self._seen.add_new(step):
                continue
            before = self._seen.contains(step)
            if before.any():
                self._twice.add(step[before])
            within = self._repeated_within(step)
            if len(within):
                self._twice.add(within)
            self._seen.add(step)
        return True

    def _repeated_within(self, step: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the integers that occur more than once in a short array.

        Each writes its place into a slot; whoever does not find itself there later shares the slot, by its value or
        by chance. Those are few and are compared.
        """
        import numpy as np

        if self._slots is None:
            self._slots = np.zeros(_SLOTS, dtype=np.int32)
        slot = step & (_SLOTS - 1)
        places = np.arange(len(step), dtype=np.int32)
        self._slots[slot] = places
        winner = self._slots[slot]
        lost = winner != places
        if not lost.any():
            return step[:0]
        losers, winners = step[lost], step[winner[lost]]
        ordered = np.sort(losers)
        return np.concatenate([losers[losers == winners], ordered[1:][ordered[1:] == ordered[:-1]]])

    def _give_up_map(self, taken: int) -> None:
        """Go on as with any other keys: those seen, and once more those seen again. Third occurrences only count."""
        import numpy as np

        assert self._seen is not None and self._twice is not None
        seen, twice = self._seen, self._twice
        self._seen = self._twice = None
        self._beyond = taken - len(seen) - len(twice)
        for chunk in (*seen.chunks(), *twice.chunks()):
            self._hold(chunk.view(np.uint64))

    def _hold(self, keys: Keys) -> None:
        self._held.append(keys)
        self._count += len(keys)
        if self._count > self._limit:
            self._spill()

    def _spill(self) -> None:
        import numpy as np

        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="flyball-keys-")
        batches, self._held, self._count = self._held, [], 0
        for keys in batches:
            # One byte a part, so that NumPy sorts by counting.
            parts = ((keys * spread()) >> np.uint64(64 - _PARTS_BITS)).astype(np.uint8)
            keys = keys[np.argsort(parts, kind="stable")]
            edges = np.concatenate([[0], np.cumsum(np.bincount(parts, minlength=2**_PARTS_BITS))])
            for part in range(2**_PARTS_BITS):
                with (Path(self._folder.name) / f"{part:02}").open("ab") as file:
                    keys[edges[part] : edges[part + 1]].tofile(file)


def spread() -> np.uint64:
    """Return the number that keys are multiplied by so that their leading bits are even, whatever the keys."""
    import numpy as np

    return np.uint64(_ODD)


def is_integer_key(dtypes: list[Any]) -> bool:
    """Whether `key_expression` gives the integer itself, not a hash."""
    import polars as pl

    return len(dtypes) == 1 and dtypes[0].is_integer() and dtypes[0] not in (pl.Int128, pl.UInt128)


def key_expression(columns: list[pl.Expr], dtypes: list[Any]) -> pl.Expr:
    """Return an unsigned 64-bit key of some columns, null where one of them is null."""
    import polars as pl

    plain = [
        c.cast(pl.String) if isinstance(d, pl.Categorical | pl.Enum) else c
        for c, d in zip(columns, dtypes, strict=True)
    ]
    if is_integer_key(dtypes):
        return plain[0] if dtypes[0] == pl.UInt64 else plain[0].cast(pl.Int64).reinterpret(signed=False)
    hashed = plain[0].hash() if len(plain) == 1 else pl.struct(c.alias(str(i)) for i, c in enumerate(plain)).hash()
    return pl.when(pl.all_horizontal(c.is_not_null() for c in columns)).then(hashed)


def _joined(batches: list[Keys]) -> Keys:
    import numpy as np

    return np.concatenate(batches) if batches else np.empty(0, dtype=np.uint64)


def _repeated(keys: Keys) -> tuple[int, Keys]:
    """Return how many of the keys occur more than once, and each of those once, ascending."""
    import numpy as np
    import polars as pl

    if len(keys) < 2 or bool(np.all(keys[1:] > keys[:-1])):  # those that come in order need no sort
        return 0, keys[:0]
    keys = pl.Series(keys).sort().to_numpy()  # half the time of NumPy's
    same = keys[1:] == keys[:-1]
    if not same.any():
        return 0, keys[:0]
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[1:] |= same
    repeated[:-1] |= same
    return int(repeated.sum()), np.unique(keys[repeated])
