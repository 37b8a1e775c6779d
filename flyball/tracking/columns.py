"""One key of many runs as a column: which rows have it, and with what value.

A column is immutable. Rows are numbers within a segment (`flyball.tracking.segments`); a column of numbers or words
knows only the rows that have a value, so that twenty thousand keys of few runs each take little room.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.tracking.filters import Comparison, judge

__all__ = ["Column", "Mask", "Names", "Numbers", "NumbersBuilder", "Ranks", "Rows", "Words", "WordsBuilder", "joined"]

Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]
_COMPARE: dict[str, Callable[[Any, float], Any]] = {
    "=": np.equal, "!=": np.not_equal, ">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ranks:
    """How to sort rows by a column, ascending: first by `group` (0 a value, 1 NaN, 2 missing), then by `value`."""

    group: NDArray[np.int8]
    value: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Float64 values, of all rows when `rows` is None, else of those rows, which ascend."""

    rows: Rows | None
    values: NDArray[np.float64]

    @property
    def size_bytes(self) -> int:
        return int(self.values.nbytes + (0 if self.rows is None else self.rows.nbytes))

    def mask(self, count: int, comparison: Comparison) -> Mask:
        """Return which of `count` rows satisfy a comparison; NaN differs from every number."""
        if comparison.operator in ("IS NULL", "IS NOT NULL"):
            return _presence(self.rows, count, comparison.operator)
        hits = _COMPARE[comparison.operator](self.values, _as_double(comparison.value))
        return _spread(self.rows, count, hits)

    def ranks(self, count: int) -> Ranks:
        """Return how to sort by this column."""
        group, value = np.full(count, 2, dtype=np.int8), np.zeros(count)
        where = slice(None) if self.rows is None else self.rows
        is_nan = np.isnan(self.values)
        group[where] = is_nan
        value[where] = np.where(is_nan, 0.0, self.values)
        return Ranks(group, value)

    def keys(self, rows: Rows) -> list[tuple[int, float]]:
        """Return group and value of rows (as `Ranks` has them), by which to sort them among those of other segments."""
        places = _places(self.rows, rows)
        if not len(self.values):
            return [(2, 0.0)] * len(rows)
        return [
            (2, 0.0) if place < 0 else (1, 0.0) if value != value else (0, value)
            for place, value in zip(places.tolist(), self.values[places].tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Words:
    """Texts by their place in `words`, which are sorted; a row may stand in `rows` more than once (data sets)."""

    rows: Rows | None
    codes: NDArray[np.int32]
    words: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        texts = sum(map(len, self.words)) + 56 * len(self.words)
        return int(self.codes.nbytes + (0 if self.rows is None else self.rows.nbytes)) + texts

    def mask(self, count: int, comparison: Comparison) -> Mask:
        """Return which of `count` rows satisfy a comparison; one of a row's values is enough."""
        operator = comparison.operator
        if operator in ("IS NULL", "IS NOT NULL"):
            return _presence(self.rows, count, operator)
        if operator in ("=", "!="):
            code = self._code(str(comparison.value))
            hits = self.codes == code if operator == "=" else self.codes != code
        else:
            test = judge(comparison)
            flags = np.fromiter(map(test, self.words), dtype=np.bool_, count=len(self.words))
            hits = flags[self.codes]
        return _spread(self.rows, count, hits)

    def ranks(self, count: int) -> Ranks:
        """Return how to sort by this column."""
        group, value = np.full(count, 2, dtype=np.int8), np.zeros(count)
        where = slice(None) if self.rows is None else self.rows
        group[where], value[where] = 0, self.codes
        return Ranks(group, value)

    def keys(self, rows: Rows) -> list[tuple[int, str]]:
        """Return group and value of rows, by which to sort them among those of other segments."""
        places = _places(self.rows, rows)
        return [(2, "") if place < 0 else (0, self.words[self.codes[place]]) for place in places.tolist()]

    def _code(self, word: str) -> int:
        code = bisect_left(self.words, word)
        return code if code < len(self.words) and self.words[code] == word else -1


@dataclass(frozen=True, slots=True)
class Names:
    """Texts that each row makes from its id: the id itself, or the place of its artifacts."""

    ids: Sequence[str]
    before: str = ""
    behind: str = ""

    @property
    def size_bytes(self) -> int:
        return 0

    def mask(self, count: int, comparison: Comparison) -> Mask:
        """Return which of `count` rows satisfy a comparison."""
        test = judge(comparison)
        before, behind = self.before, self.behind
        texts: Iterable[str] = (before + id + behind for id in self.ids) if before or behind else self.ids
        return np.fromiter(map(test, texts), dtype=np.bool_, count=count)

    def ranks(self, count: int) -> Ranks:
        """Return how to sort by this column."""
        order = sorted(range(count), key=self.ids.__getitem__)
        value = np.empty(count)
        value[order] = np.arange(count)
        return Ranks(np.zeros(count, dtype=np.int8), value)

    def keys(self, rows: Rows) -> list[tuple[int, str]]:
        """Return group and value of rows, by which to sort them among those of other segments."""
        return [(0, self.before + self.ids[row] + self.behind) for row in rows.tolist()]


class NumbersBuilder:
    """Takes values row by row, rows ascending."""

    __slots__ = ("rows", "values")

    def __init__(self) -> None:
        self.rows, self.values = array("i"), array("d")

    def add(self, row: int, value: float) -> None:
        """Take a value of a row."""
        self.rows.append(row)
        self.values.append(value)

    def column(self, places: Rows, count: int) -> Numbers:
        """Return the column, row `r` as `places[r]`."""
        rows, order = _ordered(places[np.frombuffer(self.rows, dtype=np.int32)], count)
        return Numbers(rows, np.frombuffer(self.values, dtype=np.float64)[order])


class WordsBuilder:
    """Takes texts row by row, rows ascending."""

    __slots__ = ("codes", "rows", "words")

    def __init__(self) -> None:
        self.rows, self.codes = array("i"), array("i")
        self.words: dict[str, int] = {}

    def add(self, row: int, text: str) -> None:
        """Take a text of a row."""
        self.rows.append(row)
        self.codes.append(self.words.setdefault(text, len(self.words)))

    def column(self, places: Rows, count: int) -> Words:
        """Return the column, row `r` as `places[r]`."""
        rows, order = _ordered(places[np.frombuffer(self.rows, dtype=np.int32)], count)
        codes = np.frombuffer(self.codes, dtype=np.int32)[order]
        return _sorted(rows, codes, list(self.words))


Column = Numbers | Words


def joined(parts: Sequence[tuple[Column, Rows]], count: int) -> Column | None:
    """Return columns of one key as one, row `r` of each as the `places[r]` beside it, -1 for rows that are left out.

    None: no row is left.
    """
    places = [where if column.rows is None else where[column.rows] for column, where in parts]
    if all(isinstance(column, Numbers) for column, _ in parts):
        values = np.concatenate([column.values for column, _ in parts if isinstance(column, Numbers)])
        rows, order = _ordered(np.concatenate(places), count)
        return Numbers(rows, values[order]) if len(order) else None
    known: dict[str, int] = {}
    codes = []
    for (column, _), where in zip(parts, places, strict=True):
        if isinstance(column, Words):
            used = np.unique(column.codes[where >= 0])  # words of rows that went are let go
            ours = np.zeros(len(column.words), dtype=np.int32)
            ours[used] = [known.setdefault(column.words[code], len(known)) for code in used]
            codes.append(ours[column.codes])
    rows, order = _ordered(np.concatenate(places), count)
    return _sorted(rows, np.concatenate(codes)[order], list(known)) if len(order) else None


def _sorted(rows: Rows | None, codes: NDArray[np.int32], words: list[str]) -> Words:
    """Return a column whose words come in any order, with them sorted."""
    order = sorted(range(len(words)), key=words.__getitem__)
    ranks = np.empty(len(words), dtype=np.int32)
    ranks[order] = np.arange(len(words), dtype=np.int32)
    return Words(rows, ranks[codes], tuple(words[place] for place in order))


def _ordered(places: Rows, count: int) -> tuple[Rows | None, NDArray[np.intp]]:
    """Return the places that are not -1, ascending, and where each comes from; None: every row once, in order."""
    order = np.argsort(places, kind="stable")
    order = order[np.searchsorted(places[order], 0) :]
    found = places[order]
    is_whole = len(found) == count and bool(np.array_equal(found, np.arange(count)))
    return (None if is_whole else found), order


def _places(known: Rows | None, rows: Rows) -> NDArray[np.intp]:
    """Return where rows stand in a column, -1 for those that it does not know."""
    if known is None:
        return rows.astype(np.intp)
    places = np.searchsorted(known, rows)
    places[places == len(known)] = -1
    if len(known):
        places[known[places] != rows] = -1
    return places


def _presence(rows: Rows | None, count: int, operator: str) -> Mask:
    present = np.zeros(count, dtype=np.bool_)
    present[slice(None) if rows is None else rows] = True
    return ~present if operator == "IS NULL" else present


def _spread(rows: Rows | None, count: int, hits: Mask) -> Mask:
    if rows is None:
        return hits
    mask = np.zeros(count, dtype=np.bool_)
    mask[rows[hits]] = True
    return mask


def _as_double(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
