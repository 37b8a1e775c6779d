"""Data sets to evaluate on, in SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, func, insert, or_, select, update

from flyball.errors import NotFound
from flyball.ledger.evaluation_sets import EvaluationRecord, EvaluationSet
from flyball.ledger.sql.experiments import SqlExperiments
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.trace_tables import evaluation_records as records_table
from flyball.ledger.sql.trace_tables import evaluation_set_experiments as members
from flyball.ledger.sql.trace_tables import evaluation_sets as sets

__all__ = ["SqlEvaluationSets"]

_AT_ONCE = 500


class SqlEvaluationSets:
    """`EvaluationSets` within one transaction."""

    def __init__(self, session: Session, experiments: SqlExperiments) -> None:
        self._session = session
        self._experiments = experiments

    def create(self, made: EvaluationSet, experiments: Iterable[str]) -> EvaluationSet:
        assert self._session.actor
        self._session.connection.execute(insert(sets).values(id=made.id, **_values(made)))
        self._join(made.id, experiments)
        return made

    def get(self, id: str) -> EvaluationSet:
        row = self._session.connection.execute(select(sets).where(sets.c.id == id)).one_or_none()
        if row is None:
            raise NotFound(f"Evaluation dataset with id '{id}' not found")
        return _set(row)

    def all(self, experiments: Iterable[str] | None = None) -> list[EvaluationSet]:
        query = select(sets).order_by(sets.c.created_ms.desc(), sets.c.id)
        if experiments is not None:
            numbers = [self._experiments.number(one) for one in experiments]
            query = query.where(sets.c.id.in_(select(members.c.set).where(members.c.experiment.in_(numbers))))
        return [_set(row) for row in self._session.connection.execute(query)]

    def change(self, id: str, change: Callable[[EvaluationSet], EvaluationSet]) -> EvaluationSet:
        assert self._session.actor
        self._session.take()
        made = change(self.get(id))
        self._session.connection.execute(update(sets).where(sets.c.id == id).values(**_values(made)))
        return made

    def delete(self, id: str) -> None:
        assert self._session.actor
        for table, column in ((records_table, records_table.c.set), (members, members.c.set), (sets, sets.c.id)):
            self._session.connection.execute(delete(table).where(column == id))

    def experiments(self, id: str) -> list[str]:
        query = select(members.c.experiment).where(members.c.set == id).order_by(members.c.experiment)
        return [str(number) for number in self._session.connection.execute(query).scalars()]

    def join(self, id: str, experiments: Iterable[str]) -> None:
        wanted = list(dict.fromkeys(experiments))
        there = {found.id for found in self._experiments.all(wanted)}
        for one in wanted:
            if one not in there:
                raise NotFound(f"No Experiment with id={one}")
        self._join(id, wanted)

    def leave(self, id: str, experiments: Iterable[str]) -> bool:
        numbers = [self._experiments.number(one) for one in experiments]
        gone = delete(members).where(members.c.set == id, members.c.experiment.in_(numbers))
        return bool(self._session.connection.execute(gone).rowcount)

    def by_inputs(self, id: str, hashes: Iterable[str]) -> dict[str, EvaluationRecord]:
        wanted, found = list(dict.fromkeys(hashes)), {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            query = select(records_table).where(records_table.c.set == id, records_table.c.inputs_hash.in_(some))
            for row in self._session.connection.execute(query):
                found[row.inputs_hash] = EvaluationRecord(**row._mapping)
        return found

    def keep(self, records: Sequence[EvaluationRecord]) -> None:
        assert self._session.actor
        if not records:
            return
        put = self._session.insert(records_table)
        changed = {name: put.excluded[name] for name in ("updated_ms", "document")}
        put = put.on_conflict_do_update(index_elements=["id"], set_=changed)
        self._session.connection.execute(put, [record._asdict() for record in records])

    def records(self, id: str, limit: int, after: tuple[int, str] | None = None) -> tuple[list[EvaluationRecord], bool]:
        self.get(id)
        columns = records_table.c
        query = select(records_table).where(columns.set == id)
        if after is not None:
            at, last = after
            query = query.where(or_(columns.created_ms > at, and_(columns.created_ms == at, columns.id > last)))
        query = query.order_by(columns.created_ms, columns.id).limit(limit + 1)
        rows = self._session.connection.execute(query).all()
        return [EvaluationRecord(**row._mapping) for row in rows[:limit]], len(rows) > limit

    def drop(self, id: str, records: Iterable[str]) -> int:
        wanted, count = list(dict.fromkeys(records)), 0
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            gone = delete(records_table).where(records_table.c.set == id, records_table.c.id.in_(some))
            count += self._session.connection.execute(gone).rowcount
        return count

    def _join(self, id: str, experiments: Iterable[str]) -> None:
        rows = [{"set": id, "experiment": int(one)} for one in dict.fromkeys(experiments)]
        if rows:
            self._session.connection.execute(self._session.insert(members).on_conflict_do_nothing(), rows)

    def size(self, id: str) -> int:
        query = select(func.count()).select_from(records_table).where(records_table.c.set == id)
        return int(self._session.connection.execute(query).scalar_one())


def _values(made: EvaluationSet) -> dict[str, Any]:
    return {**{k: v for k, v in vars(made).items() if k != "id"}, "tags": dict(made.tags)}


def _set(row: Row[Any]) -> EvaluationSet:
    return EvaluationSet(**row._mapping)
