"""Cut a stream of rows into parts: by rows, and by bytes where rows are heavy.

Where a part ends follows from the rows alone, not from the frames they happened to come in, so the same rows are the
same parts. Memory is that of one part and the frame being cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from flyball.storage.tables.schemas import made

__all__ = ["cut"]

_WIDTHS: Mapping[type[pl.DataType], int] = {  # bytes of a value; what is not here has 8
    pl.Null: 0,
    pl.Boolean: 1,
    pl.Int8: 1,
    pl.UInt8: 1,
    pl.Int16: 2,
    pl.UInt16: 2,
    pl.Int32: 4,
    pl.UInt32: 4,
    pl.Float32: 4,
    pl.Date: 4,
    pl.Categorical: 4,
    pl.Enum: 4,
    pl.Int128: 16,
    pl.Decimal: 16,
}
_TEXT_BYTES = 8  # what a text or list takes beside its content


def cut(frames: Iterable[pl.DataFrame], most_rows: int, most_bytes: int) -> Iterator[tuple[pl.DataFrame, int]]:
    """Yield the rows in frames of `most_rows`, or fewer where their values reach `most_bytes`, each with its bytes."""
    waiting: list[pl.DataFrame] = []
    rows = weight = 0
    for frame in frames:
        rest = frame
        while rest.height:
            take, heavy = _fitting(rest, most_rows - rows, most_bytes - weight)
            waiting.append(rest.head(take))
            rows, weight, rest = rows + take, weight + heavy, rest.slice(take)
            if rows >= most_rows or weight >= most_bytes:
                yield pl.concat(waiting, rechunk=False), weight
                waiting, rows, weight = [], 0, 0
    if waiting:
        yield pl.concat(waiting, rechunk=False), weight


def _fitting(frame: pl.DataFrame, rows: int, weight: int) -> tuple[int, int]:
    """Return how many rows go into a part that has room for `rows` and `weight` bytes, and their weight."""
    fixed, varying = _weights(frame.schema)
    if not varying:
        take = min(rows, frame.height, max(1, -(-weight // fixed)) if fixed else rows)
        return take, take * fixed
    if frame.height <= rows:
        total = frame.height * fixed + sum(
            frame.select(each.sum().alias(f"{at}") for at, each in enumerate(varying)).row(0)
        )
        if total < weight:
            return frame.height, total
    heavy = frame.select((pl.sum_horizontal(varying) + fixed).cast(pl.Int64).alias("weight"))["weight"]
    reached = heavy.cum_sum()
    take = min(rows, frame.height, int(reached.search_sorted(weight, "left")) + 1)
    return take, int(reached[take - 1])


def _weights(schema: pl.Schema) -> tuple[int, list[pl.Expr]]:
    """Return the bytes that every row has, and expressions for those that differ by row."""
    fixed, varying = 0, []
    for name, dtype in schema.items():
        width = _width(dtype)
        if width is None:
            varying.append(_weight(pl.col(name), dtype))
        else:
            fixed += width
    return fixed, varying


def _width(dtype: pl.DataType) -> int | None:
    """Return how many bytes each value of a type takes; None when they differ."""
    if isinstance(dtype, pl.String | pl.Binary | pl.List):
        return None
    if isinstance(dtype, pl.Struct):
        widths = [_width(made(field.dtype)) for field in dtype.fields]
        return None if None in widths else sum(w for w in widths if w is not None)
    if isinstance(dtype, pl.Array):
        inner = _width(made(dtype.inner))
        return None if inner is None else inner * dtype.size
    return _WIDTHS.get(type(dtype), 8)


def _weight(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    width = _width(dtype)
    if width is not None:
        return pl.lit(width, pl.Int64)
    if isinstance(dtype, pl.String):
        return column.str.len_bytes().fill_null(0).cast(pl.Int64) + _TEXT_BYTES
    if isinstance(dtype, pl.Binary):
        return column.bin.size().fill_null(0).cast(pl.Int64) + _TEXT_BYTES
    if isinstance(dtype, pl.Struct):
        return pl.sum_horizontal(_weight(column.struct.field(f.name), made(f.dtype)) for f in dtype.fields)
    if isinstance(dtype, pl.Array):
        return _weight(column.arr.to_list(), pl.List(dtype.inner))
    assert isinstance(dtype, pl.List)
    inner = made(dtype.inner)
    each = _width(inner)
    if each is not None:
        return column.list.len().fill_null(0).cast(pl.Int64) * each + _TEXT_BYTES
    inside = column.list.eval(_weight(pl.element(), inner)).list.sum()
    return inside.fill_null(0).cast(pl.Int64) + _TEXT_BYTES
