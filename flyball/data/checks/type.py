"""`logicalType`: the value can be read as the type that the contract states.

A text column where a number is agreed is read value by value, so that the report counts those that are no number.
A column of the contract that is absent fails this check, whatever its type. Source: ODCS v3.1.0, "Logical types".
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.conversion import strptime_of
from flyball.data.terms import Column, Rule

_NOUNS = {"integer": "an integer", "array": "an array", "object": "an object"}


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("logical", "format"))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    if rule.params.get("format") is not None and rule.params.get("logical") in ("date", "timestamp", "time"):
        strptime_of(str(rule.params["format"]), rule.id)


def compile(rule: Rule, table: Table) -> RowTest:
    column = str(rule.column)
    logical = str(rule.params.get("logical"))
    says = f"cannot be read as {_NOUNS.get(logical, 'a ' + logical)}"
    if column not in table.raw_by_column:
        return RowTest(None, says)
    raw, fails = table.raw(column), table.raw(column).is_not_null() & table.value(column).is_null()
    if logical == "integer" and table.lazy.collect_schema()[table.raw_by_column[column]].is_float():
        fails &= raw.is_finite()  # NaN and infinity are what `finite` counts
    return RowTest(fails, says)
