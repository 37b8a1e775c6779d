"""What people and judges said of traces, in SQL; the part of `Traces` that is about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Row, delete, insert, select, true, update

from flyball.errors import Conflict, NotFound
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.trace_tables import assessments as table
from flyball.ledger.sql.trace_tables import traces
from flyball.ledger.traces import Assessment, Trace

__all__ = ["SqlAssessments"]

_AT_ONCE = 500


class SqlAssessments:
    """Assessments of traces that are known to be there."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, assessment: Assessment) -> Assessment:
        assert self._session.actor
        if self._session.connection.execute(select(table.c.id).where(table.c.id == assessment.id)).first():
            raise Conflict(f"there is already an assessment {assessment.id}")
        if assessment.overrides:
            before = (table.c.trace == assessment.trace) & (table.c.id == assessment.overrides)
            changed = self._session.connection.execute(update(table).where(before).values(is_valid=False))
            if not changed.rowcount:
                raise NotFound(f"Assessment with ID '{assessment.overrides}' not found for trace '{assessment.trace}'")
        self._session.connection.execute(insert(table).values(id=assessment.id, **_values(assessment)))
        return assessment

    def one(self, trace: str, id: str) -> Assessment | None:
        query = select(table).where(table.c.trace == trace, table.c.id == id)
        row = self._session.connection.execute(query).one_or_none()
        return None if row is None else _assessment(row)

    def replace(self, assessment: Assessment) -> Assessment:
        assert self._session.actor
        change = update(table).where(table.c.id == assessment.id).values(**_values(assessment))
        self._session.connection.execute(change)
        return assessment

    def remove(self, trace: str, id: str) -> None:
        assert self._session.actor
        found = self.one(trace, id)
        if found is None:
            return
        if found.overrides:
            before = (table.c.trace == trace) & (table.c.id == found.overrides)
            self._session.connection.execute(update(table).where(before).values(is_valid=True))
        self._session.connection.execute(delete(table).where(table.c.id == id))

    def with_assessments(self, traces: list[Trace]) -> list[Trace]:
        by_trace: dict[str, list[Assessment]] = {trace.id: [] for trace in traces}
        ids = list(by_trace)
        for start in range(0, len(ids), _AT_ONCE):
            query = select(table).where(table.c.trace.in_(ids[start : start + _AT_ONCE]))
            for row in self._session.connection.execute(query.order_by(table.c.created_ms, table.c.id)):
                by_trace[row.trace].append(_assessment(row))
        return [replace(t, assessments=tuple(by_trace[t.id])) if by_trace[t.id] else t for t in traces]

    def valid(
        self, experiments: set[int], first_ms: int | None, last_ms: int | None
    ) -> Iterator[tuple[int, Assessment]]:
        query = select(table, traces.c.at_ms).join(traces, traces.c.id == table.c.trace)
        query = query.where(traces.c.experiment.in_(experiments), table.c.is_valid == true())
        if first_ms is not None:
            query = query.where(traces.c.at_ms >= first_ms)
        if last_ms is not None:
            query = query.where(traces.c.at_ms <= last_ms)
        for row in self._session.connection.execute(query.execution_options(yield_per=1000)):
            yield row.at_ms, _assessment(row)


def _values(assessment: Assessment) -> dict[str, Any]:
    return {
        "trace": assessment.trace,
        "name": assessment.name,
        "kind": assessment.kind,
        "value": orjson.dumps(assessment.value).decode(),
        "source_type": assessment.source_type,
        "source": assessment.source,
        "created_ms": assessment.created_ms,
        "updated_ms": assessment.updated_ms,
        "error": None if assessment.error is None else dict(assessment.error),
        "rationale": assessment.rationale,
        "span": assessment.span,
        "overrides": assessment.overrides,
        "is_valid": assessment.is_valid,
        "metadata": None if assessment.metadata is None else dict(assessment.metadata),
    }


def _assessment(row: Row[Any]) -> Assessment:
    return Assessment(
        id=row.id,
        trace=row.trace,
        name=row.name,
        kind=row.kind,
        value=orjson.loads(row.value),
        source_type=row.source_type,
        source=row.source,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
        error=row.error,
        rationale=row.rationale,
        span=row.span,
        overrides=row.overrides,
        is_valid=row.is_valid,
        metadata=row.metadata,
    )
