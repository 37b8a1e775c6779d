"""Two profiles side by side, column by column: distances, common bars, and what changed in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyball.data.profiling.columns import ColumnSketch
from flyball.data.profiling.table_profile import TableProfile
from flyball.data.profiling.values import MOST_BARS, ColumnProfile
from flyball.stats.exact import Distances, of_counts
from flyball.stats.sketch_distances import bars_of, of_histograms, of_names

__all__ = ["ColumnComparison", "compare", "distances_of"]

_SMALL_CHANGE = 0.1  # PSI below which a distribution is commonly taken as unchanged, and above 0.25 as another
_LARGE_CHANGE = 0.25


@dataclass(frozen=True)
class ColumnComparison:
    """One column of two profiles, side by side.

    Attributes:
        name: the column.
        change: `same`, `shifted` or `another` by its distribution; `added`, `removed`, `type` where one side lacks it.
        summary: what changed, in a sentence.
        before, after: what is shown of each side; None where it lacks the column.
        distances: see `stats.exact`; None where the sides cannot be compared.
        edges: of common bars, shape (b + 1,); or the names that the bars stand for, shape (b,).
        shares: of the rows with a value in each bar, before and after.
    """

    name: str
    change: str
    summary: str
    before: ColumnProfile | None = None
    after: ColumnProfile | None = None
    distances: Distances | None = None
    edges: Sequence[float | str] = ()
    shares: tuple[Sequence[float], Sequence[float]] = ((), ())

    def to_dict(self) -> dict[str, Any]:
        """Return all as JSON values."""
        return {
            "name": self.name,
            "change": self.change,
            "summary": self.summary,
            "before": self.before and self.before.to_dict(),
            "after": self.after and self.after.to_dict(),
            "distances": self.distances and self.distances.to_dict(),
            "edges": list(self.edges),
            "shares": [list(part) for part in self.shares],
        }


def compare(before: TableProfile, after: TableProfile, hide: Iterable[str] = ()) -> list[ColumnComparison]:
    """Compare two profiles column by column, those of both sides first, in the order of the later table.

    Of the columns to hide, no value, bar or name is shown; distances are.
    """
    hidden = set(hide)
    found = [_compared(name, before, after, name in hidden) for name in after.columns if name in before.columns]
    for name, column in after.columns.items():
        if name not in before.columns:
            shown = column.without_values() if name in hidden else column
            found.append(ColumnComparison(name, "added", f"{name} is new ({column.type})", None, shown))
    for name, column in before.columns.items():
        if name not in after.columns:
            shown = column.without_values() if name in hidden else column
            found.append(ColumnComparison(name, "removed", f"{name} is gone ({column.type})", shown))
    return found


def distances_of(reference: ColumnSketch, current: ColumnSketch) -> Distances | None:
    """Return how far two columns are apart, from their sketches; None where they hold different things or nothing."""
    numbers = ("number", "integer")
    same = reference.kind == current.kind or (reference.kind in numbers and current.kind in numbers)
    if not same:
        return None
    if reference.kind == "boolean":
        sides = [np.array([s.zeros, s.rows - s.nulls - s.zeros]) for s in (reference, current)]
        return of_counts(*sides) if all(side.sum() for side in sides) else None
    if reference.names is not None and current.names is not None:
        return of_names(reference.names, current.names) if reference.names.total and current.names.total else None
    ends = _ends(reference, current)
    if reference.histogram is None or current.histogram is None or ends is None:
        return None
    return of_histograms(reference.histogram, current.histogram, ends)


def _ends(first: ColumnSketch, second: ColumnSketch) -> tuple[float, float] | None:
    if first.least is None or second.least is None or first.greatest is None or second.greatest is None:
        return None
    return float(min(first.least, second.least)), float(max(first.greatest, second.greatest))


def _compared(name: str, before: TableProfile, after: TableProfile, is_hidden: bool) -> ColumnComparison:
    first, second = before.sketch.columns[name], after.sketch.columns[name]
    shown = before.columns[name], after.columns[name]
    distances = distances_of(first, second)
    if distances is None:
        change = "same" if first.dtype == second.dtype else "type"
        text = (
            f"{name} holds nothing to compare" if change == "same" else f"{name} was {first.dtype}, is {second.dtype}"
        )
    else:
        change = "same" if distances.psi < _SMALL_CHANGE else "shifted" if distances.psi < _LARGE_CHANGE else "another"
        text = _sentence(name, shown, distances, is_hidden)
    if is_hidden:
        shown = shown[0].without_values(), shown[1].without_values()
        return ColumnComparison(name, change, text, shown[0], shown[1], distances)
    edges, shares = _bars(first, second) if distances is not None else ((), ((), ()))
    return ColumnComparison(name, change, text, shown[0], shown[1], distances, edges, shares)


def _sentence(name: str, shown: tuple[ColumnProfile, ColumnProfile], found: Distances, is_hidden: bool) -> str:
    before, after = shown
    said = []
    if not is_hidden and before.mean is not None and after.mean is not None:
        moved = f"mean {before.mean:.4g} → {after.mean:.4g}"
        if before.deviation:
            moved += f" ({(after.mean - before.mean) / before.deviation:+.2f} deviations)"
        said.append(moved)
    elif not is_hidden and before.kind == "time":
        said.append(f"{before.least} … {before.greatest} → {after.least} … {after.greatest}")
    elif before.distinct is not None and after.distinct is not None and before.distinct != after.distinct:
        said.append(f"distinct values {before.distinct:,} → {after.distinct:,}")
    if abs(before.null_share - after.null_share) >= 0.001:
        said.append(f"missing {before.null_share:.1%} → {after.null_share:.1%}")
    said.append(f"PSI {found.psi:.3g}")
    how = "is as it was" if found.psi < _SMALL_CHANGE else "moved" if found.psi < _LARGE_CHANGE else "is another"
    return f"{name} {how}: {', '.join(said)}"


def _bars(
    first: ColumnSketch, second: ColumnSketch
) -> tuple[Sequence[float | str], tuple[Sequence[float], Sequence[float]]]:
    if first.kind == "boolean":
        counts = [[s.zeros, s.rows - s.nulls - s.zeros] for s in (first, second)]
        return ["false", "true"], (_shares(counts[0]), _shares(counts[1]))
    if first.names is not None and second.names is not None:
        sides = [dict(zip(s.hashes.tolist(), s.counts.tolist(), strict=True)) for s in (first.names, second.names)]
        texts = {h: t for s in (second.names, first.names) for h, t in zip(s.hashes.tolist(), s.names, strict=True)}
        total = (max(first.names.total, 1), max(second.names.total, 1))
        most = sorted(texts, key=lambda h: (-sum(side.get(h, 0) / n for side, n in zip(sides, total, strict=True)), h))
        most = most[: MOST_BARS - 1]
        parts = [[side.get(h, 0) / n for h in most] for side, n in zip(sides, total, strict=True)]
        rest = [max(0.0, 1.0 - sum(part)) for part in parts]
        other = ["(all others)"] if max(rest) > 1e-9 else []
        ends = [part + [left] * len(other) for part, left in zip(parts, rest, strict=True)]
        return [texts[h] for h in most] + other, (ends[0], ends[1])
    ends_of_both = _ends(first, second)
    assert first.histogram is not None and second.histogram is not None and ends_of_both is not None
    edges, (a, b) = bars_of([first.histogram, second.histogram], ends_of_both, MOST_BARS)
    return edges.tolist(), (_shares(a), _shares(b))


def _shares(counts: Sequence[float] | np.ndarray[Any, Any]) -> list[float]:
    total = float(sum(counts)) or 1.0
    return [float(count) / total for count in counts]
