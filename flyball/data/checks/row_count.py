"""The metric `rowCount`: how many rows there are. Source: ODCS v3.1.0, "Data quality", `rowCount`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flyball.data.checks import Table, TableTest, Verdict, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput


def validate(rule: Rule, columns: Sequence[Column]) -> None:  # noqa: ARG001 - about no column
    take(rule, ())
    if rule.bounds is None:
        raise InvalidInput(f"{rule.id} has no limit; add for instance mustBeGreaterThan: 0")


def compile(rule: Rule, table: Table) -> TableTest:  # noqa: ARG001 - the same for any table
    import polars as pl

    bounds = rule.bounds
    assert bounds is not None

    def verdict(parts: Sequence[Mapping[str, Any]]) -> Verdict:
        rows = sum(part["rows"] for part in parts)
        return Verdict(bounds.holds(rows), rows, f"there are {rows:,} rows; expected {bounds}")

    return TableTest({"rows": pl.len()}, verdict)
