"""What tests of stored views share: rows and questions that hypothesis draws, brute force, small blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import polars as pl
from hypothesis import strategies as st

from flyball.features.views import FeatureView, feature_view
from flyball.storage.blobs.files import FileBlobs
from flyball.storage.tables.parquet import ParquetTables

START = datetime(2013, 5, 1, tzinfo=UTC)


class Event(NamedTuple):
    """A row of a view; `pushed` is when it was pushed, None for a computed one. Times are minutes."""

    key: str | None
    event: int | None
    delay: int | None
    pushed: int | None = None


def at(minute: int | None) -> datetime | None:
    return None if minute is None else START + timedelta(minutes=minute)


keys = st.sampled_from(["a", "b", "é", None])
computed_events = st.builds(Event, keys, st.none() | st.integers(0, 12), st.none() | st.integers(0, 5), st.none())
questions = st.lists(
    st.tuples(st.sampled_from(["a", "b", "é", "z", None]), st.none() | st.integers(0, 18)), max_size=12
)


def times(minutes: list[int | None]) -> pl.Series:
    return pl.Series([at(minute) for minute in minutes], dtype=pl.Datetime("us", "UTC"))


def frame_of(events: list[Event], first: int = 0) -> pl.LazyFrame:
    return pl.LazyFrame(
        {
            "key": pl.Series([e.key for e in events], dtype=pl.String),
            "event": times([e.event for e in events]),
            "known": times([None if e.event is None or e.delay is None else e.event + e.delay for e in events]),
            "number": pl.Series(range(first, first + len(events)), dtype=pl.Int64),
        }
    )


def asked_of(asked: list[tuple[str | None, int | None]]) -> pl.DataFrame:
    return pl.DataFrame({"key": pl.Series([q[0] for q in asked], dtype=pl.String), "at": times([q[1] for q in asked])})


def view_of(is_bitemporal: bool, ttl: int | None, **declared: Any) -> FeatureView:
    @feature_view(
        entity="key",
        event_time="event",
        known_at="known" if is_bitemporal else None,
        ttl=None if ttl is None else timedelta(minutes=ttl),
        **declared,
    )
    def number(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame if is_bitemporal else frame.drop("known")

    return number


def brute_force(
    events: list[Event], key: str | None, moment: int | None, offset: int, ttl: int | None, is_bitemporal: bool
) -> int | None:
    """Return the number of the row that answers: the newest event that was known, then the last to arrive or come."""
    best: tuple[int, int, int] | None = None
    for number, row in enumerate(events):
        if row.key is None or row.event is None or row.key != key or moment is None:
            continue
        known = row.event if row.pushed is None else max(row.pushed, 0)
        if is_bitemporal:
            if row.delay is None:
                continue
            known = row.event + row.delay
        if row.event <= moment - offset and known <= moment:
            candidate = (row.event, known, number)
            best = candidate if best is None or candidate > best else best
    if best is None or moment is None or (ttl is not None and moment - best[0] > ttl):
        return None
    return best[2]


@contextmanager
def tables_here() -> Iterator[ParquetTables]:
    with TemporaryDirectory() as folder:
        yield ParquetTables(FileBlobs(Path(folder)))


@contextmanager
def small_blocks(rows: int = 3) -> Iterator[None]:
    """Make every bound so small that a few rows fill several blocks, marks, runs and steps."""
    bounds = {
        "flyball.features.runs": {"_MARK_ROWS": 2, "_FEWEST_ROWS": 1, "_CELLS": 6 * rows},
        "flyball.features.stored_joins": {
            "_NARROW_ROWS": rows,
            "_SWEPT_ROWS": 2,
            "_WIDE_CELLS": rows,
            "_DENSE_SLACK": 0,
        },
        "flyball.features.sweep": {"_MOST_WAITING": 2},
        "flyball.features.writing": {"_SURVEYED_ROWS": rows},
    }
    patches = [patch(f"{module}.{name}", value) for module, names in bounds.items() for name, value in names.items()]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()
