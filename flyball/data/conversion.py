"""See a table the way its contract does: the contract's column names, the values in their logical types.

`checking` prepares every batch with these expressions before the checks look at it, so that a check of a range
need not know whether the number came as text. A value that cannot be read becomes null, beside the original, and
is counted by the check `type`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timezone
from typing import TYPE_CHECKING, Any

from flyball.data.terms import Column, Contract
from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Preparation", "from_text", "prepare", "read_limit", "strptime_of"]

# Letters of java.time.format.DateTimeFormatter, which ODCS formats are written in, as strftime of Rust's chrono.
_JDK = {
    "yyyy": "%Y", "uuuu": "%Y", "yy": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "M": "%-m", "dd": "%d", "d": "%-d",
    "HH": "%H", "H": "%-H", "hh": "%I", "h": "%-I", "mm": "%M", "m": "%-M", "ss": "%S", "s": "%-S", "a": "%p",
    "SSS": "%3f", "SSSSSS": "%6f", "SSSSSSSSS": "%9f", "EEE": "%a", "EEEE": "%A", "DDD": "%j",
    "Z": "%z", "XXX": "%:z", "XX": "%z", "X": "%#z", "xxx": "%:z", "xx": "%z", "VV": "%#z",
}  # fmt: skip
_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")


@dataclass(frozen=True)
class Preparation:
    """Expressions that turn a batch into the contract's columns, and what they could not find.

    A converted column keeps its original under the name in `raw_by_column`. `sources` are the columns to read;
    `source_by_column` says which column of the data a contract's column is (or is part of).
    """

    expressions: tuple[pl.Expr, ...]
    raw_by_column: Mapping[str, str]
    source_by_column: Mapping[str, str]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def prepare(contract: Contract, schema: Mapping[str, pl.DataType]) -> Preparation:
    """Return how to see a table of this schema as `contract` does."""
    expressions: list[pl.Expr] = []
    raw_by_column: dict[str, str] = {}
    source_by_column: dict[str, str] = {}
    missing: list[str] = []
    for column in contract.columns:
        found = _find(column, schema)
        if found is None:
            missing.append(column.name)
            continue
        source, value, dtype = found
        source_by_column[column.name] = source
        converted = _converted(value, dtype, column)
        if converted is None:
            expressions.append(value.alias(column.name))
        else:
            raw_by_column[column.name] = f"\0{column.name}"
            expressions += [converted.alias(column.name), value.alias(f"\0{column.name}")]
    known = set(source_by_column.values())
    unknown = tuple(name for name in schema if name not in known)
    return Preparation(tuple(expressions), raw_by_column, source_by_column, tuple(missing), unknown)


def read_limit(limit: Any, logical: str | None, where: str) -> Any:
    """Return a limit of a range as a number, date, naive UTC datetime or time, by the column's logical type.

    Raises:
        InvalidInput: it is not one.
    """
    try:
        if logical == "date":
            return limit if type(limit) is date else date.fromisoformat(str(limit)[:10])
        if logical == "timestamp":
            instant = limit if isinstance(limit, datetime) else datetime.fromisoformat(str(limit))
            return instant.astimezone(timezone.utc).replace(tzinfo=None) if instant.tzinfo else instant  # noqa: UP017
        if logical == "time":
            return limit if isinstance(limit, time) else time.fromisoformat(str(limit))
    except ValueError:
        raise InvalidInput(f"{where} is {str(limit)!r}, which is not a {logical}; write it as ISO 8601") from None
    if logical is None and isinstance(limit, date | time):
        return limit
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit != limit:
        raise InvalidInput(f"{where} is {limit!r}; expected a number")
    return limit


def strptime_of(pattern: str, where: str) -> str:
    """Return the strptime format of a Java date format: `yyyy-MM-dd` becomes `%Y-%m-%d`.

    Raises:
        InvalidInput: a letter that has no counterpart.
    """
    parts, at = [], 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise InvalidInput(f"the date format {pattern!r} of {where} has an unclosed quote")
        text, at = token[0], token.end()
        if token[1] is not None:
            parts.append(token[1].replace("''", "'") or "'")
        elif token[2] is None:
            parts.append(text.replace("%", "%%"))
        elif text in _JDK:
            parts.append(_JDK[text])
        else:
            raise InvalidInput(
                f'the date format {pattern!r} of {where} has the unknown part "{text}"; write like yyyy-MM-dd'
            )
    return "".join(parts)


def _find(column: Column, schema: Mapping[str, pl.DataType]) -> tuple[str, pl.Expr, pl.DataType] | None:
    """Return the column of the data, an expression for the value, and its dtype; a dotted name goes into structs."""
    import polars as pl

    for name in (column.name, column.physical_name):
        if name is None:
            continue
        if name in schema:
            return name, pl.col(name), schema[name]
        head, *rest = name.split(".")
        if head not in schema:
            continue
        value, dtype = pl.col(head), schema[head]
        for part in rest:
            fields = {f.name: f.dtype for f in dtype.fields} if isinstance(dtype, pl.Struct) else {}
            if part not in fields:
                break
            value, dtype = value.struct.field(part), fields[part]  # type: ignore[assignment]
        else:
            return head, value, dtype
    return None


def _converted(value: pl.Expr, dtype: pl.DataType, column: Column) -> pl.Expr | None:
    """Return the value in the column's logical type, null where it cannot be read; None when it is already."""
    import polars as pl

    logical = column.logical_type
    text = isinstance(dtype, pl.String)
    if isinstance(dtype, pl.Categorical | pl.Enum):
        value, text, dtype = value.cast(pl.String), True, pl.String()
        if logical in ("string", None):
            return value
    if logical is None:
        return None
    targets: dict[str, tuple[Any, bool]] = {
        "string": (pl.String, text),
        "integer": (pl.Int64, dtype.is_integer()),
        "number": (pl.Float64, dtype.is_numeric()),
        "boolean": (pl.Boolean, dtype == pl.Boolean),
        "date": (pl.Date, dtype == pl.Date),
        "timestamp": (
            pl.Datetime("us"),
            isinstance(dtype, pl.Datetime) and dtype.time_zone is None and not _zone(column),
        ),
        "time": (pl.Time, dtype == pl.Time),
        "array": (pl.String, isinstance(dtype, pl.List | pl.Array)),
        "object": (pl.String, isinstance(dtype, pl.Struct)),
    }
    target, already = targets[logical]
    if already:
        return None
    if isinstance(dtype, pl.Null):
        return value.cast(target)
    if text:
        return from_text(value, column)
    if logical == "integer" and (dtype.is_float() or isinstance(dtype, pl.Decimal)):
        # Integers with gaps come as floats from pandas; 3.0 is an integer, 3.5 and NaN are not.
        return pl.when(value == value.round()).then(value).cast(pl.Int64, strict=False)
    if logical == "boolean" and dtype.is_integer():
        return pl.when(value.is_in([0, 1])).then(value == 1)
    if logical == "date" and isinstance(dtype, pl.Datetime):
        return pl.when(value.dt.time() == time(0)).then(value.dt.date())
    if logical == "timestamp" and isinstance(dtype, pl.Datetime | pl.Date):
        return _utc(value.cast(pl.Datetime("us")) if dtype == pl.Date else value, dtype, column)
    return pl.lit(None, dtype=target)


