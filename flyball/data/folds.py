"""What must be known of all rows before one can be judged: repeated keys, and majorities of groups.

`tallies` adds up each piece of a table here, and looks at the rows again only where something was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyball.data.keys import KeyFold, Repeats
from flyball.data.majorities import MajorityFold
from flyball.data.pieces import pieces
from flyball.data.plans import Plan

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Folds", "Found"]

Found = dict[Any, Repeats]  # repeated keys by their columns, odd pairs by rule id

_CONFIRMED_ROWS = 1_000_000  # hashes are told apart by the values themselves up to so many rows


class Folds:
    """What must be known of all rows before one can be judged: repeated keys, and majorities of groups."""

    def __init__(self, plan: Plan, wanted: set[str] | None = None) -> None:
        self._plan = plan
        tests = {i: t for i, t in plan.key_tests.items() if wanted is None or i in wanted}
        self._columns = list(dict.fromkeys(t.columns for t in tests.values()))
        self._keys = {c: KeyFold(integers=c in plan.integer_keys) for c in self._columns}
        self._majorities = {i: MajorityFold() for i in plan.majority_tests if wanted is None or i in wanted}
        self.null_keys = dict.fromkeys(self._columns, 0)

    def __bool__(self) -> bool:
        return bool(self._keys or self._majorities)

    def outputs(self) -> dict[str, pl.Expr]:
        """Return what to compute of a prepared piece."""
        keys = {f"\2{n}": self._plan.keys[columns] for n, columns in enumerate(self._columns)}
        for n, rule_id in enumerate(self._majorities):
            keys |= dict(zip((f"\3{n}", f"\4{n}"), self._plan.pairs[rule_id], strict=True))
        return keys

    def add(self, outputs: pl.DataFrame) -> None:
        """Take those outputs of a piece."""
        for n, columns in enumerate(self._columns):
            keys = outputs[f"\2{n}"]
            self.null_keys[columns] += keys.null_count()
            self._keys[columns].add(keys.drop_nulls().to_numpy())
        for n, (rule_id, fold) in enumerate(list(self._majorities.items())):
            try:
                fold.add(outputs.select(group=f"\3{n}", pair=f"\4{n}"))
            except OverflowError as error:
                self._plan.give_up(rule_id, f"cannot be evaluated on this data: {error}")
                fold.forget()

    def finish(self) -> Found:
        """Return what was found, only where something was."""
        found: Found = {columns: fold.finish() for columns, fold in self._keys.items()}
        for columns, repeats in list(found.items()):
            if repeats.rows and columns not in self._plan.integer_keys and repeats.rows <= _CONFIRMED_ROWS:
                found[columns] = self._confirmed(columns, repeats)
        found |= {rule_id: fold.finish() for rule_id, fold in self._majorities.items()}
        return {name: repeats for name, repeats in found.items() if repeats.rows}

    def _confirmed(self, columns: tuple[str, ...], repeats: Repeats) -> Repeats:
        """Look at the values themselves: two that are different may share a hash."""
        import numpy as np
        import polars as pl

        key = self._plan.keys[columns].alias("\2")
        raw = [pl.col(self._plan.preparation.raw_by_column.get(c, c)).alias(f"\3{n}") for n, c in enumerate(columns)]
        parts = []
        for piece in pieces(self._plan.lazy):
            values = self._plan.prepared(piece.lazy).select(key, *raw)
            parts.append(values.filter(repeats.marks(pl.col("\2"))).collect())
        try:
            groups = pl.concat(parts).group_by(pl.all()).len().filter(pl.col("len") > 1)
        except pl.exceptions.PolarsError:
            return repeats  # values of a type that cannot be grouped
        return Repeats(int(groups["len"].sum()), np.unique(groups["\2"].to_numpy()))
