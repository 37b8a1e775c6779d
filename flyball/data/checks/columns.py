"""The data has no column that the contract does not name. Part of every contract, as a warning; an error when the
schema object has the custom property `strict: true`."""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import Table, TableTest, Verdict, take
from flyball.data.terms import Column, Rule
from flyball.errors import listed


def validate(rule: Rule, columns: Sequence[Column]) -> None:  # noqa: ARG001 - about those not named
    take(rule, ())


def compile(rule: Rule, table: Table) -> TableTest:  # noqa: ARG001 - takes no parameter
    extra = table.unknown_columns
    message = f"the contract does not name {listed(extra)}" if extra else "every column is in the contract"
    return TableTest({}, lambda _: Verdict(not extra, len(extra), message))
