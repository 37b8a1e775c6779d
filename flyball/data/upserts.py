"""Upsert: put a batch into a table by key, writing again only the parts that hold a row that changes.

A row whose key the table has replaces that row where it stands; the others go behind it in the order of the batch. Of
several rows of the batch with one key the last counts, and of several rows of the table with a key of the batch the
last is kept. The batch is on disk; in memory are its keys with 4 bytes a row, and one part of the table at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.storage.disk import full_disk_is_unavailable
from flyball.storage.tables import Table, TableStore

if TYPE_CHECKING:
    import polars as pl

__all__ = ["KeyedBatch", "Upserted"]

# Place in the batch, place in a part of the table, the part's place; columns have no such names, and no second \0.
_ROW, _AT, _PART = "\0\0row", "\0\0at", "\0\0part"


@dataclass(frozen=True)
class Upserted:
    """The table that came of it, and how many rows of the batch did what; `repeats` were overruled by later ones."""

    table: Table
    inserted: int
    updated: int = 0
    unchanged: int = 0
    repeats: int = 0

    def counts(self) -> dict[str, int]:
        """Return the counts by name."""
        return {
            "inserted": self.inserted,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "repeats": self.repeats,
        }


class KeyedBatch:
    """The rows of a batch on disk, and the row that counts for each key; can be put into any number of tables."""

    def __init__(self, frame: pl.LazyFrame, key: Sequence[str], folder: Path) -> None:
        """Read the batch once, to a file in `folder`.

        Raises:
            InvalidInput: no key, a key column that is not there or is named twice, or rows without a key.
            Unavailable: the disk is full.
        """
        import polars as pl

        self.key = list(key)
        _check_key(self.key, frame.collect_schema().names())
        path = folder / "batch.parquet"
        with full_disk_is_unavailable():
            frame.sink_parquet(path, compression="lz4")
        self._frame = pl.scan_parquet(path, glob=False)
        keys = self._frame.select(self.key).with_row_index(_ROW).collect(engine="streaming")
        self.rows = keys.height
        nulls = keys.select(pl.any_horizontal(pl.col(self.key).is_null()).sum()).item()
        if nulls:
            raise InvalidInput(
                f"{nulls:,} of {self.rows:,} rows have no value in the key ({listed(self.key)}); "
                "give each row its key, or leave those rows out"
            )
        self._winners = keys.unique(self.key, keep="last", maintain_order=True)

    def put_into(self, tables: TableStore, base: Table | None) -> Upserted:
        """Return the table of `base` with the batch in it; `base` itself, when every row is there already.

        Raises:
            InvalidInput: the batch does not fit the columns of the table.
            Unavailable: the disk is full; nothing was kept.
        """
        repeats = self.rows - self._winners.height
        if base is None or not base.rows:
            more = tables.stage(self._rows(self._winners, None))
            whole = tables.join(base.digest if base else None, more)
            return Upserted(whole, self._winners.height, repeats=repeats)
        merge = _Merge(tables, base, self)
        places = sorted(merge.changes)
        inserted = self._winners.join(merge.matched, on=_ROW, how="anti", maintain_order="left")
        behind = tables.stage(self._rows(inserted, merge.schema)) if inserted.height else None
        table = base
        if places:
            table = tables.replace(base.digest, {place: merge.rewritten(place) for place in places}, behind)
        elif behind is not None:
            table = tables.join(base.digest, behind)
        unchanged = self._winners.height - inserted.height - merge.updated
        return Upserted(table, inserted.height, merge.updated, unchanged, repeats)

    def _rows(self, chosen: pl.DataFrame, schema: pl.Schema | None) -> pl.LazyFrame:
        """Return the rows of the batch that `chosen` has in its column of places, in the batch's order."""
        frame = self._fitted(schema)
        if chosen.height == self.rows:
            return frame.drop(_ROW)
        wanted = chosen.lazy().select(_ROW)
        return frame.join(wanted, on=_ROW, how="semi", maintain_order="left").drop(_ROW)

    def _fitted(self, schema: pl.Schema | None) -> pl.LazyFrame:
        from flyball.storage.tables.schemas import fitting

        frame = self._frame
        if schema is not None:
            frame = frame.select(fitting(frame.collect_schema(), schema))
        return frame.with_row_index(_ROW)


