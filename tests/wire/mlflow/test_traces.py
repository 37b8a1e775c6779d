"""Traces over HTTP, beyond the recorded answers: spans by protobuf, in any order and number, and what means harm."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flyball.platform import Platform
from flyball.wire.mlflow import otlp
from tests.wire.mlflow.serving import served

_V3 = "/api/3.0/mlflow/traces"
_PROTOBUF = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}
_JSON = {"content-type": "application/json", "x-mlflow-experiment-id": "0"}
_PLACE = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with closing(Platform.open(tmp_path_factory.mktemp("traces") / "home")) as platform, served(platform) as client:
        yield client


def request_of(*spans: dict[str, Any]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for given in spans:
        span = scope.spans.add()
        span.trace_id, span.span_id = bytes.fromhex(given["trace"]), bytes.fromhex(given["id"])
        if given.get("parent"):
            span.parent_span_id = bytes.fromhex(given["parent"])
        span.name = given.get("name", "step")
        span.start_time_unix_nano = given.get("start", 1_700_000_000_000_000_000)
        span.end_time_unix_nano = given.get("end", 1_700_000_001_000_000_000)
        for key, value in given.get("usage", {}).items():
            _usage(span, key, value)
        for key, text in given.get("texts", {}).items():
            attribute = span.attributes.add()
            attribute.key, attribute.value.string_value = key, text
    return request


def _usage(span: Any, key: str, value: dict[str, int]) -> None:
    attribute = span.attributes.add()
    attribute.key = key
    for name, tokens in value.items():
        pair = attribute.value.kvlist_value.values.add()
        pair.key, pair.value.int_value = name, tokens


def send(client: httpx2.Client, *spans: dict[str, Any], **headers: str) -> httpx2.Response:
    return client.post("/v1/traces", content=request_of(*spans).SerializeToString(), headers={**_PROTOBUF, **headers})


def told(client: httpx2.Client, trace: str) -> dict[str, Any]:
    info: dict[str, Any] = client.get(f"{_V3}/tr-{trace}").json()["trace"]["trace_info"]
    return info


def span_id(number: int) -> str:
    return f"{number + 1:016x}"


def test_spans_come_by_protobuf_plain_and_compressed(client: httpx2.Client) -> None:
    body = request_of(
        {"trace": "a1" * 16, "id": span_id(0), "name": "näme 😀", "texts": {"k": "v\0w"}}
    ).SerializeToString()
    raw = zlib.compressobj(wbits=-15)
    for encoding, packed in (
        ("", body),
        ("gzip", gzip.compress(body)),
        ("deflate", zlib.compress(body)),
        ("deflate", raw.compress(body) + raw.flush()),
    ):
        headers = _PROTOBUF | ({"content-encoding": encoding} if encoding else {})
        answer = client.post("/v1/traces", content=packed, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "application/x-protobuf"
    whole = client.get(f"{_V3}/get", params={"trace_id": "tr-" + "a1" * 16}).json()["trace"]
    (span,) = whole["spans"]  # sent four times, kept once
    assert span["name"] == "näme 😀"
    assert {"key": "k", "value": {"string_value": "v\0w"}} in span["attributes"]
    assert whole["trace_info"]["tags"]["mlflow.traceName"] == "näme 😀"


def test_usage_is_of_the_whole_tree_however_its_spans_arrive(client: httpx2.Client) -> None:
    leaf = {"mlflow.chat.tokenUsage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}}
    sum_of_leaves = {"mlflow.chat.tokenUsage": {"input_tokens": 6, "output_tokens": 8, "total_tokens": 14}}
    trace = "a2" * 16
    send(client, {"trace": trace, "id": span_id(2), "parent": span_id(1), "usage": leaf})
    assert json.loads(told(client, trace)["trace_metadata"]["mlflow.trace.tokenUsage"])["total_tokens"] == 7
    send(client, {"trace": trace, "id": span_id(3), "parent": span_id(1), "usage": leaf})
    assert json.loads(told(client, trace)["trace_metadata"]["mlflow.trace.tokenUsage"])["total_tokens"] == 14
    send(client, {"trace": trace, "id": span_id(1), "name": "agent", "usage": sum_of_leaves})
    assert json.loads(told(client, trace)["trace_metadata"]["mlflow.trace.tokenUsage"])["total_tokens"] == 14
    assert told(client, trace)["state"] == "OK"


def test_spans_in_many_requests_are_one_trace(client: httpx2.Client) -> None:
    trace, count = "a3" * 16, 70
    for number in reversed(range(count)):
        begin = 1_700_000_000_000_000_000 + number * 1_000_000
        parent = {"parent": span_id(0)} if number else {}
        assert send(client, {"trace": trace, "id": span_id(number), "start": begin, **parent}).status_code == 200
    spans = client.get(f"{_V3}/get", params={"trace_id": f"tr-{trace}"}).json()["trace"]["spans"]
    starts = [span["start_time_unix_nano"] for span in spans]
    assert len(spans) == count
    assert starts == sorted(starts)
    assert told(client, trace)["execution_duration"] == "1s"


def test_pages_hold_every_trace_once_while_others_arrive(client: httpx2.Client) -> None:
    experiment = client.post("/api/2.0/mlflow/experiments/create", json={"name": "pages"}).json()["experiment_id"]
    place = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}]

    def tell(number: int, at: str) -> None:
        info = {"trace_id": f"tr-p{number:03}", "trace_location": place[0], "request_time": at, "state": "OK"}
        assert client.post(_V3, json={"trace": {"trace_info": info}}).status_code == 200

    for number in range(23):
        tell(number, f"2024-01-01T00:00:0{number % 3}Z")
    for asked in ({}, {"order_by": ["timestamp_ms ASC"]}, {"filter": "tag.x IS NULL"}):
        found: list[str] = []
        token: str | None = None
        while True:
            body = {"locations": place, "max_results": 5, **asked, **({"page_token": token} if token else {})}
            page = client.post(f"{_V3}/search", json=body).json()
            found += [one["trace_id"] for one in page["traces"]]
            token = page.get("next_page_token")
            if token is None:
                break
            if not asked.get("order_by"):
                tell(100 + len(found), "2024-06-01T00:00:00Z")  # newer: not on the pages behind
        older = [id for id in found if id < "tr-p1"]
        assert sorted(older) == [f"tr-p{n:03}" for n in range(23)], asked
        assert len(found) == len(set(found))


def test_account_and_spans_may_arrive_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from flyball.ledger.traces import Trace
    from flyball.llm.spans import Span

    with closing(Platform.open(tmp_path / "home")) as platform, ThreadPoolExecutor(8) as threads:
        ids = [f"{number:032x}" for number in range(1, 41)]
        jobs = []
        for id in ids:
            account = Trace(f"tr-{id}", "0", 1000, 500, "OK", tags={"k": "v"})
            spans = [Span(id, span_id(n), "s", 10**18, 2 * 10**18, parent=span_id(0) if n else None) for n in range(3)]
            jobs.append(threads.submit(platform.tell_trace, account))
            jobs += [threads.submit(platform.add_spans, "0", [span]) for span in spans]
        for job in jobs:
            job.result()
        for id in ids:
            trace = platform.trace(f"tr-{id}")
            assert (trace.at_ms, trace.took_ms, trace.state, trace.span_count) == (1000, 500, "OK", 3)
            assert trace.tags["k"] == "v"
        assert all(len(spans) == 3 for spans in platform.trace_spans([f"tr-{id}" for id in ids]).values())


def test_a_bomb_is_refused_before_it_takes_memory() -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    with pytest.raises(Exception, match="larger than 4,194,304 bytes when decompressed"):
        otlp.decompressed(bomb, "gzip", 4 << 20)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 24 << 20


def test_a_stream_that_ends_early_is_refused(client: httpx2.Client) -> None:
    cut = gzip.compress(request_of({"trace": "a4" * 16, "id": span_id(0)}).SerializeToString())[:-9]
    answer = client.post("/v1/traces", content=cut, headers=_PROTOBUF | {"content-encoding": "gzip"})
    assert answer.status_code == 400
    assert client.get(f"{_V3}/tr-{'a4' * 16}").status_code == 404


def test_deep_values_are_refused(client: httpx2.Client) -> None:
    deep: dict[str, Any] = {"stringValue": "x"}
    for _ in range(200):
        deep = {"arrayValue": {"values": [deep]}}
    span = {"traceId": "a5" * 16, "spanId": span_id(0), "name": "n", "attributes": [{"key": "k", "value": deep}]}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    assert client.post("/v1/traces", json=body, headers=_JSON).status_code == 400
    nested = "[" * 100_000 + "]" * 100_000
    assert client.post("/v1/traces", content=nested, headers=_JSON).status_code == 400
    told = {"assessment": {"assessment_name": "n", "feedback": {"value": json.loads("[" * 500 + "]" * 500)}}}
    assert client.post(f"{_V3}/tr-x/assessments", json=told).status_code == 400


def test_a_million_attributes_are_refused_and_nothing_is_kept(client: httpx2.Client) -> None:
    request = request_of({"trace": "a6" * 16, "id": span_id(0)})
    one = request.resource_spans[0].scope_spans[0].spans[0]
    for number in range(10_001):
        one.attributes.add().key = str(number)
    good = request_of({"trace": "a7" * 16, "id": span_id(0)})
    good.MergeFrom(request)
    answer = client.post("/v1/traces", content=good.SerializeToString(), headers=_PROTOBUF)
    assert answer.status_code == 413
    assert client.get(f"{_V3}/tr-{'a7' * 16}").status_code == 404


@pytest.mark.parametrize("field", ["trace_id", "span_id", "parent_span_id"])
@pytest.mark.parametrize("length", [1, 7, 4096])
def test_ids_of_another_length_are_refused(client: httpx2.Client, field: str, length: int) -> None:
    request = request_of({"trace": "a8" * 16, "id": span_id(0)})
    setattr(request.resource_spans[0].scope_spans[0].spans[0], field, b"x" * length)
    assert client.post("/v1/traces", content=request.SerializeToString(), headers=_PROTOBUF).status_code == 422


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("request_time", "yesterday"),
        ("request_time", "2024-13-01T00:00:00Z"),
        ("request_time", "99999-01-01T00:00:00Z"),
        ("request_time", 7),
        ("execution_duration", "1h"),
        ("execution_duration", "9" * 400 + "s"),
        ("trace_id", "x" * 251),
        ("trace_id", ""),
        ("tags", {"k": 7}),
        ("tags", {"k": "a\0b"}),
        ("assessments", [{"assessment_name": "none"}]),
        ("trace_location", {"type": "INFERENCE_TABLE"}),
    ],
)
def test_an_account_that_is_wrong_is_refused_whole(client: httpx2.Client, name: str, wrong: Any) -> None:
    info = {"trace_id": "tr-wrong", "trace_location": _PLACE, "request_time": "2024-01-01T00:00:00Z", name: wrong}
    answer = client.post(_V3, json={"trace": {"trace_info": info}})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert client.get(f"{_V3}/tr-wrong").status_code == 404


def test_the_largest_times_are_kept_and_shown(client: httpx2.Client) -> None:
    last = (1 << 64) - 1
    assert send(client, {"trace": "a9" * 16, "id": span_id(0), "start": last, "end": last}).status_code == 200
    assert send(client, {"trace": "aa" * 16, "id": span_id(0), "start": 0, "end": last}).status_code == 200
    assert told(client, "a9" * 16)["request_time"].startswith("2554-")
    assert told(client, "aa" * 16)["request_time"] == "1970-01-01T00:00:00Z"


def test_a_resource_sets_tags_but_none_of_ours(client: httpx2.Client) -> None:
    request = request_of({"trace": "ac" * 16, "id": span_id(0), "texts": {"mlflow.traceTag.team": "a"}})
    for key in ("mlflow.artifactLocation", "service.name", "x" * 251):
        attribute = request.resource_spans[0].resource.attributes.add()
        attribute.key, attribute.value.string_value = key, "evil"
    assert client.post("/v1/traces", content=request.SerializeToString(), headers=_PROTOBUF).status_code == 200
    tags = told(client, "ac" * 16)["tags"]
    assert tags["mlflow.artifactLocation"].startswith("mlflow-artifacts:/0/traces/")
    assert (tags["service.name"], tags["team"], len(tags)) == ("evil", "a", 5)


def test_files_of_an_old_client_are_kept_and_read_back(client: httpx2.Client) -> None:
    begun = client.post("/api/2.0/mlflow/traces", json={"experiment_id": "0", "timestamp_ms": 5}).json()["trace_info"]
    tags = {pair["key"]: pair["value"] for pair in begun["tags"]}
    path = tags["mlflow.artifactLocation"].removeprefix("mlflow-artifacts:/")
    data = b'{"spans": [], "request": "q"}'
    kept = client.put(f"/api/2.0/mlflow-artifacts/artifacts/{path}/traces.json", content=data)
    assert kept.status_code == 200
    asked = {"request_id": begun["request_id"]}
    assert client.get("/ajax-api/2.0/mlflow/get-trace-artifact", params=asked).content == data
    wrong = {**asked, "path": "../../secret"}
    assert client.get("/ajax-api/2.0/mlflow/get-trace-artifact", params=wrong).status_code == 400


@pytest.mark.parametrize(
    "records",
    ['{"a": 1}', "[7]", '[{"inputs": 7}]', '[{"inputs": {"a": "\\ud800"}}]', f'[{{"inputs": {{"a": {1 << 70}}}}}]'],
)
def test_records_that_cannot_be_kept_are_refused(client: httpx2.Client, records: str) -> None:
    made = client.post("/api/3.0/mlflow/datasets/create", json={"name": "set"}).json()["dataset"]["dataset_id"]
    answer = client.post(f"/api/3.0/mlflow/datasets/{made}/records", json={"records": records})
    assert answer.status_code == 400
    assert json.loads(client.get(f"/api/3.0/mlflow/datasets/{made}/records").json()["records"]) == []


def test_records_are_paged_in_order(client: httpx2.Client) -> None:
    path = "/api/3.0/mlflow/datasets"
    made = client.post(f"{path}/create", json={"name": "paged"}).json()["dataset"]["dataset_id"]
    given = [{"inputs": {"q": number}} for number in range(7)]
    assert client.post(f"{path}/{made}/records", json={"records": json.dumps([*given, given[0]])}).json() == {
        "inserted_count": 7,
        "updated_count": 1,
    }
    found: list[int] = []
    asked: dict[str, Any] = {"max_results": 3}
    while True:
        page = client.get(f"{path}/{made}/records", params=asked).json()
        found += [record["inputs"]["q"] for record in json.loads(page["records"])]
        if "next_page_token" not in page:
            break
        asked["page_token"] = page["next_page_token"]
    assert sorted(found) == list(range(7))
    assert client.get(f"{path}/{made}/records", params={"page_token": "junk"}).status_code == 400


def test_spans_without_an_experiment_that_is_there_are_refused(client: httpx2.Client) -> None:
    for experiment, status in (("99999", 404), ("abc", 400), ("-1", 400), ("9" * 30, 400)):
        answer = send(client, {"trace": "ad" * 16, "id": span_id(0)}, **{"x-mlflow-experiment-id": experiment})
        assert answer.status_code == status
    assert client.get(f"{_V3}/tr-{'ad' * 16}").status_code == 404
