"""The files of all owners, in SQL: one row a file, found by ranges of paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, or_, select

from flyball.errors import Conflict
from flyball.ledger.artifacts import Entry, Without, location_of
from flyball.ledger.experiments import DEFAULT
from flyball.ledger.runs import Artifact
from flyball.ledger.sql.logged_models_tables import logged_models as models
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import artifacts, runs
from flyball.ledger.sql.tracking_tables import experiments

__all__ = ["SqlArtifacts"]

_FIRST_PAGE, _LARGEST_PAGE = 8, 1024  # rows read at once: few while folders come, whose other files are jumped over
_AFTER_SLASH = "0"  # the character behind "/": everything in a folder sorts before it


class SqlArtifacts:
    """`Artifacts` within one transaction. Paths are compared byte by byte by both databases (collation "C")."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def keep(self, owner: str, artifact: Artifact) -> None:
        path = artifact.path
        names = path.split("/")
        folders = ["/".join(names[:depth]) for depth in range(1, len(names))]
        clash = or_(artifacts.c.path.in_(folders), _below(path))
        query = select(artifacts.c.path).where(artifacts.c.run == owner, clash).limit(1)
        found = self._session.connection.execute(query).scalar_one_or_none()
        if found is not None:
            taken = f"{path!r} is a folder" if found.startswith(f"{path}/") else f"{found!r} is a file"
            raise Conflict(f"a file cannot be kept at {path!r}, because {taken}; choose another path")
        kept = {"run": owner, "path": path, "digest": artifact.digest, "size_bytes": artifact.size_bytes}
        insert = self._session.insert(artifacts).values(kept)
        changed = {"digest": artifact.digest, "size_bytes": artifact.size_bytes}
        self._session.connection.execute(insert.on_conflict_do_update(index_elements=["run", "path"], set_=changed))

    def get(self, owner: str, path: str) -> Artifact | None:
        query = select(artifacts).where(artifacts.c.run == owner, artifacts.c.path == path)
        row = self._session.connection.execute(query).one_or_none()
        return None if row is None else _artifact(row)

    def listing(self, owner: str, folder: str = "") -> list[Entry]:
        prefix = f"{folder}/" if folder else ""
        found: list[Entry] = []
        after, is_after_folder, page = prefix, False, _FIRST_PAGE
        while True:
            # What was reached last is behind us; of a folder, so is everything in it.
            start = artifacts.c.path >= after if is_after_folder else artifacts.c.path > after
            query = select(artifacts).where(artifacts.c.run == owner, start, _below(folder))
            rows = self._session.connection.execute(query.order_by(artifacts.c.path).limit(page)).all()
            last = found[-1].name if found else None
            for row in rows:
                name, slash, _ = row.path[len(prefix) :].partition("/")
                if slash and name == last:
                    continue
                last = name
                found.append(Entry(name, True) if slash else Entry(name, False, row.digest, row.size_bytes))
            if len(rows) < page:
                return sorted(found)
            is_after_folder = found[-1].is_folder
            after = f"{prefix}{found[-1].name}{_AFTER_SLASH}" if is_after_folder else rows[-1].path
            page = _FIRST_PAGE if is_after_folder else min(2 * page, _LARGEST_PAGE)

    def below(self, owner: str, folder: str = "", limit: int = 1000, after: str = "") -> list[Artifact]:
        query = select(artifacts).where(artifacts.c.run == owner, artifacts.c.path > after, _below(folder))
        return [_artifact(row) for row in self._session.connection.execute(query.order_by("path").limit(limit))]

    def remove(self, owner: str, path: str = "") -> int:
        assert self._session.actor
        concerned = _below(path) if not path else or_(artifacts.c.path == path, _below(path))
        done = self._session.connection.execute(delete(artifacts).where(artifacts.c.run == owner, concerned))
        return done.rowcount

    def size(self, owner: str) -> tuple[int, int]:
        query = select(func.count(), func.coalesce(func.sum(artifacts.c.size_bytes), 0)).where(artifacts.c.run == owner)
        count, size = self._session.connection.execute(query).one()
        return int(count), int(size)

    def location(self, owner: str) -> str | None:
        table, experiment = (models, models.c.experiment) if owner.startswith("m-") else (runs, runs.c.experiment)
        joined = table.outerjoin(experiments, experiment == experiments.c.id)
        query = select(experiment, experiments.c.artifact_location).select_from(joined).where(table.c.id == owner)
        row = self._session.connection.execute(query).one_or_none()
        if row is None:
            return None
        return location_of(DEFAULT if row[0] is None else str(row[0]), row[1], owner)

    def experiments(self) -> list[str]:
        found: set[str] = set()
        for table in (runs, models):
            query = select(table.c.experiment).distinct().where(table.c.id.in_(select(artifacts.c.run)))
            found.update(
                DEFAULT if one is None else str(one) for one in self._session.connection.execute(query).scalars()
            )
        return sorted(found, key=int)

    def owners(self, experiment: str) -> list[str]:
        found: list[str] = []
        for table in (runs, models):
            is_in = table.c.experiment == int(experiment)
            if experiment == DEFAULT:
                is_in = or_(is_in, table.c.experiment.is_(None))
            query = select(table.c.id).where(is_in, table.c.id.in_(select(artifacts.c.run)))
            found += self._session.connection.execute(query.order_by(table.c.id)).scalars()
        return found

    def digests(self, without: Without | None = None) -> Iterator[tuple[str, str]]:
        columns = [artifacts.c.run, artifacts.c.digest, *([artifacts.c.path] if without else [])]
        query = select(*columns).execution_options(yield_per=10_000)
        for row in self._session.connection.execute(query):
            if without is None or not without(row.run, row.path):
                yield row.run, row.digest

    def owners_of_models(self) -> list[str]:
        query = select(artifacts.c.run).distinct().where(artifacts.c.run >= "m-", artifacts.c.run < "m.")
        return sorted(self._session.connection.execute(query).scalars())


def _below(folder: str) -> ColumnElement[bool]:
    """The condition that a path is in a folder or its folders: a range, which the primary key answers."""
    if not folder:
        return artifacts.c.path >= ""
    return and_(artifacts.c.path > f"{folder}/", artifacts.c.path < f"{folder}{_AFTER_SLASH}")


def _artifact(row: Row[Any]) -> Artifact:
    return Artifact(row.path, row.digest, row.size_bytes)
