"""Runs with their metrics and artifacts, in SQL."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Row, and_, delete, or_, select, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict, InvalidInput, NotFound, listed
from flyball.ledger.journal import Journal
from flyball.ledger.refs import check_name
from flyball.ledger.runs import FINISHED, Artifact, MetricPoint, Run, RunStatus
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import artifacts, metric_points, runs
from flyball.ledger.sql.tables import artifacts as artifact_rows

if TYPE_CHECKING:
    from flyball.ledger.sql.search import SqlSearch

__all__ = ["SqlRuns", "as_run"]


class SqlRuns:
    """`Runs` within one transaction."""

    def __init__(self, session: Session, journal: Journal, search: SqlSearch) -> None:
        self._session = session
        self._journal = journal
        self._search = search

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
    ) -> Run:
        run_id = check_name(id) if id is not None else secrets.token_hex(16)
        session = self._session
        if id is not None and self._row(run_id) is not None:
            raise Conflict(f"there is already a run {run_id}")
        kept_params = _plain(params)
        detail = {"kind": kind, "name": name, "of": of, "params": kept_params, "parent": parent}
        detail = {k: v for k, v in detail.items() if v}
        action = "queued" if status == "pending" else "started"
        event = self._journal.note(action, f"run/{run_id}", detail, cause)
        at = format_instant(event.at)
        session.connection.execute(
            runs.insert().values(
                id=run_id,
                kind=kind,
                name=name,
                status=status,
                actor=event.actor,
                started_at=at,
                heartbeat_at=at,
                of=of,
                parent=parent,
                event=event.seq,
                params=kept_params,
                metrics={},
                tags=_plain(tags),
                source=_plain(source),
                environment=_plain(environment),
                result={},
                cache_key=cache_key,
            )
        )
        run = self.get(run_id)
        self._search.keep_run(run, is_new=True)
        return run

    def get(self, id: str) -> Run:
        row = self._row(id)
        if row is not None:
            return as_run(row)
        if len(id) >= 4:
            query = select(runs).where(runs.c.id.startswith(id, autoescape=True)).limit(3)
            rows = self._session.connection.execute(query).all()
            if len(rows) == 1:
                return as_run(rows[0])
            if rows:
                raise NotFound(f'"{id}" begins several run ids ({listed(r.id for r in rows)}); write more of it')
        raise NotFound(f'there is no run "{id}"')

    def find(
        self,
        *,
        kind: str | None = None,
        name: str | None = None,
        of: str | None = None,
        parent: str | None = None,
        status: Iterable[str] | None = None,
        cache_key: str | None = None,
        limit: int = 100,
        before: tuple[datetime, str] | None = None,
    ) -> list[Run]:
        query = select(runs).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
        for column, value in (
            (runs.c.kind, kind),
            (runs.c.name, name),
            (runs.c.of, of),
            (runs.c.parent, parent),
            (runs.c.cache_key, cache_key),
        ):
            if value is not None:
                query = query.where(column == value)
        if status is not None:
            query = query.where(runs.c.status.in_(list(status)))
        if before is not None:
            at = format_instant(before[0])
            query = query.where(or_(runs.c.started_at < at, and_(runs.c.started_at == at, runs.c.id < before[1])))
        return [as_run(row) for row in self._session.connection.execute(query)]

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
        new_params = _plain(params)
        for key, value in new_params.items():
            if key in run.params and run.params[key] != value:
                raise Conflict(
                    f"run {id[:8]} already has the parameter {key} = {run.params[key]!r}; it cannot become {value!r}"
                )
        values: dict[str, Any] = {}
        if new_params:
            values["params"] = {**run.params, **new_params}
        if tags:
            values["tags"] = {**run.tags, **_plain(tags)}
        if source:
            values["source"] = {**run.source, **_plain(source)}
        if environment:
            values["environment"] = {**run.environment, **_plain(environment)}
        if result:
            values["result"] = {**run.result, **_plain(result)}
        if heartbeat:
            values["heartbeat_at"] = format_instant(self._session.clock.now())
        if status is not None and status != run.status:
            if status in FINISHED:
                return self.finish(id, status, result=result)
            values["status"] = status
            if run.status == "pending":
                self._journal.note("started", f"run/{run.id}", {"name": run.name}, run.event)
        if values:
            self._session.connection.execute(update(runs).where(runs.c.id == run.id).values(values))
        run = self.get(run.id)
        if tags:
            self._search.keep_run(run, is_new=False)
        return run

    def finish(
        self, id: str, status: RunStatus, *, error: str | None = None, result: Mapping[str, Any] | None = None
    ) -> Run:
        if status not in FINISHED:
            raise InvalidInput(f"a run cannot finish as {status!r}; expected one of {listed(sorted(FINISHED))}")
        run = self.get(id)
        if run.status == status:
            return run
        run = self._open(id)
        detail: dict[str, Any] = {"name": run.name}
        if error:
            detail["error"] = error[:2000]
        if run.metrics:
            detail["metrics"] = dict(list(run.metrics.items())[:20])
        event = self._journal.note(status, f"run/{run.id}", detail, run.event)
        values = {
            "status": status,
            "finished_at": format_instant(event.at),
            "error": error,
            "result": {**run.result, **_plain(result)},
        }
        self._session.connection.execute(update(runs).where(runs.c.id == run.id).values(values))
        return self.get(run.id)

    def log(self, id: str, points: Iterable[MetricPoint]) -> None:
        run = self._open(id)
        rows = [
            {
                "run": run.id,
                "key": p.key,
                "step": p.step,
                "at": format_instant(p.at),
                "value": _finite(p.value),
            }
            for p in points
        ]
        if not rows:
            return
        connection = self._session.connection
        connection.execute(metric_points.insert(), rows)
        latest = dict(run.metrics)
        for key in {r["key"] for r in rows}:
            newest = connection.execute(
                select(metric_points.c.value)
                .where(metric_points.c.run == run.id, metric_points.c.key == key)
                .order_by(metric_points.c.step.desc(), metric_points.c.at.desc())
                .limit(1)
            ).scalar_one()
            latest[str(key)] = newest
        connection.execute(update(runs).where(runs.c.id == run.id).values(metrics=latest))

    def history(self, id: str, key: str) -> list[MetricPoint]:
        query = (
            select(metric_points)
            .where(metric_points.c.run == self.get(id).id, metric_points.c.key == key)
            .order_by(metric_points.c.step, metric_points.c.at)
        )
        return [
            MetricPoint(r.key, math.nan if r.value is None else r.value, r.step, parse_instant(r.at))
            for r in self._session.connection.execute(query)
        ]

    def add_artifact(self, id: str, artifact: Artifact) -> None:
        run = self._open(id)
        values = {
            "run": run.id,
            "path": artifact.path,
            "digest": artifact.digest,
            "size_bytes": artifact.size_bytes,
        }
        insert = self._session.insert(artifacts).values(values)
        changed = {"digest": artifact.digest, "size_bytes": artifact.size_bytes}
        self._session.connection.execute(insert.on_conflict_do_update(index_elements=["run", "path"], set_=changed))

    def artifacts(self, id: str) -> list[Artifact]:
        query = select(artifacts).where(artifacts.c.run == self.get(id).id).order_by(artifacts.c.path)
        return [Artifact(r.path, r.digest, r.size_bytes) for r in self._session.connection.execute(query)]

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
        run, connection = self.get(id), self._session.connection
        given = {"params": params, "tags": tags, "result": result}
        values: dict[str, Any] = {name: _plain(value) for name, value in given.items() if value is not None}
        if error is not None:
            values["error"] = error
        if values:
            connection.execute(update(runs).where(runs.c.id == run.id).values(**values))
        for kept in artifacts:
            this = (artifact_rows.c.run == run.id, artifact_rows.c.path == kept.path)
            if kept.digest:
                changed = {"digest": kept.digest, "size_bytes": kept.size_bytes}
                connection.execute(update(artifact_rows).where(*this).values(**changed))
            else:
                connection.execute(delete(artifact_rows).where(*this))
        run = self.get(run.id)
        self._search.keep_run(run, is_new=False)
        return run

    def delete(self, id: str) -> None:
        run = self.get(id)
        if not run.is_finished:
            raise Conflict(f"run {run.id[:8]} is {run.status}; stop it before deleting it")
        connection = self._session.connection
        connection.execute(delete(metric_points).where(metric_points.c.run == run.id))
        connection.execute(delete(artifacts).where(artifacts.c.run == run.id))
        connection.execute(delete(runs).where(runs.c.id == run.id))
        self._journal.note("deleted", f"run/{run.id}", {"name": run.name})
        self._search.drop(run.ref)

    def _row(self, id: str) -> Row[Any] | None:
        return self._session.connection.execute(select(runs).where(runs.c.id == id)).one_or_none()

    def _open(self, id: str) -> Run:
        assert self._session.actor
        query = select(runs).where(runs.c.id == id).with_for_update()
        row = self._session.connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f'there is no run "{id}"')
        run = as_run(row)
        if run.is_finished:
            raise Conflict(f"run {run.id[:8]} has {run.status} and takes no more")
        return run


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return values as JSON holds them; what JSON cannot hold is kept as its text."""
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    plain: dict[str, Any] = orjson.loads(orjson.dumps(dict(values or {}), default=str, option=options))
    return plain


def _finite(value: float) -> float | None:
    """NaN is kept as NULL (SQLite has no NaN), ±inf as ±the largest double (JSON has no inf)."""
    number = float(value)
    if math.isnan(number):
        return None
    return max(min(number, 1.7976931348623157e308), -1.7976931348623157e308)


def as_run(row: Row[Any]) -> Run:
    """Return the run that a row of `runs` holds."""
    metrics = {key: math.nan if value is None else value for key, value in row.metrics.items()}
    return Run(
        id=row.id,
        kind=row.kind,
        name=row.name,
        status=row.status,
        actor=row.actor,
        started_at=parse_instant(row.started_at),
        finished_at=parse_instant(row.finished_at) if row.finished_at else None,
        heartbeat_at=parse_instant(row.heartbeat_at) if row.heartbeat_at else None,
        of=row.of,
        parent=row.parent,
        event=row.event,
        params=row.params,
        metrics=metrics,
        tags=row.tags,
        source=row.source,
        environment=row.environment,
        result=row.result,
        error=row.error,
        cache_key=row.cache_key,
    )
