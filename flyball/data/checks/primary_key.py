"""`primaryKey`: every part is there and no other row has the same key.

Source: ODCS v3.1.0, "Schema", `primaryKey` and `primaryKeyPosition`.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import KeyTest, Table, need_columns, take
from flyball.data.terms import Column, Rule


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("columns",), required=("columns",))
    need_columns(rule, rule.params["columns"], columns)


def compile(rule: Rule, table: Table) -> KeyTest:  # noqa: ARG001 - the same for any table
    return KeyTest(tuple(rule.params["columns"]), nulls_fail=True, says="is null or occurs in another row too")
