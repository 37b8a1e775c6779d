"""`multipleOf`: the number is a whole multiple of a divisor, up to rounding of the division (a part in 10⁹).

Source: ODCS v3.1.0, "Logical type options", `multipleOf`.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("divisor",), required=("divisor",))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    divisor = rule.params["divisor"]
    if isinstance(divisor, bool) or not isinstance(divisor, int | float) or not divisor > 0:
        raise InvalidInput(f"multipleOf of {rule.column} is {divisor!r}; expected a number above 0")


def compile(rule: Rule, table: Table) -> RowTest:
    import polars as pl

    divisor = rule.params["divisor"]
    value, dtype = table.value(str(rule.column)), table.schema[str(rule.column)]
    says = f"is not a multiple of {divisor}"
    if dtype.is_integer() and isinstance(divisor, int):
        return RowTest(value % divisor != 0, says)
    quotient = value.cast(pl.Float64) / divisor
    off = (quotient - quotient.round()).abs() > 1e-9 * pl.max_horizontal(quotient.abs(), 1.0)
    return RowTest(off & quotient.is_finite(), says)
