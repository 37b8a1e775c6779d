"""When small parts of a table become one: the plan that keeps appending cheap and a manifest short.

Size-tiered: about `FAN` neighbours of one size become one of the next, up to a full part, so every row is written
again at most once a tier and a table of n appends has in the order of log n parts beside its full ones. Only the end
of a table is looked at: what stands before it was settled by earlier appends.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FAN", "merge_from"]

FAN = 32  # fewer would rewrite rows more often, more would leave more small files to open


def merge_from(rows: Sequence[int], full: int) -> int | None:
    """Return the place from which all parts to the end become one, or None when they are well as they are.

    Args:
        rows: how many rows each part has, in the table's order.
        full: a part of so many rows or more is never merged.

    >>> merge_from([1000] * 31, 500_000), merge_from([1000] * 32, 500_000)
    (None, 0)
    """
    parts = [(count, place) for place, count in enumerate(rows)]  # rows, place of the first that went into it
    merged = None
    for tier in range(_tier(max(full, 1)) + 1):
        tail = of_this_size = reached = 0
        while tail < len(parts) and parts[-1 - tail][0] < full and _tier(parts[-1 - tail][0]) <= tier:
            # A small part in front of a larger one counts as that size: it can only be merged together with it.
            reached = max(reached, _tier(parts[-1 - tail][0]))
            of_this_size += reached == tier
            tail += 1
        if of_this_size >= FAN:
            merged = parts[-tail][1]
            parts[-tail:] = [(sum(count for count, _ in parts[-tail:]), merged)]
    return merged


def _tier(rows: int) -> int:
    """Return the logarithm of `rows` to the base `FAN`, rounded down; 0 of no rows."""
    tier = 0
    while rows >= FAN:
        rows //= FAN
        tier += 1
    return tier
