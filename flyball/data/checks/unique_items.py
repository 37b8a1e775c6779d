"""`uniqueItems`: no item occurs twice in an array. Source: ODCS v3.1.0, "Logical type options"."""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ())
    need_columns(rule, [rule.column] if rule.column else [], columns)


def compile(rule: Rule, table: Table) -> RowTest:
    import polars as pl

    value, dtype = table.value(str(rule.column)), table.schema[str(rule.column)]
    if isinstance(dtype, pl.String):
        fails = value.map_batches(_json_repeats, return_dtype=pl.Boolean)
    else:
        items = value.arr.to_list() if isinstance(dtype, pl.Array) else value
        fails = items.list.n_unique() < items.list.len()
    return RowTest(fails, "has an item twice")


def _json_repeats(values: pl.Series) -> pl.Series:  # type: ignore[name-defined]  # noqa: F821
    import json

    import polars as pl

    def repeats(text: str | None) -> bool | None:
        if text is None:
            return None
        items = [json.dumps(item, sort_keys=True) for item in json.loads(text)]
        return len(set(items)) < len(items)

    return pl.Series([repeats(v) for v in values], dtype=pl.Boolean)
