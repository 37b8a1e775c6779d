"""`pattern`: the text contains a match of a regular expression; write `^…$` for the whole text.

As in JSON Schema a pattern is not anchored. It runs in the linear-time engine of Polars (Rust `regex`), which has no
look-around and no back-references. Source: ODCS v3.1.0, "Logical type options", `pattern`; ECMA-262.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    import polars as pl

    take(rule, ("pattern",), required=("pattern",))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    pattern = rule.params["pattern"]
    try:
        pl.Series([""]).str.contains(pattern)
    except (pl.exceptions.PolarsError, TypeError) as error:
        lines = [line.removeprefix("error: ").strip() for line in str(error).splitlines() if "error: " in line]
        reason = lines[-1] if lines else "it is not a text"
        raise InvalidInput(f"the pattern {pattern!r} of {rule.column} is not a regular expression: {reason}") from None


def compile(rule: Rule, table: Table) -> RowTest:
    text = table.text(str(rule.column))
    return RowTest(~text.str.contains(rule.params["pattern"]), f"does not match {rule.params['pattern']}")
