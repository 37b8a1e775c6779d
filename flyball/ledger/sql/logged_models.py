"""Logged models in SQL: numbers and order by the database, text by the tests that the search brings along."""

from __future__ import annotations

import math
import secrets
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, func, or_, select, update

from flyball.clock import format_instant, parse_instant
from flyball.errors import Conflict, NotFound
from flyball.ledger.artifacts import location_of
from flyball.ledger.journal import Journal
from flyball.ledger.logged_models import LoggedModel, ModelCondition, ModelOrder, ModelPoint, ModelStatus
from flyball.ledger.points import kept_value
from flyball.ledger.sql.experiments import SqlExperiments
from flyball.ledger.sql.logged_models_tables import logged_model_points as points
from flyball.ledger.sql.logged_models_tables import logged_models as models
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tracking_tables import experiments

__all__ = ["SqlLoggedModels"]

_AT_ONCE = 500  # bound parameters and rows of one statement
_NUMBERS = frozenset({"created_ms", "updated_ms"})
_SELECT = select(models, experiments.c.artifact_location).select_from(
    models.outerjoin(experiments, experiments.c.id == models.c.experiment)
)
_BITS = struct.Struct("<d"), struct.Struct("<q")


class SqlLoggedModels:
    """`LoggedModels` within one transaction."""

    def __init__(self, session: Session, journal: Journal, experiments: SqlExperiments) -> None:
        self._session = session
        self._journal = journal
        self._experiments = experiments

    def create(
        self,
        experiment: str,
        name: str,
        *,
        id: str | None = None,
        type: str | None = None,
        run: str | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        status: ModelStatus = "pending",
        status_message: str | None = None,
        created_ms: int | None = None,
    ) -> LoggedModel:
        model_id = id or f"m-{secrets.token_hex(16)}"
        self._experiments.check_active(experiment)
        if id is not None and self._row(id) is not None:
            raise Conflict(f"there is already a logged model {id}")
        detail = {"name": name, "experiment": experiment, "run": run}
        self._journal.note("logged", f"logged-model/{model_id}", {k: v for k, v in detail.items() if v})
        at = self._now_ms() if created_ms is None else created_ms
        values = {
            "id": model_id,
            "experiment": int(experiment),
            "name": name,
            "type": type,
            "run": run,
            "status": status,
            "status_message": status_message,
            "created_ms": at,
            "updated_ms": at,
            "params": dict(params or {}),
            "tags": dict(tags or {}),
        }
        self._session.connection.execute(models.insert().values(values))
        return self.get(model_id)

    def get(self, id: str, *, deleted: bool = False) -> LoggedModel:
        row = self._row(id)
        if row is None or (row.deleted_at is not None and not deleted):
            raise NotFound(f"Logged model with ID '{id}' not found.")
        return self._with_points([_model(row)])[0]

    def update(
        self,
        id: str,
        *,
        status: ModelStatus | None = None,
        status_message: str | None = None,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        without_tag: str | None = None,
    ) -> LoggedModel:
        assert self._session.actor
        model = self._open(id)
        values: dict[str, Any] = {}
        if status is not None:
            values = {"status": status, "status_message": status_message, "updated_ms": self._now_ms()}
            if status != model.status:
                self._journal.note(status, str(model.ref), {"name": model.name})
        for key, value in (params or {}).items():
            if model.params.get(key, value) != value:
                raise Conflict(
                    f"logged model {id} already has the parameter {key} = {model.params[key]!r}; it cannot become "
                    f"{value!r}"
                )
        if params:
            values["params"] = {**model.params, **params}
        if tags:
            values["tags"] = {**model.tags, **tags}
        if without_tag is not None:
            if without_tag not in model.tags:
                raise NotFound(f"No tag with key {without_tag!r} found for model with ID {id!r}.")
            values["tags"] = {k: v for k, v in model.tags.items() if k != without_tag}
        if values:
            self._session.connection.execute(update(models).where(models.c.id == id).values(values))
        return self.get(id, deleted=True)

    def discard(self, id: str) -> None:
        assert self._session.actor
        model = self._open(id)
        if model.deleted_at is None:
            event = self._journal.note("deleted", str(model.ref), {"name": model.name})
            values = {"deleted_at": format_instant(event.at), "updated_ms": self._now_ms()}
            self._session.connection.execute(update(models).where(models.c.id == id).values(values))

    def every(self, after: str = "", limit: int = 200) -> list[LoggedModel]:
        query = _SELECT.where(models.c.id > after).order_by(models.c.id).limit(limit)
        return [_model(row) for row in self._session.connection.execute(query)]

    def rewrite(
        self, id: str, *, params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        assert self._session.actor
        values = {name: dict(given) for name, given in (("params", params), ("tags", tags)) if given is not None}
        if values:
            self._session.connection.execute(update(models).where(models.c.id == id).values(values))

    def log(self, logged: Iterable[ModelPoint]) -> None:
        assert self._session.actor
        rows = [_row_of(point) for point in dict.fromkeys(logged)]
        wanted = sorted({row["model"] for row in rows})
        for some in _chunks(wanted):
            query = select(models.c.id).where(models.c.id.in_(some))
            unknown = set(some) - set(self._session.connection.execute(query).scalars())
            if unknown:
                raise NotFound(f"Logged model with ID '{min(unknown)}' not found.")
        if rows:
            self._session.connection.execute(self._session.insert(points).on_conflict_do_nothing(), rows)

    def search(
        self,
        experiments: Iterable[str],
        conditions: Sequence[ModelCondition] = (),
        datasets: Sequence[tuple[str, str | None]] = (),
        order: Sequence[ModelOrder] = (),
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[LoggedModel], bool]:
        ids = sorted({int(one) for one in experiments})
        query = _SELECT.where(models.c.experiment.in_(ids), models.c.deleted_at.is_(None))
        on_these = or_(*(_is_on(*one) for one in datasets)) if datasets else None
        measured = [c for c in conditions if c.kind == "metric"]
        for condition in measured:
            query = query.where(_has_metric(condition, on_these))
        if on_these is not None and not measured:
            query = query.where(models.c.id.in_(select(points.c.model).where(on_these)))
        tests = []
        for condition in conditions:
            if condition.kind == "attribute" and condition.key in _NUMBERS:
                query = query.where(_compared(models.c[condition.key], condition.operator, condition.value))
            elif condition.kind != "metric":
                tests.append(condition)
        query = _ordered(query, order)
        if not tests:
            rows = self._session.connection.execute(query.limit(limit + 1).offset(offset)).all()
        else:
            rows = []
            found = self._session.connection.execute(query.execution_options(yield_per=1000))
            passed = 0
            for row in found:
                if not all(_holds(test, row) for test in tests):
                    continue
                passed += 1
                if passed > offset:
                    rows.append(row)
                    if len(rows) > limit:
                        break
            found.close()
        return self._with_points([_model(row) for row in rows[:limit]]), len(rows) > limit

    def _row(self, id: str) -> Row[Any] | None:
        return self._session.connection.execute(_SELECT.where(models.c.id == id)).one_or_none()

    def _open(self, id: str) -> LoggedModel:
        query = _SELECT.where(models.c.id == id).with_for_update(of=models)
        row = self._session.connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"Logged model with ID '{id}' not found.")
        return _model(row)

    def _with_points(self, found: list[LoggedModel]) -> list[LoggedModel]:
        by_model: dict[str, list[ModelPoint]] = {model.id: [] for model in found}
        for some in _chunks(list(by_model)):
            query = select(points).where(points.c.model.in_(some))
            order = (points.c.model, points.c.key, points.c.at_ms, points.c.step, points.c.run)
            for row in self._session.connection.execute(query.order_by(*order)):
                by_model[row.model].append(_point(row))
        return [LoggedModel(**{**vars(model), "points": tuple(by_model[model.id])}) for model in found]

    def _now_ms(self) -> int:
        return int(self._session.clock.now().timestamp() * 1000)


