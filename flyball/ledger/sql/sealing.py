"""Write points, and move what requests logged into chunks.

A request is one row of the journal; of a metric with many points in one request a chunk is written at once. When
the rows of a run hold many points they are sealed: metrics with enough points get chunks, the rest becomes one row,
which stays as it is once it is full. Small chunks of a metric are joined. So a reader finds few rows, however the
points came and of however many metrics, and no commit moves more than a bounded number of points.

`runs.latest` holds the newest point of each metric up to the number `runs.folded`; later rows are looked at by
whoever reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from operator import itemgetter
from typing import Any

import orjson

from flyball.ledger.points import Point, PointColumns, newest
from flyball.ledger.sql.packing import (
    MOST_POINTS,
    Chunk,
    Columns,
    Packed,
    in_order,
    pack,
    pack_arrays,
    pack_chunk,
    unpack,
    unpack_chunk,
)
from flyball.ledger.sql.session import Session

__all__ = ["append", "dumped_latest", "fold", "loaded_latest", "remove_points"]

_TO_CHUNK = 64  # points of a metric in one request: a chunk of its own
_SEAL_POINTS = 8192  # in the rows of one run that are not full
_FULL = 4096  # points of a row that is not touched again
_MOST_ROWS = 256  # of one run that are not folded; reading any metric of it reads them all
_IN_SEALED_CHUNK = 16  # points of a metric when its run is sealed; fewer stay packed with others
_LOOK = 32  # about one request in this many looks whether its run is due
_LOOK_AT_CHUNKS = 8  # the same, of requests that wrote a chunk
_SMALL = 4096  # points of a chunk that is joined with others
_JOINED = 16  # small chunks at a time

_ROW = "INSERT INTO point_journal (id, run, count, data) VALUES (?, ?, ?, ?)"
_CHUNK = (
    "INSERT INTO point_chunks (run, key, part, first_at, first_step, last_at, last_step, count, data) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DUE = (
    "SELECT coalesce(sum(CASE WHEN j.count < ? THEN j.count ELSE 0 END), 0), "
    "coalesce(sum(CASE WHEN j.id > r.folded THEN 1 ELSE 0 END), 0) "
    "FROM point_journal AS j JOIN runs AS r ON r.id = j.run WHERE j.run = ?"
)
_LATEST = "SELECT latest, folded FROM runs WHERE id = ?"
_SMALL_COUNT = "SELECT count(*) FROM point_chunks WHERE run = ? AND key = ? AND count < ?"
_SMALL_CHUNKS = (
    "SELECT part, data FROM point_chunks WHERE run = ? AND key = ? AND count < ? ORDER BY first_at, first_step LIMIT ?"
)
_FOLD = "UPDATE runs SET latest = ?, folded = ?, revision = ? WHERE id = ?"
_ROWS = "SELECT id, data FROM point_journal WHERE run = ? AND id > ? ORDER BY id"
_LAST_ROWS = (
    "SELECT id, count, data FROM point_journal "
    "WHERE run = ? AND (count < ? OR id > (SELECT folded FROM runs WHERE id = ?)) ORDER BY id"
)
_OPEN_ROWS = "SELECT id, data FROM point_journal WHERE run = ? AND id > ? AND count < ? ORDER BY id"


def append(session: Session, run: str, points: PointColumns) -> None:
    """Write the points of a request. The caller has checked that they may be written, and made them fit to keep."""
    if len(points) < _TO_CHUNK:
        number = session.take()
        session.raw(_ROW, (number, run, len(points), pack(points)))
        is_due = _chance(number, _LOOK)
    else:
        many, few = _parted(points)
        for start in range(0, len(few), MOST_POINTS):
            part = few[start : start + MOST_POINTS]
            session.raw(_ROW, (session.take(), run, len(part), pack(part)))
        for key, found in many.items():
            _write_chunks(session, run, key, in_order([found]))
            if _chance(session.take(), _LOOK_AT_CHUNKS):
                _join_small(session, run, key)
        if many:
            kept, folded = session.raw(_LATEST, (run,)).fetchone()
            tops = (point for key, found in many.items() for point in _last(key, found))
            latest = newest(tops, loaded_latest(kept))
            session.raw(_FOLD, (dumped_latest(latest), folded, session.take(), run))
        is_due = bool(few) and (len(few) >= MOST_POINTS // 16 or _chance(session.take(), _LOOK))
    if is_due:
        _seal_if_due(session, run)


def fold(session: Session, run: str, latest: Mapping[str, Point]) -> dict[str, Point]:
    """Pack the rows of a run that ends, and return its `latest` with all that they hold.

    The caller writes that, with a number taken afterwards as `folded`.
    """
    rows = session.raw(_LAST_ROWS, (run, _FULL, run)).fetchall()
    packed = [(number, count, unpack(bytes(data))) for number, count, data in rows]
    for _, _, found in packed:
        latest = newest(_candidates(found), latest)
    still_open = [(number, found) for number, count, found in packed if count < _FULL]
    if len(still_open) > 1:
        _pack_up(session, run, still_open, _TO_CHUNK)
    return dict(latest)


def remove_points(session: Session, run: str) -> None:
    """Remove all points of a run."""
    session.raw("DELETE FROM point_journal WHERE run = ?", (run,))
    session.raw("DELETE FROM point_chunks WHERE run = ?", (run,))


def loaded_latest(kept: Any) -> dict[str, Point]:
    """Return the newest points that a run's row holds."""
    found = orjson.loads(kept) if isinstance(kept, str) else kept
    return {k: Point(k, _NAN if value is None else value, step, at) for k, (value, step, at) in found.items()}


