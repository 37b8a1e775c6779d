"""Points in SQL: chunks in order, and the journal's rows of a run merged into them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from flyball.errors import InvalidInput
from flyball.ledger.points import Point
from flyball.ledger.sql.packing import Columns, in_order, unpack, unpack_chunk
from flyball.ledger.sql.session import Session

__all__ = ["SqlPoints"]

_CHUNKS = (
    "SELECT part, count, first_at, first_step, last_at, last_step FROM point_chunks WHERE run = ? AND key = ? "
    "ORDER BY first_at, first_step, part"
)
_DATA = "SELECT data FROM point_chunks WHERE run = ? AND key = ? AND part = ?"
_ALL_DATA = "SELECT data FROM point_chunks WHERE run = ? AND key = ? ORDER BY first_at, first_step, part"
_ROWS = "SELECT data FROM point_journal WHERE run = ? ORDER BY id"
_LEAST_STEP = -(2**63)
_made = partial(tuple.__new__, Point)  # twice as quick as Point(…)


class _Piece(NamedTuple):
    """Points of one metric that lie together: chunks by number, and points of the journal."""

    first: tuple[int, int]
    last: tuple[int, int]
    size: int
    parts: tuple[int, ...]
    loose: Columns | None = None


class SqlPoints:
    """`Points` within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def history(self, run: str, key: str) -> list[Point]:
        found = self._points(key, self._stretches(run, key, 0, None))
        return sorted(found, key=lambda p: (p.step, p.at_ms, 0.0 if p.value != p.value else p.value))

    def page(self, run: str, key: str, limit: int, offset: int = 0) -> tuple[list[Point], bool]:
        if limit < 1 or offset < 0:
            raise InvalidInput(f"limit {limit}, offset {offset}: expected a page of at least one point, from 0 on")
        points = self._points(key, self._stretches(run, key, offset, limit + 1))
        return points[:limit], len(points) > limit

    def sample(
        self, runs: Iterable[str], key: str, points: int, first_step: int | None = None, last_step: int | None = None
    ) -> dict[str, list[Point]]:
        if points < 1:
            raise InvalidInput(f"{points} points cannot be sampled; ask for at least one")
        found = {
            run: _spread(key, self._arrays(run, key), points, first_step, last_step) for run in dict.fromkeys(runs)
        }
        return {run: sampled for run, sampled in found.items() if sampled}

    def _points(self, key: str, stretches: Iterable[Columns]) -> list[Point]:
        found: list[Point] = []
        for ats, steps, values in stretches:
            found += map(_made, zip(repeat(key), values, steps, ats))
        return found

    def _stretches(self, run: str, key: str, offset: int, limit: int | None) -> Iterator[Columns]:
        """Yield points in order from an offset; chunks that lie before it are counted, not read."""
        missing = limit
        for piece in self._pieces(run, key):
            if len(piece.parts) == 1 and piece.loose is None and piece.size <= offset:
                offset -= piece.size
                continue
            columns = self._read(run, key, piece)
            size = len(columns.values)
            if size <= offset:
                offset -= size
                continue
            part = slice(offset, size if missing is None else offset + missing)
            offset = 0
            yield Columns(columns.ats[part], columns.steps[part], columns.values[part])
            if missing is not None:
                missing -= min(size, part.stop) - part.start
                if missing <= 0:
                    return

    def _pieces(self, run: str, key: str) -> list[_Piece]:
        """Return what lies apart in (time, step); only what may overlap has to be merged."""
        found = [
            _Piece((first_at, first_step), (last_at, last_step), count, (part,))
            for part, count, first_at, first_step, last_at, last_step in self._session.raw(_CHUNKS, (run, key))
        ]
        loose = self._loose(run, key)
        if loose.values:
            ends = (loose.ats[0], loose.steps[0]), (loose.ats[-1], loose.steps[-1])
            found.append(_Piece(*ends, len(loose.values), (), loose))
            found.sort(key=lambda piece: piece.first)
        apart: list[_Piece] = []
        for piece in found:
            if apart and piece.first <= apart[-1].last:
                before = apart.pop()
                last, count = max(before.last, piece.last), before.size + piece.size
                both = before.loose if before.loose is not None else piece.loose
                piece = _Piece(before.first, last, count, before.parts + piece.parts, both)
            apart.append(piece)
        return apart

    def _read(self, run: str, key: str, piece: _Piece) -> Columns:
        read = self._session.raw
        chunks = (unpack_chunk(bytes(read(_DATA, (run, key, part)).fetchone()[0])) for part in piece.parts)
        columns = [Columns(*(column.tolist() for column in chunk)) for chunk in chunks]
        if piece.loose is not None:
            columns.append(piece.loose)
        return columns[0] if len(columns) == 1 else in_order(columns)

    def _loose(self, run: str, key: str) -> Columns:
        """Return the points of one metric that stand in the journal."""
        name, found = key.encode(), []
        for (data,) in self._session.raw(_ROWS, (run,)):
            if name not in data:
                continue
            packed = unpack(data)
            if key not in packed.names:
                continue
            place = packed.names.index(key)
            if len(packed.names) == 1:
                found.append(Columns(packed.ats, packed.steps, packed.values))
                continue
            at = _all_places(packed.places, place)
            found.append(
                Columns([packed.ats[n] for n in at], [packed.steps[n] for n in at], [packed.values[n] for n in at])
            )
        return in_order(found)

    def _arrays(self, run: str, key: str) -> tuple[Any, Any, Any]:
        """Return times, steps and values of all points as arrays, perhaps with repeats, in any order."""
        import numpy as np  # slow to load, and most of what the ledger does needs none

        parts = [unpack_chunk(bytes(data)) for (data,) in self._session.raw(_ALL_DATA, (run, key))]
        loose = self._loose(run, key)
        kinds = (np.int64, np.int64, np.float64)
        parts.append(tuple(np.array(column, dtype=kind) for column, kind in zip(loose, kinds, strict=True)))  # type: ignore[arg-type]
        return tuple(np.concatenate([part[n] for part in parts]) for n in range(3))  # type: ignore[return-value]


