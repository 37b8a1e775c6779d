"""Some runs of one experiment as columns: filtered and sorted together, never changed.

Rows stand by start, newest first, then by id: the order in which runs are shown when nothing else is asked for, and
that of equals in any other. Which rows still hold says the index that owns the segment (`runs_index`).
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.ledger.points import Point, newest
from flyball.ledger.runs import RunFacts, as_text
from flyball.tracking.columns import Column, Mask, Names, Numbers, NumbersBuilder, Rows, Words, WordsBuilder, joined
from flyball.tracking.filters import Comparison, Order

__all__ = ["Segment", "build", "merge"]

Key = tuple[str, str]

_STATUSES = {
    "pending": "SCHEDULED", "running": "RUNNING", "succeeded": "FINISHED", "failed": "FAILED", "lost": "FAILED",
    "cancelled": "KILLED",
}  # fmt: skip
_CONTEXT = "mlflow.data.context"
_MASKS, _ORDERS = 16, 8  # answers kept: the next page asks the same again
_ABSENT_NUMBERS = Numbers(np.empty(0, dtype=np.int32), np.empty(0))
_ABSENT_WORDS = Words(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32), ())


class Segment:
    """Runs as columns; see the module.

    Attributes:
        ids: of each row; `starts` their starts, milliseconds since 1970.
        is_deleted: which rows are of runs that are marked deleted.
        row_of: the row of each id.
    """

    def __init__(
        self, ids: list[str], starts: NDArray[np.float64], is_deleted: Mask, columns: dict[Key, Column], location: str
    ) -> None:
        self.ids, self.starts, self.is_deleted, self.columns = ids, starts, is_deleted, columns
        self.location = location
        self.row_of = {id: row for row, id in enumerate(ids)}
        self._masks: dict[Comparison, Mask] = {}
        self._orders: dict[tuple[Order, ...], Rows] = {}

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def size_bytes(self) -> int:
        """About how much memory the segment takes, with the answers that it may keep."""
        kept = len(self.ids) * (_MASKS + 4 * _ORDERS + 250)
        return kept + sum(400 + column.size_bytes for column in self.columns.values())

    def column(self, kind: str, key: str) -> Column | Names:
        """Return a column, an empty one for a key that no row has."""
        if kind == "attribute" and key == "run_id":
            return Names(self.ids)
        if kind == "attribute" and key == "artifact_uri":
            head, sign, query = self.location.partition("?")
            return Names(self.ids, f"{head.rstrip('/')}/", f"/artifacts{sign}{query}")
        is_number = kind == "metric" or (kind, key) == ("attribute", "end_time")
        return self.columns.get((kind, key), _ABSENT_NUMBERS if is_number else _ABSENT_WORDS)

    def mask(self, comparison: Comparison) -> Mask:
        """Return which rows satisfy a comparison."""
        found = self._masks.get(comparison)
        if found is None:
            found = self.column(comparison.kind, comparison.key).mask(len(self), comparison)
            found.flags.writeable = False
            _keep(self._masks, comparison, found, _MASKS)
        return found

    def first(self, mask: Mask, orders: tuple[Order, ...], count: int) -> Rows:
        """Return the first `count` rows of a mask in an order."""
        if not orders:
            return np.flatnonzero(mask)[:count].astype(np.int32)
        order = self._order(orders)
        found: list[Rows] = []
        start, step = 0, max(4 * count, 4096)
        while start < len(order) and count > 0:
            part = order[start : start + step]
            hits = part[mask[part]][:count]
            found.append(hits)
            count -= len(hits)
            start, step = start + step, step * 4
        return np.concatenate(found) if found else np.empty(0, dtype=np.int32)

    def keys(self, order: Order, rows: Rows) -> Sequence[tuple[int, Any]]:
        """Return by what an order sorts rows, comparable with the rows of other segments.

        A descending order sorts them in reverse; the group is turned round, so that what is missing stays last.
        """
        keys = self.column(order.kind, order.key).keys(rows)
        return keys if order.ascending else [(-group, value) for group, value in keys]

    def _order(self, orders: tuple[Order, ...]) -> Rows:
        """Return all rows in an order; equals stay as they stand."""
        found = self._orders.get(orders)
        if found is None:
            keys: list[NDArray[Any]] = []
            for order in reversed(orders):
                ranks = self.column(order.kind, order.key).ranks(len(self))
                keys += [ranks.value if order.ascending else -ranks.value, ranks.group]
            found = np.lexsort(keys).astype(np.int32)
            _keep(self._orders, orders, found, _ORDERS)
        return found


def build(facts: Iterable[RunFacts], logged: Mapping[str, Mapping[str, Point]], location: str) -> Segment:
    """Return runs as a segment; they are read one by one, as parsed they would take ten times the room.

    Args:
        facts: the runs, each once.
        logged: points of runs that their facts do not hold yet, by run and key.
        location: where their experiment keeps artifacts.
    """
    ids: list[str] = []
    starts = array("d")
    is_deleted = array("b")
    metrics: defaultdict[str, NumbersBuilder] = defaultdict(NumbersBuilder)
    params: defaultdict[str, WordsBuilder] = defaultdict(WordsBuilder)
    tags: defaultdict[str, WordsBuilder] = defaultdict(WordsBuilder)
    datasets: defaultdict[str, WordsBuilder] = defaultdict(WordsBuilder)
    names, users, statuses, ends = WordsBuilder(), WordsBuilder(), WordsBuilder(), NumbersBuilder()
    for row, run in enumerate(facts):
        ids.append(run.id)
        starts.append(run.started_ms)
        is_deleted.append(run.is_deleted)
        names.add(row, run.name)
        users.add(row, run.user)
        statuses.add(row, _STATUSES[run.status])
        if run.finished_ms is not None:
            ends.add(row, run.finished_ms)
        for key, value in run.params.items():
            params[key].add(row, value if type(value) is str else as_text(value))
        for key, value in run.tags.items():
            tags[key].add(row, value if type(value) is str else as_text(value))
        latest = run.latest if run.id not in logged else _latest(run, logged[run.id])
        for key, point in latest.items():
            metrics[key].add(row, nan if point[0] is None else point[0])
        for used in run.inputs:
            for key, value in _dataset(used):
                datasets[key].add(row, value)
    count = len(ids)
    by_start = np.array(starts)
    order = sorted(range(count), key=lambda row: (-starts[row], ids[row]))
    places = np.empty(count, dtype=np.int32)
    places[order] = np.arange(count, dtype=np.int32)
    builders: dict[Key, NumbersBuilder | WordsBuilder] = {("metric", key): found for key, found in metrics.items()}
    for kind, texts in (("param", params), ("tag", tags), ("dataset", datasets)):
        builders |= {(kind, key): found for key, found in texts.items()}
    for name, found in (("run_name", names), ("user_id", users), ("status", statuses), ("end_time", ends)):
        builders["attribute", name] = found
    columns: dict[Key, Column] = {key: found.column(places, count) for key, found in builders.items()}
    columns["attribute", "start_time"] = Numbers(None, by_start[order])
    deleted = np.array(is_deleted, dtype=np.bool_)[order]
    return Segment([ids[row] for row in order], by_start[order], deleted, columns, location)


def merge(parts: Sequence[tuple[Segment, Mask]]) -> Segment:
    """Return the rows of segments of one experiment that their masks hold, as one segment."""
    kept = [np.flatnonzero(mask) for _, mask in parts]
    ids = [segment.ids[row] for (segment, _), rows in zip(parts, kept, strict=True) for row in rows]
    starts = np.concatenate([segment.starts[rows] for (segment, _), rows in zip(parts, kept, strict=True)])
    deleted = np.concatenate([segment.is_deleted[rows] for (segment, _), rows in zip(parts, kept, strict=True)])
    count = len(ids)
    order = sorted(range(count), key=lambda row: (-starts[row], ids[row]))
    places = np.empty(count, dtype=np.int32)
    places[order] = np.arange(count, dtype=np.int32)
    moved, first = [], 0
    for (segment, _), rows in zip(parts, kept, strict=True):
        where = np.full(len(segment), -1, dtype=np.int32)  # the new place of each row, -1 for those left out
        where[rows] = places[first : first + len(rows)]
        moved.append((segment, where))
        first += len(rows)
    keys = dict.fromkeys(key for segment, _ in parts for key in segment.columns)
    columns: dict[Key, Column] = {}
    for key in keys:
        found = joined([(segment.columns[key], where) for segment, where in moved if key in segment.columns], count)
        if found is not None:
            columns[key] = found
    return Segment([ids[row] for row in order], starts[order], deleted[order], columns, parts[0][0].location)


def _dataset(used: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a search finds of an input: name, digest and context of a data set, nothing of a model."""
    if "digest" not in used:
        return []
    context = used.get("tags", {}).get(_CONTEXT)
    return [("name", used["name"]), ("digest", used["digest"]), *([] if context is None else [("context", context)])]


def _latest(run: RunFacts, logged: Mapping[str, Point]) -> Mapping[str, Sequence[Any]]:
    known = {k: Point(k, nan if v is None else v, step, at) for k, (v, step, at) in run.latest.items()}
    return {k: (point.value,) for k, point in newest(logged.values(), known).items()}


def _keep(cache: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Put a value into a small cache, whose oldest one goes; other threads may do the same."""
    while len(cache) >= most:
        try:
            cache.pop(next(iter(cache)), None)
        except (StopIteration, RuntimeError):  # another thread was quicker
            break
    cache[key] = value
