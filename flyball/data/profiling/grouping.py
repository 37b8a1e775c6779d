"""Find equal rows of a column of texts from a fast hash of each, without sorting: tables of a few thousand slots.

Called where texts are measured. A slot is owned by the first value that falls in it; the rows of other values that fall
in it are grouped in a second table by other bits of the hash, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.stats.hashing import Hashes

__all__ = ["Groups", "grouped"]

_MOST_GROUPS = 40_000
_FEW_BITS, _MANY_BITS = 12, 16  # of the table of groups: the small one stays in the first-level cache
_GROUP_ROWS = 1 << 16
_SORTED_ROWS = 1 << 13  # fewer rows are sorted
_OTHER_BITS = np.uint64(0x9E37_79B9_7F4A_7C15)  # odd: brings other bits to the top, and keeps hashes apart


@dataclass(frozen=True)
class Groups:
    """Rows of equal values.

    Attributes:
        examples: a row of each group, shape (g,).
        slots: of each row, shape (n,): its group, or where `numbers` has it.
        counts: rows of each group, shape (g,).
        numbers: the group of each slot; None where slots are groups.
    """

    examples: npt.NDArray[np.intp]
    slots: npt.NDArray[np.intp] | npt.NDArray[np.uint16]
    counts: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.intp] | None


def grouped(quick: Hashes) -> Groups | None:
    """Group rows of equal hashes where there are few different ones; None where there are many.

    Two values of one hash would be taken for one: a chance of one in 10^10 at the most groups there may be.
    """
    if quick.size <= _SORTED_ROWS:
        _, first, code, counts = np.unique(quick, return_index=True, return_inverse=True, return_counts=True)
        return Groups(first, code, counts.astype(np.int64), None)
    first = np.bincount((quick[:_GROUP_ROWS] >> np.uint64(64 - _MANY_BITS)).view(np.int64))
    few = np.count_nonzero(first) <= 1 << _FEW_BITS >> 8
    bits = _FEW_BITS if few else _MANY_BITS
    slots = np.empty(quick.size, dtype=np.uint16)
    counts = np.zeros(1 << bits, dtype=np.int64)
    owner, example = np.zeros(1 << bits, dtype=np.uint64), np.full(1 << bits, -1, dtype=np.intp)
    strangers = []  # rows whose slot another value owns
    for start in range(0, quick.size, _GROUP_ROWS):
        part = quick[start : start + _GROUP_ROWS]
        slot = (part >> np.uint64(64 - bits)).view(np.int64)
        slots[start : start + part.size] = slot
        counts += np.bincount(slot, minlength=1 << bits)
        differs = np.flatnonzero(owner.take(slot) != part)
        if differs.size:
            new = differs.compress(example.take(slot.take(differs)) < 0)
            owner[slot[new]] = part[new]
            example[slot[new]] = new + start
            owned = owner.take(slot.take(differs)) == part.take(differs)
            differs = differs.compress(~owned)
            strangers.append(differs + start)
            if np.count_nonzero(counts) > _MOST_GROUPS:
                return None
    used = np.flatnonzero(example >= 0)
    number = np.zeros(1 << bits, dtype=np.intp)
    number[used] = np.arange(used.size)
    left = np.concatenate(strangers) if strangers else np.empty(0, dtype=np.intp)
    if not left.size:
        return Groups(example[used], slots, counts[used], number)
    rest = grouped(quick[left] * _OTHER_BITS)
    if rest is None or used.size + rest.counts.size > _MOST_GROUPS:
        return None
    counts -= np.bincount(slots[left], minlength=1 << bits)
    code_of_row = number.take(slots)
    code_of_row[left] = (rest.slots if rest.numbers is None else rest.numbers.take(rest.slots)) + used.size
    examples, sizes = np.concatenate([example[used], left[rest.examples]]), np.concatenate([counts[used], rest.counts])
    return Groups(examples, code_of_row, sizes, None)
