"""Traces of MLflow's protocol, told and read; searching is in `trace_searching`, spans arrive in `otlp`."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from flyball.errors import Conflict
from flyball.ledger.artifacts import check_path
from flyball.ledger.runs import Artifact
from flyball.ledger.traces import LOCATION_TAG, NAME_TAG, SPANS_TAG, Trace
from flyball.llm.arriving import LONGEST_TAG_KEY, LONGEST_TAG_VALUE
from flyball.llm.spans import Span
from flyball.platform import Platform
from flyball.wire.mlflow.artifacts import file_below
from flyball.wire.mlflow.assessments import ASSESSMENT, assessment_of
from flyball.wire.mlflow.fields import choice, flag, mapping, message, messages, text, texts, value, whole, wrong
from flyball.wire.mlflow.files import send
from flyball.wire.mlflow.refusals import Refused, invalid, not_found, required
from flyball.wire.mlflow.routing import Asked, Routes
from flyball.wire.mlflow.trace_values import duration_ms, instant_ms, old_trace_value, span_value, trace_value

__all__ = ["LOCATION", "add_traces"]

_OLD = "2.0/mlflow/traces"
_NEW = "3.0/mlflow/traces"
_STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS")
_OLD_STATES = ("TRACE_STATUS_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS")
_LONGEST_ID = 250
_LONGEST_NAME = 4096
_WAIT_S = 3.0  # for spans that the account promises, which clients send a moment after it
_STEP_S = 0.1
_STATS = "mlflow.trace.sizeStats"
_GUARDED = frozenset({LOCATION_TAG, SPANS_TAG, "mlflow.trace.archiveLocation"})
_MOST_IDS = 10_000

LOCATION = (
    value("type"),
    message("mlflow_experiment", text("experiment_id")),
    message("inference_table", text("full_table_name")),
)
_INFO = message(
    "trace_info",
    text("trace_id"),
    text("client_request_id"),
    message("trace_location", *LOCATION),
    text("request_preview"),
    text("response_preview"),
    value("request_time"),
    value("execution_duration"),
    choice("state", _STATES[1:]),
    mapping("trace_metadata"),
    mapping("tags"),
    messages("assessments", *ASSESSMENT),
)
_PAIRS = (text("key"), text("value"))


def add_traces(routes: Routes, platform: Platform) -> None:
    """Add the routes that tell, read, tag, link and delete traces."""
    _add_telling(routes, platform)
    _add_old_telling(routes, platform)
    _add_reading(routes, platform)
    _add_tags(routes, platform)
    _add_links(routes, platform)
    _add_deleting(routes, platform)
    _add_files(routes, platform)


def _add_telling(routes: Routes, platform: Platform) -> None:
    @routes.add("POST", _NEW, message("trace", _INFO, required=True))
    def start(asked: Asked) -> dict[str, Any]:
        info = asked["trace"].get("trace_info")
        if not info:
            raise required("trace.trace_info")
        try:
            told = platform.tell_trace(_told(info))
        except Conflict as error:
            raise invalid(str(error)) from None
        return {"trace": {"trace_info": trace_value(told)}}


def _told(info: Mapping[str, Any]) -> Trace:
    id = _checked_id(info.get("trace_id", ""), "trace.trace_info.trace_id")
    experiment = info.get("trace_location", {}).get("mlflow_experiment", {}).get("experiment_id")
    if not experiment:
        raise required("trace.trace_info.trace_location.mlflow_experiment.experiment_id")
    if "request_time" not in info:
        raise required("trace.trace_info.request_time")
    duration = info.get("execution_duration")
    tags = info.get("tags", {})
    _check_name(tags)
    return Trace(
        id=id,
        experiment=experiment,
        at_ms=instant_ms(info["request_time"], "trace.trace_info.request_time"),
        took_ms=None if duration is None else duration_ms(duration, "trace.trace_info.execution_duration"),
        state=info.get("state", _STATES[0]),
        tags={k: v for k, v in tags.items() if k not in (LOCATION_TAG, SPANS_TAG)},
        metadata=info.get("trace_metadata", {}),
        client_id=info.get("client_request_id"),
        request=info.get("request_preview"),
        response=info.get("response_preview"),
        assessments=tuple(assessment_of(one, id) for one in info.get("assessments", ())),
    )


def _add_old_telling(routes: Routes, platform: Platform) -> None:
    @routes.add(
        "POST",
        _OLD,
        text("experiment_id"),
        whole("timestamp_ms"),
        messages("request_metadata", *_PAIRS),
        messages("tags", *_PAIRS),
    )
    def start(asked: Asked) -> dict[str, Any]:
        tags = _pairs(asked, "tags")
        _check_name(tags)
        begun = Trace(
            id=secrets.token_hex(16),
            experiment=asked.get("experiment_id") or "0",
            at_ms=_checked_time(asked.get("timestamp_ms", 0)),
            took_ms=None,
            state="IN_PROGRESS",
            tags=tags,
            metadata=_pairs(asked, "request_metadata"),
        )
        try:
            made = platform.begin_trace(begun)
        except Conflict as error:
            raise invalid(str(error)) from None
        return {"trace_info": old_trace_value(made)}

    @routes.add(
        "PATCH",
        f"{_OLD}/{{request_id}}",
        whole("timestamp_ms"),
        choice("status", _OLD_STATES),
        messages("request_metadata", *_PAIRS),
        messages("tags", *_PAIRS),
    )
    def end(asked: Asked) -> dict[str, Any]:
        tags, metadata = _pairs(asked, "tags"), _pairs(asked, "request_metadata")
        _check_name(tags)
        ended = _checked_time(asked.get("timestamp_ms", 0))
        state = dict(zip(_OLD_STATES, _STATES, strict=True))[asked.get("status", _OLD_STATES[0])]

        def change(trace: Trace) -> Trace:
            return replace(
                trace,
                took_ms=ended - trace.at_ms,
                state=state,  # type: ignore[arg-type]
                tags={**trace.tags, **tags},
                metadata={**trace.metadata, **metadata},
            )

        return {"trace_info": old_trace_value(platform.end_trace(asked.parts["request_id"], change))}


def _add_reading(routes: Routes, platform: Platform) -> None:
    @routes.add("GET", f"{_NEW}/get", text("trace_id", required=True), flag("allow_partial"))
    async def get(asked: Asked) -> dict[str, Any]:
        id, loop = asked["trace_id"], asyncio.get_running_loop()
        until = loop.time() + (0 if asked.get("allow_partial") else _WAIT_S)
        while True:
            found = await asyncio.to_thread(_whole, platform, [id])
            if not found:
                raise not_found(f"Trace with ID {id} is not found.")
            trace, spans = found[0]
            if asked.get("allow_partial") or _is_complete(trace, spans):
                return {"trace": _with_spans(trace, spans)}
            if SPANS_TAG not in trace.tags and _promised(trace) == 0:
                raise not_found("Trace data not stored in tracking store")
            if loop.time() >= until:
                raise not_found(f"Trace with ID {id} is not fully exported yet, please try again later.")
            await asyncio.sleep(_STEP_S)

    @routes.add("GET", f"{_NEW}/batchGet", texts("trace_ids", required=True), texts("experiment_ids"))
    def batch(asked: Asked) -> dict[str, Any]:
        found = _whole(platform, _ids(asked), asked.get("experiment_ids"))
        traces = [_with_spans(trace, spans) for trace, spans in found if _is_complete(trace, spans)]
        return {"traces": traces} if traces else {}

    @routes.add("POST", f"{_NEW}/batchGetInfos", texts("trace_ids", required=True), texts("experiment_ids"))
    def infos(asked: Asked) -> dict[str, Any]:
        found = platform.traces(_ids(asked), asked.get("experiment_ids"))
        return {"trace_infos": [trace_value(trace) for trace in found]} if found else {}

    @routes.add("GET", f"{_NEW}/{{trace_id}}")
    def info(asked: Asked) -> dict[str, Any]:
        return {"trace": {"trace_info": trace_value(platform.trace(asked.parts["trace_id"]))}}

    @routes.add("GET", f"{_OLD}/{{request_id}}/info")
    def old_info(asked: Asked) -> dict[str, Any]:
        return {"trace_info": old_trace_value(platform.trace(asked.parts["request_id"]))}


def _whole(platform: Platform, ids: list[str], experiments: list[str] | None = None) -> list[tuple[Trace, list[Span]]]:
    traces = platform.traces(ids, experiments)
    spans = platform.trace_spans([trace.id for trace in traces])
    return [(trace, spans[trace.id]) for trace in traces]


def _with_spans(trace: Trace, spans: list[Span]) -> dict[str, Any]:
    found: dict[str, Any] = {"trace_info": trace_value(trace)}
    if spans:
        found["spans"] = [span_value(span) for span in spans]
    return found


def _is_complete(trace: Trace, spans: list[Span]) -> bool:
    return bool(spans) and len(spans) >= _promised(trace)


def _promised(trace: Trace) -> int:
    """Return how many spans the account says there are; 0: it does not say."""
    try:
        count = json.loads(trace.metadata.get(_STATS, "{}")).get("num_spans", 0)
    except (ValueError, AttributeError, RecursionError):
        return 0
    return count if isinstance(count, int) else 0


def _add_tags(routes: Routes, platform: Platform) -> None:
    for path, name in ((_OLD, "request_id"), (_NEW, "trace_id")):

        @routes.add("PATCH", f"{path}/{{{name}}}/tags", text("key", required=True), text("value"))
        def tag(asked: Asked, name: str = name) -> dict[str, Any]:
            key, said = asked["key"], asked.get("value", "")
            _check_key(key, "set")
            if key == NAME_TAG:
                _check_name({key: said})
            platform.tag_trace(asked.parts[name], key, said[:LONGEST_TAG_VALUE])
            return {}

        @routes.add("DELETE", f"{path}/{{{name}}}/tags", text("key", required=True))
        def untag(asked: Asked, name: str = name) -> dict[str, Any]:
            _check_key(asked["key"], "deleted")
            platform.untag_trace(asked.parts[name], asked["key"])
            return {}


def _add_links(routes: Routes, platform: Platform) -> None:
    @routes.add("POST", f"{_OLD}/link-to-run", texts("trace_ids", required=True), text("run_id", required=True))
    def to_run(asked: Asked) -> dict[str, Any]:
        platform.link_traces(_ids(asked), _checked_id(asked["run_id"], "run_id"))
        return {}

    @routes.add(
        "POST",
        f"{_OLD}/link-prompts",
        text("trace_id", required=True),
        messages("prompt_versions", text("name"), text("version"), required=True),
    )
    def prompts(asked: Asked) -> dict[str, Any]:
        names = []
        for number, one in enumerate(asked["prompt_versions"]):
            version = one.get("version", "")
            if not one.get("name") or not (version.isascii() and version.isdecimal()):
                raise wrong(f"prompt_versions[{number}]", one)
            names.append(_checked_id(f"{one['name']}/{int(version[:18])}", f"prompt_versions[{number}]"))
        platform.link_prompts(asked["trace_id"], names)
        return {}


def _add_deleting(routes: Routes, platform: Platform) -> None:
    fields = (
        text("experiment_id", required=True),
        whole("max_timestamp_millis"),
        whole("max_traces"),
        texts("request_ids"),
    )
    for path in (_OLD, _NEW):

        @routes.add("POST", f"{path}/delete-traces", *fields)
        def delete(asked: Asked) -> dict[str, Any]:
            count = platform.delete_traces(
                asked["experiment_id"],
                asked.get("request_ids", ()),
                asked.get("max_timestamp_millis"),
                asked.get("max_traces"),
            )
            return {"traces_deleted": count}


def _add_files(routes: Routes, platform: Platform) -> None:
    for version in ("2.0", "3.0"):

        @routes.add("GET", f"{version}/mlflow/get-trace-artifact", ajax_only=True, is_raw=True)
        async def artifact(request: Request) -> Response:
            id, path = request.query_params.get("request_id"), request.query_params.get("path")
            if not id:
                raise Refused("BAD_REQUEST", 'Request must include the "request_id" query parameter.')
            if not path:
                spans = (await asyncio.to_thread(platform.trace_spans, [id]))[id]
                if spans:
                    return _spans_file(spans)

            def find() -> Artifact:
                name = f"attachments/{check_path(path)}" if path else "traces.json"
                location = platform.trace(id).tags.get(LOCATION_TAG, "")
                return file_below(platform, location, location, name)

            return await send(request, platform, find)


def _spans_file(spans: list[Span]) -> Response:
    body = json.dumps({"spans": [span.document() for span in spans]}, ensure_ascii=False).encode()
    headers = {"Content-Disposition": "attachment; filename=traces.json", "X-Content-Type-Options": "nosniff"}
    return Response(body, media_type="application/octet-stream", headers=headers)


def _ids(asked: Asked) -> list[str]:
    found: list[str] = asked["trace_ids"]
    if len(found) > _MOST_IDS:
        raise invalid(f"'trace_ids' names {len(found):,} traces; expected at most {_MOST_IDS:,}")
    return found


def _pairs(asked: Asked, name: str) -> dict[str, str]:
    return {one.get("key", ""): one.get("value", "") for one in asked.get(name, ())}


def _check_key(key: str, act: str) -> None:
    if key in _GUARDED:
        raise invalid(f"Tag '{key}' is immutable and cannot be {act} on a trace.")
    if act == "set" and len(key) > LONGEST_TAG_KEY:
        raise invalid(f"'key' exceeds the maximum length of {LONGEST_TAG_KEY} characters")


def _check_name(tags: Mapping[str, str]) -> None:
    if len(tags.get(NAME_TAG, "")) > _LONGEST_NAME:
        raise invalid(f"'Trace name' exceeds the maximum length of {_LONGEST_NAME} characters")


def _checked_id(id: str, name: str) -> str:
    if not id:
        raise required(name)
    if len(id) > _LONGEST_ID:
        raise invalid(f"Invalid value {id[:40]!r}... for parameter '{name}' supplied: it has {len(id):,} characters.")
    return id


def _checked_time(at_ms: int) -> int:
    if not 0 <= at_ms < 1 << 47:  # some thousand years: later ones cannot be written
        raise wrong("timestamp_ms", at_ms)
    return at_ms
