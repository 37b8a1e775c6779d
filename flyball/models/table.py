"""Rows of numbers kept as one matrix that answers as columns do.

Most models take numbers only. Twenty arrays for a row of twenty numbers cost more to make, to join and to pick apart
than such a model costs to run; so where all inputs are fractions, requests are checked, joined and predicted as one
matrix, and whoever wants a column gets it by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Table"]

Array = np.ndarray[Any, Any]


class Table(Mapping[str, Array]):
    """Columns by name over a C-ordered float64 matrix.

    Arguments:
        names: of the columns, in the matrix's order.
        places: the same as name → column's number; shared between tables.
        array: of shape (rows, columns).
    """

    __slots__ = ("array", "names", "places")

    def __init__(self, names: tuple[str, ...], places: Mapping[str, int], array: Array) -> None:
        self.names = names
        self.places = places
        self.array = array

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.array)

    def part(self, start: int, stop: int) -> Table:
        """Return some of the rows."""
        return Table(self.names, self.places, self.array[start:stop])

    def single(self) -> dict[str, float]:
        """Return the values of the first row as plain numbers."""
        return dict(zip(self.names, self.array[0].tolist(), strict=True))

    def lists(self) -> dict[str, Array]:
        """Return every column as a contiguous array, made by one copy."""
        return dict(zip(self.names, np.ascontiguousarray(self.array.T), strict=True))

    @classmethod
    def joined(cls, tables: Sequence[Table]) -> Table:
        """Return the rows of tables with the same columns, one after the other."""
        first = tables[0]
        return cls(first.names, first.places, np.concatenate([table.array for table in tables]))

    def __getitem__(self, name: str) -> Array:
        return np.ascontiguousarray(self.array[:, self.places[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.places
