"""The service level `freshness`: the newest time in a column is no older than agreed. Times without zone are UTC.

Source: ODCS v3.1.0, "Service-level agreement", property `freshness`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any

from flyball.data.checks import Table, TableTest, Verdict, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("seconds",), required=("seconds",))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    logical = next(c.logical_type for c in columns if c.name == rule.column)
    if logical not in ("date", "timestamp", None):
        raise InvalidInput(f"{rule.id} needs a date or timestamp; {rule.column} is of type {logical}")


def compile(rule: Rule, table: Table) -> TableTest:
    import polars as pl

    column, limit = str(rule.column), timedelta(seconds=float(rule.params["seconds"]))
    newest = table.value(column).max()
    dtype = table.schema[column]
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        newest = newest.dt.convert_time_zone("UTC").dt.replace_time_zone(None)

    def verdict(parts: Sequence[Mapping[str, Any]]) -> Verdict:
        times = [part["newest"] for part in parts if part["newest"] is not None]
        if not times:
            return Verdict(False, None, f"{column} has no time, so nothing shows how fresh the data is")
        age = table.now - max(times).replace(tzinfo=UTC)
        hours = age / timedelta(hours=1)
        message = f"the newest {column} is {_words(age)} old; expected at most {_words(limit)}"
        return Verdict(age <= limit, hours * 3600, message)

    return TableTest({"newest": newest.cast(pl.Datetime("us"))}, verdict)


def _words(span: timedelta) -> str:
    hours = span / timedelta(hours=1)
    return f"{hours / 24:.1f} days" if abs(hours) >= 48 else f"{hours:.2f} hours"
