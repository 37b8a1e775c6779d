"""The metric `missingValues`: the value is none of those that stand for "nothing", like null, "" or "N/A".

Source: ODCS v3.1.0, "Data quality", metric `missingValues`, argument `missingValues`.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("values",), required=("values",))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    values = rule.params["values"]
    if not isinstance(values, list | tuple) or not values:
        raise InvalidInput(f"{rule.id}: missingValues is {values!r}; expected a list such as [null, '', 'N/A']")


def compile(rule: Rule, table: Table) -> RowTest:
    import polars as pl

    values = rule.params["values"]
    raw = table.raw(str(rule.column))
    texts = [str(v) for v in values if v is not None]
    fails = raw.cast(pl.String, strict=False).is_in(texts) if texts else pl.lit(False)
    return RowTest(fails | raw.is_null() if None in values else fails, "is missing")
