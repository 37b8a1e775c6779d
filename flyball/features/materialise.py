"""Materialisation: a view's newest values, computed from its data set or read from its stored rows, for look-ups.

The newest row of each entity is found first (`newest`), in bounded memory; then each is written once, in the order of
the keys, as text made by the engine and never as Python objects. Done twice it changes nothing, and neither do two at
once; a push that is newer stays.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from itertools import compress, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from flyball.errors import InvalidInput
from flyball.features.encoding import encoded_keys, encoded_rows
from flyball.features.newest import newest_in_order
from flyball.features.offline import BATCH, PUSHED_AT, StoredView, arrival
from flyball.features.pushes import push
from flyball.features.specs import ViewSpec
from flyball.features.views import FeatureView
from flyball.storage.online import OnlineStore
from flyball.storage.tables import TableStore

__all__ = ["Materialised", "due_rows", "materialise", "materialise_stored", "push"]

_WRITTEN_ROWS = 25_000  # entities of a write: with ten features some 12 MB as text and keys
_WRITTEN_CELLS = 500_000  # of a view with many features fewer entities are taken
_READ_CELLS = 1_500_000  # of stored rows at a time
_SAMPLED = 128  # entities of a write whose online rows are looked at before it
_OLDER_SHARE = 0.2  # of those, from which on all are looked at: that takes about a fifth of the time of writing
_NOT_TOLD = -(2**63)  # stands for an arrival that is not told


class Materialised(NamedTuple):
    """What a materialisation did.

    Attributes:
        rows: rows of the view that were read.
        written: values written: at most one an entity.
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
    batch_rows: int = _WRITTEN_ROWS,
) -> Materialised:
    """Compute `view` on `frame` and write each entity's newest value.

    A row-wise view is computed slice by slice; the rows of any other are first written to a temporary file, because a
    slice of a plan that filters or aggregates would compute all that lies before it.

    Args:
        frame: the view's source.
        until: only rows that had happened and arrived by then; None: all.
        since: only rows that arrived at or after it: the last watermark. Rows of that very instant are read again,
            because others of it may have arrived meanwhile; that changes nothing.
        batch_rows: rows that are computed and entities that are written at a time, fewer of a view with many features.

    Raises:
        InvalidInput: a time has no zone, or as `FeatureView.compute`.
        StepFailed: the view's function failed.
        Unavailable: the store cannot be written now, or the disk of temporary files is full.
    """
    for name, moment in (("until", until), ("since", since)):
        if moment is not None and moment.tzinfo is None:
            raise InvalidInput(f"`{name}` is {moment.isoformat()}, a time without a zone; give it one")
    spec = view.spec(frame.collect_schema())
    batch_rows = _written_at_once(batch_rows, spec)

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
        return _written(spec, parts, store, Path(folder), batch_rows)


