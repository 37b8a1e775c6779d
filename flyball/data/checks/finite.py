"""A number is neither NaN nor infinite. Added to every column of type number or integer.

Null is no number at all and none of this check's business: `required` counts it.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ())
    need_columns(rule, [rule.column] if rule.column else [], columns)


def compile(rule: Rule, table: Table) -> RowTest:
    column = str(rule.column)
    for candidate in (table.raw(column), table.value(column)):
        dtype = table.lazy.select(candidate).collect_schema().dtypes()[0]
        if dtype.is_float():
            return RowTest(~candidate.is_finite(), "is NaN or infinite")
    return RowTest(None, "is NaN or infinite")
