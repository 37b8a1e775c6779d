"""Scan parts whose bytes are not on this machine: one part in memory at a time, and of it what the query needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

import polars as pl
from polars.io.plugins import register_io_source

from flyball.storage.blobs import BlobStore
from flyball.storage.tables import Part

__all__ = ["scan_elsewhere"]


def scan_elsewhere(blobs: BlobStore, parts: Sequence[Part]) -> pl.LazyFrame:
    """Return the rows of the parts, in order, lazily. Raises NotFound; what reading raises, Polars wraps."""

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        for part in parts:
            scanned = pl.scan_parquet(BytesIO(blobs.get(part.digest)))
            if rows is not None:  # counts rows before the predicate
                scanned, rows = scanned.head(rows), max(rows - part.rows, 0)
            if predicate is not None:
                scanned = scanned.filter(predicate)
            if columns is not None:
                scanned = scanned.select(columns)
            yield scanned.collect()
            if rows == 0:
                return

    schema = pl.read_parquet_schema(BytesIO(blobs.get(parts[0].digest)))
    return register_io_source(read, schema=schema, is_pure=True)
