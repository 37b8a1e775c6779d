"""What a page or a program shows of a column's sketch: plain values, times as ISO texts in UTC, estimates marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from flyball.data.profiling.columns import ColumnSketch
from flyball.stats.distinct import RELATIVE_ERROR
from flyball.stats.frequencies import Names
from flyball.stats.sketch_distances import bars_of
from flyball.stats.sketches import Histogram

__all__ = ["Bars", "ColumnProfile", "Gap", "Outliers", "column_profile", "shown_time"]

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MOST_BARS = 40
MOST_TOP = 20
MOST_GAPS = 10
_WIDE = 1.5  # times the middle step: from there on a step is a gap
_FENCE = 1.5  # interquartile ranges beyond the quartiles (Tukey 1977)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Bars:
    """A chart: `counts[i]` rows from `edges[i]` up to `edges[i + 1]`; edges of times are microseconds since 1970."""

    edges: Sequence[float]
    counts: Sequence[float]


@dataclass(frozen=True)
class Outliers:
    """Numbers beyond Tukey's fences, 1.5 interquartile ranges outside the quartiles."""

    low: float
    high: float
    rows: int
    share: float


@dataclass(frozen=True)
class Gap:
    """A stretch of time without rows."""

    start: str
    end: str
    seconds: float


@dataclass(frozen=True)
class ColumnProfile:
    """One column, as shown.

    Attributes:
        name, type, kind: what it is; `kind` is number, integer, time, text, boolean, vector or other.
        rows, nulls: how many.
        distinct: different values that are there; None where they are not counted.
        distinct_error: one standard error of `distinct` relative to it; 0 where it is exact.
        least, greatest: of numbers and norms of vectors; ISO texts of times.
        mean, deviation: of finite numbers.
        quantiles: of finite numbers, by level.
        zeros, negatives, nans, infinities: of numbers, how many; of vectors, whose norm is so.
        is_whole: whether all finite numbers are whole.
        outliers: of numbers.
        bars: of numbers, times and norms, at most 40.
        top: the commonest values with their counts.
        top_is_sample: whether these are the commonest of a fair sample of the values only.
        empty: texts of no character.
        lengths: of texts in characters, of vectors in numbers: least, mean, greatest, and quantiles by level.
        week: of times, rows by hour of the week from Monday 00:00 UTC.
        step_s: of times, the middle distance of neighbours, in seconds.
        gaps: of times, the longest stretches without rows.
        gap_count, missing_steps: how many there are, and how many steps are missing in them all.
        resolution_s: gaps are told to this many seconds; 0 is exactly.
        facts: what else is known of the values: counts by name, or quantiles of a number.
        hidden: values are left out, as the column is sensitive.
    """

    name: str
    type: str
    kind: str
    rows: int
    nulls: int
    distinct: int | None = None
    distinct_error: float = 0.0
    least: float | int | str | None = None
    greatest: float | int | str | None = None
    mean: float | None = None
    deviation: float | None = None
    quantiles: Mapping[str, float | str] = field(default_factory=dict)
    zeros: int | None = None
    negatives: int | None = None
    nans: int = 0
    infinities: int = 0
    is_whole: bool = False
    outliers: Outliers | None = None
    bars: Bars | None = None
    top: Sequence[tuple[str | float | int | bool, int]] = ()
    top_is_sample: bool = False
    empty: int | None = None
    lengths: Mapping[str, float] = field(default_factory=dict)
    week: Sequence[int] = ()
    step_s: float | None = None
    gaps: Sequence[Gap] = ()
    gap_count: int = 0
    missing_steps: int = 0
    resolution_s: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    hidden: bool = False

    @property
    def null_share(self) -> float:
        return self.nulls / self.rows if self.rows else 0.0

    def without_values(self) -> ColumnProfile:
        """Return the column without anything that shows a value: counts, shares and lengths stay."""
        return ColumnProfile(
            self.name,
            self.type,
            self.kind,
            self.rows,
            self.nulls,
            self.distinct,
            self.distinct_error,
            nans=self.nans,
            infinities=self.infinities,
            is_whole=self.is_whole,
            empty=self.empty,
            hidden=True,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what there is as JSON values."""
        found = asdict(self) | {"null_share": self.null_share}
        return {k: v for k, v in found.items() if v not in (None, [], (), {})}


def column_profile(name: str, sketch: ColumnSketch) -> ColumnProfile:
    """Return what is shown of a column."""
    known = sketch.distinct
    base = ColumnProfile(
        name,
        sketch.dtype,
        sketch.kind,
        sketch.rows,
        sketch.nulls,
        None if known is None else known[0],
        0.0 if known is None or known[1] else RELATIVE_ERROR,
        nans=sketch.nans,
        infinities=sketch.infinities,
        facts={fact: _fact(value) for fact, value in sketch.facts.items()},
    )
    if sketch.kind == "boolean":
        return replace(base, top=_boolean_top(sketch), zeros=sketch.zeros)
    if sketch.kind == "text" and sketch.names is not None:
        top, empty = sketch.names.most_common(MOST_TOP), sketch.zeros
        is_sample = not sketch.names.is_exact
        return replace(base, top=top, top_is_sample=is_sample, empty=empty, lengths=_lengths(sketch.lengths))
    if sketch.histogram is None or not sketch.histogram.total or sketch.least is None or sketch.greatest is None:
        return base
    if sketch.kind == "time":
        return _time(base, sketch, sketch.histogram, int(sketch.least), int(sketch.greatest))
    return _number(base, sketch, sketch.histogram, (float(sketch.least), float(sketch.greatest)))


def shown_time(micros: float) -> str:
    """Return microseconds since 1970 as an ISO text in UTC; a year that calendars do not reach as it is."""
    try:
        return (_EPOCH + timedelta(microseconds=int(micros))).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return f"{int(micros)} µs since 1970"


def _number(base: ColumnProfile, sketch: ColumnSketch, found: Histogram, ends: tuple[float, float]) -> ColumnProfile:
    assert sketch.least is not None and sketch.greatest is not None
    mean = sketch.sums.mean if sketch.sums is not None else None
    values = found.quantiles(LEVELS, *ends)
    quartiles = values[LEVELS.index(0.25)], values[LEVELS.index(0.75)]
    reach = _FENCE * (quartiles[1] - quartiles[0])
    low, high = quartiles[0] - reach, quartiles[1] + reach
    below, up_to = found.count_below(np.array([low, np.nextafter(high, np.inf)]))
    beyond = round(float(below)) + found.total - round(float(up_to))
    edges, (counts,) = bars_of([found], ends, MOST_BARS)
    negatives = int(found.counts[found.values < 0].sum())
    top: list[tuple[float | int, int]] = []
    if found.is_exact and sketch.kind != "vector":
        order = np.lexsort((found.values, -found.counts))[:MOST_TOP]
        whole = sketch.is_whole and max(abs(ends[0]), abs(ends[1])) <= 1 << 53
        top = [(int(found.values[i]) if whole else float(found.values[i]), int(found.counts[i])) for i in order]
    return replace(
        base,
        least=sketch.least,
        greatest=sketch.greatest,
        mean=mean,
        deviation=None if mean is None else found.deviation(mean, *ends),
        quantiles=dict(zip(map(str, LEVELS), values, strict=True)),
        zeros=sketch.zeros,
        negatives=negatives,
        is_whole=sketch.is_whole,
        outliers=Outliers(low, high, beyond, beyond / found.total),
        bars=Bars(edges.tolist(), counts.tolist()),
        top=top,
        lengths=_lengths(sketch.lengths),
    )


def _time(base: ColumnProfile, sketch: ColumnSketch, found: Histogram, least: int, greatest: int) -> ColumnProfile:
    edges, (counts,) = bars_of([found], (float(least), float(greatest)), MOST_BARS)
    values = found.quantiles(LEVELS, float(least), float(greatest))
    starts, ends = found.values, found.ends
    shown = replace(
        base,
        least=shown_time(least),
        greatest=shown_time(greatest),
        quantiles={str(level): shown_time(value) for level, value in zip(LEVELS, values, strict=True)},
        bars=Bars(edges.tolist(), counts.tolist()),
        week=[] if sketch.week is None else sketch.week.tolist(),
        resolution_s=0.0 if found.is_exact else (1 << found.shift) / 1e6,
    )
    if starts.size < 2:
        return shown
    steps = np.diff(starts)
    middle = float(np.median(steps))
    wide = np.flatnonzero(steps > _WIDE * middle)
    missing = int(np.rint(steps[wide] / middle - 1).sum()) if middle > 0 else 0
    longest = wide[np.argsort(-steps[wide], kind="stable")][:MOST_GAPS]
    gaps = [
        Gap(shown_time(int(ends[i])), shown_time(int(starts[i + 1])), float(starts[i + 1] - ends[i]) / 1e6)
        for i in sorted(longest.tolist())
    ]
    return replace(shown, step_s=middle / 1e6, gaps=gaps, gap_count=int(wide.size), missing_steps=missing)


def _lengths(found: Histogram | None) -> dict[str, float]:
    if found is None or not found.total:
        return {}
    values, ends = found.values, found.ends
    least, greatest = float(values[0]), float(ends[-1])
    middle = (values + np.minimum(ends, greatest)) / 2
    quantiles = found.quantiles(LEVELS, least, greatest)
    mean = float(middle @ found.counts) / found.total
    return {"least": least, "mean": mean, "greatest": greatest} | dict(zip(map(str, LEVELS), quantiles, strict=True))


def _boolean_top(sketch: ColumnSketch) -> list[tuple[bool, int]]:
    known = sketch.rows - sketch.nulls
    found = [(False, sketch.zeros), (True, known - sketch.zeros)]
    return [(value, count) for value, count in sorted(found, key=lambda pair: -pair[1]) if count]


def _fact(value: Histogram | Names) -> dict[str, Any]:
    if isinstance(value, Names):
        return {"top": value.most_common(MOST_TOP), "distinct": value.distinct}
    return _lengths(value)
