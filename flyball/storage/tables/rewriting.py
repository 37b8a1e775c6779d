"""Tables with some rows taken out: only the parts that hold such rows are written anew, all others are shared.

Which parts hold them is found out by their statistics where these can tell, else by reading the columns that the
condition is about. Nothing is changed in place: a new table is made, and whoever calls forgets the old one. Retention
and erasure stand on this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import polars as pl

from flyball.errors import Corrupt
from flyball.storage.blobs import BlobStore
from flyball.storage.tables import Part, Table, TableStore
from flyball.storage.tables._manifest import encode

__all__ = ["Condition", "Removed", "Remover", "Retype"]

Condition = Callable[[pl.Schema], pl.Expr | None]
"""Takes a table's columns and returns what is true of the rows to take out, or None when there can be none."""

Retype = Callable[[pl.Schema], Mapping[str, pl.DataType]]
"""Takes a table's columns and returns those that must have another type, because the type itself tells of the rows."""

_PATH = "__flyball_part__"


class Removed(NamedTuple):
    """A table without some rows: what it became (itself, when there were none), and how many rows went."""

    table: Table
    rows: int
    before: Table


class Remover:
    """Takes the rows that meet one condition out of tables; parts that tables share are looked at once.

    Args:
        tables: where tables are read, and parts written.
        blobs: where the parts are.
        condition: of the rows to take out; a row of which it is unknown (null) stays.
        dry_run: only count; nothing is written, and `Removed.table` is the table as it is.
        retype: columns that get another type, such as an Enum without a category that named those rows; a table that
            has one is written anew in all its parts.
    """

    def __init__(
        self,
        tables: TableStore,
        blobs: BlobStore,
        condition: Condition,
        *,
        dry_run: bool = False,
        retype: Retype | None = None,
    ) -> None:
        self.tables = tables
        self._blobs = blobs
        self._condition = condition
        self.dry_run = dry_run
        self._retype = retype
        self._parts: dict[str, tuple[tuple[Part, ...], int]] = {}  # by digest: what stands for it, and rows that went
        self.became: dict[str, Removed] = {}  # tables that lost rows, by their digest before
        self.left_over: set[str] = set()  # blobs that were written on the way and may belong to nothing

    def remove(self, digest: str) -> Removed:
        """Return a table without the rows that meet the condition; peak memory is that of a part.

        Raises:
            NotFound, Corrupt: the table or one of its parts cannot be read.
            Unavailable: the disk is full; what was there is untouched.
        """
        try:
            return self._removed(digest)
        except (pl.exceptions.PolarsError, FileNotFoundError) as error:
            reason = str(error).splitlines()[0][:200]
            raise Corrupt(f"a part of the table {digest[:12]} cannot be read ({reason})") from error

    def _removed(self, digest: str) -> Removed:
        table = self.tables.read(digest)
        schema = self.tables.scan(digest).collect_schema()
        condition = self._condition(schema)
        if condition is None:
            return Removed(table, 0, table)
        self._look(table, condition)
        rows = sum(self._parts[part.digest][1] for part in table.parts)
        types = dict(self._retype(schema)) if self._retype is not None else {}
        if not (rows or types) or self.dry_run:
            return Removed(table, rows, table)
        places = range(len(table.parts))
        parts = tuple(new for place in places for new in self._replaced(table, place, condition, types))
        if not parts:
            parts = self._written(pl.LazyFrame(schema={**schema, **types}))  # a part without rows keeps the schema
        made = self._blobs.put(encode({**table.schema, **{name: str(dtype) for name, dtype in types.items()}}, parts))
        self.became[digest] = Removed(self.tables.read(made), rows, table)
        return self.became[digest]

    def _look(self, table: Table, condition: pl.Expr) -> None:
        """Count the rows to take out of each part that was not looked at before."""
        new = {p.digest: place for place, p in enumerate(table.parts) if p.digest not in self._parts}
        if not new:
            return
        paths = self.tables.paths(table.digest)
        found: dict[int, int] = {}
        if paths is None:
            for place in new.values():
                rows = self.tables.scan(table.digest, [place]).filter(condition)
                found[place] = int(rows.select(pl.len()).collect(engine="streaming").item())
        else:
            places = {str(paths[place]): place for place in new.values()}
            scan = pl.scan_parquet(list(places), glob=False, include_file_paths=_PATH).filter(condition)
            counted = scan.group_by(_PATH).len().collect(engine="streaming")
            found = {places[path]: rows for path, rows in counted.iter_rows()}
        for digest, place in new.items():
            self._parts[digest] = ((table.parts[place],), found.get(place, 0))

    def _replaced(
        self, table: Table, place: int, condition: pl.Expr, types: Mapping[str, pl.DataType]
    ) -> tuple[Part, ...]:
        part = table.parts[place]
        there, rows = self._parts[part.digest]
        if (rows or types) and there == (part,):
            kept = self.tables.scan(table.digest, [place]).filter(~condition.fill_null(False))
            typed = kept.with_columns(pl.col(name).cast(pl.String).cast(dtype) for name, dtype in types.items())
            there = self._written(typed) if rows < part.rows else ()
            self._parts[part.digest] = (there, rows)
        return there

    def _written(self, frame: pl.LazyFrame) -> tuple[Part, ...]:
        table = self.tables.write(frame)
        self.left_over.add(table.digest)
        return table.parts