def _has_metric(condition: ModelCondition, on_these: ColumnElement[bool] | None) -> ColumnElement[bool]:
    holding = select(points.c.model).where(points.c.key == condition.key)
    holding = holding.where(_compared(points.c.value, condition.operator, condition.value))
    if on_these is not None:
        holding = holding.where(on_these)
    return models.c.id.in_(holding)


def _is_on(dataset: str, digest: str | None) -> ColumnElement[bool]:
    named = points.c.dataset == dataset
    return named if digest is None else named & (points.c.digest == digest)


def _compared(column: Any, operator: str, value: Any) -> ColumnElement[bool]:
    if operator == "!=":  # NaN, which stands as NULL, differs from every number
        return or_(column != value, column.is_(None)) if column.table is points else column != value
    compared: ColumnElement[bool] = column.op(operator)(value)
    return compared


def _ordered(query: Select[Any], order: Sequence[ModelOrder]) -> Select[Any]:
    by: list[Any] = []
    for one in order:
        if one.kind == "metric":
            value, state = _newest(one, points.c.value), _newest(one, case((points.c.value.is_(None), 1), else_=0))
            by.append(func.coalesce(state, 2))  # numbers, then NaN, then what was not measured, either way
        else:
            value = models.c["id" if one.key == "location" else one.key]
            by.append(case((value.is_(None), 1), else_=0))
        by.append(value.asc() if one.ascending else value.desc())
    if not any(one.key == "created_ms" for one in order):
        by.append(models.c.created_ms.desc())
    if not any(one.key == "id" for one in order):
        by.append(models.c.id)
    return query.order_by(*by)


