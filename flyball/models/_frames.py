"""Read example rows in the form a user has them: frames of polars and pandas, NumPy, dicts of columns, lists of dicts.

Frames are recognised by the name of their module, so that a model can be described without importing either library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any

import numpy as np

from flyball.errors import InvalidInput, listed

__all__ = ["Described", "arrays", "describe", "library_of", "values_of"]


@dataclass(frozen=True)
class Described:
    """What can be said of one column: the arguments of a `signature.Field`."""

    name: str
    dtype: str
    nullable: bool
    categories: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None


def library_of(rows: object) -> str:
    """Return "polars", "pandas", "numpy" or "python": whose form the rows have."""
    module = type(rows).__module__.partition(".")[0]
    return module if module in ("polars", "pandas", "numpy") else "python"


def describe(rows: Any) -> list[Described]:
    """Describe every column of `rows`. Raises InvalidInput for a form or a type that cannot be served."""
    library = library_of(rows)
    if library in ("polars", "pandas"):
        _refuse_lazy(rows)
        one = _of_polars if library == "polars" else _of_pandas
        return [one(_text_name(name), rows[name]) for name in rows.columns]
    if library == "numpy" and rows.ndim != 2:
        if rows.ndim < 2:
            raise InvalidInput(f"the example has shape {list(rows.shape)}; expected rows and columns, such as X[:5]")
        return [_of_tensor("input", rows)]
    return [_of_values(name, values) for name, values in values_of(rows).items()]


def values_of(rows: Any, limit: int | None = None) -> dict[str, Any]:
    """Return the first `limit` rows as name → list of plain values (or array), a missing value being None."""
    library = library_of(rows)
    if library in ("polars", "pandas"):
        _refuse_lazy(rows)
        head = rows if limit is None else rows.head(limit)
        return {_text_name(name): [_plain(v) for v in head[name].to_list()] for name in head.columns}
    if library == "numpy":
        head = rows[:limit]
        if rows.ndim == 2:
            return {f"x{i}": head[:, i] for i in range(rows.shape[1])}
        return {"input": head}
    if isinstance(rows, Mapping):
        return {_text_name(k): v[:limit] if isinstance(v, np.ndarray) else list(v)[:limit] for k, v in rows.items()}
    if isinstance(rows, (list, tuple)) and rows and all(isinstance(r, Mapping) for r in rows):
        names = list(dict.fromkeys(_text_name(name) for row in rows for name in row))
        return {name: [row.get(name) for row in islice(rows, limit)] for name in names}
    raise InvalidInput(
        f"an example of type {type(rows).__name__} cannot be read; expected a polars or pandas DataFrame, a NumPy "
        "array, a dict of columns or a non-empty list of dicts"
    )


def arrays(rows: Any) -> Any:
    """Return tensors of PyTorch, alone or in a dict, as NumPy arrays; whatever else it is as it is."""
    if isinstance(rows, Mapping):
        return {name: arrays(values) for name, values in rows.items()}
    return rows.detach().cpu().numpy() if type(rows).__module__.partition(".")[0] == "torch" else rows


def _refuse_lazy(rows: Any) -> None:
    if type(rows).__name__ != "DataFrame":
        advice = "call .collect() first" if type(rows).__name__ == "LazyFrame" else "pass a DataFrame"
        raise InvalidInput(f"the example is a {type(rows).__name__}; {advice}")


def _of_polars(name: str, series: Any) -> Described:
    kind = str(series.dtype).partition("(")[0]
    nullable = bool(series.null_count())
    if kind in ("Categorical", "Enum"):
        known = sorted(str(v) for v in series.unique().to_list() if v is not None)
        return Described(name, "string", nullable, tuple(known))
    if kind.startswith("Float"):
        return Described(name, "float64", nullable or bool(series.is_nan().any()))
    if kind.startswith(("Int", "UInt")):
        return Described(name, "int64", nullable)
    found = {"Boolean": "bool", "String": "string", "Datetime": "datetime", "Date": "datetime"}.get(kind)
    if found is None:
        raise _unserved(name, str(series.dtype))
    return Described(name, found, nullable)


def _of_pandas(name: str, series: Any) -> Described:
    kind, nullable = str(series.dtype).lower(), bool(series.isna().any())
    if kind == "category":
        known = tuple(sorted(str(v) for v in series.cat.categories))
        return Described(name, "string", nullable, known)
    if kind == "object":
        return _of_values(name, [_plain(v) for v in series.to_list()])
    starts = {
        "float": "float64",
        "double": "float64",
        "int": "int64",
        "uint": "int64",
        "bool": "bool",
        "str": "string",
        "datetime": "datetime",
    }
    for start, dtype in starts.items():
        if kind.startswith(start):
            return Described(name, dtype, nullable)
    raise _unserved(name, str(series.dtype))


def _of_values(name: str, values: Any) -> Described:
    if isinstance(values, np.ndarray) and values.dtype != object:
        if values.ndim != 1:
            return _of_tensor(name, values)
        found = {"b": "bool", "i": "int64", "u": "int64", "f": "float64", "U": "string", "M": "datetime"}
        if values.dtype.kind not in found:
            raise _unserved(name, str(values.dtype))
        missing = bool(np.isnan(values).any()) if values.dtype.kind in "fM" else False
        return Described(name, found[values.dtype.kind], missing)
    if isinstance(values, np.ndarray) and values.ndim != 1:
        return _of_tensor(name, values)
    plain = [_plain(v) for v in values]
    missing = any(v is None or v != v for v in plain)
    kinds = {_kind(v) for v in plain if v is not None and v == v}
    if not kinds:
        if any(isinstance(v, float) for v in plain):
            return Described(name, "float64", True)
        raise InvalidInput(f'the column "{name}" of the example is empty, so its type is unknown; give some values')
    if kinds == {"int64", "float64"}:
        kinds = {"float64"}
    if len(kinds) > 1 or None in kinds:
        seen = listed(sorted({type(v).__name__ for v in plain if v is not None}))
        raise InvalidInput(f'the column "{name}" of the example mixes or holds {seen}; expected one type a column')
    return Described(name, str(kinds.pop()), missing)


def _of_tensor(name: str, array: np.ndarray[Any, Any]) -> Described:
    dtype = "string" if array.dtype.kind in "OU" else str(array.dtype)
    return Described(name, dtype, False, None, (-1, *array.shape[1:]))


def _kind(value: object) -> str | None:
    for kind, dtype in ((bool, "bool"), (int, "int64"), (float, "float64"), (str, "string"), (date, "datetime")):
        if isinstance(value, kind):
            return dtype
    return "datetime" if isinstance(value, np.datetime64) else None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        return value.item()
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _text_name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidInput(f"a column of the example is called {name!r}, a {type(name).__name__}; name it by a text")
    return name


def _unserved(name: str, dtype: str) -> InvalidInput:
    return InvalidInput(
        f'the column "{name}" has the type {dtype}, which a model cannot be served with; cast it to bool, int, float, '
        "text or datetime"
    )
