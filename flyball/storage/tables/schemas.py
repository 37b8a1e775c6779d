"""Whether rows fit a table, and the rows as the table has them: drift of a schema is refused, never guessed at."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from polars.datatypes import DataTypeClass

from flyball.errors import InvalidInput

__all__ = ["fitted", "fitting", "made", "schema_of"]

_BITS: Mapping[type[pl.DataType], tuple[int, bool]] = {  # width and whether there is a sign
    pl.Int8: (8, True),
    pl.Int16: (16, True),
    pl.Int32: (32, True),
    pl.Int64: (64, True),
    pl.Int128: (128, True),
    pl.UInt8: (8, False),
    pl.UInt16: (16, False),
    pl.UInt32: (32, False),
    pl.UInt64: (64, False),
}
_NAMED = 5  # differences named in a message


def schema_of(frame: pl.DataFrame) -> dict[str, str]:
    """Return the columns of a frame and their types as text, in order."""
    return {name: str(dtype) for name, dtype in frame.schema.items()}


def fitted(frame: pl.DataFrame, wanted: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return the rows with the columns of `wanted` in their order.

    A narrower integer is widened and a column of nulls takes the wanted type, which lose nothing.

    Raises:
        InvalidInput: a column is missing, is new, or has another type; every such column is named, up to five.
    """
    if list(frame.schema.items()) == list(wanted.items()):
        return frame
    return frame.select(fitting(frame.schema, wanted))


def fitting(found: Mapping[str, pl.DataType], wanted: Mapping[str, pl.DataType]) -> list[pl.Expr]:
    """Return the expressions that make `fitted` rows of rows with the columns `found`. Raises InvalidInput."""
    missing = [f'"{name}" is missing' for name in wanted if name not in found]
    extra = [f'"{name}" is new' for name in found if name not in wanted]
    other = [
        f'"{name}" is {found[name]}, not {dtype}'
        for name, dtype in wanted.items()
        if name in found and not _fits(found[name], dtype)
    ]
    wrong = missing + extra + other
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise InvalidInput(f"schema drift, the rows do not fit the table: {'; '.join(wrong[:_NAMED])}{more}")
    return [pl.col(name).cast(dtype) for name, dtype in wanted.items()]


def made(dtype: pl.DataType | DataTypeClass) -> pl.DataType:
    """Return a type as an instance; Polars names inner types by class where they have no parameters."""
    return dtype() if isinstance(dtype, type) else dtype


def _fits(found: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether every value of one type is a value of the other."""
    if found == wanted or isinstance(found, pl.Null):
        return True
    have, want = _BITS.get(type(found)), _BITS.get(type(wanted))
    if have is not None and want is not None:
        return have[0] <= want[0] if have[1] == want[1] else want[1] and have[0] < want[0]
    if isinstance(found, pl.List) and isinstance(wanted, pl.List):
        return _fits(made(found.inner), made(wanted.inner))
    if isinstance(found, pl.Array) and isinstance(wanted, pl.Array):
        return found.shape == wanted.shape and _fits(made(found.inner), made(wanted.inner))
    if isinstance(found, pl.Struct) and isinstance(wanted, pl.Struct):
        pairs = list(zip(found.fields, wanted.fields, strict=False))
        same_names = [f.name for f in found.fields] == [f.name for f in wanted.fields]
        return same_names and all(_fits(made(a.dtype), made(b.dtype)) for a, b in pairs)
    return False
