"""Runs with their artifacts, in SQL; their points are in `sealing` and `points`.

What trackers call thousands of times a second goes to the driver directly (`Session.raw`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict, InvalidInput, NotFound, listed
from flyball.ledger.experiments import DEFAULT, InputDataset
from flyball.ledger.journal import Journal
from flyball.ledger.points import Point, PointColumns, kept_value, newest
from flyball.ledger.refs import check_name
from flyball.ledger.runs import FINISHED, IN_EXPERIMENTS, NAME_TAG, Artifact, Run, RunStatus, as_text
from flyball.ledger.sql.experiments import SqlExperiments
from flyball.ledger.sql.packing import unpack
from flyball.ledger.sql.sealing import append, dumped_latest, fold, loaded_latest, remove_points
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import runs

if TYPE_CHECKING:
    from flyball.ledger.sql.search import SqlSearch

__all__ = ["SqlRuns", "as_run"]

_COLUMNS = ", ".join(f'"{column.name}"' for column in runs.columns)
_INSERT = f"INSERT INTO runs ({_COLUMNS}) VALUES ({', '.join('?' for _ in runs.columns)})"
_SELECT = f"SELECT {_COLUMNS} FROM runs"
_ONE = f"{_SELECT} WHERE id = ?"
_STATE = "SELECT status, experiment, deleted_at FROM runs WHERE id = ?"
_LIVE = (
    "SELECT j.run, j.data FROM point_journal AS j JOIN runs AS r ON r.id = j.run "
    "WHERE j.run IN ({}) AND j.id > r.folded ORDER BY j.id"
)
_ARTIFACT = (
    "INSERT INTO artifacts (run, path, digest, size_bytes) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (run, path) DO UPDATE SET digest = excluded.digest, size_bytes = excluded.size_bytes"
)
_NAMES = tuple(column.name for column in runs.columns)
_JSON = frozenset({"params", "tags", "source", "environment", "result", "inputs", "outputs"})
_BATCH = 500


class SqlRuns:
    """`Runs` within one transaction."""

    def __init__(self, session: Session, journal: Journal, search: SqlSearch, experiments: SqlExperiments) -> None:
        self._session = session
        self._journal = journal
        self._search = search
        self._experiments = experiments

    # -- making and reading

    def start(
        self,
        kind: str,
        name: str,
        *,
        id: str | None = None,
        of: str | None = None,
        parent: str | None = None,
        status: RunStatus = "running",
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        cache_key: str | None = None,
        cause: int | None = None,
        experiment: str | None = None,
        user: str | None = None,
        started_at: datetime | None = None,
    ) -> Run:
        run_id = check_name(id) if id is not None else secrets.token_hex(16)
        kept_params, kept_tags = _plain(params), _plain(tags)
        kept_source, kept_environment = _plain(source), _plain(environment)
        session, revision = self._session, self._session.take()
        if id is not None and self._row(run_id) is not None:
            raise Conflict(f"there is already a run {run_id}")
        if experiment is not None:
            self._experiments.check_active(experiment)
        elif kind in IN_EXPERIMENTS:
            experiment = DEFAULT
        detail = {"kind": kind, "name": name, "of": of, "params": kept_params, "parent": parent}
        detail = {k: v for k, v in detail.items() if v}
        action = "queued" if status == "pending" else "started"
        event = self._journal.note(action, f"run/{run_id}", detail, cause)
        run = Run(
            id=run_id,
            kind=kind,
            name=_fit(name),
            status=status,
            actor=event.actor,
            started_at=started_at or event.at,
            heartbeat_at=event.at,
            of=of,
            parent=parent,
            event=event.seq,
            params=kept_params,
            tags=kept_tags,
            source=kept_source,
            environment=kept_environment,
            cache_key=cache_key,
            experiment=experiment,
            user=_fit(user if user is not None else event.actor),
            revision=revision,
        )
        session.raw(_INSERT, _as_row(run, revision))
        self._search.keep_run(run, is_new=True)
        return run

    def get(self, id: str) -> Run:
        row = self._row(id)
        if row is not None:
            return self._with_live([as_run(row)])[0]
        if len(id) >= 4:
            pattern = id.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            rows = self._session.raw(_SELECT + " WHERE id LIKE ? ESCAPE '\\' LIMIT 3", (pattern + "%",)).fetchall()
            rows = [row for row in rows if row[0].startswith(id)]
            if len(rows) == 1:
                return self._with_live([as_run(rows[0])])[0]
            if rows:
                raise NotFound(f'"{id}" begins several run ids ({listed(row[0] for row in rows)}); write more of it')
        raise NotFound(f'there is no run "{id}"')

    def named(self, ids: Iterable[str]) -> list[Run]:
        wanted = list(ids)
        found: dict[str, Run] = {}
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            rows = self._session.raw(f"{_SELECT} WHERE id IN ({_marks(batch)})", batch).fetchall()
            found.update((row[0], as_run(row)) for row in rows)
        return self._with_live([found[id] for id in wanted if id in found])

    def find(
        self,
        *,
        kind: str | None = None,
        name: str | None = None,
        of: str | None = None,
        parent: str | None = None,
        status: Iterable[str] | None = None,
        cache_key: str | None = None,
        experiment: str | None = None,
        deleted: bool | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> list[Run]:
        wanted, values = ["1 = 1"], list[Any]()
        equal = {"kind": kind, "name": name, "of": of, "parent": parent, "cache_key": cache_key}
        for column, value in equal.items():
            if value is not None:
                wanted.append(f'"{column}" = ?')
                values.append(value)
        if experiment is not None:
            wanted.append("experiment = ?")
            values.append(self._experiments.number(experiment))
        if status is not None:
            allowed = list(status)
            wanted.append(f"status IN ({_marks(allowed)})" if allowed else "1 = 0")
            values += allowed
        if deleted is not None:
            wanted.append("deleted_at IS NOT NULL" if deleted else "deleted_at IS NULL")
        if before is not None:
            wanted.append("(started_at, id) < (?, ?)")
            values += [format_instant(before[0]), before[1]]
        query = f"{_SELECT} WHERE {' AND '.join(wanted)} ORDER BY started_at DESC, id DESC LIMIT ?"
        return self._with_live([as_run(row) for row in self._session.raw(query, [*values, limit]).fetchall()])

    # -- for who carries a run out

    def update(
        self,
        id: str,
        *,
        status: RunStatus | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
        heartbeat: bool = False,
    ) -> Run:
        run = self._open(id)
        values: dict[str, Any] = {}
        if params:
            values["params"] = _with_params(run, _plain(params))
        for column, there, given in (
            ("tags", run.tags, tags),
            ("source", run.source, source),
            ("environment", run.environment, environment),
            ("result", run.result, result),
        ):
            if given:
                values[column] = {**there, **_plain(given)}
        if heartbeat:
            values["heartbeat_at"] = self._session.clock.now()
        if status is not None and status != run.status:
            if status in FINISHED:
                return self.finish(id, status, result=result)
            values["status"] = status
            if run.status == "pending":
                self._journal.note("started", f"run/{run.id}", {"name": run.name}, run.event)
        if not values:
            return run
        return self._change(run, values, "tags" in values)

    def finish(
        self, id: str, status: RunStatus, *, error: str | None = None, result: Mapping[str, Any] | None = None
    ) -> Run:
        if status not in FINISHED:
            raise InvalidInput(f"a run cannot finish as {status!r}; expected one of {listed(sorted(FINISHED))}")
        self._session.take()
        row = self._row(id)
        if row is not None and row[3] == status:
            return self._with_live([as_run(row)])[0]
        run = self._open(id)
        return self._end(run, status, None, {"error": error, "result": {**run.result, **_plain(result)}}, error)

    def log(self, id: str, points: Iterable[Point]) -> None:
        kept = _checked(points)
        self._session.take()
        status, _, deleted_at = self._state(id)
        if status in FINISHED:
            raise Conflict(f"run {id[:8]} has {status} and takes no more")
        _refuse_deleted(id, deleted_at)
        if kept:
            append(self._session, id, kept)

    # -- for who tells of a run

    def record(
        self,
        id: str,
        *,
        points: Iterable[Point] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        kept = _checked(points)
        values: dict[str, Any] = {}
        self._session.take()
        if params or tags:
            run = self._told(id)
            if params:
                merged = _with_params(run, _plain(params))
                if merged != run.params:
                    values["params"] = merged
            if tags:
                values |= _with_tags(run, _plain(tags))
            if values:
                self._change(run, values, "tags" in values)
        else:
            status, experiment, deleted_at = self._state(id)
            _refuse_deleted(id, deleted_at)
            if experiment is None and status in FINISHED:
                raise Conflict(f"run {id[:8]} has {status} and takes no more")
        if kept:
            append(self._session, id, kept)

    def revise(
        self, id: str, *, status: RunStatus | None = None, ended_at: datetime | None = None, name: str | None = None
    ) -> Run:
        self._session.take()
        run = self._told(id)
        values: dict[str, Any] = {}
        if name is not None and name != run.name:
            values["name"] = _fit(name)
            if run.experiment is not None and NAME_TAG in run.tags:
                values["tags"] = {**run.tags, NAME_TAG: name}
        if status is not None and status != run.status and status in FINISHED:
            return self._end(run, status, ended_at, values, None)
        if status is not None and status != run.status:
            values["status"] = status
            if run.is_finished or run.status == "pending":
                action = "reopened" if run.is_finished else "started"
                self._journal.note(action, f"run/{run.id}", {"name": values.get("name", run.name)}, run.event)
        if ended_at is not None and ended_at != run.finished_at:
            values["finished_at"] = ended_at
        return self._change(run, values, "name" in values) if values else run

    def untag(self, id: str, key: str) -> None:
        self._session.take()
        run = self._told(id)
        if key not in run.tags:
            raise NotFound(f"No tag with name: {key} in run with id {run.id}")
        self._change(run, {"tags": {k: v for k, v in run.tags.items() if k != key}}, True)

    def add_inputs(
        self,
        id: str,
        datasets: Iterable[tuple[InputDataset, Mapping[str, str]]] = (),
        models: Iterable[str] = (),
    ) -> Run:
        self._session.take()
        run = self._told(id)
        given = [(dataset, _plain(tags)) for dataset, tags in datasets]
        there = {(i.get("name"), i.get("digest")) for i in run.inputs}
        known = {i["model"] for i in run.inputs if "model" in i}
        added: list[dict[str, Any]] = []
        used = []
        for dataset, tags in given:
            if (dataset.name, dataset.digest) not in there:
                there.add((dataset.name, dataset.digest))
                added.append({"name": dataset.name, "digest": dataset.digest, "tags": tags})
                used.append((dataset, tags))
        added += [{"model": model} for model in dict.fromkeys(models) if model not in known]
        if run.experiment is not None:
            for dataset, tags in used:
                self._experiments.keep_dataset(run.experiment, dataset, tags.get("mlflow.data.context"))
        return self._change(run, {"inputs": (*run.inputs, *added)}, False) if added else run

    def add_outputs(self, id: str, models: Iterable[tuple[str, int]]) -> Run:
        self._session.take()
        run = self._told(id)
        known = {output["model"] for output in run.outputs if "model" in output}
        added = [{"model": model, "step": step} for model, step in dict(models).items() if model not in known]
        return self._change(run, {"outputs": (*run.outputs, *added)}, False) if added else run

    def discard(self, id: str) -> Run:
        self._session.take()
        run = self._exactly(id)
        if run.is_deleted:
            return run
        event = self._journal.note("discarded", f"run/{run.id}", {"name": run.name}, run.event)
        return self._change(run, {"deleted_at": event.at}, False)

    def restore(self, id: str) -> Run:
        self._session.take()
        run = self._exactly(id)
        if not run.is_deleted:
            return run
        if run.experiment is not None:
            self._experiments.check_active(run.experiment)
        self._journal.note("restored", f"run/{run.id}", {"name": run.name}, run.event)
        return self._change(run, {"deleted_at": None}, False)

    # -- files, and what is done to all runs

    def add_artifact(self, id: str, artifact: Artifact) -> None:
        self._session.take()
        run = self._open(id)
        self._session.raw(_ARTIFACT, (run.id, artifact.path, artifact.digest, artifact.size_bytes))

    def artifacts(self, id: str) -> list[Artifact]:
        query = "SELECT path, digest, size_bytes FROM artifacts WHERE run = ? ORDER BY path"
        return [Artifact(*row) for row in self._session.raw(query, (self.get(id).id,))]

    def outputs(self) -> Iterator[tuple[str, list[Any]]]:
        query = "SELECT id, result FROM runs WHERE CAST(result AS TEXT) LIKE ?"
        for id, result in self._session.raw(query, ('%"outputs"%',)):
            outputs = _loaded(result).get("outputs")
            if isinstance(outputs, list):
                yield id, outputs

    def rewrite(
        self,
        id: str,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
        artifacts: Iterable[Artifact] = (),
    ) -> Run:
        self._session.take()
        run = self.get(id)
        given = {"params": params, "tags": tags, "result": result}
        values: dict[str, Any] = {name: _plain(value) for name, value in given.items() if value is not None}
        if error is not None:
            values["error"] = error
        for kept in artifacts:
            if kept.digest:
                change = "UPDATE artifacts SET digest = ?, size_bytes = ? WHERE run = ? AND path = ?"
                self._session.raw(change, (kept.digest, kept.size_bytes, run.id, kept.path))
            else:
                self._session.raw("DELETE FROM artifacts WHERE run = ? AND path = ?", (run.id, kept.path))
        if values:
            return self._change(run, values, True)
        self._search.keep_run(run, is_new=False)
        return run

    def delete(self, id: str) -> None:
        number = self._session.take()
        run = self.get(id)
        if not run.is_finished:
            raise Conflict(f"run {run.id[:8]} is {run.status}; stop it before deleting it")
        remove_points(self._session, run.id)
        for statement in ("DELETE FROM artifacts WHERE run = ?", "DELETE FROM runs WHERE id = ?"):
            self._session.raw(statement, (run.id,))
        gone = "INSERT INTO removed_runs (run, revision) VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET revision = ?"
        self._session.raw(gone, (run.id, number, number))
        self._journal.note("deleted", f"run/{run.id}", {"name": run.name})
        self._search.drop(run.ref)

    # -- within

    def _row(self, id: str) -> Sequence[Any] | None:
        row: Sequence[Any] | None = self._session.raw(_ONE, (id,)).fetchone()
        return row

    def _state(self, id: str) -> tuple[str, int | None, str | None]:
        found: tuple[str, int | None, str | None] | None = self._session.raw(_STATE, (id,)).fetchone()
        if found is None:
            raise NotFound(f'there is no run "{id}"')
        return found

    def _exactly(self, id: str) -> Run:
        row = self._row(id)
        if row is None:
            raise NotFound(f'there is no run "{id}"')
        return self._with_live([as_run(row)])[0]

    def _open(self, id: str) -> Run:
        self._session.take()  # whoever changes a run waits here for the others, so the row needs no lock of its own
        run = self._exactly(id)
        if run.is_finished:
            raise Conflict(f"run {run.id[:8]} has {run.status} and takes no more")
        _refuse_deleted(id, run.deleted_at)
        return run

    def _told(self, id: str) -> Run:
        row = self._row(id)
        if row is None:
            raise NotFound(f'there is no run "{id}"')
        run = as_run(row)
        _refuse_deleted(id, run.deleted_at)
        if run.experiment is None and run.is_finished:
            raise Conflict(f"run {run.id[:8]} has {run.status} and takes no more")
        return run

    def _end(
        self, run: Run, status: RunStatus, ended_at: datetime | None, values: dict[str, Any], error: str | None
    ) -> Run:
        run = replace(run, latest=fold(self._session, run.id, run.latest))
        detail: dict[str, Any] = {"name": values.get("name", run.name)}
        if error:
            detail["error"] = error[:2000]
        if run.latest:
            detail["metrics"] = dict(list(run.metrics.items())[:20])
        event = self._journal.note(status, f"run/{run.id}", detail, run.event)
        before = run.finished_at if run.is_finished else None  # told again, of another status
        ended = {"status": status, "finished_at": ended_at or before or event.at}
        return self._change(run, {**values, **ended, "latest": run.latest}, "name" in values)

    def _change(self, run: Run, values: Mapping[str, Any], is_shown: bool) -> Run:
        """Write columns of a run; `is_shown` when a search finds it by them. With `latest` everything is folded."""
        revision = self._session.take()
        changed = replace(run, **values, revision=revision)
        written = [_written(column, value) for column, value in values.items()]
        columns = ", ".join(f'"{column}" = ?' for column in values)
        if "latest" in values:
            columns += ", folded = ?"
            written.append(revision)
        self._session.raw(f"UPDATE runs SET {columns}, revision = ? WHERE id = ?", [*written, revision, run.id])
        if is_shown:
            self._search.keep_run(changed, is_new=False)
        return changed

    def _with_live(self, found: list[Run]) -> list[Run]:
        """Return runs with the newest points that their rows do not hold yet."""
        points: dict[str, list[Point]] = {}
        for start in range(0, len(found), _BATCH):
            batch = [run.id for run in found[start : start + _BATCH]]
            for id, data in self._session.raw(_LIVE.format(_marks(batch)), batch):
                points.setdefault(id, []).extend(unpack(bytes(data)).points())
        if not points:
            return found
        return [replace(r, latest=newest(points[r.id], r.latest)) if r.id in points else r for r in found]


def as_run(row: Sequence[Any]) -> Run:
    """Return the run that a row of `runs` holds, in the order of its columns."""
    found = dict(zip(_NAMES, row, strict=True))
    del found["folded"]
    for column in ("started_at", "finished_at", "heartbeat_at", "deleted_at"):
        found[column] = parse_instant(found[column]) if found[column] else None
    for column in _JSON:
        found[column] = _loaded(found[column])
    found["inputs"], found["outputs"] = tuple(found["inputs"]), tuple(found["outputs"])
    found["latest"] = loaded_latest(found["latest"])
    found["experiment"] = None if found["experiment"] is None else str(found["experiment"])
    return Run(**found)


def _as_row(run: Run, folded: int) -> list[Any]:
    return [folded if name == "folded" else _written(name, getattr(run, name)) for name in _NAMES]


def _written(column: str, value: Any) -> Any:
    if column in _JSON:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    if column == "latest":
        return dumped_latest(value)
    if column == "experiment":
        return None if value is None else int(value)
    return format_instant(value) if isinstance(value, datetime) else value


def _with_params(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's parameters with those given; one that is there may only come again with its value."""
    there = run.params
    for key, value in given.items():
        if key in there and there[key] != value and as_text(there[key]) != as_text(value):
            raise Conflict(
                f"Changing param values is not allowed: run {run.id[:8]} already has the parameter "
                f"{key} = {there[key]!r}; it cannot become {value!r}"
            )
    return {**given, **there}


