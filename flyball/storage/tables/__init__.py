"""Versioned tables: immutable, named by the digest of their manifest.

A table is a manifest (schema, and its parts in order) over Parquet parts; both are blobs. Writers therefore never
conflict, a crash leaves at most unreferenced blobs, and two versions share the parts that they have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Part", "Summariser", "Table", "TableStore"]


@dataclass(frozen=True)
class Part:
    """One Parquet file of a table."""

    digest: str
    rows: int
    size_bytes: int


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

    def write(self, frames: pl.LazyFrame | Iterable[pl.DataFrame], after: str | None = None) -> Table:
        """Write rows, streaming, and return the table; with `after`, the rows follow those of that table.

        Raises:
            InvalidInput: there is no column, or the rows have other columns than the table they follow.
            Unavailable: the disk is full; nothing was kept.
        """
        ...

    def read(self, digest: str) -> Table:
        """Return a table's manifest. Raises NotFound, Corrupt."""
        ...

    def scan(self, digest: str) -> pl.LazyFrame:
        """Return the rows, lazily, in the order they were written. Raises NotFound, Corrupt."""
        ...
