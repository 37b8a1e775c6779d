"""What is asked of MLflow's own server and of ours: traces, what is said of them, sets to evaluate on, scorers.

As `asked_of_runs.py`; the answers are in `data/traces.json`.
"""

from __future__ import annotations

import json
from typing import Any

from tests.wire.mlflow.asked_of_runs import Step, but

__all__ = ["SCENARIOS"]

_NO_5XX = "clients send a request again and again after 5xx"
_NAMED = "the root span names a trace that nobody named"
_EXP = {"exp": "experiment_id"}
HEX = "0af7651916cd43dd8448eb211c80319c"
TOLD = "tr-" + "ab" * 16
SPANS_FIRST = "tr-" + "cd" * 16


def ask(verb: str, path: str, body: Any = None, keep: dict[str, str] | None = None, **more: Any) -> Step:
    front = "" if path.startswith("/") else "/api/3.0/mlflow/"
    step: Step = {"verb": verb, "path": front + path, "keep": keep or {}, **more}
    return step if verb == "GET" else {**step, "body": body}


def old(verb: str, path: str, body: Any = None, keep: dict[str, str] | None = None, **more: Any) -> Step:
    return ask(verb, f"/api/2.0/mlflow/{path}", body, keep, **more)


def experiment(name: str) -> Step:
    return old("POST", "experiments/create", {"name": name}, _EXP)


def get(path: str, **query: str | list[str]) -> Step:
    pairs = [(k, v) for k, vs in query.items() for v in (vs if isinstance(vs, list) else [vs])]
    return ask("GET", path, query=pairs)


def info(id: str = TOLD, **more: Any) -> dict[str, Any]:
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "{exp}"}}
    return {"trace_id": id, "trace_location": place, "request_time": "2024-01-01T00:00:00Z", "state": "OK", **more}


def tell(*, keep: dict[str, str] | None = None, **more: Any) -> Step:
    return ask("POST", "traces", {"trace": {"trace_info": info(**more)}}, keep)


def attribute(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def span(trace: str, id: str = "b7ad6b7169203331", parent: str = "", name: str = "root", **more: Any) -> dict[str, Any]:
    times = {"startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000500000000"}
    return {"traceId": trace, "spanId": id, "parentSpanId": parent, "name": name, "kind": 1, **times, **more}


def send(*spans: dict[str, Any], resource: tuple[dict[str, Any], ...] = (), **headers: str) -> Step:
    document = {"resourceSpans": [{"resource": {"attributes": list(resource)}, "scopeSpans": [{"spans": list(spans)}]}]}
    named = {"x-mlflow-experiment-id": "{exp}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return raw_spans(json.dumps(document), headers=named)


def raw_spans(text: str, kind: str | None = "application/json", headers: dict[str, str] | None = None) -> Step:
    return {"verb": "POST", "path": "/v1/traces", "raw": text, "kind": kind, "keep": {}, "headers": headers or {}}


def search(filter: str | None = None, **more: Any) -> Step:
    places = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "{exp}"}}]
    asked = {} if filter is None else {"filter": filter}
    return ask("POST", "traces/search", {"locations": places, **asked, **more})


def say(name: str, trace: str = TOLD, keep: dict[str, str] | None = None, **said: Any) -> Step:
    source = {"source_type": "HUMAN", "source_id": "ann"}
    told = {"assessment_name": name, "source": source, "valid": True, **said}
    return ask("POST", f"traces/{trace}/assessments", {"assessment": told}, keep)


def measure(view: str, metric: str, *kinds: str, **more: Any) -> Step:
    wanted = [{"aggregation_type": kind} for kind in kinds]
    body = {"experiment_ids": ["{exp}"], "view_type": view, "metric_name": metric, "aggregations": wanted}
    return ask("POST", "traces/metrics", {**body, **more})


