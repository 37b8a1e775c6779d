"""How many different values there are, from a few kilobytes that add up.

HyperLogLog (Flajolet, Fusy, Gandouet & Meunier 2007): each hash chooses one of 2^P registers by its upper P bits, and a
register keeps the largest rank (trailing zeros plus one) among its hashes. Registers of parts merge by maximum, which
is the same however the values were split or repeated. The estimate is Ertl's improved raw estimator (arXiv 1702.01284,
section 4, equation 16 with algorithm 6), which needs no table of corrections and no switch between ranges.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from flyball.stats.hashing import LOW_BITS, Hashes, hashes_of

__all__ = ["RELATIVE_ERROR", "Registers", "estimated", "registers_of", "registers_of_spread"]

Registers = npt.NDArray[np.uint8]

P = 12
SIZE = 1 << P
RELATIVE_ERROR = 1.04 / math.sqrt(SIZE)  # one standard error of the estimate
_RANKS = 64 - P
_CHUNK = 1 << 15


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
        _raise(found, part.compress((part & mask) == 0) if zeros else part)
    is_open = found <= zeros
    if zeros and bool(is_open.any()):
        for start in range(0, hashes.size, _CHUNK):
            _raise_open(found, hashes[start : start + _CHUNK], is_open)
    return found


def registers_of_spread(products: Hashes) -> Registers:
    """Return the registers of the hashes of numbers that `hashing.spread` has seen, shape (n,): as `registers_of` does,
    but only one hash in sixteen is made where there are many different numbers."""
    found = np.zeros(SIZE, dtype=np.uint8)
    zeros = min(_zeros_of(products.size), LOW_BITS)
    below = np.uint64((1 << 64 - zeros) - 1)
    for start in range(0, products.size, _CHUNK):
        part = products[start : start + _CHUNK]
        _raise(found, hashes_of(part.compress(part <= below) if zeros else part))
    is_open = found <= zeros
    if zeros and bool(is_open.any()):
        for start in range(0, products.size, _CHUNK):
            _raise_open(found, hashes_of(products[start : start + _CHUNK]), is_open)
    return found


def _zeros_of(size: int) -> int:
    return max((size // SIZE // 16).bit_length() - 1, 0)


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
