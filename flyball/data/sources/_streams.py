"""A function that yields blocks of rows, as one lazy Polars table that can be read any number of times.

Files that Polars cannot scan itself in bounded memory are read through here. Errors raised while reading reach whoever
collects the table, as they are; a file that changes between two readings, or during one, is one of them. Called by
`_csv`, `_json` and `_landing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.errors import Unavailable

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Stamp", "confirm", "streamed"]


@dataclass(frozen=True)
class Stamp:
    """What tells one state of a file from another."""

    path: Path
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of a file as it is. Raises Unavailable: it is gone or may not be read."""
        try:
            found = path.stat()
        except OSError as error:
            raise Unavailable(f"{path} cannot be read any more: {error.strerror}; nothing was taken from it") from error
        return cls(path, found.st_size, found.st_mtime_ns)


def confirm(stamps: Sequence[Stamp]) -> None:
    """Raise Unavailable when one of the files is not what it was."""
    for stamp in stamps:
        if Stamp.of(stamp.path) != stamp:
            raise Unavailable(f"{stamp.path} changed while it was read; read again when its writer is done")


def streamed(
    read: Callable[[Sequence[str] | None], Iterator[pl.DataFrame]], schema: pl.Schema, stamps: Sequence[Stamp] = ()
) -> pl.LazyFrame:
    """Return the lazy table of what `read(columns)` yields; None means all columns, in the order of `schema`."""
    from polars.io.plugins import register_io_source

    def source(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        confirm(stamps)
        left = n_rows
        for frame in read(columns):
            if left is not None:
                frame = frame.head(left)
                left -= frame.height
            yield frame.filter(predicate) if predicate is not None else frame
            if left == 0:
                return
        confirm(stamps)

    wanted: Any = dict(schema)
    return register_io_source(source, schema=wanted)
