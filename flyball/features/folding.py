"""Folding: pushed rows, from their log into a view's stored rows, so that training sets hold them as known at the push.

How far the log was read stands in the version that holds the rows, so a crash at any point neither loses a row nor
adds it twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
import polars as pl

from flyball.errors import Corrupt, Incompatible
from flyball.features.offline import PUSHED_AT, StoredView
from flyball.features.pushes import LOG_FORMAT
from flyball.features.specs import ViewSpec
from flyball.features.writing import add_rows
from flyball.storage.streams import StreamReader
from flyball.storage.tables import TableStore

__all__ = ["Folded", "fold"]

_UTC_US = pl.Datetime("us", "UTC")
_WRITTEN = "%Y-%m-%dT%H:%M:%S%.6fZ"  # as `clock.format_instant` writes it
_READ_BYTES = 32 << 20  # of the log at a time


class Folded(NamedTuple):
    """What came of folding.

    Attributes:
        stored: the view with the rows; the same as before when there was nothing new.
        rows: rows added.
        refused: rows whose key no stored key can be equal to, such as a word where keys are numbers; left out.
        is_all: whether the log was read to its end.
    """

    stored: StoredView
    rows: int
    refused: int
    is_all: bool


def fold(stored: StoredView, reader: StreamReader, tables: TableStore) -> Folded:
    """Add what was pushed since the last time, about 32 MB of the log; call again until `is_all`.

    Nothing counts until the returned view is published: its cursor says how far the log was read.

    Raises:
        Corrupt: a payload cannot be read back or is of another view.
        Incompatible: a newer release wrote the log.
    """
    payloads, cursor = reader.read(dict(stored.cursor), _READ_BYTES)
    if not payloads:
        return Folded(stored, 0, 0, is_all=True)
    types = tables.scan(stored.table).collect_schema()
    frames = [_frame(stored.spec, payload, types) for payload in payloads]
    frame = pl.concat(frames)
    keys = [pl.col(name).is_not_null() for name in stored.spec.entity]
    usable = frame.filter(keys)
    larger = add_rows(stored, usable.lazy(), tables, pushed=True) if usable.height else stored
    return Folded(replace(larger, cursor=cursor), usable.height, frame.height - usable.height, is_all=False)


def _frame(spec: ViewSpec, payload: bytes, types: pl.Schema) -> pl.DataFrame:
    document = _document(spec, payload)
    columns: dict[str, pl.Series] = {}
    for name, values in zip(spec.entity, document["entity"], strict=True):
        texts = pl.Series(name, values, dtype=pl.String)
        columns[name] = texts if types[name] == pl.String else texts.cast(types[name], strict=False)
    columns[spec.event_time] = _instants(spec.event_time, document["event"])
    if spec.known_at is not None:
        columns[spec.known_at] = _instants(spec.known_at, document["known"])
    by_name: Mapping[str, list[Any]] = dict(zip(document["names"], document["values"], strict=True))
    rows = len(document["event"])
    for name in spec.features:
        values = by_name.get(name, [None] * rows)
        columns[name] = (
            _instants(name, values)
            if spec.features[name] == "datetime"
            else pl.Series(name, values, dtype=_wide(types[name])).cast(types[name], strict=False)
        )
    columns[PUSHED_AT] = _instants(PUSHED_AT, [document["at"]] * rows)
    return pl.DataFrame(columns)


def _document(spec: ViewSpec, payload: bytes) -> dict[str, Any]:
    try:
        document: dict[str, Any] = orjson.loads(payload)
        written, view = document["format"], document["view"]
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupt(f"a push of the view {spec.name} cannot be read back from its log") from error
    if written != LOG_FORMAT:
        raise Incompatible(f"the log of {spec.name} has the format {written!r}; this release reads {LOG_FORMAT}")
    if view != spec.stored_as:
        raise Corrupt(f"the log of {spec.stored_as} holds a push of {view}; each view and version has its own log")
    return document


def _instants(name: str, texts: Sequence[str | None]) -> pl.Series:
    return pl.Series(name, texts, dtype=pl.String).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.6fZ", time_unit="us", time_zone="UTC"
    )


def _wide(dtype: pl.DataType) -> pl.DataType:
    """Return the type as which JSON values are read before they take that of the stored column."""
    return pl.Int64() if dtype.is_integer() else pl.Float64() if dtype.is_float() else dtype