class _Merge:
    """Where the keys of a batch stand in a table, and which of those rows differ.

    `matched` has a row for each row of the table that the batch names (place in the batch, in the part, the part);
    `changes` the same by part, where something is to be done there.
    """

    def __init__(self, tables: TableStore, base: Table, batch: KeyedBatch) -> None:
        import polars as pl

        self._tables, self._base, self._batch = tables, base, batch
        self.schema = tables.scan(base.digest).collect_schema()
        _check_key(batch.key, self.schema.names())
        self._values = batch._fitted(self.schema)
        winners = batch._winners.with_columns(pl.col(name).cast(self.schema[name]) for name in batch.key)
        found = [self._find(place, winners) for place, part in enumerate(base.parts) if part.rows]
        matched = pl.concat(found)
        # A key that stands in the table several times: the last row is updated, those before it go.
        self.matched = matched.with_columns(stays=pl.col(_ROW).is_last_distinct())
        self.updated = 0
        self.changes: dict[int, pl.DataFrame] = {}
        for (place,), rows in self.matched.partition_by(_PART, as_dict=True, maintain_order=True).items():
            differing = self._differing(place, rows.filter("stays"))
            gone = rows.filter(~pl.col("stays"))
            self.updated += differing.height
            if differing.height or gone.height:
                self.changes[place] = pl.concat([differing, gone.select(_AT, _ROW, "stays")])

    def rewritten(self, place: int) -> Iterator[pl.DataFrame]:
        """Yield a part's rows as they are to be."""
        import polars as pl

        changes = self.changes[place]
        part = self._tables.scan(self._base.digest, [place]).collect()
        new = self._new_rows(changes.filter("stays")).sort(_AT).collect()
        taken = pl.int_range(part.height, eager=True, dtype=pl.Int64)
        taken = taken.scatter(new[_AT], pl.int_range(part.height, part.height + new.height, eager=True))
        gone = changes.filter(~pl.col("stays"))[_AT]
        if gone.len():
            taken = taken.filter(pl.select(keep=~pl.int_range(part.height).is_in(gone.implode()))["keep"])
        yield pl.concat([part, new.select(part.columns)])[taken]

    def _find(self, place: int, winners: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        keys = self._tables.scan(self._base.digest, [place]).select(self._batch.key)
        first = self._batch.key[0]
        nothing = winners.head(0).select(pl.lit(0, pl.UInt32).alias(_AT), _ROW, pl.lit(place, pl.Int64).alias(_PART))
        if self.schema[first].is_numeric() or self.schema[first].is_temporal() or self.schema[first] == pl.String:
            # Statistics of row groups tell at once that a part of other times or numbers holds none of the keys.
            column = pl.col(first)
            within = column.is_between(pl.lit(winners[first].min()), pl.lit(winners[first].max()))
            if not keys.filter(within).select(pl.len()).collect().item():
                return nothing
        joined = keys.with_row_index(_AT).join(winners.lazy(), on=self._batch.key, how="inner", maintain_order="left")
        return joined.select(_AT, _ROW, pl.lit(place, pl.Int64).alias(_PART)).collect(engine="streaming")

    def _differing(self, place: int, rows: pl.DataFrame) -> pl.DataFrame:
        """Return those of the rows of a part that the batch has otherwise."""
        import polars as pl

        names = [name for name in self.schema.names() if name not in self._batch.key]
        if not names or not rows.height:
            return rows.head(0).select(_AT, _ROW, "stays")
        old = self._tables.scan(self._base.digest, [place]).with_row_index(_AT)
        new = self._new_rows(rows).select(_AT, _ROW, *(pl.col(name).alias(f"\0{name}") for name in names))
        both = old.join(new, on=_AT, how="inner", maintain_order="left")
        differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"\0{name}")) for name in names)
        return both.filter(differs).select(_AT, _ROW, stays=True).collect(engine="streaming")

    def _new_rows(self, rows: pl.DataFrame) -> pl.LazyFrame:
        """Return the batch's rows beside their places in the part."""
        if not rows.height:
            return self._values.head(0).join(rows.lazy().select(_AT, _ROW), on=_ROW, how="inner")
        least, most = int(rows[_ROW].min()), int(rows[_ROW].max())  # type: ignore[arg-type]
        near = self._values.slice(least, most - least + 1)
        return near.join(rows.lazy().select(_AT, _ROW), on=_ROW, how="inner")


def _check_key(key: Sequence[str], columns: Sequence[str]) -> None:
    if not key:
        raise InvalidInput("there is no key to go by; name its columns in the dataset's field key, or give key=")
    if len(set(key)) != len(key):
        raise InvalidInput(f"the key names a column twice: {listed(key)}")
    for name in key:
        if name not in columns:
            raise InvalidInput(
                f'there is no column "{name}", which is in the key{did_you_mean(name, columns)} '
                f"(there are: {listed(columns)})"
            )
