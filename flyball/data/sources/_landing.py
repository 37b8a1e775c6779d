"""Rows that can be had only once, from a database or a stream, put down so that they can be read again and again.

Publishing reads its rows several times: to check them, to profile them, to write them. A query asked twice may answer
differently, and a connection that breaks in the middle must not leave half a table; so such rows first land in files,
in blocks of bounded memory, and only a landing that came to its end becomes a table. Called by the kinds that read
from servers.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.data.reasons import reason_of
from flyball.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    import polars as pl

__all__ = ["landed"]

_PART_BYTES = 64 * 1024 * 1024  # of memory, before a part is written
_FULL = (errno.ENOSPC, errno.EDQUOT)


def landed(blocks: Iterable[pl.DataFrame], folder: Path, where: str) -> tuple[pl.LazyFrame | None, int]:
    """Return the table of all blocks and its number of rows; None when there are no rows.

    Blocks may differ in types that go together (whole numbers and decimals) and in columns; what a block lacks is null.

    Raises:
        InvalidInput: the blocks do not fit together.
        Unavailable: the disk is full.
    """
    import polars as pl

    parts: list[Path] = []
    waiting: list[pl.DataFrame] = []
    rows = size = 0
    for block in blocks:
        if not block.height:
            continue
        rows += block.height
        size += int(block.estimated_size())
        waiting.append(block)
        if size >= _PART_BYTES:
            parts.append(_part(waiting, folder, len(parts), where))
            waiting, size = [], 0
    if not rows:
        return None, 0
    if not parts:
        return _together(waiting, where).lazy(), rows
    if waiting:
        parts.append(_part(waiting, folder, len(parts), where))
    schemas = [pl.read_parquet_schema(part) for part in parts]
    if all(schema == schemas[0] for schema in schemas):
        return pl.scan_parquet(parts, glob=False), rows
    frames = [pl.scan_parquet(part, glob=False) for part in parts]
    joined = pl.concat(frames, how="diagonal_relaxed")
    try:
        joined.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise _misfit(where, error) from error
    return joined, rows


def _part(blocks: list[pl.DataFrame], folder: Path, number: int, where: str) -> Path:
    path = folder / f"part-{number:06}.parquet"
    try:
        _together(blocks, where).write_parquet(path, compression="lz4", statistics=False)
    except OSError as error:
        if error.errno in _FULL:
            raise Unavailable(
                f"the disk of {folder} is full after {number} parts of {where}; make room, or set work_folder"
            ) from error
        raise
    return path


def _together(blocks: list[pl.DataFrame], where: str) -> pl.DataFrame:
    import polars as pl

    if all(block.schema == blocks[0].schema for block in blocks):
        return pl.concat(blocks)
    try:
        return pl.concat(blocks, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise _misfit(where, error) from error


def _misfit(where: str, error: BaseException) -> InvalidInput:
    return InvalidInput(f"the rows of {where} do not fit together: {reason_of(error)}")
