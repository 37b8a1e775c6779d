"""Searching traces in SQL: the database narrows and orders, the tests that the search brings along decide.

What columns and indexes can answer narrows first; then rows come in batches, in order, and only what a test needs is
read for a batch: marks, assessments, links, spans' texts. A search reads a bounded amount of text and says so.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, Select, and_, case, func, or_, select, true

from flyball.errors import InvalidInput
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.trace_tables import assessments, trace_links, trace_marks, trace_spans, traces
from flyball.ledger.traces import RUN, SESSION, TraceCondition, TraceOrder

__all__ = ["TraceSearch"]

_BATCH = 250
_MOST_TEXT = 4 << 30  # bytes of spans that one search reads, some seconds' work
_MARKED = frozenset({"name", "type", "status"})
_COLUMNS = {"id": traces.c.id, "client_id": traces.c.client_id, "state": traces.c.state, "name": traces.c.name}
_ORDERS = {
    **_COLUMNS,
    "experiment": traces.c.experiment,
    "at_ms": traces.c.at_ms,
    "took_ms": traces.c.took_ms,
    "end_ms": traces.c.at_ms + func.coalesce(traces.c.took_ms, 0),
    "run": traces.c.run,
}
_ESCAPED = re.compile(r"[^ !#$&-\[\]^`-~]")  # all but plain characters without wildcards
_WILD = re.compile(r"[%_\\\n]")  # what a pattern does not take as it is, perhaps
_LONGEST_KEPT = 200  # characters of a name in a column; a longer one is tested by its tag

Test = Callable[[Row[Any], "_Batch"], bool]


class TraceSearch:
    """One search."""

    def __init__(
        self,
        session: Session,
        experiments: Sequence[int],
        conditions: Sequence[TraceCondition],
        order: Sequence[TraceOrder],
    ) -> None:
        self._session = session
        self._order = order
        self._needs: set[str] = set()
        self._read = 0
        self._query = select(traces).where(traces.c.experiment.in_(experiments))
        self._tests: list[Test] = []
        spans = [c for c in conditions if c.kind == "span"]
        for condition in conditions:
            if condition.kind != "span":
                self._add(condition)
        if spans:
            self._add_spans(spans)

    def find(self, limit: int, offset: int, after: tuple[int, str] | None) -> list[Row[Any]]:
        """Return one row more than the page has, when there are more."""
        query = _ordered(self._query, self._order)
        if after is not None:
            at_ms, id = after
            later = or_(traces.c.at_ms < at_ms, and_(traces.c.at_ms == at_ms, traces.c.id > id))
            query, offset = query.where(later), 0
        if not self._tests:
            return list(self._session.connection.execute(query.limit(limit + 1).offset(offset)).all())
        return list(islice(self._passing(query), offset, offset + limit + 1))

    def count(self) -> int:
        """Return how many rows there are."""
        if not self._tests:
            counted = select(func.count()).select_from(self._query.with_only_columns(traces.c.id).subquery())
            return int(self._session.connection.execute(counted).scalar_one())
        return sum(1 for _ in self._passing(self._query))

    def _passing(self, query: Select[Any]) -> Iterator[Row[Any]]:
        result = self._session.connection.execute(query.execution_options(yield_per=_BATCH))
        try:
            for some in result.partitions(_BATCH):
                batch = _Batch(self._session, [row.id for row in some], self._needs)
                for row in some:
                    if all(test(row, batch) for test in self._tests):
                        yield row
                self._read += batch.read
                if self._read > _MOST_TEXT:
                    raise InvalidInput(
                        "the search would read more than 4 GiB of spans; narrow it with timestamp_ms, name or tags"
                    )
        finally:
            result.close()

    def _add(self, condition: TraceCondition) -> None:
        kind, key, operator, value, holds = condition
        if kind == "attribute" and key in ("at_ms", "took_ms", "end_ms"):
            self._where(_compared(_ORDERS[key], operator, value))
        elif kind == "attribute" and key in ("id", "state") and operator in ("=", "!=", "IN", "NOT IN"):
            self._where(_compared(_COLUMNS[key], operator, value))
        elif kind == "attribute" and key == "text":
            self._needs.add("spans")
            needles = _needles([condition])
            self._tests.append(lambda row, batch: any(holds(text) for text in batch.texts(row.id, needles)))
        elif kind == "attribute" and key == "prompt":
            self._where(_linked("prompt", value))
        elif (kind == "attribute" and key == "run") or (kind == "metadata" and key == RUN):
            self._add_run(condition)
        elif kind in ("feedback", "expectation", "issue"):
            self._add_said(condition)
        else:
            self._add_value(condition)

    def _add_value(self, condition: TraceCondition) -> None:
        """A value of the row: `name`, `client_id`, a tag, metadata."""
        kind, key, operator, value, holds = condition
        column = {("attribute", "name"): traces.c.name, ("metadata", SESSION): traces.c.session}.get((kind, key))
        if column is not None and operator in ("=", "IN"):
            self._where(
                _compared(column, "IN", [str(v)[:_LONGEST_KEPT] for v in ([value] if operator == "=" else value)])
            )

        def read(row: Row[Any]) -> Any:
            if kind in ("tag", "metadata"):
                return _json(row.tags if kind == "tag" else row.metadata).get(key)
            return _json(row.tags).get("mlflow.traceName") if key == "name" else getattr(row, key)

        if operator in ("IS NULL", "IS NOT NULL"):
            is_absent = operator == "IS NULL"
            self._tests.append(lambda row, _: (read(row) is None) == is_absent)
            return

        def test(row: Row[Any], _batch: _Batch) -> bool:
            found = read(row)
            return found is not None and holds(found)

        self._tests.append(test)

    def _add_run(self, condition: TraceCondition) -> None:
        """A run that a trace is of: what its metadata say, or a link."""
        operator, value = condition.operator, condition.value
        if operator == "=":
            self._where(or_(traces.c.run == value, _linked("run", value)))
        elif operator == "IN":
            self._where(or_(traces.c.run.in_(value), *(_linked("run", one) for one in value)))
        else:
            self._add_value(TraceCondition("metadata", RUN, operator, value, condition.holds))

    def _add_said(self, condition: TraceCondition) -> None:
        kind, key, operator, value, holds = condition
        name = value if kind == "issue" else key
        named = select(assessments.c.trace).where(
            assessments.c.kind == kind, assessments.c.name == name, assessments.c.is_valid == true()
        )
        if operator == "IS NULL":
            self._where(traces.c.id.not_in(named))
            return
        self._where(traces.c.id.in_(named))
        if kind == "issue" or operator == "IS NOT NULL":
            return
        self._needs.add("said")
        self._tests.append(lambda row, batch: any(holds(v) for v in batch.said[row.id, kind, name]))

    def _add_spans(self, conditions: Sequence[TraceCondition]) -> None:
        """All conditions on spans must hold for one and the same span."""
        marked = [c for c in conditions if c.key in _MARKED]
        has = select(trace_marks.c.trace).where(trace_marks.c.trace == traces.c.id)
        exact = True
        for one in marked:
            short = len(str(one.value)) < _LONGEST_KEPT
            exact = exact and one.operator == "=" and short
            if one.operator == "=":
                has = has.where(trace_marks.c[one.key] == str(one.value)[:_LONGEST_KEPT])
            elif one.operator == "IN":
                has = has.where(trace_marks.c[one.key].in_([str(v)[:_LONGEST_KEPT] for v in one.value]))
        if marked:
            self._where(has.exists())
        if len(marked) == len(conditions):
            if exact:
                return
            self._needs.add("marks")
            self._tests.append(
                lambda row, batch: any(
                    all(c.holds(getattr(mark, c.key)) for c in marked) for mark in batch.marks[row.id]
                )
            )
            return
        self._needs.add("spans")
        needles = _needles(conditions)
        self._tests.append(
            lambda row, batch: any(_span_holds(text, conditions) for text in batch.texts(row.id, needles))
        )

    def _where(self, condition: ColumnElement[bool]) -> None:
        self._query = self._query.where(condition)


class _Batch:
    """What the tests of a search need of some traces."""

    def __init__(self, session: Session, ids: list[str], needs: Iterable[str]) -> None:
        self.marks: defaultdict[str, list[Row[Any]]] = defaultdict(list)
        self.said: defaultdict[tuple[str, str, str], list[Any]] = defaultdict(list)
        self._parts: defaultdict[str, list[bytes]] = defaultdict(list)
        self.read = 0
        run = session.connection.execute
        if "marks" in needs:
            for row in run(select(trace_marks).where(trace_marks.c.trace.in_(ids))):
                self.marks[row.trace].append(row)
        if "said" in needs:
            valid = select(assessments).where(assessments.c.trace.in_(ids), assessments.c.is_valid == true())
            for row in run(valid):
                self.said[row.trace, row.kind, row.name].append(orjson.loads(row.value))
        if "spans" in needs:
            query = select(trace_spans.c.trace, trace_spans.c.data).where(trace_spans.c.trace.in_(ids))
            for row in run(query):
                self._parts[row.trace].append(row.data)

    def texts(self, id: str, needles: Sequence[bytes] = ()) -> Iterator[str]:
        """Yield the texts of a trace's spans; of parts that lack one of the needles, none."""
        for data in self._parts[id]:
            text = zlib.decompress(data)
            self.read += len(text)
            if all(needle in text for needle in needles):
                yield from text.decode("utf-8", "surrogatepass").split("\n")


