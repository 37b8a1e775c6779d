"""The sweep: as-of answers for rows in order of time, from a view's rows in order of event time, in bounded memory.

Only narrow columns come here: a code for the entity, the two times, the row's position in the stored view. For each
entity the newest row so far is kept, so what is held is an array of the entities and the rows that have not arrived
yet, whatever the size of the view. Questions are answered some hundreds at a time: what was true before is one look
into the array, and only rows of entities that are asked for just now are put in order.

`training_set` drives it for stored views; `joins` states the same rules for frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Block", "Sweep"]

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

_FEWEST_AT_ONCE = 256  # questions: fewer cost more in calls than they save in sorting
_MOST_AT_ONCE = 8_192
_MOST_STEPS = 60_000  # so that the number of a step fits 16 bits, for which numpy's stable sort is a radix sort
_MOST_WAITING = 4_000_000  # rows that have not arrived yet, before those that can never be an answer are looked for


class Block(NamedTuple):
    """Rows of a view in canonical order: by event time, then arrival, then storage. Times are microseconds (int64).

    Attributes:
        codes: int32, the entity; -1 for one that nobody asks for.
        events: when each became true.
        known: when each arrived; None where rows arrive at once.
        positions: which row of the stored view it is.
        until: every row of the view with an event time up to here has been given once this block has.
    """

    codes: Codes
    events: Ints
    known: Ints | None
    positions: Ints
    until: int


class _Rows(NamedTuple):
    codes: Codes
    events: Ints
    available: Ints
    positions: Ints
    ranks: Ints  # the place in canonical order; of two rows the newer has the higher

    def where(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice) -> _Rows:
        codes, *times = self
        return _Rows(codes[chosen], *(column[chosen] for column in times))

    def followed_by(self, other: _Rows) -> _Rows:
        codes = np.concatenate([self.codes, other.codes])
        return _Rows(codes, *(np.concatenate(pair) for pair in zip(self[1:], other[1:], strict=True)))


class Sweep:
    """Answers questions while blocks of rows pass by.

    Args:
        codes: int32 (questions), the entity asked for, 0 … entities - 1.
        times: int64 (questions), when it is asked, ascending.
        entities: how many codes there are.
        offset_us: only rows at least so old count.

    Attributes:
        positions: int64 (questions), the stored row that answers, -1 for none.
        events: int64 (questions), its event time.
    """

    def __init__(self, codes: Codes, times: Ints, entities: int, offset_us: int = 0) -> None:
        self.positions = np.full(len(codes), -1, dtype=np.int64)
        self.events = np.zeros(len(codes), dtype=np.int64)
        self._codes, self._times, self._offset = codes, times, offset_us
        self._done = 0
        self._ranked = 0
        self._waiting: _Rows | None = None
        # One place more than there are entities: the code -1 means the last, which nobody looks at.
        self._newest_rank = np.full(entities + 1, -1, dtype=np.int64)
        self._newest_position = np.full(entities + 1, -1, dtype=np.int64)
        self._newest_event = np.zeros(entities + 1, dtype=np.int64)
        self._asked = np.full(entities + 1, -1, dtype=np.int32)
        self._step = 0

    def add(self, block: Block) -> None:
        """Take the next block and answer every question up to its end."""
        horizon = block.until + self._offset
        end = max(self._done, int(np.searchsorted(self._times, horizon, side="right")))
        rows = self._rows_of(block)
        is_late = block.known is not None or self._waiting is not None
        if is_late:
            rows = self._arrived(rows, horizon)
        at_once = min(max(len(self._newest_rank) // 8, _FEWEST_AT_ONCE), _MOST_AT_ONCE)
        cuts = np.arange(self._done, end, max(at_once, (end - self._done) // _MOST_STEPS))
        ends = np.append(cuts[1:], end) if len(cuts) else cuts
        rows, borders = _stepped(rows, self._times[ends - 1], is_late)
        for number, (first, last) in enumerate(zip(cuts.tolist(), ends.tolist(), strict=True)):
            part = rows.where(slice(borders[number], borders[number + 1]))
            self._answer(first, last, part, is_late)
            self._remember(part, is_late)
        self._remember(rows.where(slice(borders[len(cuts)], None)), is_late)
        self._done = end

    def finish(self) -> None:
        """Answer what is left; no row comes any more."""
        last = int(self._times[-1]) if len(self._times) else 0
        nothing = np.empty(0, dtype=np.int64)
        self.add(Block(nothing.astype(np.int32), nothing, None, nothing, last - self._offset))

    def _rows_of(self, block: Block) -> _Rows:
        available = block.events + self._offset
        if block.known is not None:
            available = np.maximum(available, block.known)
        ranks = np.arange(self._ranked, self._ranked + len(block.codes))
        self._ranked += len(block.codes)
        rows = _Rows(block.codes, block.events, available, block.positions, ranks)
        wanted = block.codes >= 0
        return rows.where(wanted) if 2 * int(np.count_nonzero(wanted)) < len(wanted) else rows

    def _arrived(self, rows: _Rows, horizon: int) -> _Rows:
        """Return the rows that have arrived by `horizon`, those that had waited among them; keep the others."""
        if self._waiting is not None:
            rows = self._waiting.followed_by(rows)
        waits = rows.available > horizon
        if not waits.any():
            self._waiting = None
            return rows
        last = self._times[-1] if len(self._times) else 0
        self._waiting = rows.where(waits & (rows.available <= last))
        if len(self._waiting.codes) > _MOST_WAITING:
            self._waiting = self._waiting.where(~_overtaken(self._waiting))
        return rows.where(~waits)

    def _answer(self, first: int, last: int, rows: _Rows, is_late: bool) -> None:
        """Answer the questions `first` to `last` from what was true before and from `rows`."""
        codes, times = self._codes[first:last], self._times[first:last]
        positions, events = self._newest_position[codes], self._newest_event[codes]
        self._step += 1
        self._asked[codes] = self._step
        chosen = np.flatnonzero(self._asked[rows.codes] == self._step)
        if len(chosen):
            own = rows.codes[chosen].astype(np.int64)
            instants = np.sort(rows.available[chosen])
            width = len(chosen) + 1
            keys = own * width + np.searchsorted(instants, rows.available[chosen], side="right")
            order = np.argsort(keys, kind="stable")
            keys, own = keys[order], own[order]
            # The newest so far of each entity: entities ascend, so a running maximum starts anew with each.
            newest = np.maximum.accumulate(own * (len(rows.codes) + 1) + chosen[order]) - own * (len(rows.codes) + 1)
            asked = codes.astype(np.int64) * width + np.searchsorted(instants, times, side="right")
            found = np.searchsorted(keys, asked, side="right") - 1
            hit = np.flatnonzero((found >= 0) & (own[found] == codes))
            best = newest[found[hit]]
            if is_late:
                newer = rows.ranks[best] > self._newest_rank[codes[hit]]
                hit, best = hit[newer], best[newer]
            positions[hit], events[hit] = rows.positions[best], rows.events[best]
        self.positions[first:last], self.events[first:last] = positions, events

    def _remember(self, rows: _Rows, is_late: bool) -> None:
        """Take rows, in canonical order, as the newest of their entities; of an index that repeats the last stays."""
        if is_late:
            rows = rows.where(rows.ranks > self._newest_rank[rows.codes])
            self._newest_rank[rows.codes] = rows.ranks
        self._newest_position[rows.codes] = rows.positions
        self._newest_event[rows.codes] = rows.events


def _stepped(rows: _Rows, ends: Ints, is_late: bool) -> tuple[_Rows, list[int]]:
    """Return rows by the step in which they become available, each step's in canonical order, and where steps begin.

    `ends` are the times of the last question of each step; what comes after all of them is a step of its own.
    """
    if not is_late:
        return rows, [0, *np.searchsorted(rows.available, ends, side="right").tolist()]
    steps = np.searchsorted(ends, rows.available, side="left").astype(np.uint16)
    borders = np.searchsorted(np.sort(steps), np.arange(len(ends) + 1), side="left")
    return rows.where(np.argsort(steps, kind="stable")), [0, *borders[1:].tolist()]


def _overtaken(rows: _Rows) -> npt.NDArray[np.bool_]:
    """Return which rows are available no sooner than a newer one of their entity, so that they never answer."""
    instants = np.unique(rows.available)
    late = np.searchsorted(instants, rows.available)
    order = np.lexsort((rows.ranks, rows.codes))
    shifted = rows.codes[order].astype(np.int64) * (len(instants) + 1) + late[order]
    # Backwards, entities descend, so a running minimum starts anew with each.
    after = np.minimum.accumulate(shifted[::-1])[::-1]
    result = np.zeros(len(order), dtype=bool)
    result[order[:-1]] = (after[1:] <= shifted[:-1]) & (rows.codes[order[1:]] == rows.codes[order[:-1]])
    return result
