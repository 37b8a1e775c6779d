"""One span: as it arrives, and as the text that is kept.

The text is the JSON that MLflow keeps of a span, spaces included, since filters on content match against it: ids in
base64, and each attribute as a text of JSON. Source: PROTOCOLS.md §2.8; OpenTelemetry protocol 1.5, trace.proto.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyball.errors import InvalidInput

__all__ = ["INPUTS", "OUTPUTS", "REQUEST_ID", "TYPE", "Span", "SpanEvent", "SpanLink", "dumped", "loaded", "read_span"]

INPUTS = "mlflow.spanInputs"
OUTPUTS = "mlflow.spanOutputs"
TYPE = "mlflow.spanType"
REQUEST_ID = "mlflow.traceRequestId"

_CODES = {"OK": "STATUS_CODE_OK", "ERROR": "STATUS_CODE_ERROR", "UNSET": "STATUS_CODE_UNSET"}
_DEEPEST = 100  # of values within values, as protobuf's readers take


@dataclass(frozen=True)
class SpanEvent:
    name: str
    at_ns: int
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SpanLink:
    """A link to another span; ids in hex."""

    trace: str
    span: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """One span. Ids are hex: 32 digits of the trace, 16 of a span. Times are nanoseconds since 1970, 0: not ended.

    `attributes` are values of JSON.
    """

    trace: str
    id: str
    name: str
    start_ns: int
    end_ns: int = 0
    parent: str | None = None
    status: str = "UNSET"
    message: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()

    @property
    def type(self) -> str:
        found = self.attributes.get(TYPE)
        return found if isinstance(found, str) else "UNKNOWN"

    @property
    def took_ms(self) -> float | None:
        return (self.end_ns - self.start_ns) / 1e6 if self.end_ns else None

    def text(self) -> str:
        """Return the JSON that is kept: one line."""
        return json.dumps(self.document(), ensure_ascii=False)

    def document(self) -> dict[str, Any]:
        """Return the span as MLflow's files of traces hold it."""
        return {
            "trace_id": _encoded(self.trace),
            "span_id": _encoded(self.id),
            "parent_span_id": _encoded(self.parent) if self.parent else None,
            "name": self.name,
            "start_time_unix_nano": self.start_ns,
            "end_time_unix_nano": self.end_ns,
            "events": [
                {"name": event.name, "time_unix_nano": event.at_ns, "attributes": dict(event.attributes)}
                for event in self.events
            ],
            "status": {"code": _CODES[self.status], "message": self.message},
            "attributes": {key: dumped(value) for key, value in self.attributes.items()},
            "links": [
                {"trace_id": f"tr-{link.trace}", "span_id": link.span, "attributes": dict(link.attributes) or None}
                for link in self.links
            ],
        }


def read_span(text: str) -> Span:
    """Return the span that a kept text holds."""
    found = json.loads(text)
    status = found["status"]
    return Span(
        trace=_decoded(found["trace_id"]),
        id=_decoded(found["span_id"]),
        parent=_decoded(found["parent_span_id"]) if found.get("parent_span_id") else None,
        name=found["name"],
        start_ns=found["start_time_unix_nano"],
        end_ns=found["end_time_unix_nano"] or 0,
        status=status["code"].removeprefix("STATUS_CODE_"),
        message=status["message"] or "",
        attributes={key: loaded(value) for key, value in found["attributes"].items()},
        events=tuple(SpanEvent(e["name"], e["time_unix_nano"], e["attributes"] or {}) for e in found["events"]),
        links=tuple(
            SpanLink(one["trace_id"].removeprefix("tr-"), one["span_id"], one["attributes"] or {})
            for one in found["links"]
        ),
    )


def dumped(value: Any) -> str:
    """Return an attribute's value as text of JSON."""
    return json.dumps(value, ensure_ascii=False)


def loaded(text: Any) -> Any:
    """Return the value that a text of JSON holds; what is none is its own value."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text


def check_depth(value: Any, depth: int = 0) -> None:
    """Raise InvalidInput when values stand within values more than a hundred deep."""
    if depth > _DEEPEST:
        raise InvalidInput(f"an attribute has values within values more than {_DEEPEST} deep")
    if isinstance(value, dict):
        for item in value.values():
            check_depth(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_depth(item, depth + 1)


def finite(value: Any) -> float | None:
    """Return a number as a finite double, None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _encoded(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def _decoded(text: str) -> str:
    return base64.b64decode(text).hex()
