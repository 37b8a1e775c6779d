"""`unique` and the metric `duplicateValues`: no other row has the same value, or the same values of several columns.

Every row of a group of equals fails, since nothing tells which is the right one. As in SQL, null equals nothing.
Source: ODCS v3.1.0, "Schema", `unique`; "Data quality", `duplicateValues`.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import KeyTest, Table, need_columns, take
from flyball.data.terms import Column, Rule


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("columns",), required=("columns",))
    need_columns(rule, rule.params["columns"], columns)


def compile(rule: Rule, table: Table) -> KeyTest:  # noqa: ARG001 - the same for any table
    return KeyTest(tuple(rule.params["columns"]), nulls_fail=False, says="occurs in another row too")