def _newest(order: ModelOrder, what: Any) -> Any:
    """Something of the newest point of a metric of each model, by time, then step, then run."""
    query = select(what).where(points.c.model == models.c.id, points.c.key == order.key)
    if order.dataset:
        query = query.where(_is_on(order.dataset, order.digest))
    newest = (points.c.at_ms.desc(), points.c.step.desc(), points.c.run, points.c.bits)
    return query.order_by(*newest).limit(1).correlate(models).scalar_subquery()


def _holds(condition: ModelCondition, row: Row[Any]) -> bool:
    if condition.kind == "attribute":
        value = _attribute(row, condition.key)
    else:
        value = (row.params if condition.kind == "param" else row.tags).get(condition.key)
    return value is not None and condition.holds(value)


def _attribute(row: Row[Any], key: str) -> Any:
    if key == "location":
        return location_of(str(row.experiment), row.artifact_location, row.id)
    return str(row.experiment) if key == "experiment" else getattr(row, key)


def _row_of(point: ModelPoint) -> dict[str, Any]:
    value = kept_value(point.value)
    row = point._asdict()
    is_nan = math.isnan(value)
    row["value"] = None if is_nan else value
    row["bits"] = _BITS[1].unpack(_BITS[0].pack(math.nan if is_nan else value + 0.0))[0]
    return row


def _point(row: Row[Any]) -> ModelPoint:
    value = math.nan if row.value is None else row.value
    return ModelPoint(row.model, row.key, value, row.step, row.at_ms, row.run, row.dataset, row.digest)


def _model(row: Row[Any]) -> LoggedModel:
    return LoggedModel(
        id=row.id,
        experiment=str(row.experiment),
        name=row.name,
        status=row.status,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
        location=location_of(str(row.experiment), row.artifact_location, row.id),
        type=row.type,
        run=row.run,
        status_message=row.status_message,
        deleted_at=parse_instant(row.deleted_at) if row.deleted_at else None,
        params=row.params,
        tags=row.tags,
    )


def _chunks(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
