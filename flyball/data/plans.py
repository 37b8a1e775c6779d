"""A contract compiled for one table: which expressions to evaluate, and which rules cannot be evaluated at all.

Every expression is tried on an empty table of the same columns first, so a rule that does not fit the data (an
absent column, a comparison of text with numbers) is known before the pass and becomes a failed rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flyball.data.checks import KeyTest, MajorityTest, QueryTest, Resolve, RowTest, Table, TableTest
from flyball.data.conversion import Preparation, prepare
from flyball.data.keys import Repeats, is_integer_key, key_expression
from flyball.data.reasons import reason_of
from flyball.data.references import bind
from flyball.data.rules import find_check
from flyball.data.terms import Contract, Rule
from flyball.errors import did_you_mean

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Plan", "plan_of"]

_UNFIT = (TypeError, ValueError, OverflowError, AttributeError)  # beside Polars' own: a rule does not fit the data


@dataclass
class Plan:
    """What to evaluate; rules that turn out impossible move to `broken`, with the reason.

    `keys` are the 64-bit keys of column groups that must not repeat, `pairs` the hashes of group and of group and
    value of each majority test.
    """

    contract: Contract
    lazy: pl.LazyFrame
    preparation: Preparation
    row_tests: dict[str, RowTest] = field(default_factory=dict)
    key_tests: dict[str, KeyTest] = field(default_factory=dict)
    table_tests: dict[str, TableTest] = field(default_factory=dict)
    query_tests: dict[str, QueryTest] = field(default_factory=dict)
    majority_tests: dict[str, MajorityTest] = field(default_factory=dict)
    keys: dict[tuple[str, ...], pl.Expr] = field(default_factory=dict)
    integer_keys: set[tuple[str, ...]] = field(default_factory=set)
    pairs: dict[str, tuple[pl.Expr, pl.Expr]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    of_table: set[str] = field(default_factory=set)

    def prepared(self, lazy: pl.LazyFrame) -> pl.LazyFrame:
        """Return rows as the contract sees them; those of a table without one of its columns as they are."""
        return lazy.select(self.preparation.expressions) if self.preparation.expressions else lazy

    def give_up(self, rule_id: str, reason: str) -> None:
        """Note that a rule cannot be evaluated."""
        self.broken[rule_id] = reason
        for tests in (self.row_tests, self.key_tests, self.majority_tests, self.table_tests, self.query_tests):
            tests.pop(rule_id, None)

    def says(self, rule_id: str) -> str:
        """Return what a failing row does, in words."""
        tests: tuple[Mapping[str, Any], ...] = (self.row_tests, self.key_tests, self.majority_tests)
        return str(next(found[rule_id].says for found in tests if rule_id in found))

    def mask(self, rule: Rule, found: Mapping[Any, Repeats]) -> pl.Expr:
        """Return whether a prepared row breaks a row rule, given what was found out about all rows.

        `found` has the repeated keys by their columns, and the odd pairs of majority tests by rule id.
        """
        import polars as pl

        if rule.id in self.broken:
            return pl.lit(True)
        if rule.id in self.row_tests:
            fails = self.row_tests[rule.id].fails
            return pl.lit(False) if fails is None else fails
        if rule.id in self.majority_tests:
            return found[rule.id].marks(self.pairs[rule.id][1]) if rule.id in found else pl.lit(False)
        test = self.key_tests[rule.id]
        key = self.keys[test.columns]
        fails = found[test.columns].marks(key) if test.columns in found else pl.lit(False)
        return fails | key.is_null() if test.nulls_fail else fails

    def ask(self, rule_id: str) -> tuple[bool, float | None, str]:
        """Run the query of a rule; one that does not give one number is a failed rule."""
        import polars as pl

        test = self.query_tests[rule_id]
        try:
            answer = test.query(self.lazy.select(self.preparation.expressions)).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            return False, None, f"the query failed: {reason_of(error)}"
        if answer.shape != (1, 1):
            return (
                False,
                None,
                f"the query returned {answer.height} rows of {answer.width} columns; expected one number",
            )
        value = answer.item()
        if not isinstance(value, int | float) and not hasattr(value, "__float__"):
            return False, None, f"the query returned {'null' if value is None else 'no number'}; expected one number"
        verdict = test.verdict(float(value))
        return verdict.passed, None if math.isnan(float(value)) else verdict.value, verdict.message


def plan_of(lazy: pl.LazyFrame, contract: Contract, now: datetime, resolve: Resolve | None = None) -> Plan:
    """Compile the rules of `contract` for a table.

    Raises:
        polars.exceptions.PolarsError: the schema of the lazy frame cannot be found out.
        InvalidInput: the contract refers to a dataset or column that is not there.
    """
    import polars as pl

    bind(contract, resolve)
    schema = lazy.collect_schema()
    preparation = prepare(contract, schema)
    # At least one column is read, since a table of no columns has no rows to count.
    sources = list(dict.fromkeys(preparation.source_by_column.values())) or list(schema)[:1]
    plan = Plan(contract, lazy.select(sources), preparation)
    empty = pl.DataFrame(schema=schema).select(sources).select(preparation.expressions)
    table = Table(contract, empty.schema, preparation.raw_by_column, preparation.unknown, now, empty.lazy(), resolve)
    for rule in contract.rules:
        needed = [rule.column, *rule.params.get("columns", ())]
        absent = [c for c in needed if c in preparation.missing]
        if rule.check in ("row_count", "columns", "sql", "aggregate", "freshness"):
            plan.of_table.add(rule.id)
        if absent and rule.check != "sql":
            near = did_you_mean(absent[0], preparation.unknown)
            plan.give_up(rule.id, f'the data has no column "{absent[0]}"{near}')
            continue
        try:
            _add(plan, rule, table, empty)
        except (*_UNFIT, pl.exceptions.PolarsError) as error:
            plan.give_up(rule.id, f"cannot be evaluated on this data: {reason_of(error)}")
    _try_rows(plan, empty)
    return plan


def _try_rows(plan: Plan, empty: pl.DataFrame) -> None:
    """Give up row rules that do not fit: all are tried together, and one by one only where that fails."""
    import polars as pl

    masks = {rule_id: test.fails for rule_id, test in plan.row_tests.items() if test.fails is not None}
    with suppress(*_UNFIT, pl.exceptions.PolarsError):
        if all(dtype in (pl.Boolean, pl.Null) for dtype in empty.select(**masks).dtypes):
            return
    for rule_id, mask in masks.items():
        try:
            kind = empty.select(mask.alias("fails"))["fails"].dtype
            if kind not in (pl.Boolean, pl.Null):
                raise TypeError(f"the condition is {str(kind).lower()}, not true or false")
        except (*_UNFIT, pl.exceptions.PolarsError) as error:
            plan.give_up(rule_id, f"cannot be evaluated on this data: {reason_of(error)}")


def _add(plan: Plan, rule: Rule, table: Table, empty: pl.DataFrame) -> None:
    import polars as pl

    test = find_check(rule.check).compile(rule, table)
    if isinstance(test, RowTest):
        plan.row_tests[rule.id] = test
    elif isinstance(test, KeyTest):
        if test.columns not in plan.keys:
            columns = [table.raw(c) for c in test.columns]
            dtypes = [empty.select(c).dtypes[0] for c in columns]
            key = key_expression(columns, dtypes)
            empty.select(key)
            plan.keys[test.columns] = key
            if is_integer_key(dtypes):
                plan.integer_keys.add(test.columns)
        plan.key_tests[rule.id] = test
    elif isinstance(test, MajorityTest):
        group, value = [table.text(c) for c in test.by], table.text(test.column)
        texts = [pl.String()] * len(group)
        pair = (key_expression(group, texts), key_expression([*group, value], [*texts, pl.String()]))
        empty.select(pair[0].alias("group"), pair[1].alias("pair"))
        plan.pairs[rule.id] = pair
        plan.majority_tests[rule.id] = test
    elif isinstance(test, TableTest):
        if test.measures:
            empty.select(**test.measures)
        plan.table_tests[rule.id] = test
    else:
        plan.query_tests[rule.id] = test
