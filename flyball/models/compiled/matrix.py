"""From checked columns to the float64 matrix that a model's last step takes, told as data.

A part fills some columns of the matrix: `Numbers` copies columns and then scales or fills them, `Codes` looks texts up.
A flavour makes the parts from fitted transformers; their documents, of plain values and arrays, go into the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyball.errors import InvalidInput
from flyball.models._columns import Column, shown
from flyball.models.table import Table

__all__ = ["UNKNOWN", "Codes", "Matrix", "Numbers"]

UNKNOWN = "\x00 a text that no training data holds"


@dataclass(frozen=True)
class Numbers:
    """Columns of numbers copied to the matrix from column `at` on, then changed by `acts`, in place and in order.

    An act is a name and its arrays: subtract, divide, multiply, add, fill (the missing ones), single (round to
    float32 and back).
    """

    names: tuple[str, ...]
    at: int
    acts: tuple[tuple[str, Any], ...] = ()

    def document(self) -> dict[str, Any]:
        return {"part": "numbers", "names": list(self.names), "at": self.at, "acts": [list(a) for a in self.acts]}

    def filler(self) -> Callable[[Mapping[str, Column], Column], None]:
        names, where = self.names, slice(self.at, self.at + len(self.names))
        acts = [(_ACTS[name], value) for name, value in self.acts]

        def fill(columns: Mapping[str, Column], table: Column) -> None:
            at = where.start
            for name in names:
                table[:, at] = columns[name]
                at += 1
            if acts:
                block = table[:, where]
                for act, value in acts:
                    act(block, value)

        return fill


@dataclass(frozen=True)
class Codes:
    """One column of texts, each standing for the numbers of its row in `block`, which go to the columns `spots`.

    Attributes:
        keys: the texts; None stands for a missing one and `UNKNOWN` for every other. A text without a row is refused.
    """

    name: str
    keys: tuple[str | None, ...]
    block: Column
    spots: Column

    def document(self) -> dict[str, Any]:
        return {
            "part": "codes", "name": self.name, "keys": list(self.keys), "block": self.block, "spots": self.spots
        }  # fmt: skip

    def filler(self) -> Callable[[Mapping[str, Column], Column], None]:
        name, block, spots = self.name, self.block, self.spots
        if len(spots) == 1:
            numbers = {key: float(value) for key, value in zip(self.keys, block[:, 0].tolist(), strict=True)}
            spot = int(spots[0])

            def fill_one(columns: Mapping[str, Column], table: Column) -> None:
                table[:, spot] = _looked_up(numbers, columns[name], name)

            return fill_one
        rows = {key: row for row, key in enumerate(self.keys)}

        def fill(columns: Mapping[str, Column], table: Column) -> None:
            table[:, spots] = block[_looked_up(rows, columns[name], name)]

        return fill


class Matrix:
    """All parts of a matrix.

    Arguments:
        width: columns of the matrix.
        base: what stands in columns that no part fills for some text; shape (width,).
        after: acts on the whole matrix, when all parts have filled it.
    """

    def __init__(
        self,
        width: int,
        parts: Sequence[Numbers | Codes],
        base: Column | None = None,
        after: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.width = width
        self.parts = tuple(parts)
        self.base = base
        self.after = tuple(after)
        self._fillers = [part.filler() for part in parts]
        self._after = [(_ACTS[name], value) for name, value in after]
        # Numbers in the model's own order: a request's matrix is the model's matrix.
        one = parts[0] if len(parts) == 1 and isinstance(parts[0], Numbers) else None
        is_same = one is not None and one.at == 0 and len(one.names) == width
        self._same = one.names if one is not None and is_same else None
        self._acts = [(_ACTS[name], value) for name, value in (*(one.acts if one is not None else ()), *after)]

    def __call__(self, columns: Mapping[str, Column]) -> Column:
        """Return a new C-ordered matrix (rows, width). Raises InvalidInput: a text that the model does not take."""
        if type(columns) is Table and columns.names == self._same:
            table = columns.array.copy()
            for act, value in self._acts:
                act(table, value)
            return table
        table = np.empty((len(next(iter(columns.values()))), self.width))
        if self.base is not None:
            table[:] = self.base
        for fill in self._fillers:
            fill(columns, table)
        for act, value in self._after:
            act(table, value)
        return table

    def document(self) -> dict[str, Any]:
        """Return plain values and arrays; `of` reads them."""
        parts = [part.document() for part in self.parts]
        return {"width": self.width, "base": self.base, "parts": parts, "after": [list(act) for act in self.after]}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Matrix:
        """Read what `document` returned."""
        parts: list[Numbers | Codes] = []
        for part in document["parts"]:
            if part["part"] == "numbers":
                acts = tuple((str(name), value) for name, value in part["acts"])
                parts.append(Numbers(tuple(part["names"]), int(part["at"]), acts))
            else:
                parts.append(Codes(part["name"], tuple(part["keys"]), part["block"], part["spots"]))
        after = [(str(name), value) for name, value in document["after"]]
        return cls(int(document["width"]), parts, document["base"], after)


def _looked_up(codes: Mapping[Any, Any], column: Column, name: str) -> list[Any]:
    values = column.tolist()
    try:
        return [codes[value] for value in values]
    except KeyError:
        pass
    unknown = codes.get(UNKNOWN)
    found = [codes.get(value, unknown) if value is not None else codes.get(None) for value in values]
    if None in found:
        value = values[found.index(None)]
        raise InvalidInput(f'the model cannot take these rows: "{name}" is {shown(value)}, which training never held')
    return found


def _subtract(block: Column, value: Column) -> None:
    block -= value


def _divide(block: Column, value: Column) -> None:
    block /= value


def _multiply(block: Column, value: Column) -> None:
    block *= value


def _add(block: Column, value: Column) -> None:
    block += value


def _fill(block: Column, value: Column) -> None:
    np.copyto(block, value, where=np.isnan(block))


def _single(block: Column, _: object) -> None:
    block[:] = block.astype(np.float32)


_ACTS: Mapping[str, Callable[[Column, Any], None]] = {
    "subtract": _subtract,
    "divide": _divide,
    "multiply": _multiply,
    "add": _add,
    "fill": _fill,
    "single": _single,
}