def _needles(conditions: Sequence[TraceCondition]) -> tuple[bytes, ...]:
    """Return what stands in the text of every span for which conditions hold: to look for it is far the quickest test.

    Of a pattern that tells capitals apart, its longest piece without wildcards; of an attribute, its name as well.
    """
    found: list[str] = []
    for condition in conditions:
        attribute = condition.key.removeprefix("attributes.")
        if attribute != condition.key:
            found.append(f"{json.dumps(attribute, ensure_ascii=False)}: ")
        if condition.operator not in ("LIKE", "=") or not isinstance(condition.value, str) or not condition.value:
            continue
        if attribute != condition.key:  # a text of JSON within JSON, where some characters are written otherwise
            found.append(max(_ESCAPED.split(condition.value), key=len))
        elif condition.key in ("text", "content"):
            found.append(max(_WILD.split(condition.value), key=len))
    return tuple(needle.encode("utf-8", "surrogatepass") for needle in found if needle)


def _span_holds(text: str, conditions: Sequence[TraceCondition]) -> bool:
    span: dict[str, Any] | None = None
    for condition in conditions:
        if condition.key == "content":
            if not condition.holds(text):
                return False
            continue
        attribute = condition.key.removeprefix("attributes.")
        if attribute != condition.key and f"{json.dumps(attribute, ensure_ascii=False)}: " not in text:
            return False  # far quicker than reading the whole
        if span is None:
            span = json.loads(text)
        value = _span_value(span, condition.key)
        if value is None or not condition.holds(value):
            return False
    return True


