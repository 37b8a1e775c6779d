"""`enum` and the metric `invalidValues`: the value is one of a list. Null is not invalid; `required` forbids it.

Source: ODCS v3.2, "Schema", `enum`; v3.1.0, "Data quality", `invalidValues`, argument `validValues`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import reduce
from operator import or_

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput, listed

_FEW = 8  # texts that are compared one by one


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("values",), required=("values",))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    values = rule.params["values"]
    if not isinstance(values, list | tuple) or not values:
        raise InvalidInput(f"{rule.id}: the allowed values are {values!r}; expected a list of at least one")
    for value in values:
        if not isinstance(value, str | int | float | date | None):
            raise InvalidInput(f"{rule.id}: the allowed value {value!r} is not a text, number, truth value or date")


def compile(rule: Rule, table: Table) -> RowTest:
    import polars as pl

    values = [v for v in rule.params["values"] if v is not None]
    value, dtype = table.value(str(rule.column)), table.schema[str(rule.column)]
    if dtype.is_numeric() and all(isinstance(v, int | float) for v in values):
        value, allowed = value.cast(pl.Float64), pl.Series([float(v) for v in values], dtype=pl.Float64)
    elif dtype == pl.Boolean and all(isinstance(v, bool) for v in values):
        allowed = pl.Series(values, dtype=pl.Boolean)
    else:
        value, allowed = table.text(str(rule.column)), pl.Series([str(v) for v in values], dtype=pl.String)
    if allowed.dtype == pl.String and 0 < len(allowed) <= _FEW:  # a third of the time of a look-up
        fails = ~reduce(or_, (value == text for text in allowed))
    else:
        fails = ~value.is_in(pl.lit(allowed).implode())
    return RowTest(fails, f"is none of {listed(values)}")
