"""Materialisation: a view's newest values, computed from its data set or read from its stored rows, for look-ups.

Rows stream through in slices, as text made by the engine, never as Python objects, and the online store keeps the
newest of each entity; so what is held is one slice, whatever the size. Done twice it changes nothing, and neither do
two at once; a push that is newer stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from flyball.errors import InvalidInput
from flyball.features.encoding import encoded_keys, encoded_rows
from flyball.features.offline import BATCH, PUSHED_AT, StoredView
from flyball.features.pushes import push
from flyball.features.specs import ViewSpec
from flyball.features.views import FeatureView
from flyball.storage.online import OnlineStore
from flyball.storage.tables import TableStore

__all__ = ["Materialised", "materialise", "materialise_stored", "push"]

_SLICE_ROWS = 50_000  # with ten features some 25 MB as text and keys
_SLICE_CELLS = 1_000_000  # of a view with many features fewer rows are taken


class Materialised(NamedTuple):
    """What a materialisation did.

    Attributes:
        rows: rows of the view that were read.
        written: values written; an entity counts once a slice.
        watermark: the latest arrival among the rows read; give it as `since` the next time. None: there was no row.
    """

    rows: int
    written: int
    watermark: datetime | None


def materialise(
    view: FeatureView,
    frame: pl.LazyFrame,
    store: OnlineStore,
    until: datetime | None = None,
    since: datetime | None = None,
    batch_rows: int = _SLICE_ROWS,
) -> Materialised:
    """Compute `view` on `frame` and write each entity's newest value.

    A row-wise view is computed slice by slice; the rows of any other are first written to a temporary file, because a
    slice of a plan that filters or aggregates would compute all that lies before it.

    Args:
        frame: the view's source.
        until: only rows that had happened and arrived by then; None: all.
        since: only rows that arrived at or after it: the last watermark. Rows of that very instant are read again,
            because others of it may have arrived meanwhile; that changes nothing.
        batch_rows: rows of a slice, fewer of a view with many features.

    Raises:
        InvalidInput: a time has no zone, or as `FeatureView.compute`.
        StepFailed: the view's function failed.
        Unavailable: the store cannot be written now.
    """
    for name, moment in (("until", until), ("since", since)):
        if moment is not None and moment.tzinfo is None:
            raise InvalidInput(f"`{name}` is {moment.isoformat()}, a time without a zone; give it one")
    spec = view.spec(frame.collect_schema())
    batch_rows = _slice_rows(batch_rows, spec)

    def wanted(rows: pl.LazyFrame) -> pl.LazyFrame:
        rows = rows.drop_nulls([*view.entity, view.event_time, view.known_at])
        if until is not None:
            rows = rows.filter(pl.col(view.event_time) <= until, pl.col(view.known_at) <= until)
        return rows if since is None else rows.filter(pl.col(view.known_at) >= since)

    with TemporaryDirectory(prefix="flyball-view-") as folder:
        parts: Iterator[pl.DataFrame]
        if view.is_row_wise:
            parts = (wanted(view.compute(part.lazy())).collect() for part in _slices(frame, batch_rows))
        else:
            path = Path(folder) / "rows.parquet"
            wanted(view.compute(frame)).sink_parquet(path, compression="lz4", maintain_order=True)
            parts = _slices(pl.scan_parquet(path), batch_rows)
        return _written(spec, parts, store)


def materialise_stored(
    stored: StoredView,
    tables: TableStore,
    store: OnlineStore,
    *,
    since_batch: int = 0,
    start: int = 0,
    on_slice: Callable[[int], None] | None = None,
    batch_rows: int = _SLICE_ROWS,
) -> Materialised:
    """Write the newest value of each entity of a stored view.

    Args:
        stored: the view's rows.
        tables: where they are.
        since_batch: only rows that came with a later addition: `stored.batch` of the last that was materialised.
        start: the row to go on from, as `on_slice` was last told of this same version.
        on_slice: called with how many rows of the table are done, whenever so many have been written. A crash between
            the write and the call writes some rows again, which changes nothing.
        batch_rows: rows of a slice, fewer of a view with many features.

    Raises:
        Unavailable: the store cannot be written now; what `on_slice` was told is done.
    """
    batch_rows = _slice_rows(batch_rows, stored.spec)
    scan, total = tables.scan(stored.table), stored.rows
    read, written, watermark = 0, 0, None
    for begin in range(start, total, batch_rows):
        rows = min(batch_rows, total - begin)
        part = _newer_than(scan, begin, rows, since_batch)
        if part is not None:
            done = _written(stored.spec, iter([part.drop(BATCH, PUSHED_AT)]), store)
            read, written = read + done.rows, written + done.written
            watermark = max((moment for moment in (watermark, done.watermark) if moment is not None), default=None)
        if on_slice is not None:
            on_slice(begin + rows)
    return Materialised(read, written, watermark)


def _newer_than(scan: pl.LazyFrame, begin: int, rows: int, batch: int) -> pl.DataFrame | None:
    """Return the rows of a slice that came after an addition; where there is none, little is read."""
    part = scan.slice(begin, rows)
    if batch:
        newest = part.select(pl.col(BATCH).max()).collect().item()
        if newest is None or newest <= batch:
            return None
    frame = part.collect()
    return frame.filter(pl.col(BATCH) > batch) if batch else frame


def _written(spec: ViewSpec, parts: Iterator[pl.DataFrame], store: OnlineStore) -> Materialised:
    read, written, watermark = 0, 0, None
    names = list(spec.features)
    arrived = spec.known_at or spec.event_time
    for part in parts:
        if not part.height:
            continue
        read += part.height
        newest = _newest(spec, part)
        arrivals = None if spec.known_at is None else newest[spec.known_at].to_physical().to_list()
        written += store.put_encoded(
            spec.stored_as,
            names,
            encoded_keys(newest, spec.entity),
            newest[spec.event_time].to_physical().to_list(),
            encoded_rows(newest, spec.features),
            arrivals,
        )
        latest = part[arrived].max()
        assert isinstance(latest, datetime)
        watermark = latest if watermark is None else max(watermark, latest)
    return Materialised(read, written, watermark)


def _newest(spec: ViewSpec, part: pl.DataFrame) -> pl.DataFrame:
    """Return the newest row of each entity of a slice, in the order of the keys, in which a store writes fastest."""
    order = [spec.event_time] if spec.known_at is None else [spec.event_time, spec.known_at]
    if not part[spec.event_time].is_sorted() or len(order) > 1:
        part = part.sort(order, maintain_order=True)
    return part.unique(list(spec.entity), keep="last", maintain_order=True).sort(list(spec.entity))


def _slices(frame: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    total = frame.select(pl.len()).collect(engine="streaming").item()
    for begin in range(0, total, rows):
        yield frame.slice(begin, rows).collect()


def _slice_rows(asked: int, spec: ViewSpec) -> int:
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise InvalidInput(f"batch_rows is {asked!r}; expected a whole number from 1")
    return min(asked, max(_SLICE_CELLS // len(spec.features), 1_000))
