"""What a longer data set adds to a stored view, computed from the new rows and those that they depend on."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from flyball.features.offline import BATCH, PUSHED_AT, StoredView
from flyball.features.views import FeatureView, instant
from flyball.storage.tables import TableStore

__all__ = ["addition"]

_COMPARED_ROWS = 2_000_000  # at the end of the old table; storage may have put small parts of it together


def addition(view: FeatureView, before: StoredView, source: str, tables: TableStore) -> pl.LazyFrame | None:
    """Return the rows to add to `before` for its source's new table, None when the whole must be computed again.

    The whole must be when the new table is not the old one made longer, when the view does not say how far its rows
    depend on others, and when new source rows take a row of the view away.
    """
    if view.look_back is None or before.source_table is None:
        return None
    if not _is_longer(before.source_table, source, tables):
        return None
    frame = tables.scan(source)
    new = frame.slice(before.source_rows)
    if view.is_row_wise:
        return view.compute(new)
    return _windows(view, before, frame, new, tables)


def _is_longer(old: str, new: str, tables: TableStore) -> bool:
    """Whether the new table is the old one with rows behind it."""
    was, now = tables.read(old), tables.read(new)
    if was.schema != now.schema or now.rows < was.rows:
        return False
    shared = 0
    for ours, theirs in zip(was.parts, now.parts, strict=False):
        if ours.digest != theirs.digest:
            break
        shared += ours.rows
    rest = was.rows - shared
    if rest > _COMPARED_ROWS:
        return False
    if not rest:
        return True
    pair = [tables.scan(table).slice(shared, rest).collect() for table in (old, new)]
    return pair[0].equals(pair[1])


def _windows(
    view: FeatureView, before: StoredView, frame: pl.LazyFrame, new: pl.LazyFrame, tables: TableStore
) -> pl.LazyFrame | None:
    """Return rows that are new or differ: those from the earliest new source row on are computed again."""
    schema, time = frame.collect_schema(), view.source_time
    if time is None or time not in schema:
        return None
    moment = instant(time, schema[time], f"the source of the view {view.name}")
    since = new.select(moment.min()).collect().item()
    if since is None:
        return view.compute(frame.clear()) if new.select(pl.len()).collect().item() == 0 else None
    assert isinstance(since, datetime) and view.look_back is not None
    affected = pl.col(view.event_time) >= since
    times = list(dict.fromkeys((view.event_time, view.known_at)))
    key = [*view.entity, *times]
    computed = view.compute(frame.filter(moment > since - view.look_back)).drop_nulls(key).filter(affected).collect()
    there = (
        tables.scan(before.table)
        .filter(affected, pl.col(PUSHED_AT).is_null())
        .drop(PUSHED_AT, BATCH)
        .collect()
        .unique(key, keep="last", maintain_order=True)
    )
    if there.join(computed, on=key, how="anti").height:
        return None
    return computed.join(there, on=computed.columns, how="anti", nulls_equal=True, maintain_order="left").lazy()