def from_text(value: pl.Expr, column: Column) -> pl.Expr:
    """Return texts in the column's logical type, null where they cannot be read."""
    import polars as pl

    logical, written = column.logical_type, column.options.get("format")
    if logical == "integer":
        number = value.cast(pl.Float64, strict=False)
        whole = pl.when(number == number.round()).then(number).cast(pl.Int64, strict=False)
        return pl.coalesce(value.cast(pl.Int64, strict=False), whole)
    if logical == "number":
        return value.cast(pl.Float64, strict=False)
    if logical == "boolean":
        word = value.str.to_lowercase()
        return pl.when(word.is_in(["true", "1"])).then(True).when(word.is_in(["false", "0"])).then(False)
    if logical == "date":
        return value.str.to_date(strptime_of(written, column.name) if written else "%Y-%m-%d", strict=False)
    if logical == "time":
        return value.str.to_time(strptime_of(written, column.name) if written else "%H:%M:%S%.f", strict=False)
    if logical == "timestamp":
        return _timestamp(value, strptime_of(written, column.name) if written else None, column)
    kind = list if logical == "array" else dict

    def readable(texts: pl.Series) -> pl.Series:
        return pl.Series([t if t is not None and _is_json(t, kind) else None for t in texts], dtype=pl.String)

    return value.map_batches(readable, return_dtype=pl.String)


def _timestamp(value: pl.Expr, written: str | None, column: Column) -> pl.Expr:
    import polars as pl

    naive = pl.Datetime("us")
    if written is not None and "z" in written:
        return _utc(
            value.str.to_datetime(written, time_unit="us", time_zone="UTC", strict=False),
            pl.Datetime("us", "UTC"),
            column,
        )
    if written is not None:
        return _utc(value.str.to_datetime(written, time_unit="us", strict=False), naive, column)
    text = value.str.replace(" ", "T", literal=True)
    zoned = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit="us", time_zone="UTC", strict=False)
    local = [text.str.to_datetime(f, time_unit="us", strict=False) for f in ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")]
    day = text.str.to_date("%Y-%m-%d", strict=False).cast(naive)
    return pl.coalesce(zoned.dt.replace_time_zone(None), _utc(pl.coalesce(*local, day), naive, column))


def _utc(value: pl.Expr, dtype: pl.DataType, column: Column) -> pl.Expr:
    """Return naive UTC; local times are of the column's `defaultTimezone`, else already UTC."""
    import polars as pl

    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return value.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    zone = _zone(column)
    if zone is None:
        return value
    local = value.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def _zone(column: Column) -> str | None:
    zone = column.options.get("defaultTimezone")
    return None if zone in (None, "UTC", "Etc/UTC", "Z") else str(zone)


def _is_json(text: str, kind: type) -> bool:
    import json

    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False
