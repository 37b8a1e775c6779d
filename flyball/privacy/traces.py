"""Traces without a subject: texts of spans, previews, tags, metadata, and what was said of them.

A span keeps each attribute as a text of JSON of its own; rows of the subject go out of what such a text holds. What
cannot be read as JSON (a preview that was cut off) is overwritten where the value stands in it, and dropped when a span
of its trace lost something and the value may still stand in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flyball.ledger import Ledger
from flyball.ledger.evaluation_sets import EvaluationRecord
from flyball.ledger.traces import Assessment, SpanMark, Trace
from flyball.llm.arriving import kept_text
from flyball.llm.spans import dumped, read_span
from flyball.privacy.documents import Cleaner
from flyball.privacy.subjects import Subject

__all__ = ["erase_records", "erase_traces"]

_PAGE = 200  # traces looked at, and at most rewritten, in one transaction


def erase_traces(ledger: Ledger, subject: Subject, cleaner: Cleaner, *, actor: str, dry_run: bool) -> int:
    """Take a subject out of all traces; return how many rows and texts went."""
    before, after = cleaner.removed, ""
    while True:
        with ledger.read() as world:
            traces = world.traces.every(after, _PAGE)
            texts = world.traces.spans(trace.id for trace in traces)
        if not traces:
            return cleaner.removed - before
        after = traces[-1].id
        changed = [new for trace in traces if (new := _cleaned(trace, texts[trace.id], subject, cleaner)) is not None]
        if changed and not dry_run:
            with ledger.write(actor) as world:
                for trace, spans in changed:
                    world.traces.rewrite(trace, spans, map(_mark, spans or ()))


def erase_records(ledger: Ledger, subject: Subject, cleaner: Cleaner, *, actor: str, dry_run: bool) -> int:
    """Take a subject out of the records of evaluation sets; return how many rows and texts went.

    A record whose inputs are about the subject goes whole.
    """
    before = cleaner.removed
    with ledger.read() as world:
        sets = [one.id for one in world.evaluation_sets.all(None)]
    for id in sets:
        after: tuple[int, str] | None = None
        is_more = True
        while is_more:
            with ledger.read() as world:
                records, is_more = world.evaluation_sets.records(id, _PAGE, after)
            if not records:
                break
            after = records[-1].created_ms, records[-1].id
            gone, kept = [], []
            for record in records:
                new = _record(record, subject, cleaner)
                if new is None:
                    gone.append(record.id)
                elif new is not record:
                    kept.append(new)
            if (gone or kept) and not dry_run:
                with ledger.write(actor) as world:
                    world.evaluation_sets.drop(id, gone)
                    world.evaluation_sets.keep(kept)
    return cleaner.removed - before


def _record(record: EvaluationRecord, subject: Subject, cleaner: Cleaner) -> EvaluationRecord | None:
    document = dict(record.document)
    kept = cleaner.clean(document)
    if kept is document:
        return record
    if kept is None or kept.get("inputs") != document.get("inputs"):  # by which it is known, with a hash
        return None
    if isinstance(kept.get("tags"), dict):
        kept = {**kept, "tags": _pairs(kept["tags"], subject, cleaner)}
    return record._replace(document=kept)


def _cleaned(
    trace: Trace, texts: list[str], subject: Subject, cleaner: Cleaner
) -> tuple[Trace, list[str] | None] | None:
    """Return a trace and the texts of its spans (None: they stay) without the subject; None: nothing of it was there.

    Every text is told apart by a search for the value before it is parsed.
    """
    before = cleaner.removed
    spans = [_span(text, cleaner) for text in texts]
    has_changed = cleaner.removed > before
    new = replace(
        trace,
        tags=_pairs(trace.tags, subject, cleaner),
        metadata=_pairs(trace.metadata, subject, cleaner),
        request=_preview(trace.request, cleaner, has_changed),
        response=_preview(trace.response, cleaner, has_changed),
        assessments=tuple(_said(one, subject, cleaner) for one in trace.assessments),
    )
    if cleaner.removed == before:
        return None
    return new, spans if has_changed else None


def _span(text: str, cleaner: Cleaner) -> str:
    # The value stands in JSON within JSON, so it is looked for in both ways of writing it.
    data = text.encode("utf-8", "surrogatepass")
    if not cleaner.may_hold(data) and not cleaner.may_hold(data.replace(b"\\\\", b"\\").replace(b'\\"', b'"')):
        return text
    span = json.loads(text)
    before = cleaner.removed
    kept = dict(span)
    kept["attributes"] = {
        key: _json_text(value, cleaner) if isinstance(value, str) else cleaner.clean(value)
        for key, value in span["attributes"].items()
    }
    for name in ("name", "status", "events", "links"):
        if name in span:
            kept[name] = cleaner.clean(span[name])
    return text if cleaner.removed == before else dumped(kept)


def _json_text(text: str, cleaner: Cleaner) -> str:
    """Return a text of JSON without the subject's rows; one that is no JSON is a text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return str(cleaner.clean(text))
    kept = cleaner.clean(value)
    return text if kept is value else dumped(kept)


def _pairs(pairs: Mapping[str, str], subject: Subject, cleaner: Cleaner) -> Mapping[str, str]:
    about = {key for key, value in pairs.items() if key in subject.columns and subject.is_value(value)}
    cleaner.removed += len(about)
    rest = {key: value for key, value in pairs.items() if key not in about}
    if not any(cleaner.may_hold(value.encode("utf-8", "surrogatepass")) for value in rest.values()):
        return rest
    return {key: _json_text(value, cleaner) for key, value in (cleaner.clean(rest, rows=False) or {}).items()}


def _preview(text: str | None, cleaner: Cleaner, has_changed: bool) -> str | None:
    if text is None or not cleaner.may_hold(text.encode("utf-8", "surrogatepass")):
        return text
    before = cleaner.removed
    kept = _json_text(text, cleaner)
    if cleaner.removed == before and has_changed and not _is_json(text):
        cleaner.removed += 1
        return None
    return kept


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _said(one: Assessment, subject: Subject, cleaner: Cleaner) -> Assessment:
    is_about = one.name in subject.columns and subject.is_value(one.value)
    cleaner.removed += is_about
    return replace(
        one,
        value=None if is_about else _value(one.value, cleaner),
        source=one.source and str(cleaner.clean(one.source)),
        rationale=one.rationale and str(cleaner.clean(one.rationale)),
        error=one.error and (cleaner.clean(dict(one.error), rows=False) or {}),
        metadata=one.metadata and _pairs(one.metadata, subject, cleaner),
    )


def _value(value: Any, cleaner: Cleaner) -> Any:
    return _json_text(value, cleaner) if isinstance(value, str) else cleaner.clean(value)


def _mark(text: str) -> SpanMark:
    span = read_span(text)
    return SpanMark(kept_text(span.name), kept_text(span.type), span.status)
