"""A column's kept profile and a window's counts as one histogram: outer bins, other names and missing values shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["histogram"]

_NAMES = 14  # bars that can be told apart; the rarer names share "other"


def histogram(reference: Mapping[str, Any], live: Sequence[int] | None) -> dict[str, Any]:
    """Return `<fb-hist>`'s data.

    Args:
        reference: a stored profile (`stats.profiles`): counts with edges or names.
        live: counts over the same bins, None when there are none yet.
    """
    counts: Sequence[int] = reference["counts"]
    if reference.get("edges"):
        return _numeric(list(reference["edges"]), counts, live)
    return _named(list(reference.get("names", [])), counts, live)


def _numeric(edges: list[float], reference: Sequence[int], live: Sequence[int] | None) -> dict[str, Any]:
    """Bins between edges; one more at either end where rows lie beyond, and the missing stand in the unit's place."""
    sides = [reference] if live is None else [reference, live]
    below, above = (any(side[at] for side in sides) for at in (0, len(edges)))
    if len(edges) == 1:
        edges = [edges[0] - 0.5, edges[0] + 0.5]
        bars = [[side[0] + side[1]] for side in sides]
    else:
        width = (edges[-1] - edges[0]) / (len(edges) - 1) or 1.0
        bars = [list(side[1 : len(edges)]) for side in sides]
        if below:
            bars = [[side[0], *bar] for side, bar in zip(sides, bars, strict=True)]
        if above:
            bars = [[*bar, side[len(edges)]] for side, bar in zip(sides, bars, strict=True)]
        edges = [edges[0] - width] * below + edges + [edges[-1] + width] * above
    found: dict[str, Any] = {"edges": edges, "reference": bars[0], "live": bars[1] if live is not None else None}
    return {**found, "missing": [_share(side) for side in sides]}


def _named(names: list[str], reference: Sequence[int], live: Sequence[int] | None) -> dict[str, Any]:
    sides = [reference] if live is None else [reference, live]
    kept = min(len(names), _NAMES)
    bars = [[*side[:kept], sum(side[kept:-1])] for side in sides]
    labels = [*names[:kept], "other"]
    if not any(bar[-1] for bar in bars):
        bars, labels = [bar[:-1] for bar in bars], labels[:-1]
    if any(side[-1] for side in sides):
        bars = [[*bar, side[-1]] for bar, side in zip(bars, sides, strict=True)]
        labels = [*labels, "missing"]
    found = {"categories": labels, "reference": bars[0], "live": bars[1] if live is not None else None}
    return {**found, "missing": [_share(side) for side in sides]}


def _share(counts: Sequence[int]) -> float:
    """Return the share of missing values, which are the last count."""
    return counts[-1] / (sum(counts) or 1)
