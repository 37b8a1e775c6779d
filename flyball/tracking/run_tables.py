"""One experiment in memory: its segments, and which of their rows still hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from flyball.ledger.points import Logged, Point, newest
from flyball.ledger.run_columns import RunColumns
from flyball.ledger.runs import RunFacts
from flyball.tracking.columns import Mask
from flyball.tracking.segments import Segment, build, merge

__all__ = ["Part", "Table", "View", "load", "read_on"]

View = Literal["active", "deleted", "all"]

_RATIO = 4  # so a hundred thousand runs stand in nine segments at most
_LIVE = 4096  # runs whose newest points are remembered; those of others are read again when they change


class Part(NamedTuple):
    """A segment and which of its rows still hold."""

    segment: Segment
    holds: Mask

    def mask(self, view: View) -> Mask:
        """Return the rows that hold and that a view shows."""
        if view == "all":
            return self.holds
        return self.holds & (self.segment.is_deleted if view == "deleted" else ~self.segment.is_deleted)


@dataclass
class Table:
    """One experiment. `parts` is replaced, never changed; `number` is how far of the ledger it has been read.

    `live` has the newest points of runs that points were logged to lately, by key.
    """

    location: str
    number: int
    parts: tuple[Part, ...] = ()
    live: OrderedDict[str, dict[str, Point]] = field(default_factory=OrderedDict)

    @property
    def size_bytes(self) -> int:
        """About how much memory the segments take."""
        return sum(part.segment.size_bytes for part in self.parts)

    def replace(self, runs: Sequence[RunFacts], removed: Sequence[str]) -> None:
        """Take runs as they are now, and let go of those that were removed."""
        gone = [run.id for run in runs] + list(removed)
        parts = []
        for segment, holds in self.parts:
            rows = [row for id in gone if (row := segment.row_of.get(id)) is not None]
            if rows:
                holds = holds.copy()
                holds[rows] = False
            if holds.any():
                parts.append(Part(segment, holds))
        if runs:
            parts.append(_whole(build(runs, self.live, self.location)))
        self.parts = tuple(_merged(parts))
        while len(self.live) > _LIVE:
            self.live.popitem(last=False)


def load(columns: RunColumns, experiment: str, location: str, number: int) -> Table:
    """Return an experiment as it stands; `number` was the ledger's newest before anything of it was read."""
    table = Table(location, number)
    table.live.update(_newest_of(columns.loose_of_experiment(experiment)))
    segment = build(columns.of_experiment(experiment), table.live, location)
    if len(segment):
        table.parts = (_whole(segment),)
    while len(table.live) > _LIVE:
        table.live.popitem(last=False)
    return table


def read_on(columns: RunColumns, after: int, tables: Mapping[str, Table]) -> None:
    """Bring tables that have been read up to the same number up to date."""
    logged = _newest_of(columns.logged(after, tables))
    changed = {facts.id: facts for facts in columns.changed(after, tables)}
    changed |= {facts.id: facts for facts in columns.named(logged.keys() - changed.keys())}
    removed = columns.removed(after)
    for table in tables.values():
        for id in removed:  # another run may have taken the id of one that was removed
            table.live.pop(id, None)
    lives = {id: tables[str(facts.experiment)].live for id, facts in changed.items()}
    loose = _newest_of(columns.loose([id for id, live in lives.items() if id not in live]))
    by_table: dict[str, list[RunFacts]] = {}
    for id, live in lives.items():
        known = live.pop(id, {})
        found = newest([*loose.get(id, {}).values(), *logged.get(id, {}).values()], known)
        if found:
            live[id] = found
        by_table.setdefault(str(changed[id].experiment), []).append(changed[id])
    for experiment, table in tables.items():
        runs = by_table.get(experiment, [])
        if runs or removed:
            table.replace(runs, removed)


def _whole(segment: Segment) -> Part:
    return Part(segment, np.ones(len(segment), dtype=np.bool_))


def _merged(parts: list[Part]) -> list[Part]:
    """Return parts with small ones merged, so that each has `_RATIO` times the rows of the next.

    A part of which less than half still holds is written anew.
    """
    sizes = [int(np.count_nonzero(holds)) for _, holds in parts]
    while len(parts) > 1 and sizes[-2] < _RATIO * sizes[-1]:
        parts[-2:] = [_whole(merge(parts[-2:]))]
        sizes[-2:] = [len(parts[-1].segment)]
    for place, (segment, _) in enumerate(parts):
        if sizes[place] < len(segment) // 2:
            parts[place] = _whole(merge([parts[place]]))
    return parts


def _newest_of(requests: Iterable[Logged]) -> dict[str, dict[str, Point]]:
    """Return the newest point of each metric of each run among requests."""
    found: dict[str, dict[str, Point]] = {}
    for request in requests:
        found[request.run] = newest(request.points, found.get(request.run))
    return found
