"""Removing for good, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
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
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import artifacts, runs
from flyball.ledger.sql.trace_tables import evaluation_set_experiments, scorers, traces
from flyball.ledger.sql.tracking_tables import experiments, input_datasets, point_chunks, point_journal, removed_runs

if TYPE_CHECKING:
    from flyball.ledger.sql.search import SqlSearch

__all__ = ["SqlRemoval"]

_AT_ONCE = 500  # bound parameters of one statement


class SqlRemoval:
    """`Removal` within one transaction."""

    def __init__(self, session: Session, journal: Journal, search: SqlSearch) -> None:
        self._session = session
        self._journal = journal
        self._search = search

    def marked(self, kind: RemovableKind) -> Iterator[Marked]:
        query, id = self._of_kind(kind)
        of_it = artifacts.c.run == id  # asked for what is marked only: most files belong to what is not
        files = select(func.count()).where(of_it).scalar_subquery()
        size = select(func.sum(artifacts.c.size_bytes)).where(of_it).scalar_subquery()
        query = query.add_columns(files.label("files"), size.label("size"))
        for row in self._session.connection.execute(query.order_by(id).execution_options(yield_per=1000)):
            at = parse_instant(row.deleted_at)
            experiment = DEFAULT if row.experiment is None else str(row.experiment)
            yield Marked(kind, str(row.id), row.name, experiment, at, row.files or 0, int(row.size or 0))

    def contents(self, experiment: str) -> Iterator[str]:
        for table in (runs, logged_models):
            query = select(table.c.id).where(table.c.experiment == int(experiment))
            yield from self._session.connection.execute(query).scalars()

    def remove(self, given: Sequence[Marked]) -> list[Tombstone]:
        session = self._session
        number = session.take()  # before anything else is locked: all writers wait for each other here
        still = self._still(given)
        files = self._files([one.id for one in still if one.kind != "experiment"])
        stones: list[Tombstone] = []
        ids: dict[str, list[Any]] = {"run": [], "logged-model": [], "experiment": []}
        for one in still:
            if one.kind == "experiment" and self._is_in_use(one.id, {*ids["run"], *ids["logged-model"]}):
                continue
            count, size = files.get(one.id, (0, 0)) if one.kind != "experiment" else (0, 0)
            detail = {"name": one.name, "experiment": one.experiment, "files": count, "size_bytes": size}
            event = self._journal.note("removed", one.ref, detail)
            stones.append(Tombstone(one.ref, one.name, one.experiment, event.at, event.seq, count, size))
            ids[one.kind].append(int(one.id) if one.kind == "experiment" else one.id)
        self._remove_runs(ids["run"], number)
        for table, column in ((logged_model_points, "model"), (artifacts, "run"), (logged_models, "id")):
            self._delete(table, column, ids["logged-model"])
        for table, column in (
            (input_datasets, "experiment"),
            (scorers, "experiment"),
            (evaluation_set_experiments, "experiment"),
            (experiments, "id"),
        ):
            self._delete(table, column, ids["experiment"])
        for id in ids["experiment"]:
            SqlArtifacts(session).remove(NOBODY, str(id))
        kept = [{**stone._asdict(), "at": format_instant(stone.at)} for stone in stones]
        if kept:
            insert = session.insert(tombstones)
            changed = {name: insert.excluded[name] for name in kept[0] if name != "ref"}
            session.connection.execute(insert.on_conflict_do_update(index_elements=["ref"], set_=changed), kept)
        return stones

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

    def _still(self, given: Sequence[Marked]) -> list[Marked]:
        """Return those that are marked as they were, in the order given."""
        found: dict[tuple[str, str], str] = {}
        for kind, table in (("run", runs), ("logged-model", logged_models), ("experiment", experiments)):
            wanted: list[Any] = [one.id for one in given if one.kind == kind]
            if kind == "experiment":
                wanted = list(map(int, wanted))
            query, _ = self._of_kind(kind)  # type: ignore[arg-type]
            for some in _chunks(wanted):
                for row in self._session.connection.execute(query.where(table.c.id.in_(some))):
                    found[kind, str(row.id)] = row.deleted_at
        return [
            one
            for one in dict.fromkeys(given)
            if (at := found.get((one.kind, one.id))) is not None and parse_instant(at) == one.deleted_at
        ]

    def _files(self, owners: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return how many files owners have, and their bytes."""
        found: dict[str, tuple[int, int]] = {}
        for some in _chunks(owners):
            query = select(artifacts.c.run, func.count(), func.sum(artifacts.c.size_bytes))
            query = query.where(artifacts.c.run.in_(some)).group_by(artifacts.c.run)
            for owner, count, size in self._session.connection.execute(query):
                found[owner] = int(count), int(size)
        return found

    def _is_in_use(self, experiment: str, leaving: Collection[str]) -> bool:
        if any(id not in leaving for id in self.contents(experiment)):
            return True
        query = select(traces.c.id).where(traces.c.experiment == int(experiment)).limit(1)
        return self._session.connection.execute(query).one_or_none() is not None

    def _remove_runs(self, ids: Sequence[str], number: int) -> None:
        if not ids:
            return
        for table in (point_journal, point_chunks, logged_model_points, artifacts):
            self._delete(table, "run", ids)
        self._delete(runs, "id", ids)
        self._search.drop(*(Ref("run", id) for id in ids))
        told = self._session.insert(removed_runs).on_conflict_do_update(
            index_elements=["run"], set_={"revision": number}
        )
        self._session.connection.execute(told, [{"run": id, "revision": number} for id in ids])

    def _delete(self, table: Any, column: str, values: Sequence[Any]) -> None:
        for some in _chunks(values):
            self._session.connection.execute(delete(table).where(table.c[column].in_(some)))


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
