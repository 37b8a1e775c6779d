"""Ready-made request-time functions: one definition with two forms, by row in serving and by column in training.

Each returns what `@on_request` would have made of a function written by hand, so it is given to deployments and
training sets in the same way; its column form only makes training fast. That both agree, to the bit, is tested.

    calendar   hour, weekday, month… of a time in its place's zone, plain or as a circle's coordinates
    holidays   whether a day is one, and how far the nearest are
    buckets    a number as the interval that it falls into
    hashed     a text of very many values as one of few numbers

    when = fb.calendar("sched_dep_ts", zone="America/New_York", parts=["hour", "weekday", "hour_sin", "hour_cos"])
"""

from __future__ import annotations

import bisect
import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from flyball.errors import InvalidInput, MissingExtra, did_you_mean, listed
from flyball.features.requests import OnRequest

if TYPE_CHECKING:
    import polars as pl

__all__ = ["PARTS", "Prepared", "buckets", "calendar", "days_off", "hashed", "holidays"]

_EPOCH = date(1970, 1, 1)
_Expressions = Callable[["pl.Schema"], "Mapping[str, pl.Expr]"]

# part → (of a local time, how many there are, the first); None: no circle can be made of it
PARTS: Mapping[str, tuple[Callable[[datetime], int], int | None, int]] = {
    "minute": (lambda t: t.minute, 60, 0),
    "hour": (lambda t: t.hour, 24, 0),
    "day": (lambda t: t.day, None, 1),
    "weekday": (lambda t: t.isoweekday(), 7, 1),
    "week": (lambda t: t.isocalendar().week, None, 1),
    "month": (lambda t: t.month, 12, 1),
    "quarter": (lambda t: (t.month + 2) // 3, 4, 1),
    "day_of_year": (lambda t: t.timetuple().tm_yday, None, 1),
    "year": (lambda t: t.year, None, 1),
    "is_weekend": (lambda t: int(t.isoweekday() >= 6), None, 0),
}
_CIRCLES = ("sin", "cos")


@dataclass(frozen=True)
class Prepared(OnRequest):
    """An `OnRequest` that also knows its column form.

    Attributes:
        expressions: gives, for a schema, feature → expression.
        made: the call that makes it anew, wherever it is to be served.
    """

    expressions: _Expressions = field(default=lambda _: {}, repr=False)
    made: str = ""

    def apply(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Add the features to rows, column by column. Raises InvalidInput as `OnRequest.apply`."""
        schema = rows.collect_schema()
        for name in self.inputs:
            if name not in schema:
                raise InvalidInput(
                    f'{self.name} needs the column "{name}"{did_you_mean(name, schema)} '
                    f"(the rows have {listed(schema)})"
                )
        for name in self.outputs or ():
            if name in schema:
                raise InvalidInput(
                    f'the rows have a column "{name}" already, which is a feature of {self.name}; '
                    "drop or rename one of them"
                )
        return rows.with_columns(**self.expressions(schema))


def calendar(
    column: str,
    *,
    zone: str = "UTC",
    parts: Sequence[str] = ("hour", "weekday", "month"),
    prefix: str = "",
) -> Prepared:
    """Return the parts of a time as the clocks of `zone` show it.

    Args:
        column: a time with a zone.
        parts: of `PARTS`; weekdays are 1 (Monday) to 7. `hour_sin`, `hour_cos` and the like lay a part on a circle, on
            which 23 is next to 0; for minute, hour, weekday, month, quarter.
        prefix: what the features' names begin with.

    Raises:
        InvalidInput: unknown zone or part.

    >>> calendar("at", zone="America/New_York").compute({"at": "2013-05-03T02:00:00Z"})
    {'hour': 22, 'weekday': 4, 'month': 5}
    """
    _check_zone(zone)
    circles = [f"{part}_{way}" for part, (_, size, _) in PARTS.items() if size for way in _CIRCLES]
    for part in parts:
        if part not in PARTS and part not in circles:
            known = [*PARTS, *circles]
            raise InvalidInput(f'unknown part "{part}" of a time{did_you_mean(part, known)} (known: {listed(known)})')
    if not parts or len(set(parts)) < len(parts):
        raise InvalidInput(f"the parts are {listed(parts) or 'none'}; expected at least one, each once")
    tables = {part: _circle(part) for part in parts if part in circles}

    def by_row(**fields: Any) -> dict[str, Any]:
        local = fields[column].astimezone(ZoneInfo(zone))
        found: dict[str, Any] = {}
        for part in parts:
            if part in tables:
                whole = part.rpartition("_")[0]
                found[prefix + part] = tables[part][PARTS[whole][0](local) - PARTS[whole][2]]
            else:
                value = PARTS[part][0](local)
                found[prefix + part] = bool(value) if part == "is_weekend" else value
        return found

    def by_column(schema: pl.Schema) -> dict[str, pl.Expr]:
        local = _moment(column, schema, "calendar").dt.convert_time_zone(zone)
        return {prefix + part: _part(local, part, tables.get(part)) for part in parts}

    kinds = {prefix + p: float if p in tables else bool if p == "is_weekend" else int for p in parts}
    made = f"calendar({column!r}, zone={zone!r}, parts={list(parts)!r}, prefix={prefix!r})"
    return Prepared(f"calendar_{column}", by_row, {column: (datetime, False)}, {}, kinds, by_column, made)


def holidays(
    column: str,
    *,
    country: str,
    subdivision: str | None = None,
    zone: str = "UTC",
    years: tuple[int, int] = (2000, 2050),
    prefix: str = "",
) -> Prepared:
    """Return `is_holiday`, `days_since_holiday` and `days_to_holiday` (0 on one) of a time's local day.

    The days are worked out now and kept with the function, so that serving needs no library and training no newer one.
    Outside `years` all three are null.

    Raises:
        InvalidInput: unknown country, subdivision or zone; years that are no range.
        MissingExtra: `flyball[calendar]` is not installed.
    """
    try:
        import holidays as library
    except ImportError as error:
        raise MissingExtra("holidays", "calendar", "public holidays") from error
    first, last = years
    if not 1900 <= first <= last <= 2200:
        raise InvalidInput(f"the years are {first} to {last}; expected a range within 1900 to 2200")
    known = library.list_supported_countries(include_aliases=True)
    if country not in known:
        raise InvalidInput(
            f'unknown country "{country}"{did_you_mean(country, known)}; write an ISO 3166 code such as US'
        )
    if subdivision is not None and subdivision not in known[country]:
        near = did_you_mean(subdivision, known[country])
        raise InvalidInput(f'unknown subdivision "{subdivision}" of {country}{near} (known: {listed(known[country])})')
    # One more on either side, so that the distance to the nearest is right at the edges too.
    found = library.country_holidays(country, subdiv=subdivision, years=range(first - 1, last + 2))
    days = sorted((day - _EPOCH).days for day in found)
    start, end = (date(first, 1, 1) - _EPOCH).days, (date(last, 12, 31) - _EPOCH).days
    return days_off(column, days, within=(start, end), zone=zone, prefix=prefix)


def days_off(column: str, days: Sequence[int], *, within: tuple[int, int], zone: str, prefix: str = "") -> Prepared:
    """Return what `holidays` does for any days.

    Args:
        days: ascending, counted from 1970-01-01; the first and last beyond `within`.
        within: the first and last day for which there is an answer.

    Raises:
        InvalidInput: unknown zone.
    """
    start, end = within
    days = list(days)
    names = [prefix + name for name in ("is_holiday", "days_since_holiday", "days_to_holiday")]
    _check_zone(zone)

    def by_row(**fields: Any) -> dict[str, Any]:
        day = (fields[column].astimezone(ZoneInfo(zone)).date() - _EPOCH).days
        if not start <= day <= end:
            return dict.fromkeys(names)
        after, before = bisect.bisect_left(days, day), bisect.bisect_right(days, day) - 1
        return dict(zip(names, (days[after] == day, day - days[before], days[after] - day), strict=True))

    def by_column(schema: pl.Schema) -> dict[str, pl.Expr]:
        import polars as pl

        local = _moment(column, schema, "holidays").dt.convert_time_zone(zone).dt.date().cast(pl.Int32)
        day = pl.when(local.is_between(start, end)).then(local)
        table = pl.Series(days, dtype=pl.Int32)

        def nearest(side: str) -> pl.Expr:
            def look(asked: pl.Series) -> pl.Series:
                at = table.search_sorted(asked.fill_null(start), side="left" if side == "to" else "right")
                found = table.gather(at if side == "to" else at - 1)
                away = found - asked if side == "to" else asked - found
                return away.cast(pl.Int64)

            return day.map_batches(look, return_dtype=pl.Int64)

        return dict(zip(names, (nearest("to") == 0, nearest("since"), nearest("to")), strict=True))

    kinds = dict(zip(names, (bool, int, int), strict=True))
    made = f"days_off({column!r}, {days!r}, within={(start, end)!r}, zone={zone!r}, prefix={prefix!r})"
    return Prepared(f"holidays_{column}", by_row, {column: (datetime, False)}, {}, kinds, by_column, made)


def buckets(column: str, edges: Sequence[float], *, name: str | None = None) -> Prepared:
    """Return the number of the interval that a number falls into: 0 below the first edge, 1 from it on, and so on.

    Raises:
        InvalidInput: no edges, or they do not ascend.
    """
    bounds = [float(edge) for edge in edges]
    if not bounds or not all(a < b for a, b in itertools.pairwise(bounds)) or not all(map(math.isfinite, bounds)):
        raise InvalidInput(f"the edges of {column} are {list(edges)}; expected finite numbers that ascend")
    feature = name or f"{column}_bucket"

    def by_row(**fields: Any) -> dict[str, Any]:
        return {feature: bisect.bisect_right(bounds, fields[column])}

    def by_column(schema: pl.Schema) -> dict[str, pl.Expr]:
        import polars as pl

        _numeric(column, schema)
        value = pl.col(column).cast(pl.Float64)
        value = pl.when(value.is_not_nan()).then(value)
        table = pl.Series(bounds, dtype=pl.Float64)
        return {
            feature: value.map_batches(
                lambda asked: (
                    pl.select(
                        pl.when(asked.is_not_null()).then(table.search_sorted(asked.fill_null(0.0), side="right"))
                    )
                    .to_series()
                    .cast(pl.Int64)
                ),
                return_dtype=pl.Int64,
            )
        }

    made = f"buckets({column!r}, {bounds!r}, name={feature!r})"
    return Prepared(f"buckets_{column}", by_row, {column: (float, False)}, {}, {feature: int}, by_column, made)


def hashed(column: str, size: int, *, name: str | None = None) -> Prepared:
    """Return a text as one of `size` numbers, the same for ever and everywhere: CRC-32 of its UTF-8, modulo `size`.

    Raises:
        InvalidInput: the size is no whole number from 2 to 2³¹.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 2 <= size <= 2**31:
        raise InvalidInput(f"the size of {column}'s hash is {size!r}; expected a whole number from 2 to 2**31")
    feature = name or f"{column}_hash"

    def by_row(**fields: Any) -> dict[str, Any]:
        return {feature: zlib.crc32(fields[column].encode()) % size}

    def by_column(schema: pl.Schema) -> dict[str, pl.Expr]:
        import polars as pl

        if not isinstance(schema[column], pl.String | pl.Categorical | pl.Enum):
            raise InvalidInput(f'hashed needs a text; "{column}" is {schema[column]}')

        def look(asked: pl.Series) -> pl.Series:
            values = asked.unique().drop_nulls()
            codes = [zlib.crc32(value.encode()) % size for value in values]
            return asked.replace_strict(values, pl.Series(codes, dtype=pl.Int64), default=None, return_dtype=pl.Int64)

        return {feature: pl.col(column).cast(pl.String).map_batches(look, return_dtype=pl.Int64)}

    made = f"hashed({column!r}, {size!r}, name={feature!r})"
    return Prepared(f"hashed_{column}", by_row, {column: (str, False)}, {}, {feature: int}, by_column, made)


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = did_you_mean(zone, available_timezones())
        raise InvalidInput(f'unknown zone "{zone}"{near}; write one such as America/New_York') from None


def _circle(part: str) -> list[float]:
    """Return a coordinate on the circle for each value of a part: worked out once, so that both forms agree."""
    whole, _, way = part.rpartition("_")
    size = PARTS[whole][1] or 1
    turn = math.sin if way == "sin" else math.cos
    return [turn(2 * math.pi * at / size) for at in range(size)]


def _part(local: pl.Expr, part: str, table: list[float] | None) -> pl.Expr:
    import polars as pl

    whole = part.rpartition("_")[0] if table is not None else part
    by_name = {
        "minute": local.dt.minute(),
        "hour": local.dt.hour(),
        "day": local.dt.day(),
        "weekday": local.dt.weekday(),
        "week": local.dt.week(),
        "month": local.dt.month(),
        "quarter": local.dt.quarter(),
        "day_of_year": local.dt.ordinal_day(),
        "year": local.dt.year(),
        "is_weekend": local.dt.weekday() >= 6,
    }
    value = by_name[whole]
    if table is not None:
        first = PARTS[whole][2]
        return value.cast(pl.Int64).replace_strict(
            list(range(first, first + len(table))), table, return_dtype=pl.Float64
        )
    return value if part == "is_weekend" else value.cast(pl.Int64)


def _moment(column: str, schema: pl.Schema, who: str) -> pl.Expr:
    import polars as pl

    dtype = schema[column]
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        raise InvalidInput(f'{who} needs a time with a zone; "{column}" is {dtype}')
    return pl.col(column).dt.cast_time_unit("us")


def _numeric(column: str, schema: pl.Schema) -> None:
    if not schema[column].is_numeric():
        raise InvalidInput(f'buckets needs a number; "{column}" is {schema[column]}')
