"""OpenLineage out and in, against the official schemas, the published events and the route of official clients."""

from __future__ import annotations

import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
from referencing import Registry, Resource

from flyball.errors import InvalidInput, Unavailable
from flyball.ledger.refs import Ref
from flyball.platform import Platform
from flyball.wire.openlineage.receiving import receive
from flyball.wire.openlineage.routes import add_lineage
from flyball.wire.openlineage.sending import Exporter, FileReceiver, HttpReceiver, OpenlineageSettings, receiver_of
from tests.wire.test_native import Server


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with closing(Platform.open(tmp_path / "home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def check(shared_data: Path) -> Any:
    """Validate an event against the core schema, and each facet against its own."""
    folder = shared_data / "fixtures" / "openlineage" / "schema"
    schemas = [json.loads(path.read_text()) for path in [folder / "OpenLineage.json", *(folder / "facets").glob("*")]]
    registry: Any = Registry().with_resources((s["$id"], Resource.from_contents(s)) for s in schemas)
    known = {schema["$id"]: schema for schema in schemas}

    def validate(event: dict[str, Any]) -> set[str]:
        core = known["https://openlineage.io/spec/2-0-2/OpenLineage.json"]
        jsonschema.Draft202012Validator(core, registry=registry, format_checker=jsonschema.FormatChecker()).validate(
            event
        )
        seen = set()
        holders = [event.get("run", {}), event.get("job", {}), *event.get("inputs", []), *event.get("outputs", [])]
        for holder in holders:
            for name, facet in {**holder.get("facets", {}), **holder.get("outputFacets", {})}.items():
                schema, _, pointer = facet["_schemaURL"].partition("#")
                if name.startswith("flyball_"):
                    continue
                part = {"$ref": f"{schema}#{pointer}"}
                jsonschema.Draft202012Validator(part, registry=registry).validate(facet)
                assert name in known[schema]["properties"], name
                seen.add(name)
        return seen

    return validate


def make_history(platform: Platform) -> None:
    notes = {"dest": {"description": "where to"}}
    platform.declare(
        "dataset", "flights", description="all flights", owner="team/ops", tags=["core"], columns=notes,
        contract={
            "kind": "DataContract", "apiVersion": "v3.1.0", "id": "f", "version": "1.0.0", "status": "active",
            "schema": [{"name": "f", "properties": [{"name": "dest", "logicalType": "string", "required": True}]}],
        },
    )  # fmt: skip
    flights = platform.publish("flights", [{"dest": "BQN", "delay": 3}, {"dest": "MIA", "delay": 9}]).version
    with platform.start_run("fit", of=None) as run:
        run.use(flights.ref)
        run.log(auc=0.7)
    with pytest.raises(ZeroDivisionError), platform.start_run("broken") as broken:
        broken.log(x=1 / 0)


def test_every_event_that_leaves_is_valid_and_tells_what_was_used_and_made(
    platform: Platform, tmp_path: Path, check: Any
) -> None:
    make_history(platform)
    out = tmp_path / "events.ndjson"
    exporter = Exporter(platform.ledger, FileReceiver(out), platform.home)
    assert exporter.run_once() == 5  # a publication; a start and an end of two runs
    events = [json.loads(line) for line in out.read_text().splitlines()]
    facets = set().union(*(check(event) for event in events))
    assert {"schema", "version", "dataQualityAssertions", "ownership", "tags", "documentation"} <= facets
    assert {"outputStatistics", "jobType", "processing_engine", "errorMessage"} <= facets
    assert [(e["eventType"], e["job"]["name"]) for e in events] == [
        ("COMPLETE", "publish/dataset/flights"),
        ("START", "training/fit"),
        ("COMPLETE", "training/fit"),
        ("START", "training/broken"),
        ("FAIL", "training/broken"),
    ]
    assert [i["name"] for i in events[2]["inputs"]] == ["flights"]
    assert events[1]["run"]["runId"] == events[2]["run"]["runId"]


def test_sending_goes_on_where_it_stopped(platform: Platform, tmp_path: Path) -> None:
    make_history(platform)
    out = tmp_path / "events.ndjson"
    first = Exporter(platform.ledger, FileReceiver(out), platform.home).run_once()
    assert Exporter(platform.ledger, FileReceiver(out), platform.home).run_once() == 0
    with platform.start_run("later"):
        pass
    assert Exporter(platform.ledger, FileReceiver(out), platform.home).run_once() == 2
    assert len(out.read_text().splitlines()) == first + 2


def test_a_receiver_that_is_down_loses_nothing(platform: Platform) -> None:
    make_history(platform)
    with receiving_server() as (url, got, answers):
        exporter = Exporter(platform.ledger, HttpReceiver(url, "${LINEAGE_KEY}"), platform.home)
        with pytest.raises(Unavailable, match="LINEAGE_KEY"):
            exporter.run_once()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LINEAGE_KEY", "s3cret")
            answers.extend([201, 503])
            with pytest.raises(Unavailable, match="503"):
                exporter.run_once()
            exporter.run_once()
    names = [body["job"]["name"] for _, body in got]
    assert {key for key, _ in got} == {"Bearer s3cret"}
    assert names.count("training/broken") == 2 and names[0] == "publish/dataset/flights"
    with pytest.raises(Unavailable, match="cannot be reached"):
        HttpReceiver(url, timeout_s=2).send([{}])


def test_settings_say_where_events_go(tmp_path: Path) -> None:
    assert receiver_of(OpenlineageSettings(), tmp_path) is None
    assert isinstance(receiver_of(OpenlineageSettings(file="x.ndjson"), tmp_path), FileReceiver)
    with pytest.raises(InvalidInput, match="choose one"):
        receiver_of(OpenlineageSettings(file="x", url="http://127.0.0.1"), tmp_path)
    with pytest.raises(InvalidInput, match="http://"):
        receiver_of(OpenlineageSettings(url="ftp://x"), tmp_path)


def test_all_published_events_are_taken_in(platform: Platform, shared_data: Path) -> None:
    folder = shared_data / "fixtures" / "openlineage"
    documents = [
        json.loads(path.read_text())
        for path in sorted((folder / "events").glob("*.json"))
        if "{{" not in path.read_text()
    ]
    documents += [json.loads(path.read_text()) for path in (folder / "facet_examples").glob("*.json")]
    for name in ("dbt_postgres_failed_run_ol_events.json", "marquez_food_delivery.template.json"):
        documents += filled(folder / "events" / name)
    assert len(documents) > 40
    for document in documents:
        with platform.recording() as world:
            receive(document, world, "flyball")
    names = {version.metadata["name"] for version in platform.versions("external")}
    assert {"my-dataset-name", "public.delivery_7_days"} <= names and len(names) > 20
    failed = [run.name for run in platform.runs(kind="external", limit=1000) if run.status == "failed"]
    assert any("jaffle_shop" in name for name in failed)


def filled(path: Path) -> list[dict[str, Any]]:
    """Return events whose placeholders are filled: a run's id by its job, a time by one of the day."""

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(one) for one in value]
        if not isinstance(value, dict):
            return "2024-01-01T00:00:00Z" if isinstance(value, str) and "{{" in value else value
        if "run" in value and "job" in value and "runId" in value["run"]:
            value["run"]["runId"] = str(uuid.uuid5(uuid.NAMESPACE_URL, value["job"]["name"]))
        return {key: walk(one) for key, one in value.items()}

    missing = {"producer": "https://example.org", "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json"}
    return [{**missing, **walk(event)} for event in json.loads(path.read_text())]


def event(kind: str, **parts: Any) -> dict[str, Any]:
    return {
        "eventType": kind,
        "eventTime": "2024-05-01T10:00:00+02:00",
        "producer": "https://example.org/dbt",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": "ea041791-68bc-4ae1-bd89-4c8106a157e4"},
        "job": {"namespace": "dbt", "name": "daily Überblick"},
        "inputs": [{"namespace": "postgres://db:5432", "name": "public.orders"}],
        **parts,
    }


def test_events_in_any_order_and_twice_make_one_run_and_one_graph(platform: Platform) -> None:
    out = [{"namespace": "postgres://db:5432", "name": "public.totals"}]
    for document in (event("COMPLETE", outputs=out), event("START"), event("COMPLETE", outputs=out)):
        with platform.recording() as world:
            received = receive(document, world, "flyball")
    [run] = platform.runs(kind="external")
    assert run.status == "succeeded" and run.name == "daily Überblick"
    assert [v.number for v in platform.versions("external")] == [1, 1]
    before = platform.lineage(received.outputs[0], "upstream").nodes
    assert {str(run.ref), str(received.inputs[0])} <= set(before)


def test_a_job_elsewhere_that_reads_ours_joins_the_same_graph(platform: Platform) -> None:
    platform.declare("dataset", "flights")
    version = platform.publish("flights", [{"x": 1}]).version
    ours = {"namespace": "flyball", "name": "flights", "facets": {"version": {"datasetVersion": "1"}}}
    with platform.recording() as world:
        received = receive(event("COMPLETE", inputs=[ours]), world, "flyball")
    assert received.inputs == (version.ref,)
    assert str(received.run) in platform.lineage(version.ref, "downstream").nodes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eventTime": "yesterday"}, "eventTime"),
        ({"producer": None}, "producer"),
        ({"eventType": "COMPLETED"}, 'did you mean "COMPLETE"'),
        ({"run": {"runId": "../../etc"}}, "UUID"),
        ({"run": []}, "run is a list"),
        ({"job": {"namespace": "x"}}, "job.name"),
        ({"inputs": "orders"}, "inputs is a str"),
        ({"inputs": [{"name": "x"}]}, r"inputs\[0\].namespace"),
        ({"inputs": [{"namespace": "n", "name": "x" * 2000}]}, "2000 characters"),
        ({"inputs": [{"namespace": "n", "name": "x"}] * 1001}, "at most 1000"),
    ],
)
def test_what_is_no_event_is_refused_by_its_field(platform: Platform, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words), platform.recording() as world:
        receive(event("START", **change), world, "flyball")
    assert platform.runs() == []


