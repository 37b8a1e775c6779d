"""Retention: which rows of a table are older than they may be.

A row's age counts from its event time. A row without one (null) stays, because nobody can say that it is old; a time
column without a zone is UTC. A dataset that is to expire must name its event time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from flyball.errors import InvalidInput

if TYPE_CHECKING:
    import polars as pl

    from flyball.storage.tables.rewriting import Condition

__all__ = ["cutoff", "older_than"]


def cutoff(now: datetime, kept: timedelta) -> datetime:
    """Return the instant before which rows have expired; a row of exactly this instant is kept."""
    try:
        return now - kept
    except OverflowError:  # kept for longer than there are years
        return datetime.min.replace(tzinfo=UTC)


def older_than(event_time: str, moment: datetime) -> Condition:
    """Return the condition of rows whose event time is before `moment` (with a zone), for tables that have the column.

    Raises:
        InvalidInput: when it meets a table whose column is neither a date nor a time; numbers could be of any unit.
    """

    def condition(schema: pl.Schema) -> pl.Expr | None:
        import polars as pl

        dtype = schema.get(event_time)
        if dtype is None:
            return None
        value = pl.col(event_time)
        if isinstance(dtype, pl.Date):
            return value < moment.astimezone(UTC).date()
        if isinstance(dtype, pl.Datetime):
            limit = moment.astimezone(UTC).replace(tzinfo=None)
            border = pl.lit(limit, dtype=pl.Datetime(dtype.time_unit))
            if dtype.time_zone is None:
                return value < border
            return value < border.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
        raise InvalidInput(
            f'the event time "{event_time}" is {dtype}, so nobody can say how old a row is; publish it as a time'
        )

    return condition
