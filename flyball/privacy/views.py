"""Stored rows of feature views after some of them left: what the ledger says of their order must be true again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from flyball.data.rewriting import Doomed, refreshed
from flyball.errors import FlyballError, NotFound
from flyball.features.offline import StoredView, offsets
from flyball.features.runs import Run, Tally
from flyball.ledger import Ledger
from flyball.ledger.versions import Version
from flyball.storage.tables import TableStore
from flyball.storage.tables.rewriting import Condition, Removed, Remover

__all__ = ["KIND", "follow_sources", "view_metadata"]

KIND = "feature"  # of the versions that hold rows of views
_AT_ONCE = 1_000_000  # rows of one column read at a time


def view_metadata(
    version: Version, removed: Removed, remover: Remover, condition: Condition, tables: TableStore, doomed: Doomed
) -> Mapping[str, Any]:
    """Return the metadata of a stored view without the removed rows: its runs counted anew.

    The tables that end where a run begins are rewritten with it, for later runs are merged behind them.
    """
    try:
        before = StoredView.from_dict(version.digest, version.metadata, version.number)
    except (FlyballError, KeyError, TypeError, ValueError):  # rows of a view that somebody else keeps in another form
        return refreshed(version.metadata, removed)
    scan = tables.scan(version.digest)
    gone = condition(scan.collect_schema())
    assert gone is not None  # rows were removed by it
    event = before.spec.event_time
    rows = scan.select(event, gone.fill_null(False).alias("gone"))
    runs = []
    for start, run in offsets(before.runs):
        tally = Tally(event)
        for _ in tally.over(_kept(rows, start, run.rows)):
            pass
        left = tally.run(_prefix(run, remover, doomed))
        if left is not None:
            runs.append(left)
    after = replace(before, table=removed.table.digest, runs=tuple(runs))
    return {**refreshed(version.metadata, removed), **after.to_dict()}


def follow_sources(
    ledger: Ledger, tables: TableStore, became: Mapping[str, str], *, actor: str, action: str, detail: Mapping[str, Any]
) -> None:
    """Tell stored views what the tables became that they were computed from, so that they can be added to again."""
    with ledger.read() as world:
        versions = [world.versions.get(*v[:3]) for v in world.versions.digests(KIND)]
    for version in versions:
        source = became.get(str(version.metadata.get("source_table")))
        if source is not None:
            changed = {"source_table": source, "source_rows": tables.read(source).rows}
            place = version.kind, version.name, version.number
            with ledger.write(actor) as world:
                metadata = {**version.metadata, **changed}
                world.versions.rewrite(*place, version.digest, metadata, action=action, detail={"rows": 0, **detail})


def _kept(rows: pl.LazyFrame, start: int, count: int) -> Iterator[pl.DataFrame]:
    for offset in range(start, start + count, _AT_ONCE):
        piece = rows.slice(offset, min(_AT_ONCE, start + count - offset))
        yield piece.filter(~pl.col("gone")).collect(engine="streaming")


def _prefix(run: Run, remover: Remover, doomed: Doomed) -> str | None:
    if run.prefix is None:
        return None
    try:
        removed = remover.remove(run.prefix)
    except NotFound:
        return run.prefix  # gone already; who merges runs sees that
    if removed.rows:
        doomed.add([run.prefix, *remover.left_over])
    return removed.table.digest