def dumped_latest(latest: Mapping[str, Point]) -> str:
    """Return the newest points as a run's row holds them."""
    return orjson.dumps({p.key: (p.value, p.step, p.at_ms) for p in latest.values()}).decode()  # NaN becomes null


def _seal_if_due(session: Session, run: str) -> None:
    points, unfolded = session.raw(_DUE, (_FULL, run)).fetchone()
    if points >= _SEAL_POINTS:
        _seal(session, run, _IN_SEALED_CHUNK, 0)
    elif unfolded >= _MOST_ROWS:
        folded = session.raw(_LATEST, (run,)).fetchone()[1]
        _seal(session, run, _SEAL_POINTS, folded)


def _seal(session: Session, run: str, least: int, after: int) -> None:
    """Move points of rows after a number into chunks where a metric has `least`, the rest into one row."""
    _fold(session, run)
    rows = session.raw(_OPEN_ROWS, (run, after, _FULL)).fetchall()
    _pack_up(session, run, ((number, unpack(bytes(data))) for number, data in rows), least)
    session.raw("UPDATE runs SET folded = ? WHERE id = ?", (session.take(), run))


def _pack_up(session: Session, run: str, rows: Iterable[tuple[int, Packed]], least: int) -> None:
    taken: list[int] = []
    by_key: dict[str, list[Columns]] = defaultdict(list)
    count = 0
    for number, packed in rows:
        if taken and count + len(packed.values) > _SEAL_POINTS + _FULL:
            break
        taken.append(number)
        count += len(packed.values)
        for key, columns in _by_key(packed):
            by_key[key].append(columns)
    if not taken:
        return
    left: list[Point] = []
    for key, found in by_key.items():
        columns = in_order(found)
        if len(columns.values) >= least:
            _write_chunks(session, run, key, columns)
        else:
            left += [Point(key, value, step, at) for at, step, value in zip(*columns, strict=True)]
    gone = "DELETE FROM point_journal WHERE run = ? AND id >= ? AND id <= ? AND count < ?"
    session.raw(gone, (run, taken[0], taken[-1], _FULL))
    for start in range(0, len(left), MOST_POINTS):
        part = left[start : start + MOST_POINTS]
        session.raw(_ROW, (session.take(), run, len(part), pack(part)))


def _fold(session: Session, run: str) -> None:
    kept, folded = session.raw(_LATEST, (run,)).fetchone()
    latest = loaded_latest(kept)
    rows = session.raw(_ROWS, (run, folded)).fetchall()
    if rows:
        for _, data in rows:
            latest = newest(_candidates(unpack(bytes(data))), latest)
        number = session.take()
        session.raw(_FOLD, (dumped_latest(latest), number, number, run))


