"""Frames as a model takes and gives them: columns to checked arrays' raw material, and arrays to columns.

The checks themselves are the signature's, as for a request; here only types are brought over, without a Python object
a value where there need be none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.models.fields import Field

__all__ = ["check_types", "dtype_of", "frame_of", "values_of"]

_DTYPES: Mapping[str, pl.DataType] = {
    "bool": pl.Boolean(),
    "int64": pl.Int64(),
    "float64": pl.Float64(),
    "string": pl.String(),
    "datetime": pl.Datetime("us"),
}


def check_types(fields: Iterable[Field], also: Iterable[str], schema: pl.Schema, subject: str) -> None:
    """Refuse a table whose columns cannot be a model's inputs, before any row is looked at.

    Args:
        fields: the inputs that rows give; `also`: other columns that they must have.

    Raises:
        InvalidInput: a column is missing, or of a type that no value of it could be taken from.
    """
    names = [field.name for field in fields]
    missing = [name for name in (*names, *also) if name not in schema]
    if missing:
        raise InvalidInput(
            f'{subject} needs the column "{missing[0]}"{did_you_mean(missing[0], schema.names())} '
            f"(the rows have: {listed(schema.names())})"
        )
    for field in fields:
        dtype = schema[field.name]
        if not _can_be(field, dtype):
            raise InvalidInput(
                f'{subject}: the column "{field.name}" is {dtype}; expected {field.dtype}, cast it first'
            )


def values_of(frame: pl.DataFrame, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return columns as `Signature.columns_from` takes them; those that are no inputs as plain values."""
    return {
        name: _values(frame[name], fields[name]) if name in fields else frame[name].to_list() for name in frame.columns
    }


def dtype_of(field: Field) -> pl.DataType | None:
    """Return the type of an output's column; None of a tensor, which is whatever its arrays are."""
    return _DTYPES[field.dtype] if field.shape is None else None


def frame_of(outputs: Mapping[str, Any], fields: Sequence[Field]) -> pl.DataFrame:
    """Return a model's answers as columns, in the types that its signature gives them."""
    known = {field.name: dtype_of(field) for field in fields}
    columns = []
    for name, values in outputs.items():
        is_plain = isinstance(values, np.ndarray) and values.dtype.kind in "biufM"
        column = pl.Series(name, values if is_plain else list(values))
        dtype = known.get(name)
        columns.append(column.cast(dtype) if dtype is not None and column.dtype != dtype else column)
    return pl.DataFrame(columns)


def _can_be(field: Field, dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Null):
        return field.nullable
    if field.shape is not None:
        return isinstance(dtype, pl.List | pl.Array)
    if field.dtype in ("float64", "int64"):
        return dtype.is_numeric()
    if field.dtype == "bool":
        return isinstance(dtype, pl.Boolean)
    if field.dtype == "string":
        return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
    return isinstance(dtype, pl.Datetime | pl.Date | pl.String)


def _values(column: pl.Series, field: Field) -> Any:
    dtype = column.dtype
    if field.shape is not None or isinstance(dtype, pl.Null):
        return column.to_list()
    if field.dtype == "float64":
        return column.cast(pl.Float64).to_numpy()
    if field.dtype == "int64":
        if dtype.is_integer() and not column.null_count() and dtype not in (pl.UInt64, pl.Int128):
            return column.cast(pl.Int64).to_numpy()
        return column.to_list() if dtype.is_integer() else column.cast(pl.Float64).to_numpy()
    if field.dtype == "bool":
        return column.to_list() if column.null_count() else column.to_numpy()
    if field.dtype == "string":
        return column.cast(pl.String).to_list()
    if isinstance(dtype, pl.String):
        return column.to_list()
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return column.cast(pl.Datetime("us")).to_numpy()
