"""Spans by OpenTelemetry's protocol over HTTP: protobuf or JSON, plain, gzip or deflate.

All spans of a request are kept, or none. Bodies are bounded before and after they are decompressed, as are the spans of
a request and the depth of their values. Source: OTLP 1.5, sections "OTLP/HTTP" and "JSON Protobuf Encoding".
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flyball.errors import Conflict, InvalidInput
from flyball.llm.spans import Span, SpanEvent, SpanLink, check_depth
from flyball.platform import Platform
from flyball.wire.mlflow.refusals import invalid
from flyball.wire.mlflow.routing import Routes

__all__ = ["add_otlp", "decompressed", "spans_of"]

BODY_BYTES = 32 * 1024 * 1024  # of a request, as it is sent
PLAIN_BYTES = 128 * 1024 * 1024  # of a request, decompressed
_MOST_SPANS = 100_000
_MOST_ATTRIBUTES = 10_000  # of one span
_STEP = 1 << 20
_KINDS = ("application/x-protobuf", "application/json")
_STATUSES = ("UNSET", "OK", "ERROR")
_IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}
_ZLIB_WINDOWS = {"gzip": (31,), "deflate": (15, -15)}  # deflate also raw, as some clients send it


class _Bad(Exception):
    """A request that is answered in the words of a web framework, as MLflow's server does on this path."""

    def __init__(self, detail: Any, status: int = 400) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status


def add_otlp(routes: Routes, platform: Platform) -> None:
    """Add the route that spans arrive by."""

    @routes.add("POST", "/v1/traces", is_raw=True)
    async def export(request: Request) -> Response:
        try:
            experiment = request.headers.get("x-mlflow-experiment-id")
            if experiment is None:
                place = ["header", "x-mlflow-experiment-id"]
                raise _Bad([{"type": "missing", "loc": place, "msg": "Field required", "input": None}], 422)
            kind = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
            if kind not in _KINDS:
                sent = request.headers.get("content-type")
                raise _Bad(f"Invalid Content-Type: {sent}. Expected: {' or '.join(_KINDS)}")
            body = await _body(request)
            encoding = request.headers.get("content-encoding", "").strip().lower()
            run = request.headers.get("x-mlflow-run-id")
            await asyncio.to_thread(_keep, platform, experiment, run, kind, encoding, body)
        except _Bad as error:
            return JSONResponse({"detail": error.detail}, error.status)
        return Response(b"" if kind == _KINDS[0] else b"{}", media_type=kind)


def _keep(platform: Platform, experiment: str, run: str | None, kind: str, encoding: str, body: bytes) -> None:
    plain = decompressed(body, encoding) if encoding and encoding != "identity" else body
    spans, resources = spans_of(plain, is_json=kind == _KINDS[1])
    try:
        platform.add_spans(experiment, spans, resources, run)
    except Conflict as error:
        raise invalid(str(error)) from None


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_BYTES:
            raise _Bad(f"The body is larger than {BODY_BYTES:,} bytes", 413)
        chunks.append(chunk)
    return b"".join(chunks)


def decompressed(body: bytes, encoding: str, most: int = PLAIN_BYTES) -> bytes:
    """Return a body as it was before it was compressed; it never takes more memory than `most`."""
    if encoding not in _ZLIB_WINDOWS:
        raise _Bad(f"Unsupported Content-Encoding: {encoding[:40]}")
    for window in _ZLIB_WINDOWS[encoding]:
        try:
            return _inflated(body, window, most)
        except zlib.error:
            continue
    raise _Bad(f"Failed to decompress {encoding} payload")


def _inflated(body: bytes, window: int, most: int) -> bytes:
    reader = zlib.decompressobj(window)
    parts, size = [], 0
    while body:
        part = reader.decompress(body, _STEP)
        size += len(part)
        if size > most:
            raise _Bad(f"The body is larger than {most:,} bytes when decompressed", 413)
        parts.append(part)
        body = reader.unconsumed_tail
        if reader.eof:
            if not reader.unused_data:
                return b"".join(parts)
            body, reader = reader.unused_data, zlib.decompressobj(window)  # gzip may have several members
    if not reader.eof:
        raise zlib.error("the stream ends too early")
    return b"".join(parts)


