"""Sliding windows as a feature view's rows: what was counted or averaged over the last hour, every ten minutes.

A view's function calls `windowed`; an as-of join, or a look-up of pushed rows, then gives each row the window that
ended last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import polars as pl

from flyball.clock import parse_duration
from flyball.errors import InvalidInput, did_you_mean, listed
from flyball.features.views import instant

__all__ = ["windowed"]


def windowed(
    frame: pl.LazyFrame,
    *,
    by: str | Sequence[str],
    time: str,
    every: str | timedelta,
    period: str | timedelta,
    closed: Literal["left", "right"] = "right",
    **aggregates: pl.Expr,
) -> pl.LazyFrame:
    """Return rows of (by, time, aggregates) at the instants of a grid, `time` being the window's end.

    The grid is the multiples of `every` since 1970-01-01T00:00Z. A row at g holds the aggregates over (g − period, g],
    or [g − period, g) when closed on the left. There is a row wherever the window holds something and one, with the
    aggregates of nothing (counts and sums 0, means null), where it has just become empty. So a join as of an instant
    of the grid is exact, and between two it gives the window of the earlier: at most `every` old.

    Args:
        by: the entity; rows without one, or without a time, do not count.
        time: when something happened and was known; a time with a zone.
        period: a multiple of `every`.
        aggregates: name=expression, for example `delay=pl.mean("dep_delay")`.

    Raises:
        InvalidInput: a column is missing, the time has no zone, the period is no multiple, no aggregate is given.

    >>> flights = pl.LazyFrame({"origin": ["JFK"], "at": [timedelta(minutes=3)]}).with_columns(
    ...     at=pl.lit("2013-05-01T10:00:00Z").str.to_datetime(time_zone="UTC") + pl.col("at"))
    >>> windowed(flights, by="origin", time="at", every="10m", period="20m", n=pl.len()).collect()["n"].to_list()
    [1, 1, 0]
    """
    keys = [by] if isinstance(by, str) else list(by)
    schema = frame.collect_schema()
    for column in (*keys, time):
        if column not in schema:
            raise InvalidInput(
                f'there is no column "{column}" for a window{did_you_mean(column, schema)} (there are {listed(schema)})'
            )
    if not aggregates:
        raise InvalidInput('a window needs what to compute; give it for example count=pl.len() or delay=pl.mean("x")')
    step, span = parse_duration(every), parse_duration(period)
    if not step or not span or span % step:
        raise InvalidInput(f"the period {period} is no multiple of the step {every}; windows end on the steps' grid")
    events = frame.drop_nulls([*keys, time]).with_columns(instant(time, schema[time], "a window"))
    # A group's windows begin with its first row: one put well before it makes those that hold the first event only in
    # part begin early enough, and shares no window with it.
    first = events.group_by(keys).agg(pl.col(time).min())
    padded = pl.concat([events, first.with_columns(pl.col(time) - 2 * span)], how="diagonal")
    windows = (
        padded.sort([*keys, time], maintain_order=True)
        .group_by_dynamic(time, every=_whole(step), period=_whole(span), closed=closed, label="right", group_by=keys)
        .agg(**aggregates)
        .join(first.rename({time: "__first"}), on=keys, how="left")
        .filter(pl.col(time) >= pl.col("__first"))
        .drop("__first")
    )
    after = pl.col(time).shift(-1).over(keys, order_by=time)
    emptied = windows.filter((after - pl.col(time) > step) | after.is_null()).select(*keys, pl.col(time) + step)
    nothing = events.filter(False).select(**aggregates)
    return pl.concat(
        [windows, emptied.join(nothing, how="cross").select(*keys, time, *aggregates)], how="vertical_relaxed"
    ).sort(time, *keys)


def _whole(span: timedelta) -> str:
    return f"{span // timedelta(microseconds=1)}us"
