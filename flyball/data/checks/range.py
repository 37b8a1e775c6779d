"""`minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum` of numbers, dates, timestamps and times.

NaN is not out of range, it is not finite; null is in every range. An exclusive limit is a value, or `true` beside
`maximum` as in ODCS 3.0. Source: ODCS v3.1.0, "Logical type options".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.conversion import read_limit
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput

_PARAMS = ("logical", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, _PARAMS)
    need_columns(rule, [rule.column] if rule.column else [], columns)
    low, low_open, high, high_open = _limits(rule)
    if low is None and high is None:
        raise InvalidInput(f"{rule.id} has no limit; give it one of {', '.join(_PARAMS[1:])}")
    if low is not None and high is not None and (low > high or (low == high and (low_open or high_open))):
        raise InvalidInput(
            f"{rule.id}: no value is {_words(low, low_open, high, high_open)}; minimum and maximum contradict"
        )


def compile(rule: Rule, table: Table) -> RowTest:
    import polars as pl

    low, low_open, high, high_open = _limits(rule)
    value = table.value(str(rule.column))
    outside = pl.lit(False)
    if low is not None:
        outside = value <= pl.lit(low) if low_open else value < pl.lit(low)
    if high is not None:
        above = value >= pl.lit(high) if high_open else value > pl.lit(high)
        outside = above if low is None else outside | above
    if table.schema[str(rule.column)].is_float():
        outside &= value.is_not_nan()
    return RowTest(outside, f"is not {_words(low, low_open, high, high_open)}")


def _limits(rule: Rule) -> tuple[Any, bool, Any, bool]:
    """Return low, whether low itself is excluded, high, whether high itself is excluded."""
    sides: list[Any] = []
    for inclusive, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        at, beyond = rule.params.get(inclusive), rule.params.get(exclusive)
        if isinstance(beyond, bool):
            sides += [_read(rule, inclusive, at), beyond]
            continue
        at, beyond = _read(rule, inclusive, at), _read(rule, exclusive, beyond)
        if at is not None and beyond is not None:
            stricter = beyond >= at if inclusive == "minimum" else beyond <= at
            sides += [beyond, True] if stricter else [at, False]
        else:
            sides += [beyond, True] if beyond is not None else [at, False]
    return sides[0], sides[1], sides[2], sides[3]


def _read(rule: Rule, name: str, limit: Any) -> Any:
    if limit is None:
        return None
    return read_limit(limit, rule.params.get("logical"), f"{name} of {rule.column}")


def _words(low: Any, low_open: bool, high: Any, high_open: bool) -> str:
    parts = [] if low is None else [f"{'>' if low_open else '≥'} {low}"]
    return " and ".join(parts if high is None else [*parts, f"{'<' if high_open else '≤'} {high}"])
