"""The terms of a contract: its columns and its rules, as values that reading makes and checking uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flyball.data.bounds import Bounds
from flyball.data.reports import Severity

__all__ = ["Column", "Contract", "Rule"]


@dataclass(frozen=True)
class Column:
    """A column that the contract names; a field inside an object has a dotted name (`address.city`)."""

    name: str
    logical_type: str | None = None
    physical_name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    masked: bool = False


@dataclass(frozen=True)
class Rule:
    """One rule. `check` names a file of `flyball.data.checks`, `params` is what that check takes.

    Of a row rule, `bounds` says how many rows (or what percentage) may fail; None: not one. Of a table rule it
    says what the measured number must be. A row rule with bounds speaks of the table (`scope` "table"): no single
    row is to blame when the share of failing rows is too large.
    """

    id: str
    check: str
    column: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = "error"
    scope: Literal["row", "table"] = "row"
    bounds: Bounds | None = None
    description: str = ""


@dataclass(frozen=True)
class Contract:
    """The rules of one schema object (table) of a data contract."""

    name: str
    version: str
    id: str
    schema_name: str
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    table_names: tuple[str, ...] = ()
    strict: bool = False
    unenforced: tuple[str, ...] = ()

    def column(self, name: str) -> Column | None:
        """Return the column of this name, or None."""
        return next((c for c in self.columns if c.name == name), None)

    @property
    def string_columns(self) -> tuple[str, ...]:
        """Names of the columns that hold text, for `sources.scan` not to read `01001` as a number."""
        names = (n for c in self.columns if c.logical_type == "string" for n in (c.name, c.physical_name) if n)
        return tuple(dict.fromkeys(names))
