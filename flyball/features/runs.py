"""Sorted runs: how a view's stored rows keep the order of time although rows arrive late.

A stored view is a table of few runs, one behind the other, each in canonical order: by event time, of ties by arrival,
of ties again as they came. Rows that follow the last run make it longer; others begin a run, and runs of like size are
merged, so there are about as many as the logarithm of the rows (P. O'Neil et al., *The log-structured merge-tree*,
Acta Informatica 33, 1996). Reading merges the runs block by block, in memory for a block of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["Merged", "Read", "Run", "Tally", "in_memory_order", "merged", "rows_at_once", "sorted_files", "to_merge"]

Read = Callable[[int, int], pl.DataFrame]
"""Returns so many rows from a row on."""

END = np.iinfo(np.int64).max
_MARK_ROWS = 131_072  # rows between two marks; half a row group, so that a search by time reads one too many at most
_MERGE_FACTOR = 4  # a run is merged with the one before it unless that is so much larger
_FEWEST_ROWS = 10_000  # that are read of a run at a time
_CELLS = 16_000_000  # that are sorted or merged in memory at a time, some 130 MB; more are sorted in files


@dataclass(frozen=True)
class Run:
    """Rows in canonical order, one behind the other in a table.

    Attributes:
        rows: how many.
        first, last: the event times at its ends, microseconds since 1970.
        marks: (rows, last event time of these) at some rows of it, ascending; the last mark is its end.
        prefix: the digest of the table that ends where this run begins; None: it begins with the table.
    """

    rows: int
    first: int
    last: int
    marks: tuple[tuple[int, int], ...]
    prefix: str | None = None

    def row_at(self, instant: int) -> int:
        """Return a row before which every event time is before `instant` (µs)."""
        return max((rows for rows, last in self.marks if last < instant), default=0)

    def followed_by(self, other: Run) -> Run:
        """Return this run made longer by one that lies behind it and begins after its last event."""
        marks = self.marks + tuple((self.rows + rows, last) for rows, last in other.marks)
        return replace(self, rows=self.rows + other.rows, last=other.last, marks=_thinned(marks))

    def to_list(self) -> list[Any]:
        """Return plain JSON values."""
        return [self.rows, self.first, self.last, [list(mark) for mark in self.marks], self.prefix]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Run:
        """Read what `to_list` wrote."""
        rows, first, last, marks, prefix = values
        return cls(rows, first, last, tuple((int(a), int(b)) for a, b in marks), prefix)


class Tally:
    """Passes frames in canonical order on and notes what run they are."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._rows, self._first, self._last = 0, 0, 0
        self._marks: list[tuple[int, int]] = []

    def over(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the frames as they are."""
        for frame in frames:
            if frame.height:
                events = frame[self._event].to_physical()
                if not self._rows:
                    self._first = int(events[0])
                for end in [*range(_MARK_ROWS, frame.height, _MARK_ROWS), frame.height]:
                    self._marks.append((self._rows + end, int(events[end - 1])))
                self._rows += frame.height
                self._last = int(events[-1])
            yield frame

    def run(self, prefix: str | None) -> Run | None:
        """Return the run that went by, None when there was no row."""
        if not self._rows:
            return None
        return Run(self._rows, self._first, self._last, _thinned(tuple(self._marks)), prefix)


class Merged(NamedTuple):
    """A block of rows of all runs in canonical order; every row with an event time up to `until` (µs) has been."""

    frame: pl.DataFrame
    positions: npt.NDArray[np.int64]
    until: int


def merged(
    runs: Sequence[tuple[Read, int, Run]],
    event: str,
    known: pl.Expr | None,
    since: int | None = None,
    at_once: int = 1_000_000,
) -> Iterator[Merged]:
    """Yield the rows of runs in canonical order, about `at_once` at a time.

    Args:
        runs: (how to read, the position of its first row, the run), those that came first first.
        event: the column of event times.
        known: the arrival, by which ties are settled; None where rows arrive at once.
        since: rows with event times before it (µs) may be left out.
    """
    sources = [_Source(*run, event, since) for run in runs]
    while True:
        open_sources = [source for source in sources if not source.is_read]
        for source in open_sources:
            if not source.frame.height:
                source.load(max(at_once // len(open_sources), _FEWEST_ROWS))
        limits = [source.last for source in sources if not source.is_read]
        limit = min(limits, default=END)
        parts = [part for source in sources if (part := source.before(limit)) is not None]
        if parts:
            yield _joined(parts, event, known, limit - 1 if limits else END)
        elif not limits:
            return
        for source in sources:  # a whole block of one instant: nothing can be said before its end is seen
            if not parts and not source.is_read and source.last == limit:
                source.load(at_once)


class _Source:
    """One run while it is merged: what was read of it and not yet given."""

    def __init__(self, read: Read, offset: int, run: Run, event: str, since: int | None) -> None:
        self._read, self._offset, self._event = read, offset, event
        self._end = offset + run.rows
        self._next = offset + (0 if since is None else run.row_at(since))
        self._start = self._next
        self.frame = pl.DataFrame()
        self.events: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)

    @property
    def is_read(self) -> bool:
        return self._next >= self._end

    @property
    def last(self) -> int:
        return int(self.events[-1])

    def load(self, rows: int) -> None:
        frame = self._read(self._next, min(rows, self._end - self._next))
        self._next += frame.height
        self.frame = pl.concat([self.frame, frame], rechunk=True) if self.frame.height else frame
        self.events = self.frame[self._event].to_physical().to_numpy()

    def before(self, limit: int) -> tuple[pl.DataFrame, int] | None:
        count = self.frame.height if limit == END else int(np.searchsorted(self.events, limit, side="left"))
        if not count:
            return None
        part, start = self.frame.head(count), self._start
        self.frame, self.events, self._start = self.frame.slice(count), self.events[count:], start + count
        return part, start


def _joined(parts: list[tuple[pl.DataFrame, int]], event: str, known: pl.Expr | None, until: int) -> Merged:
    positions = np.concatenate([np.arange(start, start + part.height) for part, start in parts])
    if len(parts) == 1:
        return Merged(parts[0][0], positions, until)
    frame = pl.concat([part for part, _ in parts], rechunk=True)
    order = canonical_order(frame, event, known)
    return Merged(frame[order], positions[order], until)


def canonical_order(frame: pl.DataFrame, event: str, known: pl.Expr | None) -> npt.NDArray[np.intp]:
    """Return the order of rows by event time, arrival, and where they stand; quick where runs are in order already."""
    events = frame[event].to_physical().to_numpy()
    order = np.argsort(events, kind="stable")  # a merge of the runs that it finds
    if known is None:
        return order
    arrivals = frame.select(known.to_physical()).to_series().to_numpy()
    in_event_order = arrivals[order]
    is_tie = np.diff(events[order]) == 0
    if np.any(is_tie & (np.diff(in_event_order) < 0)):
        return np.lexsort((arrivals, events))
    return order


def in_memory_order(frame: pl.DataFrame, event: str, known: pl.Expr | None) -> pl.DataFrame:
    """Return a frame in canonical order."""
    events = frame[event].to_physical()
    if known is None and events.is_sorted():
        return frame
    order = canonical_order(frame, event, known)
    return frame if bool((np.diff(order) == 1).all()) else frame[order]


def sorted_files(rows: pl.LazyFrame, event: str, known: pl.Expr | None, folder: Path) -> Iterator[pl.DataFrame]:
    """Yield rows of any number in canonical order; what does not fit in memory is sorted in files under `folder`."""
    whole, at_once = folder / "rows.parquet", rows_at_once(len(rows.collect_schema()))
    rows.sink_parquet(whole, compression="lz4", row_group_size=_MARK_ROWS, maintain_order=True)
    count = pl.scan_parquet(whole).select(pl.len()).collect().item()
    runs: list[tuple[Read, int, Run]] = []
    read = reader_of(pl.scan_parquet(whole))
    if count <= at_once:
        if count:
            yield in_memory_order(read(0, count), event, known)
        return
    for number, start in enumerate(range(0, count, at_once)):
        tally = Tally(event)
        piece = in_memory_order(read(start, at_once), event, known)
        path = folder / f"run{number}.parquet"
        next(iter(tally.over([piece]))).write_parquet(path, compression="lz4", row_group_size=_MARK_ROWS)
        run = tally.run(None)
        assert run is not None
        runs.append((reader_of(pl.scan_parquet(path)), 0, run))
    whole.unlink()
    for block in merged(runs, event, known, at_once=at_once):
        yield block.frame


def rows_at_once(columns: int) -> int:
    """Return how many rows of so many columns are held in memory at a time."""
    return max(_CELLS // columns, _FEWEST_ROWS)


def reader_of(scan: pl.LazyFrame, columns: Sequence[str | pl.Expr] | None = None) -> Read:
    """Return how to read rows of a scan, all columns or some."""

    def read(start: int, rows: int) -> pl.DataFrame:
        part = scan.slice(start, rows)
        return (part if columns is None else part.select(columns)).collect()

    return read


def to_merge(runs: Sequence[Run]) -> int:
    """Return how many of the last runs are to be merged into one; 1: none."""
    count, rows = 1, runs[-1].rows if runs else 0
    while count < len(runs) and runs[-count - 1].rows <= _MERGE_FACTOR * rows:
        count += 1
        rows += runs[-count].rows
    return count


def _thinned(marks: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Leave out marks that stand closer than need be, but never the last."""
    kept: list[tuple[int, int]] = []
    before = 0
    for rows, last in marks[:-1]:
        if rows - before >= _MARK_ROWS:
            kept.append((rows, last))
            before = rows
    return (*kept, *marks[-1:])
