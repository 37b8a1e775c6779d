"""Rows of two tables, compared: paired by a key, or counted as wholes. The work behind `diffs`.

Both comparers take the tables slice by slice: all rows of one key (or all equal rows) are in one slice on either side,
so slices are compared on their own and memory is that of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Keyed", "Whole", "comparable", "spread"]

_OLD, _NEW, _TIMES = "\0old", "\0new", "\0times"  # names and prefixes that no column has
_HASHES = ("\0hash0", "\0hash1")  # of 64 bits with different seeds: together two rows do not meet by chance
_SLICE = "__flyball_slice__"
_SEEDS = (20_130_101, 7)


class Keyed:
    """Pairs rows by their key and counts what was added, removed and changed, and in which columns."""

    def __init__(self, key: Sequence[str], columns: Sequence[str], sample: int) -> None:
        self._key = list(key)
        self._others = [name for name in columns if name not in key]
        self._sample = sample
        self.added = self.removed = self.changed = self.unchanged = 0
        self.by_column: Counter[str] = Counter()
        self.samples: dict[str, list[dict[str, Any]]] = {"added": [], "removed": [], "changed": []}

    def add(self, before: pl.LazyFrame, after: pl.LazyFrame) -> None:
        """Compare one slice. Raises InvalidInput when a side has several rows of one key."""
        import polars as pl

        old, new = before.collect(engine="streaming"), after.collect(engine="streaming")
        for side, frame in (("before", old), ("after", new)):
            self._check_unique(side, frame)
        gone = old.join(new, on=self._key, how="anti", nulls_equal=True, maintain_order="left")
        come = new.join(old, on=self._key, how="anti", nulls_equal=True, maintain_order="left")
        self.removed += gone.height
        self.added += come.height
        self._show("removed", gone.iter_rows(named=True))
        self._show("added", come.iter_rows(named=True))
        paired = new.rename({name: _NEW + name for name in self._others})
        both = old.join(paired, on=self._key, how="inner", nulls_equal=True, maintain_order="left")
        if not self._others:
            self.unchanged += both.height
            return
        differs = both.select(pl.col(name).ne_missing(pl.col(_NEW + name)) for name in self._others)
        any_differs = differs.select(pl.any_horizontal(pl.all())).to_series()
        changed = int(any_differs.sum())
        self.changed += changed
        self.unchanged += both.height - changed
        self.by_column.update({n: int(count) for n, count in differs.sum().row(0, named=True).items() if count})
        few = both.filter(any_differs).head(self._sample)
        self._show("changed", (self._change(row) for row in few.iter_rows(named=True)))

    def _change(self, row: dict[str, Any]) -> dict[str, Any]:
        pairs = {name: [row[name], row[_NEW + name]] for name in self._others}
        # NaN is not equal to itself in Python, and no change.
        changed = {n: p for n, p in pairs.items() if p[0] != p[1] and not (p[0] != p[0] and p[1] != p[1])}
        return {"key": {name: row[name] for name in self._key}, "columns": changed}

    def _show(self, sort: str, rows: Iterator[dict[str, Any]]) -> None:
        shown = self.samples[sort]
        while len(shown) < self._sample and (row := next(rows, None)) is not None:
            shown.append(row)

    def _check_unique(self, side: str, frame: pl.DataFrame) -> None:
        repeated = frame.height - frame.n_unique(self._key) if frame.height else 0
        if repeated:
            raise InvalidInput(
                f"the key ({listed(self._key)}) does not name one row: the version {side} has {repeated:,} more rows "
                "of a key in a part of it alone; give a key that does, or none to compare rows as wholes"
            )


class Whole:
    """Counts how often each row stands on either side; what stands more often was added, what less was removed."""

    def __init__(self, columns: Sequence[str], sample: int) -> None:
        self._columns = list(columns)
        self._sample = sample
        self.added = self.removed = self.unchanged = 0
        self.samples: dict[str, list[dict[str, Any]]] = {"added": [], "removed": []}

    def add(self, before: pl.LazyFrame, after: pl.LazyFrame) -> None:
        """Compare one slice."""
        import polars as pl

        sides = [_hashed(frame, self._columns) for frame in (before, after)]
        counts = [side.select(_HASHES).group_by(_HASHES).len(_TIMES).collect(engine="streaming") for side in sides]
        both = counts[0].join(counts[1], on=_HASHES, how="full", suffix=_NEW, coalesce=True).fill_null(0)
        times = pl.col(_TIMES).cast(pl.Int64), pl.col(_TIMES + _NEW).cast(pl.Int64)
        both = both.with_columns((times[1] - times[0]).alias(_NEW), pl.min_horizontal(times).alias(_OLD))
        self.unchanged += int(both[_OLD].sum())
        for sort, sign, side in (("added", 1, sides[1]), ("removed", -1, sides[0])):
            more = both.filter(pl.col(_NEW) * sign > 0)
            count = int(more[_NEW].sum()) * sign
            setattr(self, sort, getattr(self, sort) + count)
            self._show(sort, side, more)

    def _show(self, sort: str, side: pl.LazyFrame, more: pl.DataFrame) -> None:
        missing = self._sample - len(self.samples[sort])
        if missing <= 0 or not more.height:
            return
        wanted = more.select(_HASHES).head(missing).lazy()
        rows = side.join(wanted, on=_HASHES, how="semi").unique(_HASHES, keep="any").drop(_HASHES)
        self.samples[sort] += rows.head(missing).collect(engine="streaming").to_dicts()


def comparable(
    before: pl.LazyFrame, after: pl.LazyFrame, columns: Sequence[str]
) -> tuple[pl.LazyFrame, pl.LazyFrame, list[str]]:
    """Return both with the columns that can be compared, each of one type on both sides, and the names of those.

    Numbers of different types are compared as numbers, other plain values as text; nested values of different types
    cannot be compared.
    """
    import polars as pl

    old, new = before.collect_schema(), after.collect_schema()
    types: dict[str, pl.DataType] = {}
    for name in columns:
        one, other = old[name], new[name]
        if one == other:
            types[name] = one
        elif one.is_integer() and other.is_integer():
            types[name] = pl.Int128()
        elif one.is_numeric() and other.is_numeric():
            types[name] = pl.Float64()
        elif not one.is_nested() and not other.is_nested():
            types[name] = pl.String()
    casts = [pl.col(name).cast(dtype, strict=False) for name, dtype in types.items()]
    return before.select(casts), after.select(casts), list(types)


def spread(
    before: pl.LazyFrame, after: pl.LazyFrame, on: Sequence[str], slices: int, folder: Path
) -> Iterator[tuple[pl.LazyFrame, pl.LazyFrame]]:
    """Yield both sides slice by slice, so that rows that agree in the columns `on` are in slices of one number.

    More than one slice are written to `folder`, in one pass over each side.
    """
    import polars as pl

    if slices <= 1:
        yield before, after
        return
    for name, side in (("before", before), ("after", after)):
        number = (pl.struct(on).hash(_SEEDS[0]) % slices).alias(_SLICE)
        target = pl.PartitionBy(folder / name, key=[number], include_key=False)
        side.sink_parquet(target, compression="lz4", mkdir=True, statistics=False)
    schema = before.collect_schema()
    for number_ in range(slices):
        yield _slice(folder / "before", number_, schema), _slice(folder / "after", number_, schema)


def _slice(folder: Path, number: int, schema: pl.Schema) -> pl.LazyFrame:
    import polars as pl

    files = sorted((folder / f"{_SLICE}={number}").glob("*.parquet"))
    return pl.scan_parquet(files, glob=False, hive_partitioning=False) if files else pl.LazyFrame(schema=schema)


def _hashed(frame: pl.LazyFrame, columns: Sequence[str]) -> pl.LazyFrame:
    import polars as pl

    row = pl.struct(columns)
    return frame.with_columns(row.hash(seed).alias(name) for name, seed in zip(_HASHES, _SEEDS, strict=True))
