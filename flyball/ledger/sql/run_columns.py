"""The facts of many runs, read by the driver: a hundred thousand rows a second."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

import orjson

from flyball.ledger.points import Logged
from flyball.ledger.runs import RunFacts
from flyball.ledger.sql.packing import unpack
from flyball.ledger.sql.session import Session

__all__ = ["SqlRunColumns"]

_BATCH = 500  # values in one statement
_PAGE = 5000  # rows read at a time
_DAY_MS = 86_400_000
_FIRST_DAY = date(1970, 1, 1).toordinal()
_FACTS = (
    'SELECT id, revision, experiment, kind, name, status, "user", started_at, finished_at, deleted_at, '
    "CAST(params AS TEXT), CAST(tags AS TEXT), CAST(latest AS TEXT), CAST(inputs AS TEXT) FROM runs WHERE "
)
# CROSS JOIN: SQLite reads the tables in this order, the few new rows first or the experiment's runs first. In the same
# way a + before a column keeps its index out of what the few new revisions find.
_LOGGED = (
    "SELECT j.id, j.run, j.data FROM point_journal AS j CROSS JOIN runs AS r "
    "WHERE r.id = j.run AND j.id > ? AND j.id > r.folded AND r.experiment IN "
)
_LOOSE = (
    "SELECT j.id, j.run, j.data FROM runs AS r CROSS JOIN point_journal AS j "
    "WHERE j.run = r.id AND j.id > r.folded AND r."
)
_MARKS = (
    "SELECT r.id, r.revision, r.folded, (SELECT max(j.id) FROM point_journal AS j WHERE j.run = r.id) "
    "FROM runs AS r WHERE r.id IN "
)


class SqlRunColumns:
    """`RunColumns` within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def head(self) -> int:
        (number,) = self._session.raw("SELECT number FROM journal_head").fetchone()
        return int(number)

    def of_experiment(self, experiment: str) -> Iterator[RunFacts]:
        last = ("", "")
        order = "ORDER BY started_at, id LIMIT ?"
        while rows := self._session.raw(
            f"{_FACTS}experiment = ? AND (started_at, id) > (?, ?) {order}", (int(experiment), *last, _PAGE)
        ).fetchall():
            yield from map(_as_facts, rows)
            last = (rows[-1][7], rows[-1][0])

    def changed(self, after: int, experiments: Iterable[str]) -> Iterator[RunFacts]:
        for some in _batches(map(int, experiments)):
            last = (after, "~")  # no id sorts behind it
            condition = f"(revision, id) > (?, ?) AND +experiment IN {_marks(some)} ORDER BY revision, id LIMIT ?"
            while rows := self._session.raw(_FACTS + condition, (*last, *some, _PAGE)).fetchall():
                yield from map(_as_facts, rows)
                last = (rows[-1][1], rows[-1][0])

    def removed(self, after: int) -> list[str]:
        query = "SELECT run FROM removed_runs WHERE revision > ?"
        return [run for (run,) in self._session.raw(query, (after,))]

    def named(self, ids: Iterable[str]) -> Iterator[RunFacts]:
        for some in _batches(ids):
            yield from self._facts(f"id IN {_marks(some)}", some)

    def marks(self, ids: Iterable[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for some in _batches(ids):
            for run, revision, folded, logged in self._session.raw(f"{_MARKS}{_marks(some)}", some).fetchall():
                found[run] = max(revision, folded, logged or 0)
        return found

    def logged(self, after: int, experiments: Iterable[str]) -> Iterator[Logged]:
        for some in _batches(map(int, experiments)):
            yield from self._logged(_LOGGED + _marks(some), (after, *some))

    def loose(self, ids: Iterable[str]) -> Iterator[Logged]:
        for some in _batches(ids):
            yield from self._logged(f"{_LOOSE}id IN {_marks(some)}", some)

    def loose_of_experiment(self, experiment: str) -> Iterator[Logged]:
        return self._logged(f"{_LOOSE}experiment = ?", (int(experiment),))

    def _facts(self, condition: str, values: Sequence[Any]) -> Iterator[RunFacts]:
        return map(_as_facts, self._session.raw(_FACTS + condition, values).fetchall())

    def _logged(self, query: str, values: Sequence[Any]) -> Iterator[Logged]:
        for number, run, data in self._session.raw(query, values).fetchall():
            yield Logged(number, run, unpack(bytes(data)).points())


def _as_facts(row: Sequence[Any]) -> RunFacts:
    id, revision, experiment, kind, name, status, user, start, end, deleted, params, tags, latest, inputs = row
    return RunFacts(
        id,
        revision,
        None if experiment is None else str(experiment),
        kind,
        name,
        status,
        user,
        _milliseconds(start),
        None if end is None else _milliseconds(end),
        deleted is not None,
        orjson.loads(params),
        orjson.loads(tags),
        orjson.loads(latest),
        () if inputs == "[]" else tuple(orjson.loads(inputs)),
    )


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    every = list(values)
    return (every[start : start + _BATCH] for start in range(0, len(every), _BATCH))


def _marks(values: Sequence[Any]) -> str:
    return f"({', '.join('?' * len(values))})"


def _milliseconds(at: str) -> int:
    """Return an instant as the ledger writes it (`clock.format_instant`) as milliseconds since 1970, rounded down."""
    seconds = int(at[11:13]) * 3600 + int(at[14:16]) * 60 + int(at[17:19])
    return _day(at[:10]) * _DAY_MS + seconds * 1000 + int(at[20:23])


@lru_cache(maxsize=4096)
def _day(text: str) -> int:
    return date.fromisoformat(text).toordinal() - _FIRST_DAY