def _span_value(span: dict[str, Any], key: str) -> str | None:
    attributes = span["attributes"]
    if key == "name":
        return str(span["name"])
    if key == "status":
        return str(span["status"]["code"]).removeprefix("STATUS_CODE_")
    raw = attributes.get("mlflow.spanType" if key == "type" else key.removeprefix("attributes."))
    if raw is None:
        return None
    found = json.loads(raw)
    return found if isinstance(found, str) else raw


def _linked(kind: str, target: str) -> ColumnElement[bool]:
    held = select(trace_links.c.trace).where(trace_links.c.kind == kind, trace_links.c.target == target)
    return traces.c.id.in_(held)


def _compared(column: Any, operator: str, value: Any) -> ColumnElement[bool]:
    compared: ColumnElement[bool]
    if operator in ("IN", "NOT IN"):
        compared = column.in_(list(value)) if operator == "IN" else column.not_in(list(value))
    else:
        compared = column.op(operator)(value)
    return compared


def _ordered(query: Select[Any], order: Sequence[TraceOrder]) -> Select[Any]:
    by: list[Any] = []
    for one in order:
        column: Any
        if one.kind == "attribute":
            column = _ORDERS[one.key]
        else:
            if '"' in one.key or "\\" in one.key:
                raise InvalidInput(f"order_by cannot sort by a key with quotes or backslashes: {one.key[:80]!r}")
            column = (traces.c.tags if one.kind == "tag" else traces.c.metadata)[one.key].as_string()
        by += [case((column.is_(None), 1), else_=0), column.asc() if one.ascending else column.desc()]
    if not any(one.kind == "attribute" and one.key == "at_ms" for one in order):
        by.append(traces.c.at_ms.desc())
    return query.order_by(*by, traces.c.id)


def _json(value: Any) -> dict[str, str]:
    found: dict[str, str] = orjson.loads(value) if isinstance(value, str | bytes) else value
    return found
