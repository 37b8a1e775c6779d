"""Corrections of rows written as SQL: `{"age": "abs(age)"}` as expressions. Called where people fix a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flyball.data.reasons import reason_of
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["corrections"]


def corrections(change: Mapping[str, Any]) -> dict[str, pl.Expr]:
    """Return expressions by column: texts are SQL of the dialect of Polars, expressions stay as they are.

    Raises:
        InvalidInput: a text is no SQL expression, or the value is neither.
    """
    import polars as pl

    found = {}
    for column, value in change.items():
        if isinstance(value, str):
            try:
                found[column] = pl.sql_expr(value)
            except pl.exceptions.PolarsError as error:
                raise InvalidInput(f"{column} = {value[:80]} is no SQL expression: {reason_of(error)}") from None
        elif isinstance(value, pl.Expr):
            found[column] = value
        else:
            raise InvalidInput(
                f"the correction of {column} is a {type(value).__name__}; expected SQL such as 'abs(age)', "
                "or a Polars expression"
            )
    return found
