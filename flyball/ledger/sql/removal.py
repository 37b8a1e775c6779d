"""Removing for good, in SQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, delete, func, literal, select

from flyball.clock import format_instant, parse_instant
from flyball.ledger.artifacts import NOBODY
from flyball.ledger.experiments import DEFAULT
from flyball.ledger.journal import Journal
from flyball.ledger.refs import Ref
from flyball.ledger.removal import Marked, RemovableKind, Tombstone
from flyball.ledger.sql.artifacts import SqlArtifacts
from flyball.ledger.sql.logged_models_tables import logged_model_points, logged_models, tombstones
from flyball.ledger.sql.sealing import remove_points
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import artifacts, runs
from flyball.ledger.sql.tracking_tables import experiments, input_datasets, removed_runs

if TYPE_CHECKING:
    from flyball.ledger.sql.search import SqlSearch

__all__ = ["SqlRemoval"]


class SqlRemoval:
    """`Removal` within one transaction."""

    def __init__(self, session: Session, journal: Journal, search: SqlSearch) -> None:
        self._session = session
        self._journal = journal
        self._search = search

    def marked(self, kind: RemovableKind) -> Iterator[Marked]:
        files = (
            select(artifacts.c.run, func.count().label("files"), func.sum(artifacts.c.size_bytes).label("size"))
            .group_by(artifacts.c.run)
            .subquery()
        )
        query, id = self._of_kind(kind)
        query = query.add_columns(files.c.files, files.c.size).outerjoin(files, files.c.run == id)
        for row in self._session.connection.execute(query.order_by(id).execution_options(yield_per=1000)):
            at = parse_instant(row.deleted_at)
            experiment = DEFAULT if row.experiment is None else str(row.experiment)
            yield Marked(kind, str(row.id), row.name, experiment, at, row.files or 0, int(row.size or 0))

    def contents(self, experiment: str) -> Iterator[str]:
        for table in (runs, logged_models):
            query = select(table.c.id).where(table.c.experiment == int(experiment))
            yield from self._session.connection.execute(query).scalars()

    def remove(self, marked: Marked) -> Tombstone | None:
        session = self._session
        number = session.take()  # before anything else is locked: all writers wait for each other here
        if not self._is_still(marked) or (marked.kind == "experiment" and any(self.contents(marked.id))):
            return None
        files, size = SqlArtifacts(session).size(marked.id) if marked.kind != "experiment" else (0, 0)
        detail = {"name": marked.name, "experiment": marked.experiment, "files": files, "size_bytes": size}
        event = self._journal.note("removed", marked.ref, detail)
        if marked.kind == "run":
            self._remove_run(marked.id, number)
        elif marked.kind == "logged-model":
            self._delete(logged_model_points, "model", marked.id)
            self._delete(artifacts, "run", marked.id)
            self._delete(logged_models, "id", marked.id)
        else:
            self._delete(input_datasets, "experiment", int(marked.id))
            self._delete(experiments, "id", int(marked.id))
            SqlArtifacts(session).remove(NOBODY, marked.id)
        stone = Tombstone(marked.ref, marked.name, marked.experiment, event.at, event.seq, files, size)
        kept = {**stone._asdict(), "at": format_instant(stone.at)}
        insert = session.insert(tombstones).values(kept)
        session.connection.execute(insert.on_conflict_do_update(index_elements=["ref"], set_=kept))
        return stone

    def tombstone(self, ref: str) -> Tombstone | None:
        row = self._session.connection.execute(select(tombstones).where(tombstones.c.ref == ref)).one_or_none()
        if row is None:
            return None
        return Tombstone(row.ref, row.name, row.experiment, parse_instant(row.at), row.event, row.files, row.size_bytes)

    def _of_kind(self, kind: RemovableKind) -> tuple[Select[Any], Any]:
        if kind == "run":
            found = select(runs.c.id, runs.c.name, runs.c.experiment, runs.c.deleted_at)
            return found.where(runs.c.deleted_at.is_not(None)), runs.c.id
        if kind == "experiment":
            text = literal(None)  # its files are those of its runs
            found = select(experiments.c.id, experiments.c.name, experiments.c.id.label("experiment"))
            found = found.add_columns(experiments.c.deleted_at)
            return found.where(experiments.c.deleted_at.is_not(None), experiments.c.id != int(DEFAULT)), text
        marked = func.coalesce(logged_models.c.deleted_at, experiments.c.deleted_at)
        found = select(logged_models.c.id, logged_models.c.name, logged_models.c.experiment, marked.label("deleted_at"))
        joined = logged_models.outerjoin(experiments, experiments.c.id == logged_models.c.experiment)
        return found.select_from(joined).where(marked.is_not(None)), logged_models.c.id

    def _is_still(self, marked: Marked) -> bool:
        query, _ = self._of_kind(marked.kind)
        table = {"run": runs, "logged-model": logged_models, "experiment": experiments}[marked.kind]
        id: Any = int(marked.id) if marked.kind == "experiment" else marked.id
        row = self._session.connection.execute(query.where(table.c.id == id)).one_or_none()
        return row is not None and _same(row.deleted_at, marked.deleted_at)

    def _remove_run(self, id: str, number: int) -> None:
        remove_points(self._session, id)
        for table in (logged_model_points, artifacts):
            self._delete(table, "run", id)
        self._delete(runs, "id", id)
        self._search.drop(Ref("run", id))
        insert = self._session.insert(removed_runs).values(run=id, revision=number)
        told = insert.on_conflict_do_update(index_elements=["run"], set_={"revision": number})
        self._session.connection.execute(told)

    def _delete(self, table: Any, column: str, value: Any) -> None:
        self._session.connection.execute(delete(table).where(table.c[column] == value))


def _same(text: str, instant: datetime) -> bool:
    return parse_instant(text) == instant
