"""`relationships` of type foreignKey: the value occurs in a column of another dataset. A null refers to nothing.

Of several columns all must occur together in one row there; a row with a null in one of them is not checked, as with
MATCH SIMPLE in SQL. Written in ODCS as `relationships: [{to: airlines.carrier}]`, or, to name a version, as
`type: custom, engine: flyball, implementation: {check: reference, dataset: airlines@3, column: carrier}`; with
`columns` and `to`, lists of the same length, for a composite key. Integers are compared as they are, everything else
by 64-bit hash. Source: ODCS v3.1.0, "Relationships"; ISO 9075-2, 8.12 match predicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flyball.data.checks import RowTest, Table, need_columns, take
from flyball.data.keys import is_integer_key, key_expression
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput, listed

if TYPE_CHECKING:
    import polars as pl


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("dataset", "column", "columns", "to"), required=("dataset",))
    here, there = _here(rule), refers_to(rule)[1]
    need_columns(rule, here, columns)
    if len(here) != len(there):
        raise InvalidInput(
            f"{rule.id} compares {len(here)} columns ({listed(here)}) with {len(there)} ({listed(there)})"
        )


def refers_to(rule: Rule) -> tuple[str, tuple[str, ...]]:
    """Return the dataset, and the columns there."""
    to = rule.params.get("to") or rule.params.get("column") or _here(rule)
    return str(rule.params["dataset"]), (to,) if isinstance(to, str) else tuple(map(str, to))


def compile(rule: Rule, table: Table) -> RowTest:
    import polars as pl

    from flyball.data.pieces import pieces
    from flyball.data.references import KeySet

    name, there = refers_to(rule)
    here = _here(rule)
    if table.resolve is None:
        raise TypeError(f"nothing says where the dataset {name} is")
    other = table.resolve(name)
    schema = other.collect_schema()
    kinds = [_shared(a, table.schema[a], f"{b} of {name}", schema[b]) for a, b in zip(here, there, strict=True)]
    integers = is_integer_key(kinds)
    keys = KeySet(integers=integers)
    ours = key_expression([_as(table.value(c), table.schema[c], k) for c, k in zip(here, kinds, strict=True)], kinds)
    theirs = key_expression([_as(pl.col(c), schema[c], k) for c, k in zip(there, kinds, strict=True)], kinds)
    for piece in pieces(other.select(list(dict.fromkeys(there)))):
        keys.add(piece.lazy.select(theirs.alias("key")).collect()["key"].drop_nulls().to_numpy())
    keys.finish()

    def absent(found: pl.Series) -> pl.Series:
        marks = pl.Series(found.name, ~keys.contains(found.fill_null(0).to_numpy()))
        return marks & found.is_not_null() if found.null_count() else marks

    fails = ours.map_batches(absent, return_dtype=pl.Boolean, is_elementwise=True)
    return RowTest(fails, f"is not in {', '.join(there)} of {name}")


def _here(rule: Rule) -> tuple[str, ...]:
    named = rule.params.get("columns")
    if named is not None and isinstance(named, list | tuple):
        return tuple(map(str, named))
    return (str(named or rule.column),) if named or rule.column else ()


def _shared(here: str, one: pl.DataType, there: str, other: pl.DataType) -> pl.DataType:
    """Return the type that both sides are compared in."""
    import polars as pl

    texts = (pl.String, pl.Categorical, pl.Enum)
    if one.is_integer() and other.is_integer():
        return pl.Int64()
    if one.is_numeric() and other.is_numeric():
        return pl.Float64()
    if isinstance(one, texts) and isinstance(other, texts):
        return pl.String()
    if isinstance(one, pl.Date | pl.Datetime) and isinstance(other, pl.Date | pl.Datetime):
        return pl.Datetime("us")
    if one == other:
        return one
    raise TypeError(f"{here} is {str(one).lower()}, but {there} is {str(other).lower()}")


def _as(value: pl.Expr, dtype: pl.DataType, kind: pl.DataType) -> pl.Expr:
    import polars as pl

    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        value = value.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return value if dtype == kind else value.cast(kind)