def _all_places(places: Sequence[int], wanted: int) -> list[int]:
    found, at = [], -1
    for _ in range(places.count(wanted)):
        at = places.index(wanted, at + 1) if not isinstance(places, range) else wanted
        found.append(at)
    return found


def _spread(
    key: str, found: tuple[Any, Any, Any], count: int, first_step: int | None, last_step: int | None
) -> list[Point]:
    """Return the first of each of `count` stretches of equal length, and the last point instead of the last of them."""
    import numpy as np  # see `_arrays`

    ats, steps, values = found
    if first_step is not None or last_step is not None:
        low = _LEAST_STEP if first_step is None else first_step
        within = (steps >= low) & (steps <= (-_LEAST_STEP - 1 if last_step is None else last_step))
        ats, steps, values = ats[within], steps[within], values[within]
    places = _ordered(ats, steps, values)
    length = len(steps) if places is None else len(places)
    chosen = np.arange(min(length, count))
    if length > count:
        short, longer = divmod(length, count)
        chosen = chosen * short + np.minimum(chosen, longer)
        chosen[-1] = length - 1
    if places is not None:
        chosen = places[chosen]
    columns = (column[chosen].tolist() for column in (values, steps, ats))
    return [Point(key, value, step, at) for value, step, at in zip(*columns, strict=True)]


def _ordered(ats: Any, steps: Any, values: Any) -> Any:
    """Return the places of points by (step, time, value), NaN as 0, without repeats; None: they stand so already."""
    import numpy as np  # see `_arrays`

    if (steps[1:] > steps[:-1]).all():  # mostly: one point a step, in order
        return None
    if (steps[1:] > steps[:-1]).all():  # as they mostly come
        return np.arange(len(steps))
    is_nan = np.isnan(values)
    keys = (steps, ats, np.where(is_nan, 0.0, values), is_nan)
    # Points of one step mostly come in order: then sorting by steps alone will do, which is cheap where few are amiss.
    for is_sure in (False, True):
        places = np.lexsort(keys[::-1]) if is_sure else np.argsort(steps, kind="stable")
        rises = np.zeros(len(places) - 1, dtype=np.bool_)
        same = ~rises
        for column in keys:
            before, after = column[places[:-1]], column[places[1:]]
            rises |= same & (before < after)
            same &= before == after
        if rises.all():
            break
    return places[np.concatenate([[True], ~same])]
