"""A bound on one number about a column: its mean, standard deviation, sum, minimum, maximum or share of nulls.

Written in ODCS as `type: custom, engine: flyball, implementation: {aggregate: mean, mustBeBetween: [0, 5]}`. Nulls
and values that are not finite are left out. Means and deviations of batches are merged without cancellation.
Source: Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance", equations 2.1a and 2.1b.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flyball.data.checks import Table, TableTest, Verdict, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput, did_you_mean, listed

_KNOWN = ("mean", "standard_deviation", "sum", "minimum", "maximum", "null_fraction")


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("aggregate",), required=("aggregate",))
    need_columns(rule, [rule.column] if rule.column else [], columns)
    name = str(rule.params["aggregate"])
    if name not in _KNOWN:
        raise InvalidInput(
            f'{rule.id}: unknown aggregate "{name}"{did_you_mean(name, _KNOWN)} (known: {listed(_KNOWN)})'
        )
    if rule.bounds is None:
        raise InvalidInput(f"{rule.id} has no limit; add for instance mustBeBetween: [low, high]")


def compile(rule: Rule, table: Table) -> TableTest:
    import polars as pl

    name, column, bounds = str(rule.params["aggregate"]), str(rule.column), rule.bounds
    assert bounds is not None
    raw = table.raw(column)
    if name == "null_fraction":
        measures = {"rows": pl.len(), "nulls": raw.null_count()}
    else:
        number = table.value(column).cast(pl.Float64)
        is_finite = number.is_finite()
        number = number.filter(is_finite)
        measures = {"n": is_finite.sum()}
        if name in ("minimum", "maximum"):
            measures["end"] = number.min() if name == "minimum" else number.max()
        else:
            measures["mean"] = number.mean()
        if name == "standard_deviation":
            measures["squares"] = number.var(ddof=0) * is_finite.sum()

    def verdict(parts: Sequence[Mapping[str, Any]]) -> Verdict:
        value = _merged(name, parts)
        words = name.replace("_", " ")
        if value is None:
            return Verdict(False, None, f"{column} has no values to take the {words} of")
        return Verdict(bounds.holds(value), value, f"the {words} of {column} is {value:.6g}; expected {bounds}")

    return TableTest(measures, verdict)


def _merged(name: str, parts: Sequence[Mapping[str, Any]]) -> float | None:
    if name == "null_fraction":
        rows = sum(p["rows"] for p in parts)
        return float(sum(p["nulls"] for p in parts) / rows) if rows else None
    known = [part for part in parts if part["n"]]
    if not known:
        return None
    if name in ("minimum", "maximum"):
        return float((min if name == "minimum" else max)(part["end"] for part in known))
    n, mean, squares = 0, 0.0, 0.0
    for part in known:
        total = n + part["n"]
        shift = part["mean"] - mean
        squares += part.get("squares", 0.0) + shift * shift * n * part["n"] / total
        mean += shift * part["n"] / total
        n = total
    if name != "standard_deviation":
        return mean * n if name == "sum" else mean
    return math.sqrt(squares / (n - 1)) if n > 1 else None
