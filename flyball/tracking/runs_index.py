"""Searching runs in memory: the columns of each experiment that was searched, kept up with the ledger.

An experiment is loaded at its first search. Before each later one what changed meanwhile is read and becomes a small
segment of its own; the rows that it replaces count no more, small segments are merged as they add up. So a search sees
everything that was acknowledged before it began, and costs little beside writers. Searching itself needs no lock: it
works on segments that never change. The experiments that were searched least recently make room for others.

Source of the semantics: PROTOCOLS.md §2.5. Runs without a value come last in either direction, NaN before them.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from flyball.errors import InvalidInput, NotFound
from flyball.ledger import Ledger
from flyball.tracking.columns import Rows, Words
from flyball.tracking.filters import Comparison, Order
from flyball.tracking.run_tables import Part, Table, View, load, read_on
from flyball.tracking.segments import Segment

__all__ = ["RunKeys", "RunsIndex"]

_BUDGET_BYTES = 512 << 20  # some 700,000 runs of ten metrics, ten parameters and three tags


class RunKeys(NamedTuple):
    """The keys that runs have, each with the number of runs that have it; the most frequent first."""

    metrics: Mapping[str, int]
    params: Mapping[str, int]
    tags: Mapping[str, int]


class RunsIndex:
    """Searches the runs of a ledger; safe to share between threads.

    Args:
        ledger: where the runs are.
        budget_bytes: about how much memory the columns of all experiments may take; one is kept whatever its size.
    """

    def __init__(self, ledger: Ledger, budget_bytes: int = _BUDGET_BYTES) -> None:
        self._ledger = ledger
        self._budget = budget_bytes
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._counted: tuple[list[Part], RunKeys] = ([], RunKeys({}, {}, {}))
        self._lock = threading.Lock()  # held for what changed, not for searching
        self._loading = threading.Lock()  # held while an experiment is loaded; searches of others go on

    def search(
        self,
        experiments: Iterable[str],
        comparisons: Sequence[Comparison] = (),
        orders: Sequence[Order] = (),
        view: View = "active",
        limit: int = 1000,
        offset: int = 0,
    ) -> tuple[list[str], bool]:
        """Return the ids of a page of runs that satisfy all comparisons, and whether there are more.

        Experiments that do not exist have no runs. Equal runs come by start, newest first, then by id.

        Raises:
            InvalidInput: the limit or the offset is below 0.
        """
        if limit < 0 or offset < 0:
            raise InvalidInput(f"limit {limit}, offset {offset}: expected a page of runs, from 0 on")
        wanted = limit + offset + 1
        by = tuple(orders)
        found: list[tuple[Segment, Rows]] = []
        for part in self._parts(experiments):
            mask = part.mask(view)
            for comparison in comparisons:
                mask = mask & part.segment.mask(comparison)
            rows = part.segment.first(mask, by, wanted)
            if len(rows):
                found.append((part.segment, rows))
        count = sum(len(rows) for _, rows in found)
        page = _in_order(found, by, offset, limit)
        return [segment.ids[row] for segment, row in page], count > offset + limit

    def keys(self, experiments: Iterable[str]) -> RunKeys:
        """Return which metrics, parameters and tags the runs that are not deleted have, with how many have each."""
        parts = self._parts(experiments)
        known, keys = self._counted
        if len(known) == len(parts) and all(one is other for one, other in zip(known, parts, strict=True)):
            return keys  # parts never change: the same ones have the same keys
        counts: dict[str, Counter[str]] = {"metric": Counter(), "param": Counter(), "tag": Counter()}
        for part in parts:
            shown = part.mask("active")
            all_shown = int(np.count_nonzero(shown))
            for (kind, key), column in part.segment.columns.items():
                if kind in counts:
                    count = all_shown if column.rows is None else int(np.count_nonzero(shown[column.rows]))
                    if count:
                        counts[kind][key] += count
        metrics, params, tags = (dict(sorted(c.items(), key=lambda kept: (-kept[1], kept[0]))) for c in counts.values())
        keys = RunKeys(metrics, params, tags)
        self._counted = (parts, keys)
        return keys

    def values(self, experiments: Iterable[str], kind: str, key: str, begin: str = "", limit: int = 50) -> list[str]:
        """Return texts that runs have under a key of parameters, tags or attributes, sorted, that begin as told.

        Also those of runs that are deleted or have another value now, until their part is written anew.
        """
        found: set[str] = set()
        for part in self._parts(experiments):
            column = part.segment.columns.get((kind, key))
            if isinstance(column, Words):
                start = bisect_left(column.words, begin)
                for word in column.words[start : start + limit]:
                    if not word.startswith(begin):
                        break
                    found.add(word)
        return sorted(found)[:limit]

    def forget(self) -> None:
        """Let go of everything that was loaded; the next searches load it again."""
        with self._lock:
            self._tables.clear()
            self._counted = ([], RunKeys({}, {}, {}))

    # -- keeping up

    def _parts(self, experiments: Iterable[str]) -> list[Part]:
        """Return the parts of experiments as the ledger stands now."""
        numbers = [id for id in experiments if id.isascii() and id.isdecimal() and len(id) < 19]
        wanted = list(dict.fromkeys(str(int(id)) for id in numbers))
        fresh: dict[str, Table | None] = {}
        while True:
            for id in wanted:
                if id not in self._tables and id not in fresh:
                    fresh[id] = self._load(id)
            with self._lock:
                if any(id not in self._tables and id not in fresh for id in wanted):
                    continue  # one had to make room meanwhile
                known = {id: self._tables.get(id) or fresh[id] for id in wanted}
                tables = {id: table for id, table in known.items() if table is not None}
                self._catch_up(tables)
                for id, table in tables.items():
                    self._tables[id] = table
                    self._tables.move_to_end(id)
                self._make_room()
                return [part for table in tables.values() for part in table.parts]

    def _load(self, experiment: str) -> Table | None:
        """Return an experiment's table, None when there is no such experiment."""
        with self._loading, self._ledger.read() as world:
            if experiment in self._tables:  # loaded while this thread waited
                return self._tables[experiment]
            number = world.run_columns.head()
            try:
                location = world.experiments.get(experiment).artifact_location
            except NotFound:
                return None
            return load(world.run_columns, experiment, location, number)

    def _catch_up(self, tables: Mapping[str, Table]) -> None:
        """Bring tables up to date, those that have been read equally far together."""
        if not tables:
            return
        with self._ledger.read() as world:
            head = world.run_columns.head()
            behind: dict[int, dict[str, Table]] = {}
            for id, table in tables.items():
                if table.number < head:
                    behind.setdefault(table.number, {})[id] = table
            for number, some in behind.items():
                read_on(world.run_columns, number, some)
                for table in some.values():
                    table.number = head

    def _make_room(self) -> None:
        sizes = {id: table.size_bytes for id, table in self._tables.items()}
        total = sum(sizes.values())
        while total > self._budget and len(self._tables) > 1:
            id, _ = self._tables.popitem(last=False)
            total -= sizes[id]


def _in_order(
    found: Sequence[tuple[Segment, Rows]], orders: tuple[Order, ...], offset: int, limit: int
) -> list[tuple[Segment, int]]:
    """Return a page of rows that stand in order within each segment, in order over all."""
    if len(found) == 1:
        ((segment, rows),) = found
        return [(segment, row) for row in rows[offset : offset + limit].tolist()]
    every: list[tuple[Any, ...]] = []
    for segment, rows in found:
        every += zip(repeat(segment), rows.tolist(), *(segment.keys(order, rows) for order in orders))
    every.sort(key=lambda place: (-place[0].starts[place[1]], place[0].ids[place[1]]))
    for place, order in reversed(list(enumerate(orders))):
        every.sort(key=itemgetter(place + 2), reverse=not order.ascending)
    return [(segment, row) for segment, row, *_ in every[offset : offset + limit]]