_ROOT = span(
    HEX,
    attributes=[
        attribute("mlflow.spanInputs", stringValue="hi"),
        attribute("mlflow.spanType", stringValue="LLM"),
        attribute("n", intValue="3"),
        attribute("nested", kvlistValue={"values": [attribute("a", arrayValue={"values": [{"boolValue": True}]})]}),
        attribute("gen_ai.usage.input_tokens", intValue=5),
        attribute("gen_ai.usage.output_tokens", intValue=6),
    ],
    events=[{"timeUnixNano": "1700000000100000000", "name": "e", "attributes": [attribute("x", stringValue="y")]}],
    status={"code": 1},
)
_CHILD = span(
    HEX,
    "b7ad6b7169203339",
    "b7ad6b7169203331",
    "child",
    attributes=[attribute("mlflow.chat.tokenUsage", kvlistValue={"values": [attribute("input_tokens", intValue=9)]})],
    status={"code": 2, "message": "bad"},
)
_MADE_BY = (attribute("service.name", stringValue="svc"), attribute("telemetry.sdk.name", stringValue="no"))
_USAGE = '{"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}'
_FEEDBACK = {"assessment_name": "f", "feedback": {"value": 0.5}, "source": {"source_type": "CODE"}, "valid": True}
_TIMES = {"create_time": "2024-01-01T00:00:00Z", "last_update_time": "2024-01-01T00:00:01.250Z"}
_SCORER = json.dumps({"name": "sc", "instructions_judge_pydantic_data": {"model": "openai:/m", "instructions": "x"}})
_RECORDS = json.dumps([{"inputs": {"q": 1}, "expectations": {"a": "x"}, "tags": {"t": "1"}, "outputs": {"o": [1]}}])

_OTHERWISE = {
    "timestamp_ms = 'x'": ("what is no number is no time",),
    "status = 1": ("what was expected is said",),
}

