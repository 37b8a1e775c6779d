"""Experiments in SQL, and the data sets that their runs named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict, InvalidInput, NotFound
from flyball.ledger.experiments import Experiment, InputDataset, InputSummary
from flyball.ledger.journal import Journal
from flyball.ledger.sql.session import Session

__all__ = ["SqlExperiments"]

_SELECT = "SELECT id, name, artifact_location, tags, created_at, updated_at, deleted_at FROM experiments"
_INSERT = (
    "INSERT INTO experiments (name, artifact_location, tags, created_at, updated_at) VALUES (?, ?, ?, ?, ?) "
    "RETURNING id"
)
_DATASET = (
    "INSERT INTO input_datasets (experiment, name, digest, source_type, source, contexts, schema, profile) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_CONTEXTS = "SELECT contexts FROM input_datasets WHERE experiment = ? AND name = ? AND digest = ?"
_ADD_CONTEXT = "UPDATE input_datasets SET contexts = ? WHERE experiment = ? AND name = ? AND digest = ?"
_DETAILS = (
    "SELECT name, digest, source_type, source, schema, profile FROM input_datasets "
    "WHERE experiment = ? AND name = ? AND digest = ?"
)


class SqlExperiments:
    """`Experiments` within one transaction."""

    def __init__(self, session: Session, journal: Journal) -> None:
        self._session = session
        self._journal = journal

    def create(
        self, name: str, *, artifact_location: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Experiment:
        _check_name(name)
        kept = _dumped(dict(tags or {}))
        self._session.take()
        self._refuse_taken(name)
        at = format_instant(self._session.clock.now())
        (number,) = self._session.raw(_INSERT, (name, artifact_location or None, kept, at, at)).fetchone()
        self._journal.note("created", f"experiment/{number}", {"name": name})
        return self.get(str(number))

    def get(self, id: str) -> Experiment:
        row = self._session.raw(f"{_SELECT} WHERE id = ?", (self.number(id),)).fetchone()
        if row is None:
            raise NotFound(f"No Experiment with id={id} exists")
        return _experiment(row)

    def by_name(self, name: str) -> Experiment:
        row = self._session.raw(f"{_SELECT} WHERE name = ?", (name,)).fetchone() if "\0" not in name else None
        if row is None:
            raise NotFound(f"Could not find experiment with name '{name}'")
        return _experiment(row)

    def all(self, ids: Iterable[str] | None = None) -> list[Experiment]:
        if ids is None:
            return [_experiment(row) for row in self._session.raw(f"{_SELECT} ORDER BY id").fetchall()]
        numbers = sorted({self.number(id) for id in ids})
        found: list[Experiment] = []
        for start in range(0, len(numbers), 500):
            batch = numbers[start : start + 500]
            marks = ", ".join("?" for _ in batch)
            rows = self._session.raw(f"{_SELECT} WHERE id IN ({marks}) ORDER BY id", batch).fetchall()
            found += map(_experiment, rows)
        return found

    def rename(self, id: str, name: str) -> Experiment:
        _check_name(name)
        self._session.take()
        found = self.check_active(id)
        if name == found.name:
            return found
        self._refuse_taken(name)
        self._journal.note("renamed", f"experiment/{id}", {"from": found.name, "to": name})
        return self._change(id, name=name)

    def tag(self, id: str, tags: Mapping[str, str]) -> Experiment:
        self._session.take()
        found = self.check_active(id)
        return self._change(id, tags=_dumped({**found.tags, **tags}))

    def untag(self, id: str, key: str) -> Experiment:
        self._session.take()
        found = self.check_active(id)
        if key not in found.tags:
            raise NotFound(f"No tag with name: {key} in experiment with id {id}")
        return self._change(id, tags=_dumped({k: v for k, v in found.tags.items() if k != key}))

    def discard(self, id: str) -> Experiment:
        revision = self._session.take()
        found = self.get(id)
        if found.is_deleted:
            raise NotFound(f"No Experiment with id={id} exists: it is deleted already")
        event = self._journal.note("discarded", f"experiment/{id}", {"name": found.name})
        at = format_instant(event.at)
        # Runs that go with their experiment bear its time, by which it takes them back.
        change = "UPDATE runs SET deleted_at = ?, revision = ? WHERE experiment = ? AND deleted_at IS NULL"
        self._session.raw(change, (at, revision, int(id)))
        return self._change(id, deleted_at=at)

    def restore(self, id: str) -> Experiment:
        revision = self._session.take()
        found = self.get(id)
        if found.deleted_at is None:
            raise NotFound(f"No deleted Experiment with id={id} exists")
        self._journal.note("restored", f"experiment/{id}", {"name": found.name})
        change = "UPDATE runs SET deleted_at = NULL, revision = ? WHERE experiment = ? AND deleted_at = ?"
        self._session.raw(change, (revision, int(id), format_instant(found.deleted_at)))
        return self._change(id, deleted_at=None)

    def datasets(self, experiment: str, named: Iterable[tuple[str, str]]) -> dict[tuple[str, str], InputDataset]:
        number = self.number(experiment)
        rows = (self._session.raw(_DETAILS, (number, *wanted)).fetchone() for wanted in dict.fromkeys(named))
        return {(row[0], row[1]): InputDataset(*row) for row in rows if row is not None}

    def used(self, experiments: Iterable[str], limit: int = 1000) -> list[InputSummary]:
        found: list[InputSummary] = []
        for experiment in dict.fromkeys(experiments):
            query = (
                "SELECT name, digest, contexts FROM input_datasets WHERE experiment = ? ORDER BY name, digest LIMIT ?"
            )
            for name, digest, contexts in self._session.raw(query, (self.number(experiment), limit)):
                kept = orjson.loads(contexts) if isinstance(contexts, str) else contexts
                found += [InputSummary(experiment, name, digest, context) for context in kept]
        return found[:limit]

    def keep_dataset(self, experiment: str, dataset: InputDataset, context: str | None) -> None:
        """Keep what a run of an experiment says of a data set, and in which context; what is there stays."""
        key = (int(experiment), dataset.name, dataset.digest)
        row = self._session.raw(_CONTEXTS, key).fetchone()
        if row is None:
            told = (dataset.source_type, dataset.source, _dumped([context]), dataset.schema, dataset.profile)
            self._session.raw(_DATASET, (*key, *told))
            return
        contexts = orjson.loads(row[0]) if isinstance(row[0], str) else row[0]
        if context not in contexts:
            self._session.raw(_ADD_CONTEXT, (_dumped([*contexts, context]), *key))

    def check_active(self, id: str) -> Experiment:
        """Return an experiment that is not deleted. Raises NotFound, Conflict."""
        found = self.get(id)
        if found.is_deleted:
            raise Conflict(f"The experiment {id} must be in the 'active' state. Current state is deleted.")
        return found

    def number(self, id: str) -> int:
        """Return the number that an id is. Raises InvalidInput."""
        if not (isinstance(id, str) and id.isascii() and id.isdigit() and len(id) < 19):
            raise InvalidInput(f"Invalid experiment ID: {str(id)[:80]!r}; expected a decimal number, such as 0")
        return int(id)

    def _refuse_taken(self, name: str) -> None:
        row = self._session.raw("SELECT id, deleted_at FROM experiments WHERE name = ?", (name,)).fetchone()
        if row is not None:
            hint = "; it is deleted: restore it, or take another name" if row[1] else ""
            raise Conflict(f"Experiment(name={name}) already exists, with id {row[0]}{hint}")

    def _change(self, id: str, **values: Any) -> Experiment:
        now = format_instant(self._session.clock.now())
        columns = ", ".join(f"{column} = ?" for column in values)
        change = f"UPDATE experiments SET {columns}, updated_at = ? WHERE id = ?"
        self._session.raw(change, (*values.values(), now, self.number(id)))
        return self.get(id)


def _experiment(row: Sequence[Any]) -> Experiment:
    number, name, location, tags, created_at, updated_at, deleted_at = row
    return Experiment(
        id=str(number),
        name=name,
        artifact_location=location or f"mlflow-artifacts:/{number}",
        created_at=parse_instant(created_at),
        updated_at=parse_instant(updated_at),
        deleted_at=parse_instant(deleted_at) if deleted_at else None,
        tags=orjson.loads(tags) if isinstance(tags, str) else tags,
    )


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > 500 or "\0" in name:
        raise InvalidInput(f"{str(name)[:80]!r} cannot name an experiment; write 1 to 500 characters without NUL")


def _dumped(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"tags are text: {error}") from None
