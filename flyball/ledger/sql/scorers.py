"""Scorers in SQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, tuple_

from flyball.errors import NotFound
from flyball.ledger.evaluation_sets import Scorer
from flyball.ledger.sql.experiments import SqlExperiments
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.trace_tables import scorers
from flyball.ledger.sql.tracking_tables import experiments as experiments_table

__all__ = ["SqlScorers"]


class SqlScorers:
    """`Scorers` within one transaction."""

    def __init__(self, session: Session, experiments: SqlExperiments) -> None:
        self._session = session
        self._experiments = experiments

    def register(self, experiment: str, name: str, document: str) -> Scorer:
        assert self._session.actor
        self._session.take()
        self._experiments.check_active(experiment)
        known = self._all(experiment, name)
        made = Scorer(
            id=known[-1].id if known else str(uuid.uuid4()),
            experiment=experiment,
            name=name,
            version=known[-1].version + 1 if known else 1,
            document=document,
            created_ms=int(self._session.clock.now().timestamp() * 1000),
        )
        self._session.connection.execute(insert(scorers).values(**{**vars(made), "experiment": int(experiment)}))
        return made

    def versions(self, experiment: str, name: str) -> list[Scorer]:
        self._experiments.check_active(experiment)
        found = self._all(experiment, name)
        if not found:
            raise NotFound(f"Scorer with name '{name}' not found for experiment {experiment}.")
        return found

    def newest(self, experiments: Iterable[str] | None = None) -> list[Scorer]:
        last = select(scorers.c.experiment, scorers.c.name, func.max(scorers.c.version))
        last = last.group_by(scorers.c.experiment, scorers.c.name)
        query = select(scorers).where(tuple_(scorers.c.experiment, scorers.c.name, scorers.c.version).in_(last))
        active = select(experiments_table.c.id).where(experiments_table.c.deleted_at.is_(None))
        query = query.where(scorers.c.experiment.in_(active))
        if experiments is not None:
            numbers = [self._experiments.number(one) for one in experiments]
            query = query.where(scorers.c.experiment.in_(numbers))
        rows = self._session.connection.execute(query.order_by(scorers.c.experiment, scorers.c.name))
        return [_scorer(row) for row in rows]

    def delete(self, experiment: str, name: str, version: int | None = None) -> None:
        assert self._session.actor
        known = self.versions(experiment, name)
        gone = delete(scorers).where(scorers.c.experiment == int(experiment), scorers.c.name == name)
        if version is not None:
            if version not in {one.version for one in known}:
                raise NotFound(
                    f"Scorer with name '{name}' and version {version} not found for experiment {experiment}."
                )
            gone = gone.where(scorers.c.version == version)
        self._session.connection.execute(gone)

    def _all(self, experiment: str, name: str) -> list[Scorer]:
        number = self._experiments.number(experiment)
        query = select(scorers).where(scorers.c.experiment == number, scorers.c.name == name)
        return [_scorer(row) for row in self._session.connection.execute(query.order_by(scorers.c.version))]


def _scorer(row: Row[Any]) -> Scorer:
    return Scorer(**{**row._mapping, "experiment": str(row.experiment)})
