"""How much two properties of traces go together: normalised pointwise mutual information.

Source: Bouma, "Normalized (pointwise) mutual information in collocation extraction", GSCL 2009, equation 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["Correlation", "correlation"]

_PRIOR = 0.5  # Jeffreys': half an observation in each of the four cells


class Correlation(NamedTuple):
    """From -1 (never together) over 0 (independent) to 1 (always together); NaN where it is not defined."""

    npmi: float
    npmi_smoothed: float
    first: int
    second: int
    both: int
    total: int


def correlation(first: int, second: int, both: int, total: int) -> Correlation:
    """Return the correlation of two properties, given how many things have each, both, and how many there are.

    >>> correlation(5, 5, 5, 10).npmi
    1.0
    """
    cells = (both, first - both, second - both, total - first - second + both)
    if total <= 0 or first == 0 or second == 0 or min(cells) < 0:
        return Correlation(math.nan, math.nan, first, second, both, total)
    plain = -1.0 if both == 0 else _npmi(*cells, 0.0)
    return Correlation(plain, _npmi(*cells, _PRIOR), first, second, both, total)


def _npmi(both: float, only_first: float, only_second: float, neither: float, prior: float) -> float:
    if only_first == only_second == neither == 0:
        return 1.0  # the limit, where the fraction below is 0/0
    together = both + prior
    count = together + only_first + only_second + neither + 3 * prior
    mutual = math.log(together) + math.log(count)
    mutual -= math.log(together + only_first + prior) + math.log(together + only_second + prior)
    return max(-1.0, min(1.0, mutual / (math.log(count) - math.log(together))))