def _with_tags(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return which columns change when tags are set; the tag that names a run of an experiment renames it."""
    merged = {**run.tags, **given}
    if merged == run.tags:
        return {}
    name = given.get(NAME_TAG)
    if run.experiment is not None and name:
        return {"tags": merged, "name": _fit(name)}
    return {"tags": merged}


def _refuse_deleted(id: str, deleted_at: Any) -> None:
    if deleted_at is not None:
        raise Conflict(f"The run {id} must be in the 'active' state. Current state is deleted.")


def _checked(points: Iterable[Point]) -> PointColumns:
    """Return points as they are kept. Raises InvalidInput before anything is written."""
    kept = PointColumns.of(points)
    for key in set(kept.keys):
        if not key or "\0" in key or (not key.isascii() and _is_broken(key)):
            raise InvalidInput(f"{key[:80]!r} cannot be the name of a metric; write text without NUL")
    if kept.is_plain:
        return kept
    bad = next((p for p in kept if not (_is_whole(p.step, -_I64) and _is_whole(p.at_ms, 0))), None)
    if bad is not None:
        raise InvalidInput(
            f"the metric {bad.key} has step {bad.step!r} at {bad.at_ms!r} ms; "
            "expected a whole step of 64 bits and a whole time since 1970"
        )
    return PointColumns(kept.keys, list(map(kept_value, kept.values)), kept.steps, kept.ats)


def _is_whole(number: Any, least: int) -> bool:
    return type(number) is int and least <= number < _I64


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return values as JSON holds them; what JSON cannot hold is kept as its text."""
    if not values:
        return {}
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    try:
        plain: dict[str, Any] = orjson.loads(orjson.dumps(dict(values), default=str, option=options))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{listed(map(repr, values))}: {error}; nothing was kept") from None
    return plain


def _fit(name: str) -> str:
    """Return a name as both databases take it."""
    if "\0" in name or (not name.isascii() and _is_broken(name)):
        raise InvalidInput(f"{name[:80]!r} cannot name a run; write text without NUL")
    return name


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _loaded(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str) else value


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" for _ in values)


_I64 = 2**63
