"""Stored views: the rows of a view computed once and kept, for training sets and for materialisation.

A stored view is a table of the table store in few sorted runs (`runs`), with what is known of it: the definition that
computed it, the version of the data set that it was computed from, how far pushes were folded in. Rows are only added;
an addition is a new table that shares its parts with the one before.

Beside the view's columns a stored row has two of its own: `__batch`, the addition that it came with, by which what is
new since a materialisation is found, and `__pushed_at`, when it was pushed, null for a row that was computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from flyball.errors import Conflict, Incompatible
from flyball.features.runs import Read, Run, merged, reader_of, rows_at_once
from flyball.features.specs import ViewSpec
from flyball.features.views import FeatureView
from flyball.storage.tables import TableStore

__all__ = [
    "BATCH",
    "PUSHED_AT",
    "StoredView",
    "arrival",
    "check_fits",
    "merged_rows",
    "offsets",
    "rows_of",
    "table_reader",
]

PUSHED_AT, BATCH = "__pushed_at", "__batch"
FORMAT = 1


@dataclass(frozen=True)
class StoredView:
    """One version of a view's rows.

    Attributes:
        spec: the light description of the view as it was stored.
        digest: of the definition, see `definitions`.
        table: the digest of the table.
        runs: what the table consists of.
        batch: the number of its last addition.
        latest: the latest arrival among its rows; None: it is empty.
        has_pushes: whether rows were pushed, which arrive later than they became true.
        source: the version of the data set that it was computed from, `dataset/flights@12`; None: of no version.
        source_table, source_rows: the digest of that version's table and its rows.
        cursor: how far the log of pushes was folded in.
        number: the version in the ledger; None: not published.
    """

    spec: ViewSpec
    digest: str
    table: str
    runs: tuple[Run, ...] = ()
    batch: int = 0
    latest: datetime | None = None
    has_pushes: bool = False
    source: str | None = None
    source_table: str | None = None
    source_rows: int = 0
    cursor: Mapping[str, int] = field(default_factory=dict)
    number: int | None = None

    @property
    def rows(self) -> int:
        return sum(run.rows for run in self.runs)

    @property
    def is_late(self) -> bool:
        """Whether rows may have arrived later than they became true."""
        return self.spec.known_at is not None or self.has_pushes

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the metadata of a version of kind `feature`, all but its digest and number."""
        first = min((run.first for run in self.runs), default=None)
        last = max((run.last for run in self.runs), default=None)
        return {
            "format": FORMAT,
            "rows": self.rows,
            "first": None if first is None else _instant(first).isoformat(),
            "last": None if last is None else _instant(last).isoformat(),
            "latest": None if self.latest is None else self.latest.isoformat(),
            "definition": self.spec.to_dict(),
            "definition_digest": self.digest,
            "runs": [run.to_list() for run in self.runs],
            "batch": self.batch,
            "has_pushes": self.has_pushes,
            "source": self.source,
            "source_table": self.source_table,
            "source_rows": self.source_rows,
            "cursor": dict(self.cursor),
        }

    @classmethod
    def from_dict(cls, table: str, document: Mapping[str, Any], number: int | None = None) -> StoredView:
        """Read what `to_dict` wrote. Raises Incompatible when a newer release wrote it."""
        if document.get("format") != FORMAT:
            raise Incompatible(
                f"the stored view has the format {document.get('format')!r}; this release reads {FORMAT}"
            )
        return cls(
            spec=ViewSpec.from_dict(document["definition"]),
            digest=document["definition_digest"],
            table=table,
            runs=tuple(Run.from_list(run) for run in document["runs"]),
            batch=document["batch"],
            latest=None if document["latest"] is None else datetime.fromisoformat(document["latest"]),
            has_pushes=document["has_pushes"],
            source=document["source"],
            source_table=document["source_table"],
            source_rows=document["source_rows"],
            cursor=document["cursor"],
            number=number,
        )


def rows_of(stored: StoredView, tables: TableStore) -> pl.LazyFrame:
    """Return the view's rows as `FeatureView.compute` gives them, run by run."""
    return tables.scan(stored.table).drop(PUSHED_AT, BATCH)


def merged_rows(stored: StoredView, tables: TableStore) -> Iterator[pl.DataFrame]:
    """Yield the stored rows in canonical order, a block at a time."""
    at_once = rows_at_once(len(tables.read(stored.table).schema))
    read = reader_of(tables.scan(stored.table))
    runs = [(read, offset, run) for offset, run in offsets(stored.runs)]
    for block in merged(runs, stored.spec.event_time, arrival(stored), at_once=at_once):
        yield block.frame


def table_reader(tables: TableStore, digest: str, columns: Sequence[str | pl.Expr]) -> Read:
    """Return how to read rows of a stored table; only the parts in which they lie are opened, be there ever so many."""
    ends = np.cumsum([part.rows for part in tables.read(digest).parts])

    def read(start: int, rows: int) -> pl.DataFrame:
        first, last = np.searchsorted(ends, [start, start + rows - 1], side="right").tolist() if rows else (0, -1)
        before = int(ends[first - 1]) if first else 0
        parts = range(first, min(last + 1, len(ends)))
        return tables.scan(digest, parts).slice(start - before, rows).select(columns).collect()

    return read


def offsets(runs: Iterable[Run]) -> list[tuple[int, Run]]:
    """Return each run with the position of its first row."""
    found, start = [], 0
    for run in runs:
        found.append((start, run))
        start += run.rows
    return found


def arrival(stored: StoredView) -> pl.Expr | None:
    """Return the expression of when a stored row arrived, None where rows arrive when they become true."""
    if stored.spec.known_at is not None:
        return pl.col(stored.spec.known_at)
    if stored.has_pushes:
        return pl.coalesce(PUSHED_AT, stored.spec.event_time)
    return None


def check_fits(stored: StoredView, view: FeatureView, spec: ViewSpec | None = None) -> None:
    """Raise Conflict when `view` is another definition under the version whose rows are stored."""
    if stored.spec.version != view.version:
        raise Conflict(
            f"stored are rows of {stored.spec.stored_as}, the definition at hand is {view.name}@{view.version}; "
            "a version's rows are stored under its own name"
        )
    declared = (view.entity, view.event_time, view.known_at if view.is_bitemporal else None)
    is_same = declared == (stored.spec.entity, stored.spec.event_time, stored.spec.known_at)
    if stored.digest != view.digest or not is_same or (spec is not None and spec.features != stored.spec.features):
        raise Conflict(
            f"the view {view.name} has changed (it is {view.digest[:12]}), but rows of {view.name}@{view.version} as "
            f"it was before ({stored.digest[:12]}) are stored; raise version= in its declaration, so that values of "
            "the two never mix"
        )


def _instant(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
