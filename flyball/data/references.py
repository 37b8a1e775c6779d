"""Rules about another dataset: find it before any row is read, and hold its keys in bounded memory.

`check(..., resolve=)` brings a callable that returns the rows of a dataset by its name (`airlines`,
`airlines@latest`, `airlines@3`). A contract that names a dataset or column that is not there is refused when it is
bound to the datasets that there are, since a rule about nothing would pass.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.data.bitmaps import BitMap
from flyball.data.checks import Resolve
from flyball.data.keys import spread
from flyball.data.rules import find_check
from flyball.data.terms import Contract
from flyball.errors import FlyballError, InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    import polars as pl

    from flyball.data.keys import Keys, Marks

__all__ = ["KeySet", "bind", "references"]

_LIMIT = 8_000_000  # distinct keys in memory, 64 MB; more lie in a file that the system reads as needed
_SMALL = 200_000  # keys that a hash table in cache holds; beyond that, a sorted array is searched


def references(contract: Contract) -> dict[str, tuple[str, ...]]:
    """Return the datasets that a contract refers to, each with the columns that it needs there."""
    found: dict[str, tuple[str, ...]] = {}
    for rule in contract.rules:
        refers_to = getattr(find_check(rule.check), "refers_to", None)
        if refers_to is not None:
            name, columns = refers_to(rule)
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *columns)))
    return found


def bind(contract: Contract, resolve: Resolve | None) -> None:
    """Refuse a contract that refers to a dataset or a column that is not there.

    Raises:
        InvalidInput: there is no such dataset or column, it cannot be read, or `resolve` is needed and not given.
    """
    import polars as pl

    for name, columns in references(contract).items():
        who = f'the data contract "{contract.name}" refers to the dataset {name}'
        if resolve is None:
            raise InvalidInput(f"{who}, and nothing says where datasets are; check it with resolve=")
        try:
            known = resolve(name).collect_schema().names()
        except (FlyballError, KeyError, pl.exceptions.PolarsError, OSError) as error:
            raise InvalidInput(f"{who}, which cannot be read: {str(error).splitlines()[0]}") from error
        for column in columns:
            if column not in known:
                near = did_you_mean(column, known)
                raise InvalidInput(f'{who}, which has no column "{column}"{near} (it has: {listed(known)})')


class KeySet:
    """A set of 64-bit keys: a bit each for integers that lie close together, else 8 bytes each, in a file when many."""

    def __init__(self, *, integers: bool, limit: int = _LIMIT) -> None:
        self._map: BitMap | None = BitMap() if integers else None
        self._limit = limit
        self._held: list[Keys] = []
        self._count = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._sorted: Keys | None = None
        self._few: pl.Series | None = None

    def add(self, keys: Keys) -> None:
        """Take the keys of a batch."""
        import numpy as np

        if self._map is not None and len(keys):
            numbers = keys.view(np.int64)
            if self._map.fits(int(numbers.min()), int(numbers.max())):
                self._map.add(numbers)
                return
            chunks, self._map = self._map.chunks(), None
            for chunk in chunks:
                self._hold(chunk.view(np.uint64))
        if self._map is None:
            self._hold(keys)

    def finish(self) -> KeySet:
        """Make the set ready for `contains`; nothing may be added any more."""
        import numpy as np
        import polars as pl

        if self._map is not None:
            return self
        if self._folder is None:
            self._sorted = np.unique(np.concatenate(self._held)) if self._held else np.empty(0, dtype=np.uint64)
            if len(self._sorted) <= _SMALL:
                self._few = pl.Series(self._sorted)
        else:
            self._spread()
            self._sorted = _merged(Path(self._folder.name))
        self._held = []
        return self

    def contains(self, keys: Keys) -> Marks:
        """Return for each key whether it is in the set, (len(keys),)."""
        import numpy as np
        import polars as pl

        if self._map is not None:
            return self._map.contains(keys.view(np.int64))
        if self._few is not None:
            return np.asarray(pl.Series(keys).is_in(self._few.implode()).to_numpy())
        assert self._sorted is not None
        wanted = keys * spread() if self._folder is not None else keys
        at = np.searchsorted(self._sorted, wanted)
        at[at == len(self._sorted)] = 0
        return np.asarray(self._sorted[at] == wanted)

    def _hold(self, keys: Keys) -> None:
        import numpy as np

        self._held.append(keys)
        self._count += len(keys)
        if self._count > self._limit:
            distinct = np.unique(np.concatenate(self._held))  # what is referred to is mostly unique already, or few
            self._held, self._count = [distinct], len(distinct)
            if self._count > self._limit // 2:
                self._spread()

    def _spread(self) -> None:
        """Append what is held to files by leading bits, of keys multiplied so that these are even."""
        import numpy as np

        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="flyball-keys-")
        keys = np.sort(np.concatenate(self._held) * spread()) if self._held else np.empty(0, dtype=np.uint64)
        self._held, self._count = [], 0
        edges = np.searchsorted(keys, np.arange(64, dtype=np.uint64) << np.uint64(58))
        for part, (start, end) in enumerate(zip(edges, [*edges[1:], len(keys)], strict=True)):
            with (Path(self._folder.name) / f"{part:02}").open("ab") as file:
                keys[start:end].tofile(file)


def _merged(folder: Path) -> Keys:
    """Sort each file on its own, in order, into one that is sorted."""
    import numpy as np

    whole = folder / "all"
    with whole.open("wb") as file:
        for path in sorted(p for p in folder.iterdir() if p != whole):
            np.unique(np.fromfile(path, dtype=np.uint64)).tofile(file)
            path.unlink()
    return np.asarray(np.memmap(whole, dtype=np.uint64, mode="r"))  # still mapped, not read