def spans_of(body: bytes, *, is_json: bool) -> tuple[list[Span], dict[str, dict[str, Any]]]:
    """Return the spans of an ExportTraceServiceRequest, and by trace the attributes of what made them.

    Raises:
        _Bad: it cannot be read, has no spans, or more than are taken at once.
    """
    message = _parsed(body, is_json)
    if not message.resource_spans:
        raise _Bad("Invalid OpenTelemetry format - no spans found")
    spans: list[Span] = []
    resources: dict[str, dict[str, Any]] = {}
    for of_resource in message.resource_spans:
        made_by = _values(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            if len(spans) + len(of_scope.spans) > _MOST_SPANS:
                raise _Bad(f"More than {_MOST_SPANS:,} spans in one request", 413)
            for given in of_scope.spans:
                span = _span(given)
                spans.append(span)
                if made_by:
                    resources.setdefault(f"tr-{span.trace}", made_by)
    return spans, resources


def _parsed(body: bytes, is_json: bool) -> Any:
    # Here, because a server that is never sent spans need not load protobuf.
    from google.protobuf.json_format import ParseDict, ParseError
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest()
    try:
        if is_json:
            ParseDict(_with_bytes(json.loads(body)), message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
    except (DecodeError, ParseError, ValueError, RecursionError, TypeError, AttributeError):
        raise _Bad("Invalid OpenTelemetry format") from None
    return message


def _with_bytes(document: Any) -> Any:
    """Return OTLP's JSON as protobuf's reader takes it: ids in base64, where OTLP has hex."""
    for of_resource in document.get("resourceSpans", ()):
        for of_scope in of_resource.get("scopeSpans", ()):
            for span in of_scope.get("spans", ()):
                for holder in (span, *span.get("links", ())):
                    for name, length in _IDS.items():
                        if holder.get(name):
                            digits = bytes.fromhex(holder[name])
                            if len(digits) != length:
                                raise ValueError(f"{name} has {len(digits)} bytes")
                            holder[name] = base64.b64encode(digits).decode()
    return document


def _span(given: Any) -> Span:
    if len(given.trace_id) != 16 or len(given.span_id) != 8 or len(given.parent_span_id) not in (0, 8):
        raise _Bad("Cannot convert OpenTelemetry span to MLflow span", 422)
    if len(given.attributes) > _MOST_ATTRIBUTES:
        raise _Bad(f"A span has {len(given.attributes):,} attributes; expected at most {_MOST_ATTRIBUTES:,}", 413)
    code = given.status.code
    return Span(
        trace=given.trace_id.hex(),
        id=given.span_id.hex(),
        parent=given.parent_span_id.hex() if any(given.parent_span_id) else None,
        name=given.name,
        start_ns=given.start_time_unix_nano,
        end_ns=given.end_time_unix_nano,
        status=_STATUSES[code] if 0 <= code < len(_STATUSES) else _STATUSES[0],
        message=given.status.message,
        attributes=_values(given.attributes),
        events=tuple(SpanEvent(e.name, e.time_unix_nano, _values(e.attributes)) for e in given.events),
        links=tuple(
            SpanLink(link.trace_id.hex(), link.span_id.hex(), _values(link.attributes))
            for link in given.links
            if len(link.trace_id) == 16 and len(link.span_id) == 8
        ),
    )


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    found = {one.key: _value(one.value) for one in attributes}
    try:
        check_depth(found)
    except InvalidInput as error:
        raise _Bad(str(error)) from None
    return found


def _value(given: Any) -> Any:
    kind = given.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(given, kind)
    if kind == "array_value":
        return [_value(item) for item in found.values]
    if kind == "kvlist_value":
        return {one.key: _value(one.value) for one in found.values}
    return base64.b64encode(found).decode() if kind == "bytes_value" else found