def _write_chunks(session: Session, run: str, key: str, columns: Columns) -> None:
    ats, steps, values = columns
    for start in range(0, len(values), MOST_POINTS):
        part = slice(start, start + MOST_POINTS)
        _write_chunk(session, run, key, pack_chunk(Columns(ats[part], steps[part], values[part])))


def _write_chunk(session: Session, run: str, key: str, chunk: Chunk) -> None:
    session.raw(_CHUNK, (run, key, session.take(), *chunk))


def _candidates(packed: Packed) -> list[Point]:
    """Return, of each metric of a row, the points of its highest step: the newest is among them."""
    if len(packed.names) == len(packed.values):
        return packed.points()
    tops = dict[int, int]()
    for place, step in zip(packed.places, packed.steps, strict=True):
        if step > tops.get(place, -_BEYOND):
            tops[place] = step
    rows = zip(packed.places, packed.values, packed.steps, packed.ats, strict=True)
    return [Point(packed.names[place], value, step, at) for place, value, step, at in rows if step == tops[place]]


def _parted(points: PointColumns) -> tuple[dict[str, Columns], PointColumns]:
    """Return by key the points of metrics that have so many as to get chunks, and the other points."""
    if points.keys.count(points.keys[0]) == len(points):
        return {points.keys[0]: Columns(points.ats, points.steps, points.values)}, points[:0]
    places: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(points.keys):
        places[key].append(place)
    many, few = dict[str, Columns](), list[int]()
    for key, found in places.items():
        if len(found) >= _TO_CHUNK:
            chosen = itemgetter(*found)
            many[key] = Columns(chosen(points.ats), chosen(points.steps), chosen(points.values))
        else:
            few += found
    return many, PointColumns.of(points[place] for place in sorted(few)) if many else points


def _last(key: str, columns: Columns) -> list[Point]:
    """Return those of the highest step: few, of points of one metric."""
    ats, steps, values = columns
    top = max(steps)
    if steps[-1] == top and steps.count(top) == 1:
        return [Point(key, values[-1], top, ats[-1])]
    return [Point(key, values[n], top, ats[n]) for n, step in enumerate(steps) if step == top]


def _join_small(session: Session, run: str, key: str) -> None:
    """Make the oldest small chunks of a metric into few large ones, where there are enough of them."""
    (count,) = session.raw(_SMALL_COUNT, (run, key, _SMALL)).fetchone()
    if count < _JOINED:
        return
    rows = session.raw(_SMALL_CHUNKS, (run, key, _SMALL, _JOINED)).fetchall()
    chunks = [unpack_chunk(bytes(data)) for _, data in rows]
    for part, _ in rows:
        session.raw("DELETE FROM point_chunks WHERE run = ? AND key = ? AND part = ?", (run, key, part))
    if all(_ends(before, -1) < _ends(after, 0) for before, after in pairwise(chunks)):
        import numpy as np  # as in `packing`

        ats, steps, values = (np.concatenate(columns) for columns in zip(*chunks, strict=True))
        for start in range(0, len(values), MOST_POINTS):
            part = slice(start, start + MOST_POINTS)
            _write_chunk(session, run, key, pack_arrays(ats[part], steps[part], values[part]))
        return
    _write_chunks(session, run, key, in_order([Columns(*(column.tolist() for column in chunk)) for chunk in chunks]))


def _ends(chunk: tuple[Any, Any, Any], place: int) -> tuple[int, int]:
    ats, steps, _ = chunk
    return int(ats[place]), int(steps[place])


def _by_key(packed: Packed) -> Iterable[tuple[str, Columns]]:
    names, places, steps, ats, values = packed
    if len(names) == 1:
        return [(names[0], Columns(ats, steps, values))]
    found: dict[int, tuple[list[int], list[int], list[float]]] = defaultdict(lambda: ([], [], []))
    for place, at, step, value in zip(places, ats, steps, values, strict=True):
        kept = found[place]
        kept[0].append(at)
        kept[1].append(step)
        kept[2].append(value)
    return [(names[place], Columns(*kept)) for place, kept in found.items()]


def _chance(number: int, one_in: int) -> bool:
    """Say of about one number in so many yes, whatever the steps in which a run gets its numbers."""
    return (number * 0x9E3779B1 & 0xFFFFFFFF) < 2**32 // one_in


_NAN = float("nan")
_BEYOND = 2**64
