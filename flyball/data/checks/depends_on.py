"""One column follows from others: rows with the same zip code have the same city (a functional dependency).

A row whose value differs from that of most rows of its group fails; where two values are equally frequent, nothing
tells which is right and all rows with one of them fail. Nulls are not compared. Written in ODCS as
`type: custom, engine: flyball, implementation: {check: depends_on, columns: [zip]}` of the property `city`.
Source: Abedjan, Golab, Naumann (2015), "Profiling relational data: a survey", section 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.data.checks import MajorityTest, Table, need_columns, take
from flyball.data.terms import Column, Rule
from flyball.errors import InvalidInput


def validate(rule: Rule, columns: Sequence[Column]) -> None:
    take(rule, ("columns",), required=("columns",))
    by = rule.params["columns"]
    if not isinstance(by, list | tuple) or not by:
        raise InvalidInput(f"{rule.id}: columns is {by!r}; expected a list of the columns that it follows from")
    need_columns(rule, [rule.column] if rule.column else [], columns)
    need_columns(rule, [str(name) for name in by], columns)
    if rule.column in by:
        raise InvalidInput(f"{rule.id}: {rule.column} cannot follow from itself; name other columns")


def compile(rule: Rule, table: Table) -> MajorityTest:  # noqa: ARG001 - the same for any table
    by = tuple(map(str, rule.params["columns"]))
    return MajorityTest(by, str(rule.column), f"is not what most rows with the same {', '.join(by)} have")
