"""Find equal values of a column of few different ones, without sorting: tables of a few thousand slots.

Called where columns are measured, with a fast hash of each row's value, or the value itself spread over 64 bits. A slot
is owned by a value that falls in it; the rows of other values that fall in it are grouped by other bits of the hash,
and get slots behind those of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.stats.hashing import Hashes

__all__ = ["Groups", "are_few", "grouped"]

_MOST_GROUPS = 40_000
_FEW_BITS, _MANY_BITS = 12, 16  # of the table of groups: the small one stays in the first-level cache
_BLOCK = 1 << 15  # rows taken together, so that what is between stays in cache
_COUNTED = 1 << 18  # rows counted together: a table of 2^16 counts must be worth it
_SORTED_ROWS = 1 << 13  # fewer rows are sorted
_OTHER_BITS = np.uint64(0x9E37_79B9_7F4A_7C15)  # odd: brings other bits to the top, and keeps hashes apart


@dataclass(frozen=True)
class Groups:
    """Rows of equal values.

    Attributes:
        examples: a row of each group, shape (g,).
        counts: rows of each group, shape (g,).
        slots: of each row, shape (n,).
        numbers: the group of each slot; None where slots are groups.
    """

    examples: npt.NDArray[np.intp]
    counts: npt.NDArray[np.int64]
    slots: npt.NDArray[np.unsignedinteger] | npt.NDArray[np.intp]
    numbers: npt.NDArray[np.intp] | None

    def by_slot(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Return the value of the group of each slot, of values of the groups."""
        return values if self.numbers is None else values[self.numbers]


def are_few(hashes: Hashes) -> bool:
    """Return whether the first values repeat so often that all are likely few enough to be grouped."""
    first = hashes[:_BLOCK]
    return first.size > _SORTED_ROWS and _occupied(first) < first.size * 3 // 8


def grouped(hashes: Hashes, *, keep_slots: bool = True) -> Groups | None:
    """Group rows of equal hashes where there are few different ones; None where there are many.

    Without `keep_slots` there are none: groups are counted only, which spares the memory of a number a row.

    Two values of one hash are taken for one: of hashes that are not the values themselves, a chance of one in 10^10 at
    the most groups there may be.
    """
    if hashes.size <= _SORTED_ROWS:
        _, first, code, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
        return Groups(first, counts.astype(np.int64), code, None)
    bits = _FEW_BITS if _occupied(hashes[:_BLOCK]) <= 1 << _FEW_BITS >> 4 else _MANY_BITS
    down = np.uint64(64 - bits)
    slots = np.empty(hashes.size if keep_slots else 0, dtype=np.uint32)
    counts = np.zeros(1 << bits, dtype=np.int64)
    owner, example = np.zeros(1 << bits, dtype=np.uint64), np.full(1 << bits, -1, dtype=np.intp)
    owner[0] = ~np.uint64(0)  # which falls in another slot: nothing is owned yet, not even by 0
    index = np.empty(min(_COUNTED, hashes.size), dtype=np.uint64)
    strangers, most = [], 0  # rows whose slot another value owns
    for start in range(0, hashes.size, _COUNTED):
        whole = index[: min(_COUNTED, hashes.size - start)].view(np.int64)
        for at in range(0, whole.size, _BLOCK):
            part, slot = hashes[start + at : start + min(at + _BLOCK, whole.size)], whole[at : at + _BLOCK]
            np.right_shift(part, down, out=slot.view(np.uint64))
            if keep_slots:
                slots[start + at : start + at + part.size] = slot
            differs = np.flatnonzero(owner.take(slot) != part)
            if differs.size:
                at_slot = slot.take(differs)
                new = (example.take(at_slot) < 0).nonzero()[0]
                if new.size:
                    free = at_slot.take(new)
                    example[free] = differs.take(new) + (start + at)  # of several the last, which then owns the slot
                    owner[free] = hashes.take(example.take(free))
                    differs = differs.compress(owner.take(at_slot) != part.take(differs))
                strangers.append(differs + (start + at))
                most += differs.size
        counts += np.bincount(whole, minlength=1 << bits)
        if most > start // 4 + _COUNTED or np.count_nonzero(counts) > _MOST_GROUPS:
            return None
    used = np.flatnonzero(example >= 0)
    numbers = np.zeros(1 << bits, dtype=np.intp)
    numbers[used] = np.arange(used.size)
    left = np.concatenate(strangers) if strangers else np.empty(0, dtype=np.intp)
    if not left.size:
        return Groups(example[used], counts[used], slots, numbers)
    rest = grouped(hashes[left] * _OTHER_BITS, keep_slots=keep_slots)
    if rest is None or used.size + rest.counts.size > _MOST_GROUPS:
        return None
    counts -= np.bincount((hashes[left] >> down).view(np.int64), minlength=1 << bits)
    if keep_slots:
        slots[left] = rest.slots + (1 << bits)
    behind = (np.arange(rest.counts.size) if rest.numbers is None else rest.numbers) + used.size
    return Groups(
        np.concatenate([example[used], left[rest.examples]]),
        np.concatenate([counts[used], rest.counts]),
        slots,
        np.concatenate([numbers, behind]),
    )


def _occupied(hashes: Hashes) -> int:
    """Return how many of 2^16 slots hashes fall in."""
    return int(np.count_nonzero(np.bincount((hashes >> np.uint64(64 - _MANY_BITS)).view(np.int64))))
