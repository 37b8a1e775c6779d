"""Find what follows from what in a table: columns that others determine, keys of two columns, ordered pairs.

Called by `inference`. Each finding holds in every row given, and is unlikely to do so by chance.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Dependency", "dependencies", "joint_key", "ordered_pairs"]

Dependency = tuple[tuple[str, ...], str]  # columns, and the one that follows from them

_SAMPLE = 50_000  # rows to look for candidates in; what is found is then tried on all
_MOST_COLUMNS = 24
_EXTRA_ROWS = 50  # rows beyond the first of their group, which could have said otherwise and did not
_NATS = 25.0  # evidence: the chance that they agree though independent is e⁻²⁵
_EACH = 2  # determinants that are kept of a column
_PAIR_VALUES = 200  # a determinant of two columns is made of short ones,
_SHORT = 8  # the shortest of them
_NAMED = re.compile(r"(^|_|\b)(id|key|uuid|code|no|number|num)$|(Number|Code|I[dD])$", re.IGNORECASE)
_ORDERED = [("min", "max"), ("minimum", "maximum"), ("low", "high"), ("start", "end"), ("from", "to"),
            ("begin", "end"), ("first", "last"), ("lower", "upper"), ("net", "gross"), ("open", "close")]  # fmt: skip


def dependencies(frame: pl.LazyFrame, rows: int) -> list[Dependency]:
    """Return which columns follow from others; at most two ways for each."""
    import polars as pl

    schema = frame.collect_schema()
    fit = [n for n, d in schema.items() if d.is_integer() or isinstance(d, pl.String | pl.Date | pl.Categorical)]
    sample = frame.select(fit).head(_SAMPLE).collect()
    # Codes instead of values: what is compared from here on is small integers.
    codes = sample.select(pl.all().rank("dense").cast(pl.UInt32)) if fit else sample
    n = codes.height
    distinct = {name: codes[name].n_unique() for name in codes.columns}
    usable = [name for name in fit if 2 <= distinct[name] <= n / 2][:_MOST_COLUMNS]
    surprise = {name: _surprise(codes[name]) for name in usable}
    found: list[Dependency] = []
    for column in usable:
        singles = [(x,) for x in usable if x != column and distinct[x] >= distinct[column]]
        singles.sort(key=lambda by: (not _NAMED.search(by[0]), distinct[by[0]]))
        kept = list(itertools.islice(_holding(codes, singles, column, surprise[column]), _EACH))
        if not kept and isinstance(schema[column], pl.String):
            short = [x for x in usable if x != column and distinct[x] <= _PAIR_VALUES]
            short = sorted(short, key=lambda x: distinct[x])[:_SHORT]
            kept = list(
                itertools.islice(_holding(codes, itertools.combinations(short, 2), column, surprise[column]), 1)
            )
        found += [(by, column) for by in kept]
    return found if rows <= n else [d for d in found if _holds_everywhere(frame, d)]


def joint_key(frame: pl.LazyFrame, rows: int) -> tuple[str, str] | None:
    """Return two columns, complete, that together name a row, when one of them is a time or named like a key."""
    import polars as pl

    schema = frame.collect_schema()
    fit = [n for n, d in schema.items() if d.is_integer() or isinstance(d, pl.String | pl.Date | pl.Datetime)]
    if rows < 1_000 or len(fit) < 2:
        return None
    nulls = frame.select(pl.col(fit).null_count()).collect(engine="streaming").row(0, named=True)
    sample = frame.select([n for n in fit if not nulls[n]][:_MOST_COLUMNS]).head(_SAMPLE).collect()
    distinct = {name: sample[name].n_unique() for name in sample.columns}
    keys = [n for n in sample.columns if isinstance(schema[n], pl.Date | pl.Datetime) or _NAMED.search(n)]
    for one, two in itertools.combinations(sample.columns, 2):
        if not ({one, two} & set(keys)) or max(distinct[one], distinct[two]) > sample.height / 2:
            continue
        if distinct[one] * distinct[two] < sample.height or sample.select(one, two).n_unique() < sample.height:
            continue
        if rows <= sample.height or frame.select(pl.struct(one, two).n_unique()).collect().item() == rows:
            return one, two
    return None


def ordered_pairs(frame: pl.LazyFrame, rows: int) -> list[tuple[str, str]]:
    """Return pairs of columns of which the first is never greater, where that means something: times whose ranges
    overlap, and numbers named as ends of a span (`min_price`, `max_price`)."""
    import polars as pl

    schema = frame.collect_schema()
    times = [n for n, d in schema.items() if isinstance(d, pl.Date | pl.Datetime)]
    numbers = [n for n, d in schema.items() if d.is_numeric()]
    pairs = [(a, b) for a, b in itertools.permutations(times, 2) if schema[a] == schema[b]]
    pairs += [(a, b) for a, b in itertools.permutations(numbers, 2) if _are_ends(a, b)]
    if rows < 100 or not pairs:
        return []
    a_b = [(pl.col(a), pl.col(b)) for a, b in pairs]
    measures = {f"wrong{i}": (a > b).sum() for i, (a, b) in enumerate(a_b)}
    measures |= {f"less{i}": (a < b).sum() for i, (a, b) in enumerate(a_b)}
    measures |= {f"overlap{i}": (a.max() > b.min()).cast(pl.UInt32) for i, (a, b) in enumerate(a_b)}
    told = frame.select(**measures).collect(engine="streaming").row(0, named=True)
    return [p for i, p in enumerate(pairs) if not told[f"wrong{i}"] and told[f"less{i}"] >= 100 and told[f"overlap{i}"]]


def _holding(
    codes: pl.DataFrame, candidates: Sequence[tuple[str, ...]] | Iterator[tuple[str, ...]], column: str, surprise: float
) -> Iterator[tuple[str, ...]]:
    import polars as pl

    for by in candidates:
        there = codes.select(*by, column).drop_nulls()
        groups = there.select(pl.struct(by).n_unique()).item() if len(by) > 1 else there[by[0]].n_unique()
        extra = there.height - groups
        if extra < max(_EXTRA_ROWS, there.height / 2) or extra * surprise < _NATS:
            continue
        if there.select(pl.struct(*by, column).n_unique()).item() == groups:
            yield by


def _surprise(values: pl.Series) -> float:
    """Return -ln of the chance that two rows agree by chance."""
    there = values.drop_nulls()
    if not len(there):
        return 0.0
    shares = there.value_counts()["count"] / len(there)
    return -math.log(max(float((shares * shares).sum()), 1e-300))


def _holds_everywhere(frame: pl.LazyFrame, dependency: Dependency) -> bool:
    import polars as pl

    by, column = dependency
    there = frame.select(*by, column).drop_nulls()
    groups, pairs = (
        there.select(pl.struct(by).n_unique(), pl.struct(*by, column).n_unique().alias("pairs")).collect().row(0)
    )
    return bool(groups == pairs)


def _are_ends(one: str, two: str) -> bool:
    for low, high in _ORDERED:
        swapped = re.sub(rf"(?<![A-Za-z]){low}(?![a-z])", high, one, flags=re.IGNORECASE)
        if swapped != one and swapped.lower() == two.lower():
            return True
    return False
