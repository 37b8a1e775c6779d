"""Writing stored views: computed whole, added to, and found in order again after their table was rewritten.

Everything here takes a stored view and returns another; `storing` publishes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from flyball.errors import InvalidInput, NotFound
from flyball.features.offline import BATCH, PUSHED_AT, StoredView, arrival, check_fits, offsets
from flyball.features.runs import Run, Tally, merged, reader_of, rows_at_once, sorted_files, to_merge
from flyball.features.specs import ViewSpec
from flyball.features.views import FeatureView
from flyball.storage.tables import TableStore

__all__ = ["add_rows", "store_view", "surveyed"]

_SURVEYED_ROWS = 4_000_000  # of which only the event time is read


def store_view(
    view: FeatureView, frame: pl.LazyFrame, tables: TableStore, before: StoredView | None = None
) -> StoredView:
    """Compute a view on the whole of its source and store its rows; those pushed to `before` are kept.

    Rows with a null key or time are left out, for nobody can ask for them. What does not fit in memory is sorted in
    temporary files.

    Raises:
        Conflict: `before` holds rows of another definition with the same version.
        StepFailed, InvalidInput: as `FeatureView.compute`.
        Unavailable: the disk is full; nothing was kept.
    """
    spec = view.spec(frame.collect_schema())
    batch = 1
    if before is not None:
        check_fits(before, view, spec)
        batch = before.batch + 1
    computed = _stamped(view.compute(frame), spec, batch, pushed=False)
    if before is not None and before.has_pushes:
        pushed = tables.scan(before.table).filter(pl.col(PUSHED_AT).is_not_null())
        computed = pl.concat([computed, pushed.with_columns(pl.lit(batch, pl.Int32).alias(BATCH))])
    has_pushes = before is not None and before.has_pushes
    empty = StoredView(spec, view.digest, "", has_pushes=has_pushes, cursor=before.cursor if before else {})
    with TemporaryDirectory(prefix="flyball-view-") as folder:
        frames = sorted_files(computed, spec.event_time, arrival(empty), Path(folder))
        return _added(empty, frames, tables, batch, computed.collect_schema())


def add_rows(stored: StoredView, rows: pl.LazyFrame, tables: TableStore, *, pushed: bool = False) -> StoredView:
    """Add rows, in the form of `FeatureView.check`, as they come; late ones are kept beside what was there.

    Args:
        stored: what they are added to; it stays as it is.
        rows: with the columns of the stored table but `__batch`, and `__pushed_at` only if they were pushed.
        tables: where `stored` is.
        pushed: whether `rows` has the column `__pushed_at`.

    Raises:
        InvalidInput: the rows have other columns or types than the stored ones.
    """
    batch = stored.batch + 1
    larger = replace(stored, has_pushes=stored.has_pushes or pushed)
    stamped = _stamped(rows, stored.spec, batch, pushed=pushed)
    schema = stamped.collect_schema()
    there = tables.read(stored.table).schema
    for column, dtype in schema.items():
        if there.get(column) != str(dtype):
            raise InvalidInput(
                f'"{column}" of the view {stored.spec.name} is {dtype}, but it is stored as '
                f"{there.get(column, 'nothing')}; give the definition a new version"
            )
    with TemporaryDirectory(prefix="flyball-view-") as folder:
        frames = sorted_files(stamped.select(list(there)), stored.spec.event_time, arrival(larger), Path(folder))
        return _added(larger, frames, tables, batch, schema)


def surveyed(stored: StoredView, table: str, tables: TableStore) -> StoredView:
    """Return a stored view for a table that was rewritten, such as without the rows of one person.

    The runs are found again by reading the event times: a run ends where they go back. Order within ties is that of
    the table.
    """
    event, total = stored.spec.event_time, tables.read(table).rows
    read = reader_of(tables.scan(table), [event])
    runs: list[Run | None] = []
    tally, last = Tally(event), np.empty(0, dtype=np.int64)
    for start in range(0, total, _SURVEYED_ROWS):
        frame = read(start, _SURVEYED_ROWS)
        events = np.concatenate([last, frame[event].to_physical().to_numpy()])
        falls = (np.flatnonzero(np.diff(events) < 0) + 1 - len(last)).tolist()
        for number, (begin, end) in enumerate(pairwise([0, *falls, frame.height])):
            if number:
                runs.append(tally.run(None))
                tally = Tally(event)
            list(tally.over([frame.slice(begin, end - begin)]))
        last = events[-1:]
    found = tuple(run for run in [*runs, tally.run(None)] if run is not None)
    return replace(stored, table=table, runs=found, number=None)


def _stamped(rows: pl.LazyFrame, spec: ViewSpec, batch: int, *, pushed: bool) -> pl.LazyFrame:
    times = dict.fromkeys(name for name in (spec.event_time, spec.known_at) if name is not None)
    own = rows.drop_nulls([*spec.entity, *times])
    if not pushed:
        own = own.with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias(PUSHED_AT))
    return own.with_columns(pl.lit(batch, pl.Int32).alias(BATCH))


def _added(
    stored: StoredView, frames: Iterator[pl.DataFrame], tables: TableStore, batch: int, schema: pl.Schema
) -> StoredView:
    """Write frames in canonical order behind what is stored, then merge runs that are of like size."""
    event, arrived = stored.spec.event_time, arrival(stored)
    tally, latest = Tally(event), _Latest(arrived if arrived is not None else pl.col(event))
    after = stored.table or None
    first = next(frames, None)
    if first is None:
        if after is not None:
            return replace(stored, batch=batch)
        return replace(stored, table=tables.write([pl.DataFrame(schema=schema)]).digest, batch=batch)
    written = tables.write(latest.over(tally.over(_chain(first, frames))), after=after if stored.runs else None)
    run = tally.run(after if stored.runs else None)
    assert run is not None
    runs = stored.runs
    if runs and run.first > runs[-1].last:
        runs = (*runs[:-1], runs[-1].followed_by(run))
    else:
        runs = (*runs, run)
    moments = [moment for moment in (stored.latest, latest.moment) if moment is not None]
    larger = replace(stored, table=written.digest, runs=runs, batch=batch, latest=max(moments, default=None))
    return _tidied(larger, tables)


def _tidied(stored: StoredView, tables: TableStore) -> StoredView:
    """Merge the last runs into one while they are of like size."""
    count = to_merge(stored.runs)
    if count < 2:
        return stored
    kept, prefix = stored.runs[:-count], stored.runs[-count].prefix
    if kept and not _is_there(prefix, tables):  # an old version was deleted, and the table's beginning with it
        kept, prefix, count = (), None, len(stored.runs)
    read, event = reader_of(tables.scan(stored.table)), stored.spec.event_time
    runs = [(read, offset, run) for offset, run in offsets(stored.runs)[-count:]]
    tally = Tally(event)
    at_once = rows_at_once(len(tables.read(stored.table).schema))
    frames = (block.frame for block in merged(runs, event, arrival(stored), at_once=at_once))
    written = tables.write(tally.over(frames), after=prefix)
    run = tally.run(prefix)
    assert run is not None
    return replace(stored, table=written.digest, runs=(*kept, run))


def _is_there(table: str | None, tables: TableStore) -> bool:
    if table is None:
        return False
    try:
        tables.read(table)
    except NotFound:
        return False
    return True


class _Latest:
    """Passes frames on and notes the latest arrival."""

    def __init__(self, arrived: pl.Expr) -> None:
        self._arrived = arrived
        self.moment: datetime | None = None

    def over(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for frame in frames:
            moment = frame.select(self._arrived.max()).item()
            if moment is not None and (self.moment is None or moment > self.moment):
                self.moment = moment
            yield frame


def _chain(first: pl.DataFrame, rest: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    yield first
    yield from rest
