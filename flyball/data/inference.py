"""Propose a contract from data.

The proposal is meant to pass on other data of the same kind: ranges reach well beyond what was seen, a column is only
called complete, closed or unique when there is enough evidence, and lists of allowed values warn instead of failing.
It is a document to read and tighten, not a measurement of the sample. Called by `flyball init` and by the demo.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["infer_contract"]

_ROWS_FOR_ALWAYS = 1_000  # seen complete in n rows, at most 3/n of all are not, at 95 % (rule of three)
_ROWS_FOR_RANGE = 20
_ROWS_PER_VALUE = 50  # of a closed list, each value of which was seen 5 times at least
_VALUES_OF_CLOSED = 20
_KEY_NAME = re.compile(r"(^|_|\b)(id|key|uuid|guid|index|code|no|number)$|[a-z]I[dD]$", re.IGNORECASE)


def infer_contract(frame: pl.LazyFrame | pl.DataFrame, name: str) -> dict[str, Any]:
    """Return an ODCS v3.1.0 document that describes `frame`, as `contracts.read_contract` takes it.

    Args:
        frame: a sample, at least one row; it is read a few times, streaming.
        name: of the contract and its table.

    Raises:
        InvalidInput: no rows, or no columns.
    """
    import polars as pl

    lazy = frame.lazy()
    schema = lazy.collect_schema()
    if not schema:
        raise InvalidInput("cannot propose a contract for a table without columns")
    rows = lazy.select(pl.len()).collect(engine="streaming").item()
    if not rows:
        raise InvalidInput("cannot propose a contract from a table without rows; give a sample")
    properties = [_property(lazy, column, dtype, rows) for column, dtype in schema.items()]
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": name,
        "name": name,
        "version": "1.0.0",
        "status": "draft",
        "description": {"purpose": f"Proposed from {rows:,} rows. Read it, tighten it, then make it active."},
        "schema": [
            {
                "name": name,
                "physicalType": "table",
                "properties": properties,
                "quality": [{"type": "library", "metric": "rowCount", "mustBeGreaterThan": 0}],
            }
        ],
    }


def _property(lazy: pl.LazyFrame, name: str, dtype: pl.DataType, rows: int) -> dict[str, Any]:
    import polars as pl

    column, logical = pl.col(name), _logical(dtype)
    proposed: dict[str, Any] = {"name": name, "physicalType": str(dtype)}
    if logical is None:
        return proposed
    proposed["logicalType"] = logical
    seen = column.drop_nulls()
    measures = {"nulls": column.null_count()}
    if logical not in ("array", "object"):
        measures["distinct"] = seen.n_unique()
    if dtype.is_numeric():
        finite = seen.filter(seen.cast(pl.Float64).is_finite())
        measures |= {"low": finite.min(), "high": finite.max(), "zeros": (finite == 0).sum()}
    found = lazy.select(**measures).collect(engine="streaming").row(0, named=True)
    there = rows - found["nulls"]
    _completeness(proposed, rows, found["nulls"], dtype)
    if not there:
        return proposed
    distinct = found.get("distinct", 0)
    is_key = distinct == there == rows >= 100 and bool(_KEY_NAME.search(name)) and logical in ("integer", "string")
    if is_key:
        proposed |= {"required": True, "unique": True}
        proposed.pop("quality", None)
    elif dtype.is_integer() and distinct == there:
        pass  # a running number: the next batch goes on where this one ends
    elif dtype.is_numeric() and there >= _ROWS_FOR_RANGE and distinct > 1 and found["low"] is not None:
        low, high = _widened(found, there)
        proposed["logicalTypeOptions"] = {"minimum": low, "maximum": high}
    elif logical == "string":
        _closed_list(proposed, lazy, name, there, distinct)
    return proposed


def _logical(dtype: pl.DataType) -> str | None:
    """Return the logical type of a Polars type, or None for one that ODCS has no word for."""
    import polars as pl

    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    by_class: list[tuple[Any, str]] = [
        ((pl.String, pl.Categorical, pl.Enum), "string"),
        (pl.Boolean, "boolean"),
        (pl.Date, "date"),
        (pl.Datetime, "timestamp"),
        (pl.Time, "time"),
        ((pl.List, pl.Array), "array"),
        (pl.Struct, "object"),
    ]
    return next((word for classes, word in by_class if isinstance(dtype, classes)), None)


def _completeness(proposed: dict[str, Any], rows: int, nulls: int, dtype: pl.DataType) -> None:
    """Say how much may be missing. Measurements (floats) have gaps sooner or later; other columns are whole or not."""
    if not nulls and rows >= _ROWS_FOR_ALWAYS and not dtype.is_float():
        proposed["required"] = True
        return
    allowed = math.ceil(100 * (2 * nulls / rows + max(0.01, 3 / rows)))
    if allowed <= 50:
        limit: dict[str, Any] = {"type": "library", "metric": "nullValues", "mustBeLessOrEqualTo": allowed}
        severity = "warning" if nulls else "error"
        proposed["quality"] = [{**limit, "unit": "percent", "severity": severity}]


def _widened(found: dict[str, Any], there: int) -> tuple[float, float]:
    """Return a range as far beyond the one seen as the values go, further when few were seen.

    A count or price that was seen to be zero and never less stays at zero.
    """
    low, high = found["low"], found["high"]
    slack = max(high - low, abs(low), abs(high)) * type(high - low)(1) * (1 + 10 / math.sqrt(there))
    bounds = (0 if low == 0 and found["zeros"] and there >= 100 else low - slack, high + slack)
    if isinstance(low, int):
        return math.floor(bounds[0]), math.ceil(bounds[1])
    return float(f"{float(bounds[0]):.6g}"), float(f"{float(bounds[1]):.6g}")


def _closed_list(proposed: dict[str, Any], lazy: pl.LazyFrame, name: str, there: int, distinct: int) -> None:
    import polars as pl

    if not 2 <= distinct <= _VALUES_OF_CLOSED or there < _ROWS_PER_VALUE * distinct:
        return
    value = pl.col(name).cast(pl.String)
    counts = lazy.select(value.drop_nulls().alias("value")).group_by("value").len().collect(engine="streaming")
    if int(counts["len"].min() or 0) < 5:  # type: ignore[arg-type]
        return
    allowed = {"metric": "invalidValues", "arguments": {"validValues": sorted(counts["value"].to_list())}, "mustBe": 0}
    proposed.setdefault("quality", []).append({"type": "library", **allowed, "severity": "warning"})
