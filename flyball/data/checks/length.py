"""`minLength`/`maxLength` of texts in characters, `minItems`/`maxItems` of arrays, `minProperties`/`maxProperties`.

Source: ODCS v3.1.0, "Logical type options".
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput

_WORDS = {"length": "characters", "items": "items", "properties": "fields"}


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("unit", "minimum", "maximum"))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    low, high = rule.params.get("minimum"), rule.params.get("maximum")
    for limit in (low, high):
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise InvalidInput(f"a limit of {rule.id} is {limit!r}; expected a whole number from 0")
    if low is None and high is None:
        raise InvalidInput(f"{rule.id} has no limit; give it a minimum or a maximum")
    if low is not None and high is not None and low > high:
        raise InvalidInput(f"{rule.id}: the minimum {low} is greater than the maximum {high}")


def compile(rule: Rule, table: Table) -> RowTest:
    import polars as pl

    value, dtype = table.value(str(rule.column)), table.schema[str(rule.column)]
    if isinstance(dtype, pl.Struct):
        size: pl.Expr = pl.when(value.is_not_null()).then(pl.lit(len(dtype.fields)))
    elif isinstance(dtype, pl.List):
        size = value.list.len()
    elif isinstance(dtype, pl.Array):
        size = pl.when(value.is_not_null()).then(pl.lit(dtype.shape[0]))
    elif rule.params.get("unit") in ("items", "properties"):
        size = value.map_batches(_json_sizes, return_dtype=pl.Int64)
    else:
        size = table.text(str(rule.column)).str.len_chars()
    low, high = rule.params.get("minimum"), rule.params.get("maximum")
    limits = [size < low] if low is not None else []
    limits += [size > high] if high is not None else []
    span = " to ".join("any" if x is None else str(x) for x in (low, high))
    return RowTest(pl.any_horizontal(limits), f"does not have {span} {_WORDS.get(rule.params.get('unit') or 'length')}")


def _json_sizes(values: pl.Series) -> pl.Series:  # type: ignore[name-defined]  # noqa: F821
    import json

    import polars as pl

    return pl.Series([None if v is None else len(json.loads(v)) for v in values], dtype=pl.Int64)