SCENARIOS: dict[str, list[Step]] = {
    "a trace is told": [
        experiment("told"),
        tell(
            tags={"mlflow.traceName": "nm", "k": "v"},
            trace_metadata={"a": "b", "mlflow.trace.tokenUsage": _USAGE, "mlflow.trace.session": "s1"},
            execution_duration="0.250s",
            request_preview="q",
            response_preview="r",
            client_request_id="c1",
            assessments=[{**_FEEDBACK, **_TIMES}],
        ),
        get(f"traces/{TOLD}"),
        old("GET", f"traces/{TOLD}/info"),
        but(
            tell(state="ERROR", request_time="2024-01-01T00:00:00.5Z", tags={"l": "w"}),
            "the answer has the tags as they are now",
            200,
        ),
        get(f"traces/{TOLD}"),
        get("traces/tr-nobody"),
        old("GET", "traces/tr-nobody/info"),
        get("traces/get", trace_id="tr-nobody"),
        get("traces/get"),
        but(get("traces/get", trace_id=TOLD), _NO_5XX, 404, code="RESOURCE_DOES_NOT_EXIST"),
        ask("POST", "traces/batchGetInfos", {"trace_ids": [TOLD, "tr-nobody", TOLD]}),
        ask("POST", "traces/batchGetInfos", {"trace_ids": [TOLD], "experiment_ids": ["0"]}),
        ask("POST", "traces", {}),
        but(ask("POST", "traces", {"trace": {}}), _NO_5XX, code="INVALID_PARAMETER_VALUE"),
        but(ask("POST", "traces", {"trace": {"trace_info": {"trace_id": TOLD}}}), _NO_5XX, says="Missing value"),
        tell(id="tr-x", trace_location={"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "99999"}}),
    ],
    "spans arrive": [
        experiment("spans"),
        but(send(_ROOT, _CHILD, resource=_MADE_BY), "the answer is in the form of the question", 200, body={}),
        but(get("traces/get", trace_id=f"tr-{HEX}"), _NAMED, 200),
        but(get(f"traces/tr-{HEX}"), _NAMED, 200),
        but(old("GET", f"traces/tr-{HEX}/info"), _NAMED, 200),
        but(get("traces/batchGet", trace_ids=[f"tr-{HEX}", "tr-nobody"]), _NAMED, 200),
        get("traces/batchGet", trace_ids="tr-nobody"),
        get("traces/batchGet"),
        ask("GET", "/ajax-api/2.0/mlflow/get-trace-artifact"),
        raw_spans("{}"),
        raw_spans("{", headers={"x-mlflow-experiment-id": "0"}),
        raw_spans("[]", headers={"x-mlflow-experiment-id": "0"})
        | {"ours": {"why": _NO_5XX, "status": 400, "body": {"detail": "Invalid OpenTelemetry format"}}},
        raw_spans("{}", headers={"x-mlflow-experiment-id": "0"}),
        raw_spans("junk", "application/x-protobuf", {"x-mlflow-experiment-id": "0"}),
        raw_spans("", "application/x-protobuf", {"x-mlflow-experiment-id": "0"}),
        raw_spans("x", "text/plain", {"x-mlflow-experiment-id": "0"}),
        raw_spans("x", headers={"x-mlflow-experiment-id": "0", "content-encoding": "gzip"}),
        raw_spans("x", headers={"x-mlflow-experiment-id": "0", "content-encoding": "deflate"}),
        raw_spans("x", headers={"x-mlflow-experiment-id": "0", "content-encoding": "br"}),
    ],
    "spans arrive before the account": [
        experiment("before"),
        but(send(span("cd" * 16, attributes=[attribute("user.id", stringValue="u")])), "as above", 200, body={}),
        tell(id=SPANS_FIRST, state="ERROR", tags={"mlflow.traceName": "told"}, execution_duration="2s"),
        get("traces/get", trace_id=SPANS_FIRST),
        but(send(span("cd" * 16, "00000000000000aa", name="late")), "as above", 200, body={}),
        but(get(f"traces/{SPANS_FIRST}"), "what the account said stays, whatever the spans say", 200),
    ],
    "what is said": [
        experiment("said"),
        tell(),
        say(
            "good",
            keep={"one": "assessment.assessment_id"},
            feedback={"value": True},
            rationale="why",
            metadata={"m": "1"},
        ),
        say("list", expectation={"value": {"x": [1, 2]}}),
        say("text", expectation={"value": "yes"}),
        say("failed", feedback={"error": {"error_code": "E", "error_message": "m", "stack_trace": "s"}}),
        say("none"),
        ask("POST", f"traces/{TOLD}/assessments", {}),
        say("good", "tr-nobody", feedback={"value": True}),
        get(f"traces/{TOLD}/assessments/{{one}}"),
        get(f"traces/{TOLD}/assessments/a-nobody"),
        get("traces/tr-nobody/assessments/a-nobody"),
        ask(
            "PATCH",
            f"traces/{TOLD}/assessments/{{one}}",
            {
                "assessment": {"feedback": {"value": 3}, "rationale": "r", "metadata": {"n": "2"}},
                "update_mask": "feedback,rationale,metadata",
            },
        ),
        ask(
            "PATCH",
            f"traces/{TOLD}/assessments/{{one}}",
            {"assessment": {"assessment_name": "new"}, "update_mask": "assessmentName"},
        ),
        ask(
            "PATCH",
            f"traces/{TOLD}/assessments/{{one}}",
            {"assessment": {"expectation": {"value": 3}}, "update_mask": "expectation"},
        ),
        ask("PATCH", f"traces/{TOLD}/assessments/{{one}}", {"assessment": {"rationale": "x"}}),
        ask(
            "PATCH",
            f"traces/{TOLD}/assessments/a-nobody",
            {"assessment": {"rationale": "x"}, "update_mask": "rationale"},
        ),
        say("new", keep={"two": "assessment.assessment_id"}, feedback={"value": "no"}, overrides="{one}"),
        say("new", feedback={"value": "no"}, overrides="a-nobody"),
        get(f"traces/{TOLD}/assessments/{{one}}"),
        ask("DELETE", f"traces/{TOLD}/assessments/{{two}}", {}),
        ask("DELETE", f"traces/{TOLD}/assessments/{{two}}", {}),
        ask("DELETE", "traces/tr-nobody/assessments/{two}", {})
        | {"ours": {"why": "there is no such trace", "status": 404}},
        get(f"traces/{TOLD}/assessments/{{one}}"),
    ],
    "traces are found": [
        experiment("found"),
        tell(
            tags={"mlflow.traceName": "nm", "k": "v"},
            trace_metadata={"a": "b", "mlflow.trace.session": "s1", "mlflow.sourceRun": "r1"},
            client_request_id="c1",
            execution_duration="0.250s",
        ),
        tell(
            id="tr-" + "12" * 16, state="ERROR", request_time="2024-01-02T00:00:00Z", tags={"mlflow.traceName": "other"}
        ),
        tell(id="tr-" + "34" * 16, state="IN_PROGRESS", request_time="2024-01-01T00:00:00Z"),
        say("good", feedback={"value": "yes"}),
        say("score", feedback={"value": 0.5}),
        say("exp", expectation={"value": "x"}),
        search(),
        search(max_results=1),
        search(max_results=501),
        search(max_results=0),
        search(page_token="junk"),
        ask("POST", "traces/search", {}),
        ask("POST", "traces/search", {"locations": []}),
        *[
            search(wanted)
            for wanted in (
                "trace.status = 'OK'",
                "status != 'OK'",
                "trace.status IN ('OK', 'ERROR')",
                "name = 'nm'",
                "trace.name LIKE 'n%'",
                "name ILIKE 'N%'",
                "trace.name RLIKE '^o'",
                "tag.k = 'v'",
                "tags.k != 'v'",
                "tag.k IS NULL",
                "tag.k IS NOT NULL",
                "tag.mlflow.traceName = 'nm'",
                "metadata.a = 'b'",
                "request_metadata.a LIKE 'b%'",
                "metadata.a IS NULL",
                "metadata.mlflow.trace.session = 's1'",
                "run_id = 'r1'",
                "metadata.mlflow.sourceRun = 'r1'",
                "client_request_id = 'c1'",
                f"request_id = '{TOLD}'",
                f"request_id IN ('{TOLD}', 'x')",
                "timestamp_ms > 1704067200000",
                "timestamp_ms >= 1704067200000 AND timestamp_ms < 1704150000000",
                "execution_time_ms > 200",
                "end_time > 1704067200200",
                "feedback.good = 'yes'",
                "feedback.good != 'yes'",
                "feedback.score > 0.2",
                "feedback.score = '0.5'",
                "feedback.good IS NULL",
                "feedback.good IS NOT NULL",
                "expectation.exp = 'x'",
                "expectation.exp LIKE '%x%'",
                "span.name = 'root'",
                "tag.k = 'v' AND name = 'nm'",
            )
        ],
        *[
            but(search(wrong), *_OTHERWISE[wrong]) if wrong in _OTHERWISE else search(wrong)
            for wrong in (
                "tag.k = v",
                "name > 'x'",
                "timestamp_ms = 'x'",
                "status = 1",
                "a OR b",
                "name = 'a' OR name = 'b'",
            )
        ],
        but(
            search("foo.bar = 'x'"),
            "kinds are listed in their order",
            says="Invalid entity type 'foo'. Valid values are",
        ),
        search(order_by=["timestamp_ms ASC"]),
        search(order_by=["execution_time_ms DESC"]),
        search(order_by=["name"]),
        search(order_by=["tag.k ASC"]),
        search(order_by=["status DESC", "timestamp_ms ASC"]),
        old("GET", "traces", query=[("experiment_ids", "{exp}"), ("max_results", "5"), ("filter", "status = 'ERROR'")]),
        old("GET", "traces"),
    ],
    "spans are found": [
        experiment("spans found"),
        but(
            send(
                span(
                    "9" * 32,
                    attributes=[attribute("model", stringValue="gpt"), attribute("mlflow.spanType", stringValue="LLM")],
                )
            ),
            "as above",
            200,
            body={},
        ),
        tell(id="tr-" + "9" * 32, tags={"mlflow.traceName": "root"}),
        *[
            search(wanted)
            for wanted in (
                "span.name = 'root'",
                "span.name = 'nobody'",
                "span.name LIKE 'ro%'",
                "span.type = 'LLM'",
                "span.status = 'UNSET'",
                "span.name = 'root' AND span.type = 'TOOL'",
                "span.name IN ('root', 'x')",
                "span.attributes.model LIKE '%gpt%'",
                "span.attributes.model LIKE '%nope%'",
                "span.content LIKE '%gpt%'",
                "trace.text LIKE '%gpt%'",
                "trace.text ILIKE '%GPT%'",
                "trace.text LIKE '%no such%'",
            )
        ],
        old(
            "POST",
            "traces/link-prompts",
            {"trace_id": "tr-" + "9" * 32, "prompt_versions": [{"name": "p", "version": "1"}]},
        ),
        old(
            "POST", "traces/link-prompts", {"trace_id": "tr-nobody", "prompt_versions": [{"name": "p", "version": "1"}]}
        ),
        search("prompt = 'p/1'"),
        search("prompt = 'p/2'"),
        search("prompt = 'p'"),
    ],
    "tags": [
        experiment("tags"),
        tell(),
        ask("PATCH", f"traces/{TOLD}/tags", {"key": "k", "value": "v"}),
        old("PATCH", f"traces/{TOLD}/tags", {"key": "l", "value": ""}),
        ask("PATCH", f"traces/{TOLD}/tags", {"key": "mlflow.traceName", "value": "renamed"}),
        ask("PATCH", f"traces/{TOLD}/tags", {"value": "v"}),
        ask("PATCH", f"traces/{TOLD}/tags", {"key": "k" * 251, "value": "v"}),
        but(
            ask("PATCH", "traces/tr-nobody/tags", {"key": "k", "value": "v"}),
            "there is no such trace",
            404,
            says="Trace with ID",
        ),
        get(f"traces/{TOLD}"),
        search("name = 'renamed'"),
        ask("DELETE", f"traces/{TOLD}/tags", {"key": "k"}),
        old("DELETE", f"traces/{TOLD}/tags", {"key": "l"}),
        ask("DELETE", f"traces/{TOLD}/tags", {"key": "k"}),
        ask("DELETE", f"traces/{TOLD}/tags", {}),
    ],
    "as MLflow 2 tells it": [
        experiment("old"),
        old(
            "POST",
            "traces",
            {
                "experiment_id": "{exp}",
                "timestamp_ms": 1000,
                "request_metadata": [{"key": "a", "value": "b"}],
                "tags": [{"key": "t", "value": "u"}],
            },
            {"old": "trace_info.request_id"},
        ),
        old(
            "PATCH",
            "traces/{old}",
            {"timestamp_ms": 1500, "status": "OK", "request_metadata": [{"key": "c", "value": "d"}], "tags": []},
        ),
        old("GET", "traces/{old}/info"),
        but(get("traces/batchGet", trace_ids="{old}"), _NO_5XX, 200, body={}),
        old("PATCH", "traces/nobody", {"timestamp_ms": 1500, "status": "OK"}),
        old("POST", "traces", {"experiment_id": "99999", "timestamp_ms": 1}),
    ],
    "traces are removed": [
        experiment("removed"),
        tell(),
        tell(id="tr-" + "12" * 16, request_time="2024-01-02T00:00:00Z"),
        tell(id="tr-" + "34" * 16, request_time="2024-01-03T00:00:00Z"),
        ask("POST", "traces/delete-traces", {"experiment_id": "{exp}"}),
        ask("POST", "traces/delete-traces", {"experiment_id": "{exp}", "max_traces": 1}),
        ask(
            "POST", "traces/delete-traces", {"experiment_id": "{exp}", "request_ids": [TOLD], "max_timestamp_millis": 5}
        ),
        ask("POST", "traces/delete-traces", {"experiment_id": "{exp}", "request_ids": [TOLD], "max_traces": 5}),
        ask("POST", "traces/delete-traces", {"experiment_id": "{exp}", "max_timestamp_millis": 5, "max_traces": 0}),
        ask("POST", "traces/delete-traces", {"request_ids": [TOLD]}),
        ask("POST", "traces/delete-traces", {"experiment_id": "0", "request_ids": [TOLD]}),
        ask(
            "POST", "traces/delete-traces", {"experiment_id": "{exp}", "request_ids": ["tr-nobody", "tr-" + "34" * 16]}
        ),
        old(
            "POST",
            "traces/delete-traces",
            {"experiment_id": "{exp}", "max_timestamp_millis": 1800000000000, "max_traces": 1},
        ),
        search(),
    ],
    "figures": [
        experiment("figures"),
        tell(
            tags={"mlflow.traceName": "nm"},
            trace_metadata={"mlflow.trace.tokenUsage": _USAGE},
            execution_duration="0.2s",
        ),
        tell(id="tr-" + "12" * 16, tags={"mlflow.traceName": "nm"}, execution_duration="0.5s", state="ERROR"),
        say("good", feedback={"value": "yes"}),
        say("good", "tr-" + "12" * 16, feedback={"value": "no"}),
        measure("TRACES", "trace_count", "COUNT"),
        measure("TRACES", "trace_count", "COUNT", dimensions=["trace_status"]),
        measure("TRACES", "latency", "AVG", "MIN", "MAX", dimensions=["trace_name"]),
        measure("TRACES", "latency", aggregations=[{"aggregation_type": "PERCENTILE", "percentile_value": 50}]),
        measure("TRACES", "total_tokens", "SUM", filters=["trace.status = 'OK'"]),
        measure(
            "TRACES", "trace_count", "COUNT", time_interval_seconds=3600, start_time_ms=0, end_time_ms=1800000000000
        ),
        measure("TRACES", "trace_count", "COUNT", time_interval_seconds=3600),
        measure("ASSESSMENTS", "assessment_count", "COUNT", dimensions=["assessment_name", "assessment_value"]),
        measure("ASSESSMENTS", "assessment_value", "AVG", dimensions=["assessment_name"]),
        measure("TRACES", "nope", "COUNT"),
        measure("TRACES", "trace_count", "SUM"),
        measure("TRACES", "trace_count", "COUNT", dimensions=["span_name"]),
        measure("TRACES", "trace_count", "COUNT", filters=["trace.status != 'OK'"]),
        measure("TRACES", "trace_count", "COUNT", filters=["span.name = 'x'"])
        | {"ours": {"why": "said before anything is read", "status": 400}},
        ask(
            "POST",
            "traces/calculate-filter-correlation",
            {"experiment_ids": ["{exp}"], "filter_string1": "status = 'OK'", "filter_string2": "name = 'nm'"},
        ),
        ask(
            "POST",
            "traces/calculate-filter-correlation",
            {"experiment_ids": ["{exp}"], "filter_string1": "status = 'OK'", "filter_string2": "status = 'ERROR'"},
        ),
        ask(
            "POST",
            "traces/calculate-filter-correlation",
            {"experiment_ids": ["{exp}"], "filter_string1": "status = 'OK'", "filter_string2": "name = 'nobody'"},
        ),
        ask(
            "POST",
            "traces/calculate-filter-correlation",
            {"experiment_ids": ["{exp}"], "filter_string1": "status = 'OK'"},
        ),
    ],
    "sets to evaluate on": [
        experiment("sets"),
        ask(
            "POST",
            "datasets/create",
            {"name": "qa", "experiment_ids": ["{exp}"], "tags": json.dumps({"a": "b", "mlflow.user": "ann"})},
            {"set": "dataset.dataset_id"},
        ),
        get("datasets/{set}"),
        get("datasets/d-nobody"),
        ask("POST", "datasets/{set}/records", {"records": _RECORDS}),
        ask(
            "POST", "datasets/{set}/records", {"records": json.dumps([{"inputs": {"q": 1}, "expectations": {"b": 2}}])}
        ),
        but(ask("POST", "datasets/{set}/records", {"records": "junk"}), _NO_5XX, says="records must be valid JSON"),
        ask("POST", "datasets/{set}/records", {}),
        get("datasets/{set}/records"),
        get("datasets/{set}"),
        get("datasets/{set}/experiment-ids"),
        ask("PATCH", "datasets/{set}/tags", {"tags": '{"c": "d"}'}),
        ask("PATCH", "datasets/d-nobody/tags", {"tags": '{"c": "d"}'}),
        ask("DELETE", "datasets/{set}/tags/c", {}),
        ask("DELETE", "datasets/{set}/tags/nobody", {}),
        ask("POST", "datasets/{set}/add-experiments", {"experiment_ids": ["0"]}),
        ask("POST", "datasets/{set}/add-experiments", {"experiment_ids": ["99999"]}),
        get("datasets/{set}/experiment-ids"),
        ask("POST", "datasets/{set}/remove-experiments", {"experiment_ids": ["0", "77"]}),
        *[
            ask("POST", "datasets/search", {"experiment_ids": ["{exp}"], "filter_string": wanted})
            for wanted in (
                "name = 'qa'",
                "name LIKE 'q%'",
                "name = 'nobody'",
                "tags.a = 'b'",
                "created_by = 'ann'",
                "created_time > 5",
            )
        ],
        ask("POST", "datasets/search", {"experiment_ids": ["{exp}"], "order_by": ["name ASC"], "max_results": 1}),
        ask("POST", "datasets/create", {"name": ""}),
        ask("POST", "datasets/create", {}),
        ask("DELETE", "datasets/{set}/records", {"dataset_record_ids": ["nobody"]}),
        ask("DELETE", "datasets/{set}", {}),
        ask("DELETE", "datasets/{set}", {}),
        get("datasets/{set}"),
    ],
    "scorers": [
        experiment("scorers"),
        ask("POST", "scorers/register", {"experiment_id": "{exp}", "name": "sc", "serialized_scorer": _SCORER}),
        ask("POST", "scorers/register", {"experiment_id": "{exp}", "name": "sc", "serialized_scorer": _SCORER}),
        ask("POST", "scorers/register", {"experiment_id": "{exp}", "name": "sc", "serialized_scorer": "x"}),
        ask("POST", "scorers/register", {"experiment_id": "99999", "name": "sc", "serialized_scorer": "{}"}),
        ask("POST", "scorers/register", {"experiment_id": "{exp}", "name": "", "serialized_scorer": "{}"}),
        but(
            ask(
                "POST",
                "scorers/register",
                {"experiment_id": "{exp}", "name": "c", "serialized_scorer": '{"call_source": "x"}'},
            ),
            "what can be done about it is another thing here",
            says="Custom scorer registration (using @scorer decorator) is disabled",
        )
        | {},
        get("scorers/list", experiment_id="{exp}"),
        get("scorers/versions", experiment_id="{exp}", name="sc"),
        get("scorers/versions", experiment_id="{exp}", name="nobody"),
        get("scorers/get", experiment_id="{exp}", name="sc"),
        get("scorers/get", experiment_id="{exp}", name="sc", version="1"),
        get("scorers/get", experiment_id="{exp}", name="sc", version="7"),
        get("scorers/get", experiment_id="{exp}"),
        ask("DELETE", "scorers/delete", {"experiment_id": "{exp}", "name": "sc", "version": 7}),
        ask("DELETE", "scorers/delete", {"experiment_id": "{exp}", "name": "sc", "version": 1}),
        ask("DELETE", "scorers/delete", {"experiment_id": "{exp}", "name": "sc"}),
        ask("DELETE", "scorers/delete", {"experiment_id": "{exp}", "name": "sc"}),
        get("scorers/list", experiment_id="{exp}"),
    ],
}
