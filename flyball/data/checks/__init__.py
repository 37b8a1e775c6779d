"""Contract checks: one file a check, its name the name that rules use.

A check is a module with two functions:

    validate(rule, columns)    when the contract is read: refuse what the check cannot work with (InvalidInput)
    compile(rule, table)       when data is there: one of the tests below, made of Polars expressions

A check of another dataset has one more, which is asked before any row is read:

    refers_to(rule)            the name of that dataset and the columns of it that the rule needs

A test never looks at the data itself. `checking` evaluates the expressions of all tests together, batch by batch,
so a hundred rules cost one pass. Add a check by adding a file; other distributions use the entry-point group
`flyball.checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flyball.data.terms import Column, Contract, Rule
from flyball.errors import InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "KeyTest",
    "MajorityTest",
    "QueryTest",
    "Resolve",
    "RowTest",
    "Table",
    "TableTest",
    "Test",
    "Verdict",
    "need_columns",
    "take",
]

Resolve = Callable[[str], "pl.LazyFrame"]  # a dataset's name, perhaps with @version → its rows; NotFound


@dataclass(frozen=True)
class Table:
    """What checks see of the data: columns under the contract's names, converted to their logical types.

    `schema` is after conversion. Where values had to be converted, `raw` gives the column as it came; a value that
    is there in `raw` and null after conversion could not be read as its type. `lazy` is the converted table.
    """

    contract: Contract
    schema: Mapping[str, pl.DataType]
    raw_by_column: Mapping[str, str]
    unknown_columns: tuple[str, ...]
    now: datetime
    lazy: pl.LazyFrame
    resolve: Resolve | None = None

    def value(self, column: str) -> pl.Expr:
        """Return the converted column."""
        import polars as pl

        return pl.col(column)

    def text(self, column: str) -> pl.Expr:
        """Return the converted column as text. Raises TypeError for lists and objects, which have none."""
        import polars as pl

        if self.schema[column].is_nested():
            raise TypeError(
                f"{column} is {str(self.schema[column]).lower()}; only single values can be compared as text"
            )
        return pl.col(column).cast(pl.String)

    def raw(self, column: str) -> pl.Expr:
        """Return the column as it came."""
        import polars as pl

        return pl.col(self.raw_by_column.get(column, column))


@dataclass(frozen=True)
class Verdict:
    """What a test of a whole table found; `value` is the measured number, when there is one."""

    passed: bool
    value: float | None
    message: str


@dataclass(frozen=True)
class RowTest:
    """A row fails where `fails` is true; null does not fail, and None: no row can. `says` is like "is null"."""

    fails: pl.Expr | None
    says: str


@dataclass(frozen=True)
class KeyTest:
    """A row fails when another row has the same values in `columns`, or, with `nulls_fail`, a null there."""

    columns: tuple[str, ...]
    nulls_fail: bool
    says: str


@dataclass(frozen=True)
class MajorityTest:
    """A row fails when most rows with the same values in `by` have another value in `column`; a null does not."""

    by: tuple[str, ...]
    column: str
    says: str


@dataclass(frozen=True)
class TableTest:
    """`measures` are aggregated over each batch; `verdict` gets what came out, a mapping a batch."""

    measures: Mapping[str, pl.Expr]
    verdict: Callable[[Sequence[Mapping[str, Any]]], Verdict]


@dataclass(frozen=True)
class QueryTest:
    """A query of its own over the whole table, which must give one number."""

    query: Callable[[pl.LazyFrame], pl.LazyFrame]
    verdict: Callable[[float], Verdict]


Test = RowTest | KeyTest | MajorityTest | TableTest | QueryTest


def take(rule: Rule, known: Sequence[str], required: Sequence[str] = ()) -> None:
    """Refuse parameters that a check does not have, and the lack of those it needs."""
    for name in rule.params:
        if name not in known:
            raise InvalidInput(
                f'{rule.id} has no parameter "{name}"{did_you_mean(name, known)} (known: {listed(known)})'
            )
    for name in required:
        if rule.params.get(name) is None:
            raise InvalidInput(f'{rule.id} needs "{name}"')


def need_columns(rule: Rule, names: Sequence[str], columns: Sequence[Column]) -> None:
    """Refuse a rule on a column that the contract does not name."""
    known = [c.name for c in columns]
    for name in names:
        if name not in known:
            raise InvalidInput(
                f'{rule.id} is on the unknown column "{name}"{did_you_mean(name, known)} (known: {listed(known)})'
            )
    if not names:
        raise InvalidInput(f"{rule.id} must name a column (known: {listed(known)})")
