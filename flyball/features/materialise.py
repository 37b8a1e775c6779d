"""Materialisation: a view's newest values, computed from its data set and written for look-ups.

Rows stream through in batches and the store keeps the newest of each entity, so neither the data set nor its entities
are held in memory; what the engine reads ahead is. Done twice it changes nothing; a push that is newer stays.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from flyball.errors import InvalidInput
from flyball.features.lookup import ViewSpec
from flyball.features.pushes import Row, keep_newest, push
from flyball.features.views import FeatureView
from flyball.storage.online import OnlineStore

__all__ = ["Materialised", "materialise", "push"]

_WRITTEN_AT_ONCE = 5_000  # rows that are Python objects at a time: they take ten times the memory of a frame's
_RFC_3339 = "%Y-%m-%dT%H:%M:%S%.6fZ"  # as `clock.format_instant` writes it


class Materialised(NamedTuple):
    """What a materialisation did.

    Attributes:
        rows: rows of the view that were read.
        written: values written; an entity counts once a batch.
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
    batch_rows: int = 100_000,
) -> Materialised:
    """Compute `view` on `frame` and write each entity's newest value.

    Args:
        frame: the view's source.
        until: only rows that had happened and arrived by then; None: all.
        since: only rows that arrived at or after it: the last watermark. Rows of that very instant are read again,
            because others of it may have arrived meanwhile; that changes nothing.
        batch_rows: rows of a batch; the engine reads some batches ahead.

    Raises:
        InvalidInput: a time has no zone, or as `FeatureView.compute`.
        StepFailed: the view's function failed.
    """
    for name, moment in (("until", until), ("since", since)):
        if moment is not None and moment.tzinfo is None:
            raise InvalidInput(f"`{name}` is {moment.isoformat()}, a time without a zone; give it one")
    if batch_rows < 1:
        raise InvalidInput(f"batch_rows is {batch_rows}; expected at least 1")
    spec, rows = view.spec(frame.collect_schema()), view.compute(frame)
    rows = rows.drop_nulls([*view.entity, view.event_time, view.known_at])
    if until is not None:
        rows = rows.filter(pl.col(view.event_time) <= until, pl.col(view.known_at) <= until)
    if since is not None:
        rows = rows.filter(pl.col(view.known_at) >= since)
    read, written, watermark = 0, 0, None
    for batch in rows.collect_batches(chunk_size=batch_rows, maintain_order=True, engine="streaming"):
        for part in batch.iter_slices(batch_rows):
            if not part.height:
                continue
            read += part.height
            for piece in _newest(view, part).iter_slices(_WRITTEN_AT_ONCE):
                written += keep_newest(spec, _rows(spec, view, piece), store)
            latest = part[view.known_at].max()
            assert isinstance(latest, datetime)
            watermark = latest if watermark is None else max(watermark, latest)
    return Materialised(read, written, watermark)


def _newest(view: FeatureView, part: pl.DataFrame) -> pl.DataFrame:
    """Return the newest row of each entity of a batch."""
    order = [view.event_time, view.known_at] if view.is_bitemporal else [view.event_time]
    return part.sort(order, maintain_order=True).unique(view.entity, keep="last", maintain_order=True)


def _rows(spec: ViewSpec, view: FeatureView, piece: pl.DataFrame) -> list[Row]:
    """Return rows as the store takes them."""
    moments = [name for name, dtype in spec.features.items() if dtype == "datetime"]
    features = piece.select(*spec.features).with_columns(pl.col(moments).dt.strftime(_RFC_3339)).to_dicts()
    if len(view.entity) == 1:
        keys: Any = piece[view.entity[0]].cast(pl.String).to_list()
    else:
        keys = map(spec.key_of, piece.select(view.entity).rows())
    events = piece[view.event_time].to_list()
    arrivals = piece[view.known_at].to_list() if view.is_bitemporal else events
    return list(map(Row, keys, events, arrivals, features))
