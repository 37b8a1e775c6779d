"""The few failing rows that a report shows of each rule: shortened, and masked where the contract says so."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flyball.data.plans import Plan

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MASK", "Samples"]

MASK = "***"
_COLUMNS = 8  # of a row: those the rule is about, the primary key, then the first others
_CHARACTERS = 80  # of a value


class Samples:
    """Keeps at most `limit` failing rows a rule, the first ones."""

    def __init__(self, plan: Plan, limit: int) -> None:
        self._plan = plan
        self._limit = limit
        self._rows: dict[str, list[dict[str, Any]]] = {}
        source = plan.preparation.source_by_column
        columns = plan.contract.columns
        self._masked = {source[c.name] for c in columns if c.masked and c.name in source}
        self._rules = {r.id: r for r in plan.contract.rules}
        keys = [r.params["columns"] for r in plan.contract.rules if r.check == "primary_key"]
        self._key = [source[c] for c in (keys[0] if keys else ()) if c in source]

    def room(self, rule_id: str) -> int:
        """Return how many rows are still wanted of a rule."""
        return self._limit - len(self._rows.get(rule_id, ()))

    def add(self, rule_id: str, rows: pl.DataFrame, places: list[int], offset: int) -> None:
        """Keep the failing rows at these places of rows (as they came) that start at row `offset` of the table."""
        kept = self._rows.setdefault(rule_id, [])
        names = self._columns(rule_id, rows.columns)
        for place, row in zip(places, rows.select(names)[places].iter_rows(), strict=True):
            values = {n: self._shown(n, v) for n, v in zip(names, row, strict=True)}
            kept.append({"row": offset + place, "values": values})

    def of(self, rule_id: str) -> tuple[dict[str, Any], ...]:
        """Return the rows kept of a rule."""
        return tuple(self._rows.get(rule_id, ()))

    def _columns(self, rule_id: str, present: list[str]) -> list[str]:
        rule, source = self._rules[rule_id], self._plan.preparation.source_by_column
        test = self._plan.row_tests.get(rule_id)
        roots = [n.lstrip("\0") for n in test.fails.meta.root_names()] if test and test.fails is not None else []
        about = [source[c] for c in [rule.column, *rule.params.get("columns", ()), *roots] if c in source]
        return list(dict.fromkeys([*about, *self._key, *present]))[: max(_COLUMNS, len(set(about)))]

    def _shown(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if name in self._masked:
            return MASK
        if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        text = str(value)
        return text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"
