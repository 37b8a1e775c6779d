"""Cut a lazy table into pieces that fit in memory, in the order of its rows.

A Parquet scan or a frame in memory is cut by position: each piece reads only what is asked of it, nothing is read
ahead, and a piece can be read again. Anything else (CSV, a query) streams by once in batches. Called by `checking`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyball.data.reasons import reason_of
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Piece", "pieces", "read", "unreadable"]

_ROWS = 500_000  # a piece by position: ten columns are some 50 MB, and a few such pieces keep two cores busy
_BATCH_ROWS = 262_144  # a batch of a stream, of which the engine holds several at once
_MOST_FILES = 32  # each piece looks into the footers of all files before it
_CHEAP = re.compile(r"\s*(Parquet SCAN \[|DF \[|PROJECT |ESTIMATED ROWS: )")
_FILES = re.compile(r"(\d+) other sources")


@dataclass(frozen=True)
class Piece:
    """Rows `start`, `start + 1`, … of a table."""

    start: int
    lazy: pl.LazyFrame


def pieces(lazy: pl.LazyFrame) -> Iterator[Piece]:
    """Yield the table piece by piece; one without rows has none.

    Raises:
        InvalidInput: the source cannot be read. A piece that is read later raises Polars' own error.
    """
    import polars as pl

    try:
        if _is_cut_by_position(lazy):
            rows = lazy.select(pl.len()).collect().item()
            yield from (Piece(at, lazy.slice(at, _ROWS)) for at in range(0, rows, _ROWS))
            return
        at = 0
        for batch in lazy.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
            if batch.height:
                yield Piece(at, batch.lazy())
                at += batch.height
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(error) from error


def read(lazy: pl.LazyFrame) -> pl.DataFrame:
    """Return the rows of a piece. Raises InvalidInput when the source cannot be read."""
    import polars as pl

    try:
        return lazy.collect(engine="in-memory")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(error) from error


def unreadable(error: BaseException) -> InvalidInput:
    """Return the error for a table whose source fails."""
    return InvalidInput(f"the table to check cannot be read: {reason_of(error)}")


def _is_cut_by_position(lazy: pl.LazyFrame) -> bool:
    """Whether a slice costs what its rows do. A wrong guess costs time, not rows: a slice is a slice anywhere."""
    plan = lazy.explain()
    others = _FILES.search(plan)
    few = others is None or int(others[1]) < _MOST_FILES
    return few and all(_CHEAP.match(line) for line in plan.splitlines() if line.strip())
