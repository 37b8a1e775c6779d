"""Propose a contract from data.

The proposal is meant to pass on other data of the same kind: ranges reach well beyond what was seen, and of measured
numbers one row in a hundred may lie beyond, since sensors fail; a column is only called complete, closed or unique when
there is enough evidence; and what was only never seen otherwise (lists of values, shapes of texts, columns that follow
from others) warns instead of failing. Text stays text where it is a code (`01001`) and is read where it is a number.
It is a document to read and tighten, not a measurement of the sample. Called by `flyball init` and by the demo.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from flyball.data.checks.format import PATTERNS
from flyball.data.conversion import from_text
from flyball.data.dependencies import dependencies, joint_key, ordered_pairs
from flyball.data.shapes import shape_of
from flyball.data.terms import Column
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["infer_contract"]

_ROWS_FOR_ALWAYS = 1_000  # seen complete in n rows, at most 3/n of all are not, at 95 % (rule of three)
_ROWS_FOR_RANGE = 20
_ROWS_PER_VALUE = 10  # of a closed list, each value of which was seen twice at least
_VALUES_OF_CLOSED = 100
_LATE_SHARE = 0.01  # of rows with values that only the second half has: more, and the list is still growing
_BEYOND_PERCENT = 1.0  # of measured numbers that may lie beyond the range
_TEXTS = 100_000  # different texts to learn a shape from; more are free text or keys
_CODE_DIGITS = 5  # whole numbers of one width from so many digits on are codes
_TOLD_FORMATS = ("email", "uuid", "ipv4", "uri")
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_INSTANT = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?$"
)
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
    by_name = {item["name"]: item for item in properties}
    for by, column in dependencies(lazy, rows):
        _warn(by_name[column], "custom", implementation={"check": "depends_on", "columns": list(by)})
    table: list[dict[str, Any]] = [{"type": "library", "metric": "rowCount", "mustBeGreaterThan": 0}]
    key = joint_key(lazy, rows) if not any(item.get("unique") for item in properties) else None
    if key:
        table.append({"type": "library", "metric": "duplicateValues", "arguments": {"properties": list(key)},
                      "mustBe": 0, "severity": "warning"})  # fmt: skip
    for one, two in ordered_pairs(lazy, rows):
        expression = f"{_quoted(one)} <= {_quoted(two)}"
        table.append({"type": "custom", "engine": "flyball", "implementation": {"expression": expression},
                      "severity": "warning"})  # fmt: skip
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
                "quality": table,
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
        _range(proposed, _widened(found, there), is_measured=dtype.is_float())
    if logical == "string":
        _text(proposed, lazy, name, there, distinct)
    return proposed


def _text(proposed: dict[str, Any], lazy: pl.LazyFrame, name: str, there: int, distinct: int) -> None:
    """Say what texts look like: numbers or dates that came as text, a list of values, a format, a shape, a length."""
    import polars as pl

    value = pl.col(name).cast(pl.String).drop_nulls().alias("value")
    if distinct > _TEXTS:
        longest = int(lazy.select(value.str.len_chars().max()).collect(engine="streaming").item())
        proposed["logicalTypeOptions"] = {"maxLength": _length_limit(longest)}
        return
    at = pl.int_range(pl.len()).alias("at")
    first = pl.col("at").min().alias("first")
    counts = lazy.select(value).with_columns(at).group_by("value").agg(pl.len(), first).collect(engine="streaming")
    rows_by_text = dict(sorted(counts.select("value", "len").iter_rows()))
    if _read_as(proposed, counts["value"], there, distinct):
        return
    least = min(rows_by_text.values())
    late = int(counts.filter(pl.col("first") >= there // 2)["len"].sum())  # of values that the first half has not
    is_closed = there >= _ROWS_PER_VALUE * distinct and least > 1 and late <= _LATE_SHARE * there
    if there >= _ROWS_FOR_RANGE and distinct <= _VALUES_OF_CLOSED and is_closed:
        allowed = {"metric": "invalidValues", "arguments": {"validValues": list(rows_by_text)}, "mustBe": 0}
        proposed.setdefault("quality", []).append({"type": "library", **allowed, "severity": "warning"})
        return
    if distinct >= _ROWS_FOR_RANGE:
        texts = counts["value"]
        known = next(
            (f for f, pattern in PATTERNS.items() if f in _TOLD_FORMATS and texts.str.contains(pattern).all()), None
        )
        shape = shape_of(rows_by_text) if known is None else None
        if shape is not None and not texts.str.contains(shape.pattern).all():
            shape = None  # Unicode's properties of a letter differ from what its engine for patterns knows
        if known is not None:
            proposed["logicalTypeOptions"] = {"format": known}
        elif shape is not None and shape.is_firm and there >= _ROWS_FOR_ALWAYS:
            proposed["logicalTypeOptions"] = {"pattern": shape.pattern}
        elif shape is not None:
            valid = {"metric": "invalidValues", "arguments": {"pattern": shape.pattern}, "mustBe": 0}
            proposed.setdefault("quality", []).append({"type": "library", **valid, "severity": "warning"})
        if known is None and shape is None:
            longest = int(texts.str.len_chars().max() or 0)  # type: ignore[arg-type]
            proposed["logicalTypeOptions"] = {"maxLength": _length_limit(longest)}


def _read_as(proposed: dict[str, Any], texts: pl.Series, there: int, distinct: int) -> bool:
    """Give texts that are all whole numbers, numbers, dates or instants that type; codes of one width stay text."""
    import polars as pl

    if there < _ROWS_FOR_RANGE or distinct < 2:
        return False
    if texts.str.contains(r"^-?(?:0|[1-9][0-9]{0,17})$").all():
        lengths = texts.str.len_chars()
        if distinct >= _ROWS_FOR_RANGE and lengths.n_unique() == 1 and int(lengths[0]) >= _CODE_DIGITS:
            return False
        proposed["logicalType"] = "integer"
        _range_of_text(proposed, texts.cast(pl.Int64), there, is_measured=False)
        return True
    if texts.str.contains(r"^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,17})?$").all():
        proposed["logicalType"] = "number"
        _range_of_text(proposed, texts.cast(pl.Float64), there, is_measured=True)
        return True
    for pattern, logical in ((_DAY, "date"), (_INSTANT, "timestamp")):
        if texts.str.contains(pattern).all():
            column = Column("x", logical)
            read = from_text(pl.col(texts.name), column)
            if texts.to_frame().select(read.is_not_null().all()).item():
                proposed["logicalType"] = logical
                return True
    return False


def _range_of_text(proposed: dict[str, Any], numbers: pl.Series, there: int, *, is_measured: bool) -> None:
    if proposed.get("unique") or len(numbers) == there:
        return
    found = {"low": numbers.min(), "high": numbers.max(), "zeros": int((numbers == 0).sum())}
    _range(proposed, _widened(found, there), is_measured=is_measured)


def _range(proposed: dict[str, Any], limits: tuple[float, float], *, is_measured: bool) -> None:
    low, high = limits
    if not is_measured:
        proposed["logicalTypeOptions"] = {"minimum": low, "maximum": high}
        return
    how = {"check": "range", "minimum": low, "maximum": high, "mustBeLessOrEqualTo": _BEYOND_PERCENT}
    entry = {"type": "custom", "engine": "flyball", "unit": "percent", "implementation": how}
    proposed.setdefault("quality", []).append(entry)


def _warn(item: dict[str, Any], kind: str, **said: Any) -> None:
    item.setdefault("quality", []).append({"type": kind, "engine": "flyball", **said, "severity": "warning"})


def _length_limit(longest: int) -> int:
    """Return twice the longest, as a round number: 10, 20, 50, 100, 200, …"""
    power: int = max(10, 10 ** (len(str(2 * longest)) - 1))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= 2 * longest)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


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
