"""Sums of numbers that are the same however the numbers were split or ordered.

Floating-point addition depends on order; these sums do not. Each number is cut into digits of 38 bits on a grid that is
fixed once for all numbers (Demmel & Nguyen 2015, "Parallel reproducible summation", section III: x is rounded to a
multiple of 2^(38 j), the rest to the next finer multiple). Digits are integers of at most 2^37, so that 2^15 of them
add up in 64 bits in any order; from there on they are Python integers. Kept are the two highest digits, counted from
the largest number; a part whose largest number is smaller has its digits lower, and drops what the whole drops.

What is lost lies below the second digit: of each number at most 2^-39 of the largest absolute value, and of their mean
usually far less, as roundings up and down cancel. Callers: profiles of tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["NO_LEVEL", "SumFold", "Sums", "largest_of", "level_of", "merged", "sums_of", "sums_of_counts"]

Floats = npt.NDArray[np.float64]

BITS = 38
NO_LEVEL = -1000  # of zeros: below that of any other number
_FAR = 10  # levels from zero beyond which the constants of the rounding would leave float64
_CHUNK = 1 << 15  # what is between stays in the second-level cache


@dataclass(frozen=True)
class Sums:
    """Exact sums of digits.

    Attributes:
        count: how many numbers.
        level: of the higher digit, in steps of 38 bits.
        high, low: sums of the digits.
    """

    count: int = 0
    level: int = NO_LEVEL
    high: int = 0
    low: int = 0

    @property
    def mean(self) -> float | None:
        """The mean, rounded once; None where there is no number."""
        if not self.count:
            return None
        if self.level == NO_LEVEL:
            return 0.0
        try:
            return math.ldexp(((self.high << BITS) + self.low) / self.count, BITS * (self.level - 1))
        except OverflowError:
            return math.copysign(math.inf, self.high)


def level_of(largest: float, bits: int = BITS) -> int:
    """Return the level of the highest digit of finite numbers of which the largest absolute value is `largest`.

    It is the least j for which all are within 2^(bits j + bits - 1) of zero; NO_LEVEL where all are zero.
    """
    if largest == 0.0:
        return NO_LEVEL
    mantissa, exponent = math.frexp(largest)
    power = exponent - 1 if mantissa == 0.5 else exponent  # the least with largest <= 2^power
    return math.ceil((power - bits + 1) / bits)


def largest_of(values: Floats) -> float:
    """Return the largest absolute value of finite numbers, shape (n,); 0 when there is none."""
    return max(float(values.max()), -float(values.min())) if values.size else 0.0


def sums_of(values: Floats, largest: float | None = None) -> Sums:
    """Return the sums of finite numbers, shape (n,), of which the caller may know the largest absolute value.

    About 1 ns a number.
    """
    fold = SumFold(largest_of(values) if largest is None else largest)
    for start in range(0, values.size, _CHUNK):
        fold.add(values[start : start + _CHUNK])
    return fold.finish()


class SumFold:
    """Takes finite numbers chunk by chunk, of which the largest absolute value is known; chunks are short (2^15)."""

    def __init__(self, largest: float) -> None:
        self._level = level_of(largest)
        self._is_far = abs(self._level) > _FAR
        unit = 1.0 if self._is_far else math.ldexp(1.0, BITS * self._level)
        # Adding and taking away 1.5 · 2^52 units rounds to whole units, the half to the even one.
        self._turn, self._finer_turn = 1.5 * 2.0**52 * unit, 1.5 * 2.0**52 * math.ldexp(unit, -BITS)
        self._count = self._high = self._low = 0
        self._space = np.empty((2, _CHUNK))

    def add(self, values: Floats) -> None:
        """Take some numbers, shape (n,) with n up to 2^15."""
        self._count += values.size
        if self._level == NO_LEVEL:
            return
        if self._is_far:
            values = np.ldexp(values, -BITS * self._level)
        digit, rest = self._space[0, : values.size], self._space[1, : values.size]
        np.add(values, self._turn, out=digit)
        self._high += _added(digit, self._turn)
        np.subtract(digit, self._turn, out=digit)
        np.subtract(values, digit, out=rest)
        np.add(rest, self._finer_turn, out=rest)
        self._low += _added(rest, self._finer_turn)

    def finish(self) -> Sums:
        """Return the sums of all that was taken."""
        return Sums(self._count, self._level, self._high, self._low)


def _added(turned: Floats, turn: float) -> int:
    """Return the sum of the digits of a chunk: all have the exponent of `turn`, so their bits count units above its."""
    bits = int(turned.view(np.int64).sum()) - turned.size * int(np.float64(turn).view(np.int64))  # modulo 2^64
    return (bits + (1 << 63)) % (1 << 64) - (1 << 63)


def sums_of_counts(values: Floats, counts: npt.NDArray[np.int64]) -> Sums:
    """Return the sums of distinct numbers, shape (k,), each occurring `counts` times: equal to those of the rows."""
    level, size = level_of(largest_of(values)), int(counts.sum())
    if level == NO_LEVEL:
        return Sums(size)
    scaled = np.ldexp(values, -BITS * level)
    high = np.rint(scaled)
    low = np.rint(np.ldexp(scaled - high, BITS))
    times = counts.astype(np.int64) if size < 1 << 25 else counts.astype(object)  # 2^37 · 2^25 fits 63 bits
    return Sums(size, level, int((high.astype(np.int64) * times).sum()), int((low.astype(np.int64) * times).sum()))


def merged(parts: Sequence[Sums]) -> Sums:
    """Return the sums of all numbers together, exactly as if they had been added at once."""
    level = max((part.level for part in parts), default=NO_LEVEL)
    high = sum(part.high for part in parts if part.level == level)
    low = sum(part.low for part in parts if part.level == level)
    low += sum(part.high for part in parts if part.level == level - 1)  # its high digit is the whole's low one
    return Sums(sum(part.count for part in parts), level, high, low)
