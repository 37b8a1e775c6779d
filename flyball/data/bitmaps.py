"""A set of integers that lie close together, as ids do: one bit each.

Made by `keys` for unique columns and by `references` for the keys of another dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Marks = npt.NDArray[np.bool_]

__all__ = ["BitMap"]

_SPAN = 2**29  # from the smallest to the largest integer: 64 MB a map
_CHUNK_BYTES = 2**19  # of a map
_CLOSE = 32  # a byte each for the integers between is then less work than a bit each one by one


class BitMap:
    """A set of 64-bit integers that lie within a span of 2²⁹: a bit each, grown as they come."""

    def __init__(self) -> None:
        self._bits: npt.NDArray[np.uint8] | None = None
        self._first = 0  # the integer of the first bit, a multiple of 8

    def fits(self, low: int, high: int) -> bool:
        """Make room for integers from `low` to `high`; false when that is too wide."""
        import numpy as np

        held = self._bits
        if held is not None:
            low, high = min(low, self._first), max(high, self._first + 8 * len(held) - 1)
        if high - low >= _SPAN:
            return False
        first = low - low % 8
        if held is None or first < self._first or high >= self._first + 8 * len(held):
            size = (high - first) // 8 + 1
            wider = np.zeros(min(2 * size, _SPAN // 8 + 2), dtype=np.uint8)  # untouched zeros take no memory
            if held is not None:
                at = (self._first - first) // 8
                wider[at : at + len(held)] = held
            self._bits, self._first = wider, first
        return True

    def add(self, keys: npt.NDArray[np.int64]) -> None:
        """Add integers that fit."""
        import numpy as np

        assert self._bits is not None
        marked = self._marked(keys)
        if marked is None:
            byte, bit = self._places(keys)
            np.bitwise_or.at(self._bits, byte, bit)
        else:
            self._bits[marked[0]] |= marked[1]

    def add_new(self, keys: npt.NDArray[np.int64]) -> bool:
        """Add integers that fit where none is there and none comes twice; false, and nothing added, where that is not
        so or cannot be told quickly."""
        import numpy as np

        assert self._bits is not None
        marked = self._marked(keys)
        if marked is None:
            return False
        place, bits = marked
        if int(np.bitwise_count(bits).sum(dtype=np.int64)) != len(keys) or (self._bits[place] & bits).any():
            return False
        self._bits[place] |= bits
        return True

    def contains(self, keys: npt.NDArray[np.int64]) -> Marks:
        """Return for each integer whether it is in the set, (len(keys),)."""
        import numpy as np

        if self._bits is None:
            return np.zeros(len(keys), dtype=bool)
        inside = (keys >= self._first) & (keys < self._first + 8 * len(self._bits))
        if not inside.all():
            found = np.zeros(len(keys), dtype=bool)
            found[inside] = self.contains(keys[inside])
            return found
        byte, bit = self._places(keys)
        return np.asarray((self._bits[byte] & bit) != 0)

    def __len__(self) -> int:
        import numpy as np

        return 0 if self._bits is None else int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    def chunks(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the integers, ascending, a few million at a time."""
        import numpy as np

        if self._bits is None:
            return
        for at in range(0, len(self._bits), _CHUNK_BYTES):
            part = self._bits[at : at + _CHUNK_BYTES]
            used = np.flatnonzero(part)
            row, bit = np.nonzero(np.unpackbits(part[used, None], axis=1, bitorder="little"))
            if len(row):
                yield (used[row] + at) * 8 + bit + self._first

    def _marked(self, keys: npt.NDArray[np.int64]) -> tuple[slice, npt.NDArray[np.uint8]] | None:
        """Return the bits of integers that lie closely together, and where in the map; None where they do not."""
        import numpy as np

        low, high = (int(keys.min()), int(keys.max())) if len(keys) else (0, -1)
        if high - low >= _CLOSE * len(keys):
            return None
        start, stop = (low - self._first) >> 3, ((high - self._first) >> 3) + 1
        marks = np.zeros(8 * (stop - start), dtype=bool)
        marks[keys - (self._first + 8 * start)] = True
        return slice(start, stop), np.packbits(marks, bitorder="little")

    def _places(self, keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        import numpy as np

        off = keys - self._first
        return off >> 3, np.left_shift(np.uint8(1), (off & 7).astype(np.uint8))
