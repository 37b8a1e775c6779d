"""Traces in SQL: the account in a row, spans compressed in parts, and marks of spans that a search can look up."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import orjson
from sqlalchemy import Row, delete, func, insert, select, update

from flyball.errors import NotFound
from flyball.ledger.artifacts import NOBODY, location_of, proxied
from flyball.ledger.journal import Journal
from flyball.ledger.sql.artifacts import SqlArtifacts
from flyball.ledger.sql.assessments import SqlAssessments
from flyball.ledger.sql.experiments import SqlExperiments
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.trace_search import TraceSearch
from flyball.ledger.sql.trace_tables import assessments as assessments_table
from flyball.ledger.sql.trace_tables import trace_links as links
from flyball.ledger.sql.trace_tables import trace_marks as marks_table
from flyball.ledger.sql.trace_tables import trace_spans as parts
from flyball.ledger.sql.trace_tables import traces
from flyball.ledger.traces import (
    LOCATION_TAG,
    NAME_TAG,
    RUN,
    SESSION,
    Assessment,
    NewSpans,
    SpanMark,
    Trace,
    TraceCondition,
    TraceOrder,
)

__all__ = ["LONGEST_NAME", "SqlTraces"]

LONGEST_NAME = 200
"""Characters of a name by which it is looked up: an index of PostgreSQL holds no longer ones."""

_AT_ONCE = 500  # bound parameters of one statement
_MOST_MARKS = 2000  # of one trace; spans beyond them are found by reading


class SqlTraces:
    """`Traces` within one transaction."""

    def __init__(self, session: Session, journal: Journal, experiments: SqlExperiments) -> None:
        self._session = session
        self._journal = journal
        self._experiments = experiments
        self._said = SqlAssessments(session)
        self._active: dict[str, str] = {}  # where experiments keep their files, of those seen in this transaction

    def keep(self, id: str, make: Callable[[Trace | None], Trace]) -> Trace:
        self._session.take()  # writers of traces wait for each other here, on both databases
        self._keep(id, self._known(id), make)
        return self.get(id)

    def add_spans(self, spans: NewSpans) -> Trace:
        self._session.take()
        known = self._known(spans.trace)
        self._add_part(spans.trace, list(spans.texts.values()), is_first=known is None)
        self._add_marks(spans, is_first=known is None)
        read = partial(self._texts, spans.trace)
        return self._keep(spans.trace, known, lambda so_far: spans.merge(so_far, read))

    def get(self, id: str) -> Trace:
        found = self.all([id])
        if not found:
            raise NotFound(f"Trace with ID '{id}' not found.")
        return found[0]

    def all(self, ids: Iterable[str], experiments: Iterable[str] | None = None) -> list[Trace]:
        within = None if experiments is None else {int(one) for one in experiments}
        wanted = list(dict.fromkeys(ids))
        rows: dict[str, Row[Any]] = {}
        for some in _chunks(wanted):
            for row in self._session.connection.execute(select(traces).where(traces.c.id.in_(some))):
                if within is None or row.experiment in within:
                    rows[row.id] = row
        return self._said.with_assessments([trace_of(rows[id]) for id in wanted if id in rows])

    def spans(self, ids: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {id: [] for id in ids}
        for some in _chunks(list(found)):
            query = select(parts.c.trace, parts.c.data).where(parts.c.trace.in_(some))
            for row in self._session.connection.execute(query.order_by(parts.c.trace, parts.c.part)):
                found[row.trace] += unpacked(row.data)
        return found

    def search(
        self,
        experiments: Iterable[str],
        conditions: Sequence[TraceCondition] = (),
        order: Sequence[TraceOrder] = (),
        limit: int = 100,
        offset: int = 0,
        after: tuple[int, str] | None = None,
    ) -> tuple[list[Trace], bool]:
        ids = sorted({int(one) for one in experiments})
        rows = TraceSearch(self._session, ids, conditions, order).find(limit, offset, after)
        return self._said.with_assessments([trace_of(row) for row in rows[:limit]]), len(rows) > limit

    def count(self, experiments: Iterable[str], conditions: Sequence[TraceCondition] = ()) -> int:
        return TraceSearch(self._session, sorted({int(one) for one in experiments}), conditions, ()).count()

    def scan(self, experiments: Iterable[str], first_ms: int | None, last_ms: int | None) -> Iterator[Trace]:
        query = select(traces).where(traces.c.experiment.in_({int(one) for one in experiments}))
        if first_ms is not None:
            query = query.where(traces.c.at_ms >= first_ms)
        if last_ms is not None:
            query = query.where(traces.c.at_ms <= last_ms)
        for row in self._session.connection.execute(query.execution_options(yield_per=1000)):
            yield trace_of(row)

    def delete(
        self,
        experiment: str,
        ids: Iterable[str] | None = None,
        until_ms: int | None = None,
        most: int | None = None,
    ) -> int:
        assert self._session.actor
        self._session.take()
        mine = select(traces.c.id).where(traces.c.experiment == self._experiments.number(experiment))
        doomed: list[str] = []
        if ids is not None:
            for some in _chunks(list(dict.fromkeys(ids))):
                doomed += self._session.connection.execute(mine.where(traces.c.id.in_(some))).scalars()
            doomed = doomed[:most]
        else:
            query = mine.where(traces.c.at_ms <= until_ms).order_by(traces.c.at_ms, traces.c.id)
            doomed += self._session.connection.execute(query.limit(most)).scalars()
        for some in _chunks(doomed):
            for table, column in (
                (parts, parts.c.trace),
                (marks_table, marks_table.c.trace),
                (links, links.c.trace),
                (assessments_table, assessments_table.c.trace),
                (traces, traces.c.id),
            ):
                self._session.connection.execute(delete(table).where(column.in_(some)))
        if doomed:
            files = SqlArtifacts(self._session)
            count = sum(files.remove(NOBODY, folder) for folder in self.files_of(experiment, doomed))
            detail = {"traces": len(doomed), **({"files": count} if count else {})}
            self._journal.note("discarded", f"experiment/{experiment}", detail)
        return len(doomed)

    def until(self, experiment: str, until_ms: int | None = None) -> Iterator[str]:
        query = select(traces.c.id).where(traces.c.experiment == self._experiments.number(experiment))
        if until_ms is not None:
            query = query.where(traces.c.at_ms <= until_ms)
        yield from self._session.connection.execute(query.execution_options(yield_per=10_000)).scalars()

    def files_of(self, experiment: str, ids: Iterable[str]) -> dict[str, str]:
        # By the experiment's place and the id, not by the tag, which anybody may set to a place of others.
        location = self._experiments.get(experiment).artifact_location
        whole = proxied(location)
        if whole is None or not SqlArtifacts(self._session).below(NOBODY, f"{whole}/traces", limit=1):
            return {}
        return {proxied(location_of(experiment, location, f"traces/{id}")) or "": id for id in ids if "/" not in id}

    def every(self, after: str = "", limit: int = 200) -> list[Trace]:
        query = select(traces).where(traces.c.id > after).order_by(traces.c.id).limit(limit)
        return self._said.with_assessments([trace_of(row) for row in self._session.connection.execute(query)])

    def rewrite(self, trace: Trace, texts: Sequence[str] | None, marks: Iterable[SpanMark] = ()) -> None:
        self._session.take()
        self._session.connection.execute(update(traces).where(traces.c.id == trace.id).values(**_values(trace)))
        for assessment in trace.assessments:
            self._said.replace(assessment)
        if texts is not None:
            for table in (parts, marks_table):
                self._session.connection.execute(delete(table).where(table.c.trace == trace.id))
            self._add_part(trace.id, list(texts), is_first=True)
            self._add_marks(NewSpans(trace.id, {}, frozenset(marks), lambda so_far, _: so_far or trace), is_first=True)

    def link(self, ids: Iterable[str], kind: Literal["run", "prompt"], target: str) -> None:
        assert self._session.actor
        self._session.take()
        for some in _chunks(list(dict.fromkeys(ids))):
            query = select(traces.c.id).where(traces.c.id.in_(some))
            rows = [
                {"trace": id, "kind": kind, "target": target}
                for id in self._session.connection.execute(query).scalars()
            ]
            if rows:
                self._session.connection.execute(self._session.insert(links).on_conflict_do_nothing(), rows)

    def assess(self, assessment: Assessment) -> Assessment:
        self._check_there(assessment.trace)
        return self._said.add(assessment)

    def assessment(self, trace: str, id: str) -> Assessment:
        found = self._said.one(trace, id)
        if found is None:
            self._check_there(trace, "Trace with request_id '{id}' not found")
            raise NotFound(f"Assessment with ID '{id}' not found for trace '{trace}'")
        return found

    def revise(self, assessment: Assessment) -> Assessment:
        self.assessment(assessment.trace, assessment.id)
        return self._said.replace(assessment)

    def withdraw(self, trace: str, id: str) -> None:
        self._check_there(trace)
        self._said.remove(trace, id)

    def assessments(
        self, experiments: Iterable[str], first_ms: int | None, last_ms: int | None
    ) -> Iterator[tuple[int, Assessment]]:
        return self._said.valid({int(one) for one in experiments}, first_ms, last_ms)

    def _known(self, id: str) -> Trace | None:
        row = self._session.connection.execute(select(traces).where(traces.c.id == id)).one_or_none()
        return None if row is None else trace_of(row)

    def _texts(self, id: str) -> list[str]:
        return self.spans([id])[id]

    def _keep(self, id: str, known: Trace | None, make: Callable[[Trace | None], Trace]) -> Trace:
        assert self._session.actor
        made = make(known)
        if known is None or known.experiment != made.experiment:
            made = replace(made, tags={**made.tags, LOCATION_TAG: self._location(made)})
        values = _values(made)
        if known is None:
            self._session.connection.execute(insert(traces).values(id=id, **values))
        else:
            self._session.connection.execute(update(traces).where(traces.c.id == id).values(**values))
        return made

    def _location(self, trace: Trace) -> str:
        """Return where the files of a trace are. Raises NotFound, Conflict: of its experiment."""
        if trace.experiment not in self._active:
            self._active[trace.experiment] = self._experiments.check_active(trace.experiment).artifact_location
        return location_of(trace.experiment, self._active[trace.experiment], f"traces/{trace.id}")

    def _add_part(self, trace: str, texts: list[str], *, is_first: bool) -> None:
        """Append a part; parts before it that are no larger are joined with it, so there are few for any number."""
        if is_first:
            row = {"trace": trace, "part": 0, "count": len(texts), "data": packed(texts)}
            self._session.connection.execute(insert(parts).values(row))
            return
        query = select(parts.c.part, parts.c["count"]).where(parts.c.trace == trace).order_by(parts.c.part)
        known: list[tuple[int, int]] = [(part, size) for part, size in self._session.connection.execute(query)]
        number = known[-1][0] + 1 if known else 0
        joined, count = [], len(texts)
        while known and known[-1][1] <= count:
            part, size = known.pop()
            joined.append(part)
            count += size
        if joined:
            old = (parts.c.trace == trace) & parts.c.part.in_(joined)
            found = self._session.connection.execute(select(parts.c.data).where(old).order_by(parts.c.part)).scalars()
            texts = [text for data in found for text in unpacked(data)] + texts
            self._session.connection.execute(delete(parts).where(old))
        row = {"trace": trace, "part": number, "count": len(texts), "data": packed(texts)}
        self._session.connection.execute(insert(parts).values(row))

    def _add_marks(self, spans: NewSpans, *, is_first: bool) -> None:
        count = select(func.count()).select_from(marks_table).where(marks_table.c.trace == spans.trace)
        room = _MOST_MARKS - (0 if is_first else self._session.connection.execute(count).scalar_one())
        rows = [
            {"trace": spans.trace, "name": m.name[:LONGEST_NAME], "type": m.type[:LONGEST_NAME], "status": m.status}
            for m in sorted(spans.marks)[: max(room, 0)]
        ]
        if rows:
            self._session.connection.execute(self._session.insert(marks_table).on_conflict_do_nothing(), rows)

    def _check_there(self, id: str, sentence: str = "Trace with ID '{id}' not found.") -> None:
        if self._session.connection.execute(select(traces.c.id).where(traces.c.id == id)).one_or_none() is None:
            raise NotFound(sentence.format(id=id))


def packed(texts: Iterable[str]) -> bytes:
    """Return texts without line breaks as one compressed part."""
    return zlib.compress("\n".join(texts).encode("utf-8", "surrogatepass"), 4)


def unpacked(data: bytes) -> list[str]:
    """Return the texts of a part."""
    return zlib.decompress(data).decode("utf-8", "surrogatepass").split("\n")


def trace_of(row: Row[Any]) -> Trace:
    """Return a row of `traces` without what was said of it."""
    return Trace(
        id=row.id,
        experiment=str(row.experiment),
        at_ms=row.at_ms,
        took_ms=row.took_ms,
        state=row.state,
        tags=_json(row.tags),
        metadata=_json(row.metadata),
        client_id=row.client_id,
        request=row.request,
        response=row.response,
        span_count=row.span_count,
    )


def _values(trace: Trace) -> dict[str, Any]:
    name, session, run = trace.tags.get(NAME_TAG), trace.metadata.get(SESSION), trace.metadata.get(RUN)
    return {
        "experiment": int(trace.experiment),
        "at_ms": trace.at_ms,
        "took_ms": trace.took_ms,
        "state": trace.state,
        "name": None if name is None else name[:LONGEST_NAME],
        "session": None if session is None else session[:LONGEST_NAME],
        "run": None if run is None else run[:LONGEST_NAME],
        "client_id": trace.client_id,
        "request": trace.request,
        "response": trace.response,
        "span_count": trace.span_count,
        "tags": dict(trace.tags),
        "metadata": dict(trace.metadata),
    }


def _json(value: Any) -> Mapping[str, str]:
    found: Mapping[str, str] = orjson.loads(value) if isinstance(value, str | bytes) else value
    return found


def _chunks(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
