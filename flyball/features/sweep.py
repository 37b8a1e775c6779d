"""The sweep: as-of answers for rows in order of time, from a view's rows in order of event time, in bounded memory.

Only narrow columns come here: a code for the entity, the two times, the row's position in the stored view. For each
entity the newest row so far is kept, so what is held is an array of the entities and the rows that have not arrived
yet, whatever the size of the view. A block's rows are sorted by entity once, by their codes' bytes; each question is
then one binary search, and where rows arrive late a descent of a tree of least arrivals from what that finds.

`training_set` drives it for stored views; `joins` states the same rules for frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Block", "Sweep"]

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

_MOST_WAITING = 4_000_000  # rows that have not arrived yet, before those that can never be an answer are looked for
_END = np.iinfo(np.int64).max


class Block(NamedTuple):
    """Rows of a view in canonical order: by event time, then arrival, then storage. Times are microseconds (int64).

    Attributes:
        codes: int32, the entity; -1 for one that nobody asks for.
        events: when each became true.
        known: when each arrived; None where rows arrive at once.
        positions: which row of the stored view it is.
        until: every row of the view with an event time up to here has been given once this block has, and no other.
    """

    codes: Codes
    events: Ints
    known: Ints | None
    positions: Ints
    until: int


class _Rows(NamedTuple):
    """Rows in canonical order."""

    codes: Codes
    events: Ints
    known: Ints
    positions: Ints
    ranks: Ints  # the place in canonical order among all rows of the view; of two rows the newer has the higher

    def where(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> _Rows:
        codes, *others = self
        return _Rows(codes[chosen], *(column[chosen] for column in others))

    def followed_by(self, other: _Rows) -> _Rows:
        codes = np.concatenate([self.codes, other.codes])
        return _Rows(codes, *(np.concatenate(pair) for pair in zip(self[1:], other[1:], strict=True)))


class _ByCode(NamedTuple):
    """Rows of a block by entity, each entity's in canonical order.

    Attributes:
        keys: ascending; the code, then in the low `bits` which row of the block it is.
        known: each row's arrival; None where no row is late.
    """

    rows: _Rows
    keys: Ints
    bits: int
    known: Ints | None

    @classmethod
    def of(cls, rows: _Rows, *, is_late: bool) -> _ByCode:
        order, bits = _by_code(rows.codes), len(rows.codes).bit_length()
        # As numbers without a sign, so that -1 comes last.
        keys = (rows.codes.view(np.uint32)[order].astype(np.int64) << bits) | order
        return cls(rows, keys, bits, rows.known[order] if is_late else None)

    def ends(self) -> Ints:
        """Return behind which place the rows of each entity end."""
        codes = self.keys >> self.bits
        return np.flatnonzero(np.append(codes[1:] != codes[:-1], True)) + 1 if len(codes) else codes

    def newest(self, codes: npt.NDArray[np.integer], ends: Ints, times: Ints | int) -> tuple[Ints, Ints]:
        """Return of which questions the block has an answer, and which row it is.

        Args:
            codes: (questions) the entity.
            ends: (questions) only rows at places before it count.
            times: (questions) only rows that have arrived by then count.
        """
        if not len(self.keys):
            return ends[:0], ends[:0]
        places = ends - 1
        if self.known is not None:
            late = np.flatnonzero(self.known[places] > times)
            bounds = times[late] if isinstance(times, np.ndarray) else np.full(len(late), times)
            places[late] = _last_at_most(self.known, bounds, places[late])
        keys = self.keys[places]  # of -1 some key, which does not count
        hits = np.flatnonzero((places >= 0) & (keys >> self.bits == codes))
        return hits, keys[hits] & ((1 << self.bits) - 1)


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

    def add(self, block: Block) -> None:
        """Take the next block and answer every question up to its end."""
        horizon = block.until + self._offset
        end = max(self._done, int(np.searchsorted(self._times, horizon, side="right")))
        is_late = block.known is not None or self._waiting is not None
        rows = self._rows_of(block)
        if self._waiting is not None:
            rows = self._waiting.followed_by(rows)
        by_code = _ByCode.of(rows, is_late=is_late)
        self._answer(self._done, end, by_code)
        self._remember(by_code, horizon)
        if is_late:
            self._wait(rows, horizon)
        self._done = end

    def finish(self) -> None:
        """Answer what is left; no row comes any more."""
        last = int(self._times[-1]) if len(self._times) else 0
        nothing = np.empty(0, dtype=np.int64)
        self.add(Block(nothing.astype(np.int32), nothing, None, nothing, last - self._offset))

    def _rows_of(self, block: Block) -> _Rows:
        first, known = self._ranked, block.events if block.known is None else block.known
        self._ranked += len(block.codes)
        rows = _Rows(block.codes, block.events, known, block.positions, np.arange(first, self._ranked))
        wanted = np.flatnonzero(block.codes >= 0)
        return rows.where(wanted) if 2 * len(wanted) < len(block.codes) else rows

    def _answer(self, first: int, last: int, by_code: _ByCode) -> None:
        """Answer the questions `first` to `last` from what was true before and from the rows."""
        rows, asked = by_code.rows, self._times[first:last]
        # What is old enough is a beginning of the rows, since they are in the order of their events.
        old_enough = np.searchsorted(rows.events, asked - self._offset, side="right")
        order = _by_code(self._codes[first:last])  # so that the search goes through the keys once, from end to end
        codes = self._codes[first:last][order]
        ends = np.searchsorted(by_code.keys, (codes.astype(np.int64) << by_code.bits) + old_enough[order])
        hits, best = by_code.newest(codes, ends, asked[order])
        if by_code.known is not None:
            newer = rows.ranks[best] > self._newest_rank[codes[hits]]
            hits, best = hits[newer], best[newer]
        positions, events = self._newest_position[codes], self._newest_event[codes]
        positions[hits], events[hits] = rows.positions[best], rows.events[best]
        self.positions[first + order], self.events[first + order] = positions, events

    def _remember(self, by_code: _ByCode, horizon: int) -> None:
        """Keep the newest row of each entity that has arrived by `horizon`."""
        rows, ends = by_code.rows, by_code.ends()
        codes = by_code.keys[ends - 1] >> by_code.bits
        hits, best = by_code.newest(codes, ends, horizon)
        own = np.minimum(codes[hits], len(self._newest_rank) - 1)
        if by_code.known is not None:
            newer = rows.ranks[best] > self._newest_rank[own]
            own, best = own[newer], best[newer]
            self._newest_rank[own] = rows.ranks[best]
        self._newest_position[own] = rows.positions[best]
        self._newest_event[own] = rows.events[best]

    def _wait(self, rows: _Rows, horizon: int) -> None:
        """Keep the rows that arrive after `horizon` and before the last question."""
        last = self._times[-1] if len(self._times) else 0
        waits = (rows.known > horizon) & (rows.known <= last) & (rows.codes >= 0)
        if not waits.any():
            self._waiting = None
            return
        self._waiting = rows.where(waits)
        if len(self._waiting.codes) > _MOST_WAITING:
            self._waiting = self._waiting.where(~_overtaken(self._waiting))


def _by_code(codes: Codes) -> npt.NDArray[np.intp]:
    """Return the order of codes, of equal ones as they stand, -1 last.

    numpy's stable sort of 16 bits is a radix sort, four times as fast as one of 64; two of them sort 32.
    """
    order = np.argsort(codes.astype(np.uint16), kind="stable")
    if not len(codes) or int(codes.max()) < 0xFFFF:
        return order
    return order[np.argsort((codes.view(np.uint32) >> 16).astype(np.uint16)[order], kind="stable")]


def _last_at_most(values: Ints, bounds: Ints, ends: Ints) -> Ints:
    """Return for each bound the last place before its end at which a value is at most the bound, -1 where none is.

    A tree of the least of two, four, … values is climbed from the end until a branch to the left has such a value, and
    descended to the last: as many steps as the logarithm of how far away it lies, each for all bounds at once.
    """
    levels, caught = [values], list[tuple[Ints, Ints]]()
    active, nodes = np.flatnonzero(ends > 0), ends[ends > 0]  # of a level, the nodes before `nodes` are left to look at
    while len(active):
        level = levels[-1]
        is_caught = (nodes & 1 == 1) & (level[nodes - 1] <= bounds[active])
        caught.append((active[is_caught], nodes[is_caught] - 1))
        goes_on = ~is_caught & (nodes > 1)
        active, nodes = active[goes_on], nodes[goes_on] >> 1
        if len(active):
            whole = level if len(level) % 2 == 0 else np.append(level, _END)
            levels[-1] = whole
            levels.append(np.minimum(whole[::2], whole[1::2]))
    found = np.full(len(ends), -1, dtype=np.int64)
    which, nodes = active, nodes
    for depth in range(len(caught) - 1, -1, -1):
        which, nodes = np.append(which, caught[depth][0]), np.append(nodes, caught[depth][1])
        if depth:
            right = 2 * nodes + 1
            nodes = np.where(levels[depth - 1][right] <= bounds[which], right, right - 1)
    found[which] = nodes
    return found


def _overtaken(rows: _Rows) -> npt.NDArray[np.bool_]:
    """Return which rows arrive no sooner than a newer one of their entity, so that they never answer."""
    instants = np.unique(rows.known)
    late = np.searchsorted(instants, rows.known)
    order = np.lexsort((rows.ranks, rows.codes))
    shifted = rows.codes[order].astype(np.int64) * (len(instants) + 1) + late[order]
    # Backwards, entities descend, so a running minimum starts anew with each.
    after = np.minimum.accumulate(shifted[::-1])[::-1]
    result = np.zeros(len(order), dtype=bool)
    result[order[:-1]] = (after[1:] <= shifted[:-1]) & (rows.codes[order[1:]] == rows.codes[order[:-1]])
    return result
