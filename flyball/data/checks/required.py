"""`required` and the metric `nullValues`: the value is there.

NaN and the empty text are values: `finite` and `missing` see to those. Source: ODCS v3.1.0, "Schema", `required`.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ())
    need_columns(rule, [rule.column] if rule.column else [], columns)


def compile(rule: Rule, table: Table) -> RowTest:
    # Asked of the value as it came: a text that is no number is a wrong type, not a missing value.
    return RowTest(table.raw(str(rule.column)).is_null(), "is null")
