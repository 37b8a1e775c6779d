"""Traces as MLflow's JSON writes them: the account in its new and its old form, spans, what was said of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from flyball.ledger.traces import Assessment, Trace
from flyball.llm.spans import Span, SpanEvent, SpanLink
from flyball.wire.mlflow.refusals import invalid
from flyball.wire.mlflow.values import double, pairs

__all__ = [
    "assessment_value",
    "duration_ms",
    "instant_ms",
    "old_trace_value",
    "parsed",
    "span_value",
    "trace_value",
    "written_instant",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s")
_INT64 = 1 << 63
_OLD_STATES = {"STATE_UNSPECIFIED": "TRACE_STATUS_UNSPECIFIED"}


def trace_value(trace: Trace) -> dict[str, Any]:
    """Return the account of a trace (TraceInfoV3)."""
    found: dict[str, Any] = {
        "trace_id": trace.id,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": trace.experiment},
        },
        "request_time": written_instant(trace.at_ms),
        "state": trace.state,
    }
    if trace.client_id is not None:
        found["client_request_id"] = trace.client_id
    if trace.took_ms is not None:
        found["execution_duration"] = _written_duration(trace.took_ms)
    if trace.metadata:
        found["trace_metadata"] = dict(trace.metadata)
    if trace.tags:
        found["tags"] = dict(trace.tags)
    previews = {"request_preview": trace.request, "response_preview": trace.response}
    found |= {name: text for name, text in previews.items() if text is not None}
    if trace.assessments:
        found["assessments"] = [assessment_value(one) for one in trace.assessments]
    return found


def old_trace_value(trace: Trace) -> dict[str, Any]:
    """Return the account of a trace as MLflow 2 has it."""
    found: dict[str, Any] = {
        "request_id": trace.id,
        "experiment_id": trace.experiment,
        "timestamp_ms": trace.at_ms,
        "execution_time_ms": trace.took_ms or 0,
        "status": _OLD_STATES.get(trace.state, trace.state),
    }
    if trace.metadata:
        found["request_metadata"] = pairs(trace.metadata)
    if trace.tags:
        found["tags"] = pairs(trace.tags)
    return found


def assessment_value(one: Assessment) -> dict[str, Any]:
    """Return what somebody said of a trace."""
    found: dict[str, Any] = {
        "assessment_id": one.id,
        "assessment_name": one.name,
        "trace_id": one.trace,
        "source": {"source_type": one.source_type, **({} if one.source is None else {"source_id": one.source})},
        "create_time": written_instant(one.created_ms),
        "last_update_time": written_instant(one.updated_ms),
    }
    texts = {"span_id": one.span, "rationale": one.rationale, "overrides": one.overrides}
    found |= {name: text for name, text in texts.items() if text is not None}
    if one.kind == "feedback":
        found["feedback"] = {"value": one.value, **({} if one.error is None else {"error": dict(one.error)})}
    elif one.kind == "issue":
        found["issue"] = {"issue_name": one.value}
    elif isinstance(one.value, dict | list):
        kept = {"serialization_format": "JSON_FORMAT", "value": json.dumps(one.value)}
        found["expectation"] = {"serialized_value": kept}
    else:
        found["expectation"] = {"value": one.value}
    if one.metadata:
        found["metadata"] = dict(one.metadata)
    found["valid"] = one.is_valid
    return found


def span_value(span: Span) -> dict[str, Any]:
    """Return a span as OpenTelemetry's protocol has it, with names and numbers as MLflow writes them."""
    document = span.document()
    found: dict[str, Any] = {"trace_id": document["trace_id"], "span_id": document["span_id"]}
    if document["parent_span_id"]:
        found["parent_span_id"] = document["parent_span_id"]
    found |= {"name": span.name, "start_time_unix_nano": span.start_ns}
    if span.end_ns:
        found["end_time_unix_nano"] = span.end_ns
    if span.attributes:
        found["attributes"] = _attributes(span.attributes)
    if span.events:
        found["events"] = [_event(event) for event in span.events]
    links = [value for link in span.links if (value := _link(link)) is not None]
    if links:
        found["links"] = links
    status = {} if span.status == "UNSET" else {"code": document["status"]["code"]}
    found["status"] = {**({"message": span.message} if span.message else {}), **status}
    return found


def instant_ms(text: Any, name: str) -> int:
    """Return the milliseconds since 1970 of an instant of RFC 3339. Raises Refused."""
    found = _INSTANT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise invalid(f"Invalid value {str(text)[:100]!r} for parameter '{name}' supplied: expected RFC 3339.")
    try:
        at = datetime.fromisoformat(f"{found[1]}{found[3]}")
        return (at - _EPOCH) // _MILLISECOND + int((found[2] or "0").ljust(9, "0")[:3])
    except (ValueError, OverflowError) as error:
        raise invalid(f"Invalid value {text!r} for parameter '{name}' supplied: {error}.") from None


def duration_ms(text: Any, name: str) -> int:
    """Return the milliseconds of a duration such as `0.250s`. Raises Refused."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise invalid(f"Invalid value {str(text)[:100]!r} for parameter '{name}' supplied: expected seconds, '1.5s'.")
    length = int(found[2]) * 1000 + int((found[3] or "0").ljust(9, "0")[:3])
    return -length if found[1] else length


def written_instant(at_ms: int) -> str:
    """Return an instant as protobuf's JSON writes it: with milliseconds where there are any."""
    at = _EPOCH + at_ms * _MILLISECOND
    return f"{at:%Y-%m-%dT%H:%M:%S}" + (f".{at_ms % 1000:03}Z" if at_ms % 1000 else "Z")


def parsed(text: str, name: str) -> Any:
    """Return what a text of JSON holds. Raises Refused: it is none, or nothing that can be kept.

    Half a sign is no text, an integer beyond 64 bits and values more than some hundred deep are kept nowhere.
    """
    try:
        found = json.loads(text)
        orjson.dumps(found)
    except (ValueError, RecursionError):
        raise invalid(f"{name} must be valid JSON") from None
    except TypeError as error:
        raise invalid(f"{name} cannot be kept: {error}") from None
    return found


def _written_duration(took_ms: int) -> str:
    sign, (seconds, rest) = "-" if took_ms < 0 else "", divmod(abs(took_ms), 1000)
    return f"{sign}{seconds}.{rest:03}s" if rest else f"{sign}{seconds}s"


def _event(event: SpanEvent) -> dict[str, Any]:
    found: dict[str, Any] = {"time_unix_nano": event.at_ns, "name": event.name}
    if event.attributes:
        found["attributes"] = _attributes(event.attributes)
    return found


def _link(link: SpanLink) -> dict[str, Any] | None:
    value = Span(link.trace, link.span, "", 0).document()
    found: dict[str, Any] = {"trace_id": value["trace_id"], "span_id": value["span_id"]}
    if link.attributes:
        found["attributes"] = _attributes(link.attributes)
    return found


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any(value)} for key, value in values.items()]


def _any(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, str):
        return {"string_value": value}
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return {"int_value": value}
    if isinstance(value, int | float):
        try:
            return {"double_value": double(float(value))}
        except OverflowError:
            return {"string_value": str(value)[:1000]}
    if isinstance(value, list):
        return {"array_value": {"values": [_any(item) for item in value]} if value else {}}
    return {"kvlist_value": {"values": _attributes(value)} if value else {}}
