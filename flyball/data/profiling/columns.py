"""What is kept of one column: a `ColumnSketch`, and how those of parts become that of the whole.

Everything in it depends on the values and how often they occur, never on their order or on how rows were split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from flyball.errors import InvalidInput
from flyball.stats import frequencies, sketches, sums
from flyball.stats.distinct import Registers, estimated, registers_of
from flyball.stats.frequencies import Names
from flyball.stats.hashing import Hashes, float_hashes, integer_hashes
from flyball.stats.sketches import Histogram
from flyball.stats.sums import Sums

__all__ = ["ColumnSketch", "Kind", "merged", "value_hashes"]

Kind = Literal["number", "integer", "time", "text", "boolean", "vector", "other"]

WHOLE_FLOATS = 1 << 53  # beyond it neighbouring integers share a float


@dataclass(frozen=True)
class ColumnSketch:
    """One column.

    Attributes:
        kind: what it holds. A duration or time of day is a number of seconds, a date is a time.
        dtype: the Polars type in words.
        rows, nulls, nans, infinities: how many.
        zeros: of a number, how many are 0; of a text, how many are empty; of a boolean, how many are false.
        is_whole: whether every finite number is a whole one.
        least, greatest: of the finite numbers, or of times in microseconds since 1970.
        histogram: of finite numbers, of times in microseconds, of the lengths (norms) of vectors.
        sums: of finite numbers.
        registers: distinct values, where the histogram does not have each.
        names: of texts.
        lengths: of texts in characters, of vectors in numbers.
        week: of times, how many in each hour of the week from Monday 00:00 UTC, shape (168,).
        facts: what others found out about the column (language of a text, brightness of an image), by name; they merge.
    """

    kind: Kind
    dtype: str
    rows: int
    nulls: int = 0
    nans: int = 0
    infinities: int = 0
    zeros: int = 0
    is_whole: bool = False
    least: float | int | None = None
    greatest: float | int | None = None
    histogram: Histogram | None = None
    sums: Sums | None = None
    registers: Registers | None = None
    names: Names | None = None
    lengths: Histogram | None = None
    week: npt.NDArray[np.int64] | None = None
    facts: Mapping[str, Histogram | Names] = field(default_factory=dict)

    @property
    def distinct(self) -> tuple[int, bool] | None:
        """The number of distinct values that are there, and whether it is exact; None where that is not counted."""
        if self.kind == "boolean":
            known = self.rows - self.nulls
            return int(self.zeros > 0) + int(self.zeros < known), True
        if self.names is not None:
            return self.names.distinct, self.names.is_exact
        if self.histogram is None or self.kind == "vector":
            return None
        if self.registers is None:
            return int(self.histogram.cells.size), True
        return max(estimated(self.registers), int(self.histogram.cells.size)), False


def has_each_value(kind: Kind, histogram: Histogram, least: float | int, greatest: float | int) -> bool:
    """Return whether the distinct values can be counted in the histogram's cells."""
    return histogram.is_exact and not (kind == "integer" and max(abs(least), abs(greatest)) > WHOLE_FLOATS)


def value_hashes(kind: Kind, values: npt.NDArray[np.generic]) -> Hashes:
    """Return the hashes of values of a column of this kind."""
    if kind == "number":
        return float_hashes(values.astype(np.float64) + 0.0)
    return integer_hashes(values.astype(np.int64))


def merged(name: str, parts: Sequence[ColumnSketch]) -> ColumnSketch:
    """Return the sketch of all rows together.

    Raises:
        InvalidInput: the parts are of different kinds.
    """
    first = parts[0]
    if any((part.kind, part.dtype) != (first.kind, first.dtype) for part in parts):
        other = next(part for part in parts if (part.kind, part.dtype) != (first.kind, first.dtype))
        raise InvalidInput(
            f'profiles cannot be merged: column "{name}" is {first.dtype} in one and {other.dtype} in another'
        )
    seen = [part for part in parts if part.histogram is not None and part.histogram.cells.size]
    histograms = [part.histogram for part in parts if part.histogram is not None]
    lengths = [part.lengths for part in parts if part.lengths is not None]
    names = [part.names for part in parts if part.names is not None]
    weeks = [part.week for part in parts if part.week is not None]
    least = min((part.least for part in seen if part.least is not None), default=None)
    greatest = max((part.greatest for part in seen if part.greatest is not None), default=None)
    histogram = sketches.merged(histograms) if histograms else None
    registers = None
    if (
        histogram is not None
        and least is not None
        and greatest is not None
        and first.kind != "vector"
        and not has_each_value(first.kind, histogram, least, greatest)
    ):
        registers = np.max([_registers(part) for part in seen], axis=0)
    return ColumnSketch(
        first.kind,
        first.dtype,
        rows=sum(part.rows for part in parts),
        nulls=sum(part.nulls for part in parts),
        nans=sum(part.nans for part in parts),
        infinities=sum(part.infinities for part in parts),
        zeros=sum(part.zeros for part in parts),
        is_whole=bool(seen) and all(part.is_whole for part in seen),
        least=least,
        greatest=greatest,
        histogram=histogram,
        sums=sums.merged([part.sums for part in parts if part.sums is not None]) if first.sums is not None else None,
        registers=registers,
        names=frequencies.merged(names) if names else None,
        lengths=sketches.merged(lengths) if lengths else None,
        week=np.sum(weeks, axis=0, dtype=np.int64) if weeks else None,
        facts=_merged_facts(parts),
    )


def _registers(part: ColumnSketch) -> Registers:
    if part.registers is not None:
        return part.registers
    assert part.histogram is not None
    return registers_of(value_hashes(part.kind, part.histogram.values))


def _merged_facts(parts: Sequence[ColumnSketch]) -> dict[str, Histogram | Names]:
    found: dict[str, Histogram | Names] = {}
    for fact in sorted({name for part in parts for name in part.facts}):
        known = [part.facts[fact] for part in parts if fact in part.facts]
        names = [value for value in known if isinstance(value, Names)]
        histograms = [value for value in known if isinstance(value, Histogram)]
        if names and histograms:
            raise InvalidInput(f'profiles cannot be merged: the fact "{fact}" is a number in one and a name in another')
        found[fact] = frequencies.merged(names) if names else sketches.merged(histograms)
    return found