def materialise_stored(
    stored: StoredView,
    tables: TableStore,
    store: OnlineStore,
    *,
    since_batch: int = 0,
    since: datetime | None = None,
    until: datetime | None = None,
    start: int = 0,
    on_write: Callable[[int], None] | None = None,
    batch_rows: int = _WRITTEN_ROWS,
) -> Materialised:
    """Write the newest value of each entity of a stored view.

    Args:
        stored: the view's rows.
        tables: where they are.
        since_batch: only rows that came with a later addition: `stored.batch` of the last that was materialised.
        since: the `until` of the last: of earlier additions, rows that had not happened or arrived by then count too.
        until: only rows that had happened and arrived by then, for the store keeps one value of an entity, and one that
            nobody may know yet would take the place of the one that is true now; None: all.
        start: how many entities are done, as `on_write` was last told of this same version, addition and `until`; their
            order is that of `newest.ORDER`.
        on_write: called with how many entities are done, after each write. A crash between the write and the call
            writes some entities again, which changes nothing.
        batch_rows: entities of a write, fewer of a view with many features.

    Raises:
        Unavailable: the store cannot be written now, what `on_write` was told is done; or the disk of temporary files
            is full.
    """
    batch_rows = _written_at_once(batch_rows, stored.spec)
    scan, total = tables.scan(stored.table), stored.rows
    at_once = max(_READ_CELLS // len(scan.collect_schema()), 10_000)
    new, known = due_rows(stored, since_batch, since, until)
    slices = (_due(scan.slice(begin, at_once), new, known) for begin in range(0, total, at_once))
    frames = (part.drop(BATCH, PUSHED_AT) for part in slices if part is not None)
    with TemporaryDirectory(prefix="flyball-newest-") as folder:
        return _written(stored.spec, frames, store, Path(folder), batch_rows, start, on_write)


def due_rows(
    stored: StoredView, since_batch: int, since: datetime | None, until: datetime | None
) -> tuple[pl.Expr | None, pl.Expr | None]:
    """Return which stored rows are new since the last time and which may be known, as `materialise_stored` has them.

    None stands for all of them.
    """
    event, arrived = pl.col(stored.spec.event_time), arrival(stored)
    usable = event if arrived is None else pl.max_horizontal(event, arrived)
    new = pl.col(BATCH) > since_batch if since_batch else None
    if new is not None and since is not None:
        new = new | (usable > since)
    return new, None if until is None else usable <= until


def _due(part: pl.LazyFrame, new: pl.Expr | None, known: pl.Expr | None) -> pl.DataFrame | None:
    """Return the rows of a slice that are to be written; where there is none, little is read."""
    wanted = [expression for expression in (new, known) if expression is not None]
    if new is not None and not part.select(pl.all_horizontal(wanted).any()).collect().item():
        return None
    frame = part.collect()
    return frame.filter(wanted) if wanted else frame


def _written(
    spec: ViewSpec,
    frames: Iterator[pl.DataFrame],
    store: OnlineStore,
    folder: Path,
    batch_rows: int,
    start: int = 0,
    on_write: Callable[[int], None] | None = None,
) -> Materialised:
    """Write the newest row of each entity, all but the first `start` of them."""
    read, watermark, arrived = 0, None, spec.known_at or spec.event_time

    def counted() -> Iterator[pl.DataFrame]:
        nonlocal read, watermark
        for frame in frames:
            if frame.height:
                read += frame.height
                latest = frame[arrived].max()
                assert isinstance(latest, datetime)
                watermark = latest if watermark is None else max(watermark, latest)
            yield frame

    names, done, written = list(spec.features), start, 0
    with closing(_ahead(_prepared(spec, newest_in_order(counted(), spec, folder), store, batch_rows, start))) as parts:
        for part in parts:
            if part.keys:
                written += store.put_encoded(spec.stored_as, names, part.keys, part.events, part.values, part.arrivals)
            done += part.entities
            if on_write is not None:
                on_write(done)
    return Materialised(read, written, watermark)


class _Part(NamedTuple):
    """What is written at once, without those of its entities of which the store has newer rows."""

    entities: int
    keys: list[str]
    events: list[int]
    arrivals: list[int] | None
    values: list[bytes]


def _prepared(
    spec: ViewSpec, blocks: Iterator[pl.DataFrame], store: OnlineStore, batch_rows: int, start: int
) -> Iterator[_Part]:
    """Yield the rows of blocks encoded, all but the first `start`."""
    done = 0
    for block in blocks:
        rest = block.slice(max(start - done, 0))
        done += block.height
        for rows in rest.iter_slices(batch_rows):
            keys = encoded_keys(rows, spec.entity)
            step = max(rows.height // _SAMPLED, 1)
            sample = _are_older(spec, rows.gather_every(step), store, keys[::step])
            wanted = rows
            if sum(sample) > _OLDER_SHARE * len(sample):
                is_newer = [not is_older for is_older in _are_older(spec, rows, store, keys)]
                wanted, keys = rows.filter(pl.Series(is_newer)), list(compress(keys, is_newer))
            yield _Part(rows.height, keys, *_times(spec, wanted), encoded_rows(wanted, spec.features))


def _ahead(parts: Iterator[_Part]) -> Generator[_Part]:
    """Yield parts; while one is written, the next is made in a thread, which the engine and SQLite both leave free."""
    with ThreadPoolExecutor(1, thread_name_prefix="flyball-newest") as pool:
        following = pool.submit(next, parts, None)
        while (part := following.result()) is not None:
            following = pool.submit(next, parts, None)
            yield part


def _are_older(spec: ViewSpec, rows: pl.DataFrame, store: OnlineStore, keys: Sequence[str]) -> list[bool]:
    """Return of each row whether the store has a newer one; one that is as new is written again."""
    events, arrivals = _times(spec, rows)
    told = repeat(_NOT_TOLD) if arrivals is None else arrivals
    return [
        head is not None and (event, arrival) < (head[0], _NOT_TOLD if head[1] is None else head[1])
        for head, event, arrival in zip(store.heads(spec.stored_as, keys), events, told, strict=False)
    ]


def _times(spec: ViewSpec, rows: pl.DataFrame) -> tuple[list[int], list[int] | None]:
    """Return events and arrivals in µs since 1970 UTC."""
    arrivals = None if spec.known_at is None else rows[spec.known_at].to_physical().to_list()
    return rows[spec.event_time].to_physical().to_list(), arrivals


def _slices(frame: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    total = frame.select(pl.len()).collect(engine="streaming").item()
    for begin in range(0, total, rows):
        yield frame.slice(begin, rows).collect()


def _written_at_once(asked: int, spec: ViewSpec) -> int:
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise InvalidInput(f"batch_rows is {asked!r}; expected a whole number from 1")
    return min(asked, max(_WRITTEN_CELLS // len(spec.features), 1_000))
