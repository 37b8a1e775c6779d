"""A field: one input or output of a model, with its name, type and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyball.errors import InvalidInput, did_you_mean, listed

__all__ = ["Field"]

# Open Inference Protocol v2, "Tensor Data Types"; a datetime travels as INT64 microseconds since 1970 UTC.
_OIP = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
    "datetime": "INT64",
}
_TABULAR = ("bool", "int64", "float64", "string", "datetime")


@dataclass(frozen=True)
class Field:
    """One input or output.

    Attributes:
        name: what requests call it.
        dtype: of a tabular column "bool", "int64", "float64", "string" or "datetime" (UTC, microseconds); of a tensor
            any NumPy number, "bool" or "string".
        nullable: whether a value may be missing.
        categories: the texts known at training, for people and monitors; others are not refused.
        shape: None for a column (one value a row); of a tensor its sizes, −1 for any, the first being the rows.
    """

    name: str
    dtype: str
    nullable: bool = False
    categories: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        known = _TABULAR if self.shape is None else tuple(n for n in _OIP if n != "datetime")
        if self.dtype not in known:
            raise InvalidInput(
                f'the field "{self.name}" has the type "{self.dtype}"{did_you_mean(self.dtype, known)} '
                f"(known: {listed(known, 14)})"
            )

    @property
    def oip_datatype(self) -> str:
        """The datatype in the Open Inference Protocol: BOOL, INT64, FP64, BYTES…"""
        return _OIP[self.dtype]

    @property
    def oip_shape(self) -> tuple[int, ...]:
        """The shape in the Open Inference Protocol; a column of single values is [-1]."""
        return self.shape if self.shape is not None else (-1,)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; fields at their default are left out."""
        found: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "nullable": self.nullable}
        if self.categories is not None:
            found["categories"] = list(self.categories)
        if self.shape is not None:
            found["shape"] = list(self.shape)
        return found

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Field:
        """Read what `to_dict` wrote. Raises InvalidInput on anything else."""
        unknown = sorted(set(document) - {"name", "dtype", "nullable", "categories", "shape"})
        if unknown or not {"name", "dtype"} <= set(document):
            what = f'an unknown key "{unknown[0]}"' if unknown else "no name or dtype"
            raise InvalidInput(f"a signature's field has {what}; expected name, dtype, nullable, categories, shape")
        categories, shape = document.get("categories"), document.get("shape")
        return cls(
            str(document["name"]),
            str(document["dtype"]),
            bool(document.get("nullable", False)),
            None if categories is None else tuple(map(str, categories)),
            None if shape is None else tuple(map(int, shape)),
        )
