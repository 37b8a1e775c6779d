"""What an entity's past says, as a feature view's rows: running aggregates, lags, seasons, encodings.

A view's function calls these on its source, as it calls `windows.windowed`. Each row that comes out is true from its
own time on, so a join as of an instant, or a look-up, never sees what came after. To leave out what happens at the very
instant of a row (a rating that is to be predicted), join with an offset of a microsecond.

    running     count, sum, mean, least, greatest, distinct values… of all events so far
    lagged      the newest value, the one before it, …
    seasonal    the value of a day, a week ago
    encoded     a category as the smoothed mean of a target, known at each time: no leakage, no folds
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import polars as pl

from flyball.clock import parse_duration
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.features.views import instant

__all__ = ["AGGREGATES", "encoded", "lagged", "running", "seasonal"]

_Running = Callable[[pl.Expr, list[str]], pl.Expr]


def _mean(value: pl.Expr, keys: list[str]) -> pl.Expr:
    known = value.cum_count().over(keys)
    total = value.cast(pl.Float64).fill_null(0.0).cum_sum().over(keys)
    return pl.when(known > 0).then(total / known)


AGGREGATES: Mapping[str, _Running] = {
    "count": lambda value, keys: value.cum_count().over(keys).cast(pl.Int64),
    "sum": lambda value, keys: value.fill_null(0).cum_sum().over(keys),
    "mean": _mean,
    "min": lambda value, keys: value.cum_min().forward_fill().over(keys),
    "max": lambda value, keys: value.cum_max().forward_fill().over(keys),
    "last": lambda value, keys: value.forward_fill().over(keys),
    "first": lambda value, keys: pl.when(value.cum_count() > 0).then(value.drop_nulls().first()).over(keys),
    "distinct": lambda value, keys: (
        (value.is_first_distinct() & value.is_not_null()).cum_sum().over(keys).cast(pl.Int64)
    ),
}


def running(
    frame: pl.LazyFrame,
    *,
    by: str | Sequence[str],
    time: str,
    **aggregates: str | tuple[str, str],
) -> pl.LazyFrame:
    """Return rows of (by, time, aggregates): at each time of an entity's events, the aggregates of all up to it.

    Args:
        by: the entity; rows without one, or without a time, do not count.
        time: when something happened; a time with a zone. Events of one entity and time count together.
        aggregates: feature → ("mean", "rating"): one of `AGGREGATES` and its column; "count" alone counts events.
            Nulls count nowhere but in "count" alone.

    Raises:
        InvalidInput: a column is missing, the time has no zone, an aggregate is unknown or none is given.

    >>> ratings = pl.LazyFrame({"user": [1, 1], "rating": [4.0, 5.0], "at": ["2020-01-01T00:00Z", "2020-01-02T00:00Z"]})
    >>> ratings = ratings.with_columns(pl.col("at").str.to_datetime(time_zone="UTC"))
    >>> running(ratings, by="user", time="at", n="count", mean=("mean", "rating")).collect()["mean"].to_list()
    [4.0, 4.5]
    """
    keys, events = _events(frame, by, time)
    if not aggregates:
        raise InvalidInput('nothing to compute is given; say for example n="count" or mean_rating=("mean", "rating")')
    columns = events.collect_schema()
    expressions = []
    for feature, wanted in aggregates.items():
        name, column = (wanted, None) if isinstance(wanted, str) else wanted
        if name not in AGGREGATES:
            raise InvalidInput(
                f'{feature}: unknown aggregate "{name}"{did_you_mean(name, AGGREGATES)} (known: {listed(AGGREGATES)})'
            )
        if column is None and name != "count":
            raise InvalidInput(f'{feature}: "{name}" of which column? write ("{name}", "column")')
        if column is not None and column not in columns:
            raise InvalidInput(f'{feature}: there is no column "{column}"{did_you_mean(column, columns)}')
        value = pl.col(time) if column is None else pl.col(column)
        expressions.append(AGGREGATES[name](value, keys).alias(feature))
    return _last_of_each_time(events.select(*keys, time, *expressions), keys, time)


def lagged(
    frame: pl.LazyFrame, *, by: str | Sequence[str], time: str, columns: str | Sequence[str], lags: int = 3
) -> pl.LazyFrame:
    """Return rows of (by, time, `<column>_1` … `<column>_<lags>`): the newest value, the one before it, and so on.

    Of events of one entity and time the last in the frame is the newest.

    Raises:
        InvalidInput: a column is missing, the time has no zone, `lags` is not a whole number from 1 to 1000.
    """
    if isinstance(lags, bool) or not isinstance(lags, int) or not 1 <= lags <= 1000:
        raise InvalidInput(f"lags is {lags!r}; expected a whole number from 1 to 1000")
    keys, events = _events(frame, by, time)
    names = _present(columns, events.collect_schema())
    shifted = [pl.col(c).shift(n - 1).over(keys).alias(f"{c}_{n}") for c in names for n in range(1, lags + 1)]
    return _last_of_each_time(events.select(*keys, time, *shifted), keys, time)


def seasonal(
    frame: pl.LazyFrame,
    *,
    by: str | Sequence[str],
    time: str,
    columns: str | Sequence[str],
    ago: Sequence[str | timedelta] = ("1d", "7d"),
) -> pl.LazyFrame:
    """Return rows of (by, time, `<column>_<ago>_ago`): at each time the value that was true just so long before.

    The rows' times are the events' own moved on by each of `ago`, so a join as of an instant finds yesterday's value at
    this hour even where today's is not known yet. Where an entity has no event just then the value is null.

    Raises:
        InvalidInput: a column is missing, the time has no zone, a span is no positive duration or given twice.
    """
    keys, events = _events(frame, by, time)
    names = _present(columns, events.collect_schema())
    spans = {str(span) if isinstance(span, str) else f"{span.total_seconds():g}s": parse_duration(span) for span in ago}
    if len(set(spans.values())) < len(ago) or not spans or not all(spans.values()):
        raise InvalidInput(f"ago is {listed(map(str, ago))}; expected positive durations, each once, such as 1d")
    rows = _last_of_each_time(events.select(*keys, time, *names), keys, time)
    moved = [
        rows.select(*keys, pl.col(time) + span, *(pl.col(c).alias(f"{c}_{word}_ago") for c in names))
        for word, span in spans.items()
    ]
    grid = pl.concat([part.select(*keys, time) for part in moved]).unique()
    for part in moved:
        grid = grid.join(part, on=[*keys, time], how="left")
    return grid.sort(time, *keys)


def encoded(
    frame: pl.LazyFrame,
    *,
    by: str | Sequence[str],
    time: str,
    target: str,
    weight: float = 20.0,
    name: str | None = None,
) -> pl.LazyFrame:
    """Return rows of (by, time, feature): the category as the mean of its target so far, drawn towards the mean of all.

    At each time of a category's events the feature is (Σ target + weight · m) / (n + weight), over its n events up to
    then, m being the mean over all categories up to then. `time` must be when the target became known.

    Source: D. Micci-Barreca (2001), A preprocessing scheme for high-cardinality categorical attributes, eq. 4, with
    λ(n) = n / (n + weight).

    Args:
        weight: how many events the mean of all counts for.
        name: the feature's; default `<target>_by_<category>`.

    Raises:
        InvalidInput: a column is missing or not a number, the time has no zone, the weight is negative.
    """
    if not weight >= 0 or isinstance(weight, bool):
        raise InvalidInput(f"weight is {weight!r}; expected a number of events, 0 or more")
    keys, events = _events(frame, by, time)
    schema = events.collect_schema()
    (column,) = _present(target, schema)
    if not (schema[column].is_numeric() or schema[column] == pl.Boolean):
        raise InvalidInput(f'the target "{column}" is {schema[column]}; expected numbers or booleans')
    value = pl.col(column).cast(pl.Float64)
    known = events.with_columns(value.alias("__value")).drop_nulls("__value").sort(time, maintain_order=True)
    everywhere = known.group_by(time, maintain_order=True).agg(pl.sum("__value"), pl.len().alias("__n"))
    prior = (pl.col("__value").cum_sum() / pl.col("__n").cum_sum()).alias("__prior")
    own = known.select(
        *keys,
        time,
        pl.col("__value").cum_sum().over(keys).alias("__sum"),
        pl.col("__value").cum_count().over(keys).alias("__count"),
    )
    feature = name or f"{column}_by_{'_'.join(keys)}"
    return (
        _last_of_each_time(own, keys, time)
        .join(everywhere.select(time, prior), on=time, how="left")
        .select(
            *keys,
            time,
            ((pl.col("__sum") + weight * pl.col("__prior")) / (pl.col("__count") + weight)).alias(feature),
        )
        .sort(time, *keys)
    )


def _events(frame: pl.LazyFrame, by: str | Sequence[str], time: str) -> tuple[list[str], pl.LazyFrame]:
    """Return the keys, and the events that have them and a time, by time."""
    keys = [by] if isinstance(by, str) else list(by)
    schema = frame.collect_schema()
    for column in (*keys, time):
        if column not in schema:
            raise InvalidInput(
                f'there is no column "{column}"{did_you_mean(column, schema)} (there are {listed(schema)})'
            )
    moment = instant(time, schema[time], "the events")
    return keys, frame.drop_nulls([*keys, time]).with_columns(moment).sort(time, maintain_order=True)


def _last_of_each_time(rows: pl.LazyFrame, keys: list[str], time: str) -> pl.LazyFrame:
    return rows.unique([*keys, time], keep="last", maintain_order=True)


def _present(columns: str | Sequence[str], schema: pl.Schema) -> list[str]:
    names = [columns] if isinstance(columns, str) else list(columns)
    for name in names:
        if name not in schema:
            raise InvalidInput(f'there is no column "{name}"{did_you_mean(name, schema)} (there are {listed(schema)})')
    if not names:
        raise InvalidInput("no column is given; name at least one")
    return names
