"""How many different values there are, from a few kilobytes that add up.

HyperLogLog (Flajolet, Fusy, Gandouet & Meunier 2007): each hash chooses one of 2^P registers by its upper P bits, and a
register keeps the largest rank (trailing zeros plus one) among its hashes. Registers of parts merge by maximum, which
is the same however the values were split or repeated. The estimate is Ertl's improved raw estimator (arXiv 1702.01284,
section 4, equation 16 with algorithm 6), which needs no table of corrections and no switch between ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flyball.stats.hashing import LOW_BITS, Hashes, hashes_of

__all__ = [
    "RELATIVE_ERROR",
    "RegisterFold",
    "Registers",
    "estimated",
    "likely_distinct",
    "registers_of",
    "registers_of_spread",
]

Registers = npt.NDArray[np.uint8]

P = 12
SIZE = 1 << P
RELATIVE_ERROR = 1.04 / math.sqrt(SIZE)  # one standard error of the estimate
_RANKS = 64 - P
_CHUNK = 1 << 15
_LOOKED_AT = 1 << 14  # numbers, from which it can be told whether they repeat
_FEW_REPEATED = 16  # of the first: too few to tell much
_EXPECTED = 15  # hashes for each register, of those that are made first: one in 800 tables has a register without


def registers_of(hashes: Hashes) -> Registers:
    """Return the registers, shape (4096,), of well-mixed hashes, shape (n,).

    A hash with fewer trailing zeros than its register has already cannot raise it. So the hashes with so many zeros
    that each register may expect sixteen of them go first, and the others only where a register got none.
    """
    found = np.zeros(SIZE, dtype=np.uint8)
    zeros = _zeros_of(hashes.size)
    mask = np.uint64((1 << zeros) - 1)
    for start in range(0, hashes.size, _CHUNK):
        part = hashes[start : start + _CHUNK]
        _raise(found, part.take(np.flatnonzero((part & mask) == 0)) if zeros else part)
    is_open = found <= zeros
    if zeros and bool(is_open.any()):
        for start in range(0, hashes.size, _CHUNK):
            _raise_open(found, hashes[start : start + _CHUNK], is_open)
    return found


def registers_of_spread(products: Hashes) -> Registers:
    """Return the registers of the hashes of numbers that `hashing.spread` has seen, shape (n,): as `registers_of` does,
    but only one hash in sixteen is made where there are many different numbers."""
    fold = RegisterFold(likely_distinct(products[:_CHUNK], products.size))
    for start in range(0, products.size, _CHUNK):
        fold.add(products[start : start + _CHUNK])
    return fold.finish(lambda: products)


def likely_distinct(first: Hashes, size: int) -> int:
    """Return about how many of `size` numbers differ, from what `spread` or a hash made of the first, shape (n,).

    As many as would repeat as often among the first if all were equally common; where some are commoner, there are more
    than that.
    """
    if first.size < _LOOKED_AT:
        return size
    ordered = np.sort(first[:_LOOKED_AT])
    repeated = int((ordered[1:] == ordered[:-1]).sum())
    return size if repeated < _FEW_REPEATED else min(size, _LOOKED_AT**2 // (2 * repeated))


class RegisterFold:
    """Takes chunks of what `hashing.spread` made of numbers of which about `distinct` differ, and makes the hashes that
    end in zeros only.

    Where many differ, those fill every register, and the others, which end in fewer zeros, could not raise one.
    """

    def __init__(self, distinct: int) -> None:
        self._registers = np.zeros(SIZE, dtype=np.uint8)
        self._zeros = min(_zeros_of(distinct), LOW_BITS)
        self._mask = np.uint64(((1 << self._zeros) - 1) << 64 - LOW_BITS)  # the last bits of the hash
        self._below = np.uint64((1 << 64 - LOW_BITS) - 1)
        self._waiting: list[Hashes] = []
        self._count = 0

    def add(self, products: Hashes) -> None:
        """Take a chunk, shape (n,)."""
        if not self._zeros:
            low = products.copy()
        else:
            is_low = products <= self._below if self._zeros == LOW_BITS else products & self._mask == 0
            low = products.take(np.flatnonzero(is_low))
        self._waiting.append(low)
        self._count += low.size
        if self._count >= _CHUNK:
            self._make()

    def finish(self, products: Callable[[], Hashes]) -> Registers:
        """Return the registers of all that was taken, which `products` gives again where fewer differ than thought."""
        self._make()
        is_open = self._registers <= self._zeros
        if self._zeros and bool(is_open.any()):
            everything = products()
            for start in range(0, everything.size, _CHUNK):
                _raise_open(self._registers, hashes_of(everything[start : start + _CHUNK]), is_open)
        return self._registers

    def _make(self) -> None:
        if self._waiting:
            _raise(self._registers, hashes_of(np.concatenate(self._waiting)))
            self._waiting, self._count = [], 0


def _zeros_of(size: int) -> int:
    return max((size // SIZE // _EXPECTED).bit_length() - 1, 0)


def _raise_open(registers: Registers, hashes: Hashes, is_open: npt.NDArray[np.bool_]) -> None:
    _raise(registers, hashes.compress(is_open[(hashes >> np.uint64(_RANKS)).view(np.int64)]))


def _raise(registers: Registers, hashes: Hashes) -> None:
    low = hashes & np.uint64((1 << _RANKS) - 1)
    low |= np.uint64(1 << _RANKS)  # a hash of zeros has the highest rank
    lowest = low & (~low + np.uint64(1))
    rank = (lowest.astype(np.float64).view(np.int64) >> 52) - 1022
    np.maximum.at(registers, (hashes >> np.uint64(_RANKS)).view(np.int64), rank.astype(np.uint8))


def estimated(registers: Registers) -> int:
    """Return the estimated number of distinct values; one standard error is `RELATIVE_ERROR` of it."""
    counts = np.bincount(registers, minlength=_RANKS + 2)
    total = SIZE * _tau(1.0 - counts[_RANKS + 1] / SIZE)
    for rank in range(_RANKS, 0, -1):
        total = 0.5 * (total + counts[rank])
    total += SIZE * _sigma(counts[0] / SIZE)
    return round(SIZE * SIZE / (2 * math.log(2) * total)) if math.isfinite(total) else 0


def _sigma(x: float) -> float:
    """Return x + Σ x^(2^k) 2^(k-1), k from 1 on."""
    if x == 1.0:
        return math.inf
    power, weight, total = x, 1.0, x
    for _ in range(64):
        power *= power
        before, total = total, total + power * weight
        weight += weight
        if total == before:
            break
    return total


def _tau(x: float) -> float:
    """Return (1 - x - Σ (1 - x^(2^-k))^2 2^-k) / 3, k from 1 on."""
    if x in (0.0, 1.0):
        return 0.0
    root, weight, total = x, 1.0, 1.0 - x
    for _ in range(64):
        root = math.sqrt(root)
        before, weight = total, weight * 0.5
        total -= (1.0 - root) ** 2 * weight
        if total == before:
            break
    return total / 3.0
