"""A table's profile to be shown: columns as plain values, correlations, duplicates, gaps; sensitive columns hidden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from flyball.data.profiling import packing, tables
from flyball.data.profiling.tables import TableSketch
from flyball.data.profiling.values import ColumnProfile, Gap, column_profile
from flyball.errors import NotFound, did_you_mean, listed
from flyball.stats import row_samples

__all__ = ["TableProfile"]


@dataclass(frozen=True)
class TableProfile:
    """The profile of a table, to be shown."""

    sketch: TableSketch = field(repr=False)
    hidden: frozenset[str] = frozenset()  # columns of which nothing here shows a value

    @classmethod
    def from_bytes(cls, data: bytes) -> TableProfile:
        """Read a profile. Raises Corrupt, Incompatible."""
        return cls(packing.unpacked(data))

    def to_bytes(self) -> bytes:
        """Return the bytes that `from_bytes` reads."""
        return packing.packed(self.sketch)

    @property
    def rows(self) -> int:
        return self.sketch.rows

    @cached_property
    def columns(self) -> Mapping[str, ColumnProfile]:
        """What is shown of each column, in the table's order."""
        found = {name: column_profile(name, sketch) for name, sketch in self.sketch.columns.items()}
        return {name: c.without_values() if name in self.hidden else c for name, c in found.items()}

    def without(self, columns: Iterable[str]) -> TableProfile:
        """Return the profile that shows no value of some columns, nor how they go with others."""
        hidden = self.hidden | frozenset(columns)
        return self if hidden == self.hidden else TableProfile(self.sketch, hidden)

    @property
    def duplicates(self) -> tuple[int, int] | None:
        """How many rows repeat another, and a bound for it: both the same with up to 1,024 distinct rows.

        None where rows cannot be compared. Columns of structs and binaries are left out of the comparison, vectors of
        numbers count by length and norm.
        """
        return None if self.sketch.sample is None else self.sketch.sample.duplicates

    @cached_property
    def correlations(self) -> dict[str, dict[tuple[str, str], float]]:
        """Correlation of each pair of columns by method: `pearson` and `spearman` of numbers, `cramers_v` of names.

        Pearson's is of all rows up to 32,768 of them and beyond of one row in 32, chosen by its hash (standard error at
        most 0.03, of a million rows 0.006); the others are of a fair sample of 1,024 distinct rows (about 0.03).
        """
        found = {"pearson": self._pearson(), "spearman": self._spearman(), "cramers_v": self._cramers()}
        return {
            method: {pair: value for pair, value in pairs.items() if not set(pair) & self.hidden}
            for method, pairs in found.items()
        }

    @property
    def gaps(self) -> dict[str, Sequence[Gap]]:
        """The longest stretches without rows, by column of times."""
        return {name: column.gaps for name, column in self.columns.items() if column.kind == "time"}

    def to_dict(self, hide: Iterable[str] = ()) -> dict[str, Any]:
        """Return all as JSON values.

        Args:
            hide: sensitive columns: of these no value is shown (least, greatest, commonest, bars, quantiles, gaps), and
                no correlation.

        Raises:
            NotFound: a column to hide is not there.
        """
        hidden = set(hide)
        for name in hidden - set(self.sketch.columns):
            raise NotFound(
                f'the profile has no column "{name}"{did_you_mean(name, self.sketch.columns)} to hide '
                f"(it has: {listed(self.sketch.columns)})"
            )
        shown = {n: c.without_values() if n in hidden else c for n, c in self.columns.items()}
        pairs = {
            method: [[a, b, value] for (a, b), value in found.items() if not {a, b} & hidden]
            for method, found in self.correlations.items()
        }
        found = {"rows": self.rows, "columns": {n: c.to_dict() for n, c in shown.items()}, "correlations": pairs}
        if self.duplicates is not None:
            found["duplicates"] = {"rows": self.duplicates[0], "at_most": self.duplicates[1]}
        return found

    def _pearson(self) -> dict[tuple[str, str], float]:
        products = self.sketch.all_products or self.sketch.some_products
        if products is None:
            return {}
        values, names = products.correlations(), self.sketch.correlated
        return {
            (names[i], names[j]): float(values[i, j])
            for i in range(len(names))
            for j in range(i + 1, len(names))
            if not np.isnan(values[i, j])
        }

    def _spearman(self) -> dict[tuple[str, str], float]:
        return self._of_sample(("number", "integer", "time"), row_samples.rank_correlation)

    def _cramers(self) -> dict[tuple[str, str], float]:
        return self._of_sample(("text", "boolean"), row_samples.association)

    def _of_sample(self, kinds: Sequence[str], measure: Any) -> dict[tuple[str, str], float]:
        sample = self.sketch.sample
        if sample is None:
            return {}
        of_kind = [(i, n) for i, n in enumerate(self.sketch.sampled) if self.sketch.columns[n].kind in kinds]
        of_kind = of_kind[: tables.MOST_CORRELATED]
        found = {}
        for at, (i, first) in enumerate(of_kind):
            for j, second in of_kind[at + 1 :]:
                value = measure(sample.values[i], sample.values[j], sample.counts)
                if value is not None:
                    found[first, second] = value
        return found
