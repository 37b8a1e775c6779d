"""Watermarks by column: which rows are beyond the last one, and what the next one is.

A row is new when its value is greater than the largest one read so far. A row that comes late with exactly that value,
or a smaller one, is not seen again, unless the source has a `lag`: then all rows within it behind the watermark are
read again and replace, by the dataset's key, what they were. A row without a value could never be placed, so it is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from flyball.clock import parse_duration
from flyball.data.sources._protocol import Mode, Request, Watermark
from flyball.errors import InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["beyond", "bound_of", "check_column", "ended_at", "mode_of"]


def bound_of(request: Request) -> tuple[str, Any] | None:
    """Return (`>` or `>=`, value) that rows of this reading must satisfy; None when all rows are wanted.

    Raises:
        InvalidInput: the watermark is of another column, or a lag needs a key or does not suit the value.
    """
    spec, since = request.spec, request.since
    if spec.watermark is None or since is None or since.get("value") is None:
        return None
    if since.get("column") != spec.watermark:
        raise InvalidInput(
            f'the last reading ended at the column "{since.get("column")}" and the source now goes by '
            f'"{spec.watermark}"; read the whole source once'
        )
    value = _decoded(since)
    if spec.lag is None:
        return ">", value
    if not request.key:
        raise InvalidInput(
            "a lag reads some rows twice, and they replace what they were by key; give the dataset a key, or no lag"
        )
    lag = parse_duration(spec.lag)
    if isinstance(value, datetime):
        return ">=", value - lag
    if isinstance(value, date):
        return ">=", value - timedelta(days=-(-lag // timedelta(days=1)))
    raise InvalidInput(f'lag is {spec.lag}, a time, and "{spec.watermark}" is none; leave out the lag')


def beyond(column: str, bound: tuple[str, Any], dtype: pl.DataType) -> pl.Expr:
    """Return the condition that rows within the bound satisfy, and rows without a value, which `ended_at` refuses.

    Raises:
        InvalidInput: the watermark's value and the column are of different types.
    """
    import polars as pl

    sign, value = bound
    if (dtype == pl.String) != isinstance(value, str):
        raise InvalidInput(
            f'the watermark "{column}" was {value!r} and the column is of type {dtype} now; read the whole source once'
        )
    values = pl.col(column)
    limit = pl.lit(value)
    return (values > limit if sign == ">" else values >= limit) | values.is_null()


def mode_of(request: Request, bound: tuple[str, Any] | None) -> Mode:
    """Return what rows read under this bound are."""
    if bound is None:
        return "whole"
    return "append" if request.spec.lag is None else "upsert"


def check_column(column: str, schema: Mapping[str, pl.DataType], where: str) -> None:
    """Raise InvalidInput when the watermark's column is not there or has no order that can be kept."""
    import polars as pl

    if column not in schema:
        raise InvalidInput(
            f'{where} has no column "{column}", its watermark{did_you_mean(column, schema)} (it has: {listed(schema)})'
        )
    dtype = schema[column]
    if not (dtype.is_integer() or dtype.is_decimal() or dtype in (pl.Date, pl.Datetime, pl.String)):
        raise InvalidInput(
            f'the watermark "{column}" of {where} is of type {dtype}; expected whole numbers, dates, times or texts '
            "that grow"
        )


def ended_at(frame: pl.LazyFrame, request: Request, where: str) -> tuple[Watermark | None, int]:
    """Return the watermark after these rows and how many there are; the one before when there are none.

    Raises:
        InvalidInput: a row has no value in the watermark's column.
    """
    import polars as pl

    column = request.spec.watermark
    assert column is not None
    values = pl.col(column)
    found = frame.select(
        pl.len().alias("rows"), values.null_count().alias("nulls"), values.max().alias("largest")
    ).collect(engine="streaming")
    rows, nulls, largest = found.row(0)
    if nulls:
        raise InvalidInput(
            f'{nulls} row{"s" * (nulls != 1)} of {where} have no "{column}", the watermark, and would never be read '
            "again; fill it in, or leave them out with a query"
        )
    before = request.since if request.since is not None and request.since.get("column") == column else None
    if not rows:
        return (dict(before) if before is not None else None), 0
    after = _encoded(column, largest)
    if before is not None and request.spec.lag is not None and _decoded(before) > largest:
        return dict(before), rows
    return after, rows


def _encoded(column: str, value: Any) -> Watermark:
    if isinstance(value, datetime):
        return {"column": column, "type": "zoned" if value.tzinfo else "local", "value": value.isoformat()}
    if isinstance(value, date):
        return {"column": column, "type": "date", "value": value.isoformat()}
    if isinstance(value, Decimal):
        return {"column": column, "type": "decimal", "value": str(value)}
    return {"column": column, "type": "integer" if isinstance(value, int) else "text", "value": value}


def _decoded(watermark: Mapping[str, Any]) -> Any:
    value, kind = watermark["value"], watermark.get("type")
    readers: dict[Any, Any] = {
        "zoned": datetime.fromisoformat,
        "local": datetime.fromisoformat,
        "date": date.fromisoformat,
        "decimal": Decimal,
    }
    return readers[kind](value) if kind in readers else value
