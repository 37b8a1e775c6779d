"""Versioned tables: immutable, named by the digest of their manifest.

A table is a manifest (schema, and its parts in order) over Parquet parts; both are blobs. Writers therefore never
conflict, a crash leaves at most unreferenced blobs, and two versions share the parts that they have in common.
Small parts are merged by and by (`_tiers`), so that a table of ten thousand appends reads like one that was written
at once; versions from before keep the parts that they had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, Union

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Part", "Rows", "Summariser", "Table", "TableStore"]

Rows: TypeAlias = Union["pl.LazyFrame", Iterable["pl.DataFrame"]]


@dataclass(frozen=True)
class Part:
    """One Parquet file of a table.

    `summary` is the digest of its summary, where one was made; `weight_bytes` about what its rows take in memory,
    0 where that was not noted.
    """

    digest: str
    rows: int
    size_bytes: int
    summary: str | None = None
    weight_bytes: int = 0


@dataclass(frozen=True)
class Table:
    """One version of a table. `schema` maps column names to Polars dtypes as text, in order."""

    digest: str
    schema: dict[str, str]
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)


class Summariser(Protocol):
    """Summarises rows while they are written, so that a table's summary never needs its rows again.

    Summaries add up: `merged` of the summaries of parts is the summary of all rows, however they were split.
    """

    def of(self, frame: pl.DataFrame) -> bytes:
        """Return the summary of some rows."""
        ...

    def merged(self, summaries: Sequence[bytes]) -> bytes:
        """Return the summary of the rows of all."""
        ...


class TableStore(Protocol):
    """Keeps tables."""

    def write(self, frames: Rows, after: str | None = None) -> Table:
        """Write rows, streaming, and return the table; with `after`, the rows follow those of that table.

        Rows that follow are put in the table's columns: another order, narrower integers and columns of nulls only
        are fitted without loss.

        Raises:
            InvalidInput: there is no column, or the rows have other columns than the table they follow.
            Unavailable: the disk is full; nothing was kept.
        """
        ...

    def stage(self, frames: Rows) -> Table:
        """Write the rows of a table that is only to be joined to others: it has no digest. Raises as `write`."""
        ...

    def join(self, before: str | None, more: Table) -> Table:
        """Return the table of the rows of `before` and then those of `more`, which share their parts with it.

        It costs no more than a manifest, but for small parts, of which about 32 become one at a time; rows and their
        order stay. Raises as `write`.
        """
        ...

    def replace(self, digest: str, rows: Mapping[int, Rows], more: Table | None = None) -> Table:
        """Return a table with other rows in some of its parts, by their place; `more` stands behind it.

        All other parts are shared; a part without rows left is gone. Raises as `write`.
        """
        ...

    def read(self, digest: str) -> Table:
        """Return a table's manifest. Raises NotFound, Corrupt."""
        ...

    def scan(self, digest: str, parts: Sequence[int] | None = None) -> pl.LazyFrame:
        """Return the rows, lazily, in the order they were written; of some parts only, by their place.

        Raises NotFound, Corrupt.
        """
        ...

    def paths(self, digest: str) -> list[Path] | None:
        """Return the parts as Parquet files on this machine, in order, or None when they are elsewhere."""
        ...

    def summary(self, digest: str) -> bytes | None:
        """Return the summary of all rows, merged from those of the parts; None when the store makes none."""
        ...
