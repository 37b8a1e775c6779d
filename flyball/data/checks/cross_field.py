"""A condition on several columns of a row, in SQL: `arr_ts >= dep_ts`. As in SQL CHECK, unknown (null) does not fail.

Written in ODCS as `type: custom, engine: flyball, implementation: {expression: …}`.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    import polars as pl

    take(rule, ("expression",), required=("expression",))
    expression = str(rule.params["expression"])
    try:
        names = pl.sql_expr(expression).meta.root_names()
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(f"the expression {expression!r} of {rule.id} is not SQL: {reason}") from None
    need_columns(rule, sorted(set(names)), columns)


def compile(rule: Rule, table: Table) -> RowTest:  # noqa: ARG001 - the same for any table
    import polars as pl

    expression = str(rule.params["expression"])
    return RowTest(~pl.sql_expr(expression), f"break {expression}")
