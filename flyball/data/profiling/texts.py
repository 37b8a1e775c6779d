"""Which texts a column has, how often, and the stable hash of each row's, in few passes.

Three ways, chosen by how often the first texts repeat. Of a few hundred different ones each gets a slot of its own in a
small table, so that rows are counted and hashed by slot. Of some thousands they are grouped (`grouping`). Where most
differ, every text is hashed where it lies (`text_views`), and only those of the smallest hashes are looked at again.
Texts are told apart by Polars' own fast hash; what is kept are stable hashes (`stats.hashing`). Called by `measuring`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.data.profiling.grouping import grouped
from flyball.data.profiling.text_views import view_hashes
from flyball.stats.frequencies import Names, names_of, names_of_rows
from flyball.stats.hashing import Hashes, text_hashes

__all__ = ["Texts", "hashes_of_texts", "texts_of"]

Counts = npt.NDArray[np.int64]

_SORTED_ROWS = 1 << 13  # of fewer there is nothing to gain
_FEW = 1024  # different texts that may have slots of their own: of more, no table of 2^18 is without a clash
_SLOT_BITS = (12, 14, 16, 18)  # of the table: the smaller stay in the nearer caches
_WINDOWS = 12  # of a hash's bits that are tried for slots, before a larger table is
_STRETCH = 1 << 18  # rows counted together: a table of 2^18 counts must be worth it
_BLOCK = 1 << 15  # rows taken together, so that what is between stays in cache
_JOINED = 1 << 16  # texts joined at a time, where they cannot be hashed where they lie


class Texts(NamedTuple):
    """What texts there are; `sizes` are characters of as many texts as `counts`, or of each row where that is None."""

    names: Names
    sizes: Counts
    counts: Counts | None


def texts_of(texts: pl.Series, take: Callable[[int, Hashes], None]) -> Texts:
    """Look at texts without nulls, shape (n,).

    `take` is called with the hashes of rows block by block, in order, and the place of the first.
    """
    repeats = texts.head(_BLOCK).n_unique() if len(texts) > _SORTED_ROWS else 0
    if repeats > _BLOCK // 2:
        return _of_many(texts, take, 0)
    fast, done = texts.hash().to_numpy(), 0
    if 0 < repeats <= _FEW:
        found, done = _in_slots(texts, fast, take)
        if found is not None:
            return found
    groups = grouped(fast)
    if groups is None:
        return _of_many(texts, take, done)
    distinct = texts.gather(groups.examples)
    each = hashes_of_texts(distinct)
    by_slot = groups.by_slot(each)
    for start in range(done, fast.size, _BLOCK):
        take(start, by_slot.take(groups.slots[start : start + _BLOCK]))
    return _of_groups(distinct, each, groups.counts)


def hashes_of_texts(texts: pl.Series) -> Hashes:
    """Return the stable hashes of texts without nulls, shape (n,)."""
    found = view_hashes(texts)
    if found is not None:
        return found
    parts = [np.empty(0, dtype=np.uint64)]
    for start in range(0, len(texts), _JOINED):
        part = texts.slice(start, _JOINED)
        parts.append(text_hashes(part.str.join("").item().encode(), part.str.len_bytes().to_numpy()))
    return np.concatenate(parts)


def _of_groups(distinct: pl.Series, hashes: Hashes, counts: Counts) -> Texts:
    names = names_of(hashes, counts, lambda at: distinct.gather(at).to_list())
    return Texts(names, distinct.str.len_chars().to_numpy().astype(np.int64), counts)


def _of_many(texts: pl.Series, take: Callable[[int, Hashes], None], done: int) -> Texts:
    hashes = hashes_of_texts(texts)
    take(done, hashes[done:])
    names = names_of_rows(hashes, lambda at: texts.gather(at).to_list())
    return Texts(names, texts.str.len_chars().to_numpy().astype(np.int64), None)


def _in_slots(texts: pl.Series, fast: Hashes, take: Callable[[int, Hashes], None]) -> tuple[Texts | None, int]:
    """Count and hash texts by slots; return how many were taken, and None where there are too many different ones."""
    places = np.empty(min(_STRETCH, fast.size), dtype=np.int64)
    slots = _Slots.of(np.unique(fast[:_SORTED_ROWS]))
    distinct, each, by_slot = texts.clear(), np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint64)
    counts = np.zeros(0, dtype=np.int64)
    start = 0
    while start < fast.size:
        if slots is None:
            return None, start
        stretch = fast[start : start + _STRETCH]
        mine = slots.counted(stretch, places)
        if mine is None:
            strange = slots.strange(stretch, places)
            slots = _Slots.of(np.concatenate([slots.owners, strange])) if strange.size else None
            continue
        if mine.size > each.size or not by_slot.size:  # new owners stand behind those that were there
            some = texts.gather(slots.examples(places[: stretch.size], each.size) + start)
            distinct, each = distinct.append(some), np.concatenate([each, hashes_of_texts(some)])
            counts = np.concatenate([counts, np.zeros(some.len(), dtype=np.int64)])
            by_slot = slots.spread(each)
        counts += mine
        for at in range(0, stretch.size, _BLOCK):
            take(start + at, by_slot.take(places[at : min(at + _BLOCK, stretch.size)]))
        start += stretch.size
    return _of_groups(distinct, each, counts), start


class _Slots:
    """A table in which each of a few hashes has a slot of its own."""

    def __init__(self, owners: Hashes, bits: int, window: int) -> None:
        self.owners = owners
        self._size = 1 << bits
        self._window, self._down = np.uint64(window), np.uint64(64 - bits)
        self._of_owners = np.empty(owners.size, dtype=np.int64)
        self._place(owners, self._of_owners)

    @classmethod
    def of(cls, owners: Hashes) -> _Slots | None:
        """Choose a table; None where there are too many owners, or no table is without a clash."""
        if owners.size > _FEW:
            return None
        likely = [bits for bits in _SLOT_BITS if owners.size**2 < 8 << bits]  # four clashes are expected, or fewer
        for bits in likely:
            for window in range(0, 4 * _WINDOWS, 4):
                found = cls(owners, bits, window)
                if np.unique(found._of_owners).size == owners.size:
                    return found
        return None

    def counted(self, hashes: Hashes, places: Counts) -> Counts | None:
        """Write the slot of each hash and return how many each owner has; None where there is a hash without a slot.

        The sum of all hashes tells: it is not that of the owners, as often as each was counted, unless each hash is an
        owner, but for a chance of one in 2^64.
        """
        for start in range(0, hashes.size, _BLOCK):
            block = slice(start, min(start + _BLOCK, hashes.size))
            self._place(hashes[block], places[block])
        counts = np.bincount(places[: hashes.size], minlength=self._size)
        mine = counts[self._of_owners]
        is_all = int(mine.sum()) == hashes.size and hashes.sum() == (mine.view(np.uint64) * self.owners).sum()
        return mine if is_all else None

    def strange(self, hashes: Hashes, places: Counts) -> Hashes:
        """Return the hashes that are no owner's, each once, where `counted` has found that there are some."""
        return np.unique(hashes[self.spread(self.owners).take(places[: hashes.size]) != hashes])

    def examples(self, places: Counts, known: int) -> npt.NDArray[np.intp]:
        """Return a row of each owner but the first `known`, of the slots of rows among which each owner has one."""
        found, wanted = np.full(self._size, -1, dtype=np.intp), self._of_owners[known:]
        for rows in (places[:_SORTED_ROWS], places):
            found[rows] = np.arange(rows.size)
            if bool((found[wanted] >= 0).all()):
                break
        return found[wanted]

    def spread(self, values: Hashes) -> Hashes:
        """Return the value of the owner of each slot, of values of the owners."""
        found = np.zeros(self._size, dtype=np.uint64)
        found[self._of_owners] = values
        return found

    def _place(self, hashes: Hashes, out: Counts) -> None:
        slots = out.view(np.uint64)
        if self._window:
            np.right_shift(np.left_shift(hashes, self._window, out=slots), self._down, out=slots)
        else:
            np.right_shift(hashes, self._down, out=slots)
