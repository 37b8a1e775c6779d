"""What goes into a model and what comes out: names, types, which may be missing.

The registry keeps it with each version, the data plane checks every request against it (`Signature.columns`, the hot
path), the pages and the Open Inference Protocol describe models by it. It knows no data-frame library: frames of polars
and pandas are recognised by the name of their module, so nothing is imported for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.models import _columns, _frames
from flyball.models._columns import Column, shown
from flyball.models.fields import Field
from flyball.models.table import Table

__all__ = ["Column", "Signature", "infer_signature"]

_NUMBERS = frozenset({int, float})
_NUMBERS_OR_NONE = frozenset({int, float, type(None)})


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in the model's own order."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        for fields in (self.inputs, self.outputs):
            names = [field.name for field in fields]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InvalidInput(f'the signature has two fields called "{twice[0]}"; give each its own name')
        if not self.inputs:
            raise InvalidInput("the signature has no inputs; a model needs at least one")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"inputs": [f.to_dict() for f in self.inputs], "outputs": [f.to_dict() for f in self.outputs]}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Signature:
        """Read what `to_dict` wrote. Raises InvalidInput on anything else."""
        if set(document) != {"inputs", "outputs"}:
            raise InvalidInput(f"a signature has inputs and outputs; this has {listed(sorted(map(str, document)))}")
        return cls(*(tuple(Field.from_dict(f) for f in document[part]) for part in ("inputs", "outputs")))

    def columns(self, records: Sequence[Mapping[str, Any]], *, subject: str = "the model") -> Mapping[str, Column]:
        """Check rows and turn them into one array an input: the way of every request with records.

        Args:
            records: a non-empty list of dicts, each with exactly the inputs' names.
            subject: how messages call the model, for instance `late@2`.

        Returns:
            name → array of shape (rows,), as `columns_from`; one `Table` where all inputs are fractions.

        Raises:
            InvalidInput: unknown or missing name, or a wrong value; the first is named with its row.
        """
        fields = self.inputs
        if type(records) is not list or not records or set(map(type, records)) != {dict}:
            records = _as_records(records, subject)
        try:
            rows = list(map(self._getter, records))
        except KeyError:
            raise self._wrong_names(records, subject) from None
        if set(map(len, records)) != {len(fields)}:
            raise self._wrong_names(records, subject)
        if self._places is not None and (found := self._table_of(rows)) is not None:
            return found
        return {
            field.name: self._column(field, values, subject)
            for field, values in zip(fields, zip(*rows, strict=True), strict=True)
        }

    def columns_from(
        self, columns: Mapping[str, Sequence[Any] | Column], *, subject: str = "the model"
    ) -> Mapping[str, Column]:
        """Check columns (lists or arrays, one value a row; tensors whole) and return them as arrays.

        bool → bool, int64 → int64, float64 → float64, string → object (str), datetime → datetime64[us]. Missing
        values become NaN, None or NaT; a nullable bool or int64 becomes float64.

        Raises:
            InvalidInput: unknown or missing name, unequal lengths, or a wrong value, named with its row.
        """
        if not isinstance(columns, Mapping) or columns.keys() != self._names:
            raise self._wrong_names([columns], subject)
        if self._places is not None and (table := self._table_from(columns)) is not None:
            return table
        found: dict[str, Column] = {}
        for field in self.inputs:
            value = columns[field.name]
            if not isinstance(value, (list, tuple, np.ndarray)):
                raise InvalidInput(f'{subject}: "{field.name}" is {shown(value)}; expected a list of values, one a row')
            if field.shape is None:
                found[field.name] = _columns.column(field, value, subject)
            else:
                found[field.name] = _columns.tensor(field, value, subject)
        lengths = {name: len(array) for name, array in found.items() if array.ndim}
        if len(set(lengths.values())) > 1:
            short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            raise InvalidInput(f'{subject}: "{short}" has {lengths[short]} rows, but "{long}" has {lengths[long]}')
        if not any(lengths.values()) and lengths:
            raise InvalidInput(f"{subject}: no rows were given; expected at least one")
        return found

    def table(self, matrix: Column, *, subject: str = "the model") -> Mapping[str, Column]:
        """Check a matrix (rows, inputs) of any number type, whose columns are the inputs in their order.

        Raises:
            InvalidInput: another shape, or a wrong value, named with its row.
        """
        if matrix.ndim != 2 or matrix.shape[1] != len(self.inputs):
            raise InvalidInput(
                f"{subject}: the matrix has shape {list(matrix.shape)}; expected [-1, {len(self.inputs)}], "
                "the inputs in their order"
            )
        if self._places is not None and len(matrix) and matrix.dtype.kind in "fiu":
            array = np.array(matrix, np.float64, order="C")
            if _is_fit(array, self._is_nullable):
                return Table(self._order, self._places, array)
        return self.columns_from({name: matrix[:, at] for at, name in enumerate(self._order)}, subject=subject)

    @cached_property
    def _order(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.inputs)

    @cached_property
    def _places(self) -> dict[str, int] | None:
        """The place of each input where all are fractions, so that rows can be one matrix; else None."""
        if any(field.dtype != "float64" or field.shape is not None for field in self.inputs):
            return None
        return {field.name: at for at, field in enumerate(self.inputs)}

    @cached_property
    def _is_nullable(self) -> bool:
        return all(field.nullable for field in self.inputs)

    def _table_of(self, rows: Sequence[tuple[Any, ...]]) -> Table | None:
        """Return rows of the right values as a table; None where a value must be looked at by itself."""
        assert self._places is not None
        kinds = set(map(type, rows[0] if len(rows) == 1 else chain.from_iterable(rows)))
        if not (kinds <= _NUMBERS or (self._is_nullable and kinds <= _NUMBERS_OR_NONE)):
            return None
        try:
            array = np.array(rows, np.float64)
        except OverflowError:
            return None
        return Table(self._order, self._places, array) if _is_fit(array, self._is_nullable) else None

    def _table_from(self, columns: Mapping[str, Any]) -> Table | None:
        """Return float64 arrays of one length as a table; None where they must be looked at one by one."""
        assert self._places is not None
        arrays = [columns[name] for name in self._order]
        first = arrays[0]
        if type(first) is not np.ndarray or not len(first):
            return None
        shape, dtype = first.shape, first.dtype
        if len(shape) != 1 or dtype != np.float64:
            return None
        if not all(type(a) is np.ndarray and a.shape == shape and a.dtype == dtype for a in arrays):
            return None
        array = np.ascontiguousarray(np.concatenate(arrays).reshape(len(arrays), -1).T)
        return Table(self._order, self._places, array) if _is_fit(array, self._is_nullable) else None

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(field.name for field in self.inputs)

    @cached_property
    def _getter(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        names = [field.name for field in self.inputs]
        if len(names) == 1:  # itemgetter of one key returns the bare value
            return lambda record: (record[names[0]],)
        return itemgetter(*names)

    def _column(self, field: Field, values: Sequence[Any], subject: str) -> Column:
        if field.shape is None:
            return _columns.column(field, values, subject)
        return _columns.tensor(field, list(values), subject)

    def _wrong_names(self, records: Iterable[object], subject: str) -> InvalidInput:
        names = [field.name for field in self.inputs]
        needs = f"It needs {listed(names)}"
        for row, record in enumerate(records):
            if not isinstance(record, Mapping):
                return InvalidInput(f"{subject} was given {shown(record)}; expected names with values. {needs}")
            unknown = [key for key in record if key not in self._names]
            missing = [name for name in names if name not in record]
            if unknown:
                near = did_you_mean(str(unknown[0]), missing or names)
                stop = "." if not near else ""
                return InvalidInput(f"{subject} has no input {shown(str(unknown[0]))}{near}{stop} {needs}")
            if missing:
                which = ", ".join(f'"{name}"' for name in missing[:3])
                return InvalidInput(f"{subject}: row {row} lacks {which}. {needs}")
        return InvalidInput(f"{subject}: no rows were given. {needs}")


def infer_signature(example: Any, output: Any = None, *, nullable: Iterable[str] | bool = ()) -> Signature:
    """Describe a model by rows it takes and what it answers.

    Args:
        example: a polars or pandas DataFrame, a NumPy array (2-D: columns x0, x1…; more dimensions: one tensor), a dict
            of columns or a list of dicts. The types come from it, so use the frame the model was trained on.
        output: the answer in any of the same forms, or a 1-D array, called "prediction"; None leaves outputs open.
        nullable: inputs that may be missing although the example has them all, or True for every one.

    Raises:
        InvalidInput: a column of a type that cannot be served, or an unknown name in `nullable`.
    """
    inputs = [Field(**vars(found)) for found in _frames.describe(example)]
    names = [field.name for field in inputs]
    also = set(names) if nullable is True else set() if nullable is False else set(nullable)
    for name in sorted(also - set(names)):
        raise InvalidInput(f'nullable names "{name}", which is no input{did_you_mean(name, names)}')
    inputs = [replace(field, nullable=field.nullable or field.name in also) for field in inputs]
    outputs: list[Field] = []
    if output is not None:
        given = {"prediction": output} if isinstance(output, np.ndarray) else output
        outputs = [Field(**vars(found)) for found in _frames.describe(given)]
    return Signature(tuple(inputs), tuple(outputs))


def _is_fit(array: Column, is_nullable: bool) -> bool:
    # Any NaN or infinity makes the sum of squares one, and an overflow only costs the long way.
    if math.isfinite(np.vdot(array, array)):
        return True
    return is_nullable and not np.isinf(array).any()


def _as_records(records: object, subject: str) -> list[Mapping[str, Any]]:
    if not isinstance(records, (list, tuple)):
        raise InvalidInput(f"{subject} was given {shown(records)}; expected a list of rows, each of names with values")
    if not records:
        raise InvalidInput(f"{subject}: no rows were given; expected at least one")
    for row, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise InvalidInput(f"{subject}: row {row} is {shown(record)}; expected names with values")
    return list(records)