def test_others_cannot_speak_for_a_run_of_ours(platform: Platform) -> None:
    with platform.start_run("fit") as run:
        pass
    with pytest.raises(InvalidInput, match="run of ours"), platform.recording() as world:
        receive(event("FAIL", run={"runId": run.id}), world, "flyball")


def test_the_route_is_where_clients_send_to(platform: Platform) -> None:
    server = Server(platform)
    add_lineage(server.app, platform, "flyball")
    try:
        with httpx2.Client(base_url=server.address, timeout=20) as client:
            answer = client.post("/api/v1/lineage", json=event("START"))
            assert answer.status_code == 201, answer.text
            assert answer.json()["run"] == str(Ref("run", "ea04179168bc4ae1bd894c8106a157e4"))
            refused = client.post("/api/v1/lineage", json=event("STRAT"))
            assert refused.status_code == 400 and "START" in refused.text
    finally:
        server.stop()


@contextmanager
def receiving_server() -> Iterator[tuple[str, list[tuple[str | None, dict[str, Any]]], list[int]]]:
    """A receiver that keeps what it gets and answers as told, else 201."""
    got: list[tuple[str | None, dict[str, Any]]] = []
    answers: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = answers.pop(0) if answers else 201
            if status < 300:
                got.append((self.headers["authorization"], json.loads(body)))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api/v1/lineage", got, answers
    finally:
        server.shutdown()
        server.server_close()
