"""How often each text or category occurs: exact while there are few, a fair sample and hashed counts beyond.

A `Names` keeps every value with its count up to `EXACT` distinct values. Beyond, it keeps the `SAMPLE` values of the
smallest hashes with their exact counts (bottom-k: Cohen & Kaplan 2007, section 2; whoever is among the k smallest of
all is among the k smallest of each part where it occurs, so its counts add up), the counts of all values in `BUCKETS`
hashed buckets, from which drift of a column of any number of values is told, and the registers that estimate that
number. What is kept depends on the values and their counts only, never on order or on how the rows were split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput
from flyball.stats.distinct import Registers, estimated, registers_of
from flyball.stats.hashing import Hashes

__all__ = ["BUCKETS", "EXACT", "Names", "merged", "names_of", "names_of_rows"]

Counts = npt.NDArray[np.int64]

EXACT = 4096  # distinct values: a code of airports or aircraft is kept whole, identifiers of customers are not
SAMPLE = 512
BUCKETS = 1024
NAME_CHARS = 80  # kept of each value to show; the hash, not this, tells values apart


@dataclass(frozen=True)
class Names:
    """Counts of texts.

    Attributes:
        hashes: of the kept values, ascending, uint64 shape (k,).
        counts: how often each occurs, int64 shape (k,).
        names: the first `NAME_CHARS` characters of each.
        buckets: counts of all values by the low bits of their hash, shape (1024,); None where all values are kept.
        registers: see `distinct`; None where all values are kept.
    """

    hashes: Hashes
    counts: Counts
    names: tuple[str, ...]
    buckets: Counts | None = None
    registers: Registers | None = None

    @property
    def is_exact(self) -> bool:
        """Whether every value is kept."""
        return self.buckets is None

    @property
    def total(self) -> int:
        return int((self.counts if self.buckets is None else self.buckets).sum())

    @property
    def distinct(self) -> int:
        """The number of distinct values, estimated where not all are kept."""
        return len(self.names) if self.registers is None else max(estimated(self.registers), len(self.names))

    @property
    def all_buckets(self) -> Counts:
        """Counts by hashed bucket, shape (1024,), whether all values are kept or not."""
        return _buckets(self.hashes, self.counts) if self.buckets is None else self.buckets

    @property
    def all_registers(self) -> Registers:
        return registers_of(self.hashes) if self.registers is None else self.registers

    def most_common(self, limit: int) -> list[tuple[str, int]]:
        """Return the commonest of the kept values with their counts; ties by name."""
        order = sorted(range(len(self.names)), key=lambda i: (-int(self.counts[i]), self.names[i]))
        return [(self.names[i], int(self.counts[i])) for i in order[:limit]]


def names_of(hashes: Hashes, counts: Counts, text_at: Callable[[npt.NDArray[np.intp]], Sequence[str]]) -> Names:
    """Count distinct values.

    Args:
        hashes: of each, shape (k,), all different.
        counts: how often each occurs, shape (k,).
        text_at: returns the texts at the given places of `hashes`; asked for those that are kept.
    """
    if hashes.size <= EXACT:
        order = np.argsort(hashes)
        return Names(hashes[order], counts[order], _cut(text_at(order)))
    order = np.sort(np.argpartition(hashes, SAMPLE)[:SAMPLE])
    order = order[np.argsort(hashes[order])]
    kept = _cut(text_at(order))
    return Names(hashes[order], counts[order], kept, _buckets(hashes, counts), registers_of(hashes))


def names_of_rows(hashes: Hashes, text_at: Callable[[npt.NDArray[np.intp]], Sequence[str]]) -> Names:
    """Count values that may repeat, one hash a row, shape (n,).

    Where many differ, nothing is sorted but the rows of the smallest hashes.
    """
    registers = registers_of(hashes)
    distinct = estimated(registers)
    within = ((1 << 64) - 1) // max(distinct, 1) * SAMPLE * 2
    low = np.flatnonzero(hashes <= np.uint64(within)) if distinct >= 2 * EXACT else np.empty(0, dtype=np.intp)
    found, first, counts = np.unique(hashes[low], return_index=True, return_counts=True)
    if found.size < SAMPLE:  # perhaps few enough to be kept whole
        every, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        return names_of(every, counts.astype(np.int64), lambda at: text_at(first[at]))
    buckets = np.bincount((hashes & np.uint64(BUCKETS - 1)).view(np.int64), minlength=BUCKETS)
    kept = slice(0, SAMPLE)
    texts = _cut(text_at(low[first[kept]]))
    return Names(found[kept], counts[kept].astype(np.int64), texts, buckets, registers)


def merged(parts: Sequence[Names]) -> Names:
    """Return the counts of all rows together, exactly as if they had been counted at once.

    Raises:
        InvalidInput: there is no part.
    """
    if not parts:
        raise InvalidInput("there are no counts of names to merge; expected at least one")
    hashes = np.concatenate([part.hashes for part in parts])
    texts = [name for part in parts for name in part.names]
    found, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    counts = np.zeros(found.size, dtype=np.int64)
    np.add.at(counts, place, np.concatenate([part.counts for part in parts]))
    if all(part.is_exact for part in parts) and found.size <= EXACT:
        return Names(found, counts, tuple(texts[i] for i in first))
    buckets: Counts = np.asarray(np.sum([part.all_buckets for part in parts], axis=0), dtype=np.int64)
    registers = np.max([part.all_registers for part in parts], axis=0)
    kept = slice(0, SAMPLE)
    return Names(found[kept], counts[kept], tuple(texts[i] for i in first[kept]), buckets, registers)


def _buckets(hashes: Hashes, counts: Counts) -> Counts:
    found = np.zeros(BUCKETS, dtype=np.int64)
    np.add.at(found, (hashes & np.uint64(BUCKETS - 1)).view(np.int64), counts)
    return found


def _cut(texts: Sequence[str]) -> tuple[str, ...]:
    if max(map(len, texts), default=0) <= NAME_CHARS:
        return tuple(texts)
    return tuple(text[:NAME_CHARS] for text in texts)
