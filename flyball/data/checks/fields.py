"""The option `required` of objects: these fields are in the object and not null.

Source: ODCS v3.1.0, "Logical type options", object, `required`.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput, listed


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("names",), required=("names",))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    names = rule.params["names"]
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise InvalidInput(f"{rule.id}: required is {names!r}; expected a list of field names")


def compile(rule: Rule, table: Table) -> RowTest:
    import polars as pl

    names: list[str] = list(rule.params["names"])
    value, dtype = table.value(str(rule.column)), table.schema[str(rule.column)]
    says = f"lacks one of the fields {listed(names)}"
    if isinstance(dtype, pl.Struct):
        present = {f.name for f in dtype.fields}
        lacking = [value.struct.field(n).is_null() if n in present else pl.lit(True) for n in names]
        return RowTest(value.is_not_null() & pl.any_horizontal(lacking) if names else pl.lit(False), says)

    def lacks(values: pl.Series) -> pl.Series:
        import json

        rows = [None if v is None else json.loads(v) for v in values]
        return pl.Series([None if r is None else any(r.get(n) is None for n in names) for r in rows], dtype=pl.Boolean)

    return RowTest(value.map_batches(lacks, return_dtype=pl.Boolean), says)
