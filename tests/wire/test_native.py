"""The control plane's API over HTTP: a real server over a real home."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest
import uvicorn

from flyball.clock import format_instant
from flyball.governance.identity import Principal
from flyball.ledger.refs import Ref
from flyball.platform import MAY, Platform
from flyball.wire.native.app import make_app
from flyball.wire.native.guard import BODY_BYTES


class Server:
    """The application on a free port, in a thread."""

    def __init__(self, platform: Platform, **options: Any) -> None:
        self.app = make_app(platform, **options)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(self.app, log_config=None, timeout_graceful_shutdown=3)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.app.state.changes.close()
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with closing(Platform.open(tmp_path_factory.mktemp("api") / "home")) as opened:
        opened.declare("dataset", "flights", target="late")
        opened.declare("model", "late", dataset="flights")
        opened.declare("deployment", "late", model="late")
        opened.declare("pipeline", "late", function="pipelines.py:late", params={"depth": 6})
        opened.publish("flights", [{"carrier": "UA", "late": 0}, {"carrier": "AA", "late": 1}])
        opened.publish("flights", [{"carrier": "UA", "late": 1}])
        with opened.start_run("fit", params={"depth": 6}, of="pipeline/late") as run:
            run.log(auc=0.5, step=1)
            run.log(auc=float("nan"), step=2)
            run.artifact("notes/a.html", b"<script>alert(1)</script>")
            run.use(Ref("dataset", "flights", "1"))
        yield opened


@pytest.fixture(scope="module")
def server(platform: Platform) -> Iterator[Server]:
    running = Server(platform)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.address, timeout=20) as client:
        yield client


def test_resources_are_listed_by_kind_and_page_by_page(api: httpx2.Client) -> None:
    whole = [item["ref"] for item in api.get("/api/resources").json()["items"]]
    assert whole == ["dataset/flights", "deployment/late", "model/late", "pipeline/late"]
    assert [i["ref"] for i in api.get("/api/resources", params={"kind": "Models"}).json()["items"]] == ["model/late"]
    paged: list[str] = []
    params: dict[str, Any] = {"limit": 1}
    while True:
        page = api.get("/api/resources", params=params).json()
        paged += [item["ref"] for item in page["items"]]
        if page["next"] is None:
            break
        params["before"] = page["next"]
    assert paged == whole
    one = api.get("/api/resources/dataset/flights").json()
    assert (one["state"], one["spec"], one["revision"]) == ("declared", {"target": "late"}, 1)


def test_declarations_are_planned_applied_and_deleted(api: httpx2.Client) -> None:
    wanted = [{"kind": "Model", "name": "price", "metric": "rmse"}]
    planned = api.post("/api/plan", json={"documents": wanted}).json()["changes"]
    assert [(c["action"], c["ref"]) for c in planned] == [("create", "model/price")]
    assert api.get("/api/resources/model/price").status_code == 404
    assert api.post("/api/apply", json=wanted).json()["changes"] == planned
    assert api.post("/api/apply", json=wanted[0]).json()["changes"][0]["action"] == "keep"
    assert api.delete("/api/resources/model/price").json() == {"deleted": ["model/price"]}


def test_runs_are_read_whole_with_metrics_artifacts_and_log(api: httpx2.Client) -> None:
    (run,) = api.get("/api/runs", params={"name": "fit"}).json()["items"]
    assert "environment" not in run
    whole = api.get(f"/api/runs/{run['id'][:8]}").json()
    assert whole["environment"]["python"]
    assert whole["params"] == {"depth": 6}
    points = api.get(f"/api/runs/{run['id']}/metrics/auc").json()["items"]
    assert [(p["step"], p["value"]) for p in points] == [(1, 0.5), (2, None)]
    (artifact,) = api.get(f"/api/runs/{run['id']}/artifacts").json()["items"]
    file = api.get(f"/api/runs/{run['id']}/artifacts/{artifact['path']}")
    assert file.content == b"<script>alert(1)</script>"
    assert file.headers["content-disposition"].startswith("attachment")
    assert file.headers["content-type"] == "application/octet-stream"
    assert api.get(f"/api/runs/{run['id']}/log").status_code == 200


def test_a_pipeline_run_is_queued_and_runs_page_by_id(api: httpx2.Client, platform: Platform) -> None:
    queued = api.post("/api/runs", json={"pipeline": "late", "params": {"depth": 8}})
    assert queued.status_code == 201
    assert (queued.json()["status"], queued.json()["params"]) == ("pending", {"depth": 8})
    assert platform.run(queued.json()["id"]).of == "pipeline/late"
    whole = [r["id"] for r in api.get("/api/runs").json()["items"]]
    first = api.get("/api/runs", params={"limit": 1}).json()
    rest = api.get("/api/runs", params={"before": first["next"]}).json()
    assert [r["id"] for r in first["items"] + rest["items"]] == whole
    assert [r["status"] for r in api.get("/api/runs?status=pending&status=running").json()["items"]] == ["pending"]


def test_versions_carry_their_aliases_and_lineage_is_a_graph(api: httpx2.Client, platform: Platform) -> None:
    with platform.ledger.write("user/ann") as world:
        world.versions.set_alias("dataset", "flights", "golden", 1)
    found = api.get("/api/versions/dataset/flights").json()["items"]
    assert [(v["number"], v["aliases"]) for v in found] == [(2, []), (1, ["golden"])]
    assert api.get("/api/versions/dataset/flights@golden").json()["number"] == 1
    older = api.get("/api/versions/dataset/flights", params={"before": 2}).json()["items"]
    assert [v["number"] for v in older] == [1]
    assert [v["ref"] for v in api.get("/api/versions/dataset").json()["items"]][:1] == ["dataset/flights@2"]
    graph = api.get("/api/lineage/dataset/flights@1").json()
    assert [(e["source"], e["role"]) for e in graph["edges"]] == [("dataset/flights@1", "used by")]
    assert graph["root"] == "dataset/flights@1"


def test_events_and_causes_are_told_in_sentences(api: httpx2.Client) -> None:
    page = api.get("/api/events", params={"ref": "model/late", "limit": 1}).json()
    assert page["items"][0]["sentence"].startswith("model/late was declared by ")
    found = api.get("/api/why/dataset/flights@2").json()
    assert found["story"][0].startswith("flights@2 was published with 1 rows by ")
    assert [e["ref"] for e in found["items"]] == ["dataset/flights@2"]


def test_labels_are_written_all_or_none(api: httpx2.Client) -> None:
    good = {"id": "a" * 32, "label": 1}
    assert api.post("/api/labels", json={"labels": [good]}).json() == {"labelled": 1}
    wrong = api.post("/api/labels", json={"labels": [good, {"id": "", "label": 1}]})
    assert wrong.status_code == 400


ERRORS = [
    ("GET", "/api/nothing", None, 404, "there is nothing at /api/nothing"),
    ("PUT", "/api/plan", {}, 405, "PUT is not for /api/plan; use POST"),
    ("GET", "/api/resources?limit=0", None, 422, '"limit": input should be greater than or equal to 1'),
    ("GET", "/api/resources?kind=modles", None, 400, 'unknown kind "modles"'),
    ("GET", "/api/resources/model/none", None, 404, 'there is no model "none" (there are: late)'),
    ("GET", "/api/resources/model/a%2Fb", None, 404, "there is nothing at"),
    ("DELETE", "/api/resources/model/late", None, 409, "model/late cannot be deleted: deployment/late refers to it"),
    ("POST", "/api/plan", b"{x", 422, "the body is not JSON"),
    ("POST", "/api/plan", [], 400, "the body has no documents"),
    ("POST", "/api/plan", [7], 400, "document 1: expected fields such as `kind: Dataset`, got int"),
    ("POST", "/api/apply", [{"kind": "Model", "name": "x", "metrc": "auc"}], 400, "document 1: model/x: unknown field"),
    ("POST", "/api/runs", {"pipeline": "none"}, 404, 'there is no pipeline "none"'),
    ("POST", "/api/runs", {"pipelin": "late"}, 422, '"pipeline": field required'),
    ("GET", "/api/runs/zzzz", None, 404, 'there is no run "zzzz"'),
    ("GET", "/api/runs?status=done", None, 400, '"done" is no status of a run'),
    ("GET", "/api/versions/model/none@3", None, 404, "there is no version 3 of model/none (it has no version yet)"),
    ("GET", "/api/why/model/none", None, 404, "the journal knows nothing of model/none"),
    ("GET", "/api/lineage/none", None, 400, '"none" is not a reference'),
    ("POST", "/api/rollback/late", None, 409, "deployment/late has no rollout to end"),
    ("POST", "/api/approve", {"ref": "late@9"}, 404, "there is no version 9 of model/late"),
    ("POST", "/api/labels", {"labels": []}, 422, '"labels": list should have at least 1 item'),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "begins"), ERRORS, ids=lambda v: str(v)[:40])
def test_an_error_is_a_sentence_with_its_status(
    api: httpx2.Client, method: str, path: str, body: Any, status: int, begins: str
) -> None:
    headers = {"Content-Type": "application/json"}
    given = {"content": body} if isinstance(body, bytes) else {} if body is None else {"json": body}
    answer = api.request(method, path, headers=headers if isinstance(body, bytes) else {}, **given)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(begins)


def test_an_unforeseen_error_keeps_its_inside_to_itself(
    api: httpx2.Client, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(platform, "resource", fail)
    answer = api.get("/api/resources/model/late")
    assert (answer.status_code, answer.json()) == (
        500,
        {"error": "an internal error; the control plane's log says more"},
    )


def test_who_may_not_is_told_so(platform: Platform) -> None:
    viewer = Server(platform.as_(Principal("user/vic", "viewer")))
    try:
        answer = httpx2.post(f"{viewer.address}/api/apply", json=[{"kind": "Model", "name": "x"}])
        assert answer.status_code == 403
        assert answer.json()["error"] == f"user/vic is viewer and may not apply; that needs {MAY['apply']}"
        assert httpx2.get(f"{viewer.address}/api/resources").status_code == 200
    finally:
        viewer.stop()


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ({"Host": "evil.example"}, "GET", 421),
        ({"Host": "evil.example:80"}, "POST", 421),
        ({"Host": "127.0.0.1.evil.example"}, "GET", 421),
        ({"Host": "10.0.0.1"}, "GET", 421),
        ({"Host": ""}, "GET", 421),
        ({"Host": "localhost:1"}, "GET", 200),
        ({"Host": "[::1]:7070"}, "GET", 200),
        ({"Host": "pages.localhost"}, "GET", 200),
        ({"Origin": "http://evil.example"}, "GET", 200),
        ({"Origin": "http://evil.example"}, "POST", 403),
        ({"Origin": "null"}, "POST", 403),
        ({"Sec-Fetch-Site": "cross-site"}, "POST", 403),
    ],
    ids=str,
)
def test_other_sites_reach_nothing(api: httpx2.Client, headers: dict[str, str], method: str, status: int) -> None:
    body = [{"kind": "Model", "name": "late"}] if method == "POST" else None
    path = "/api/plan" if method == "POST" else "/api/resources"
    answer = api.request(method, path, headers=headers, json=body)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_page_of_our_own_may_write(api: httpx2.Client, server: Server) -> None:
    answer = api.post("/api/plan", json=[{"kind": "Model", "name": "late"}], headers={"Origin": server.address})
    assert answer.status_code == 200


def test_a_body_over_the_limit_is_refused_with_or_without_its_length(api: httpx2.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(BODY_BYTES // 65_536 + 2):
            yield b" " * 65_536

    headers = {"Content-Type": "application/json"}
    for content in (b" " * (BODY_BYTES + 1), chunks()):
        try:
            answer = api.post("/api/apply", content=content, headers=headers)
        except httpx2.TransportError:
            continue  # the server may hang up while we still send, as RFC 9110 §15.5.14 allows
        assert answer.status_code == 413
    assert api.get("/health").status_code == 200


def test_many_pages_hear_of_a_change_at_once(server: Server, platform: Platform) -> None:
    before = platform.last_event()
    heard: list[list[Any]] = [[] for _ in range(60)]
    connected = threading.Barrier(61)

    def listen(own: list[Any]) -> None:
        with httpx2.stream("GET", f"{server.address}/api/changes", timeout=20) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    own.append(json.loads(line.removeprefix("data: ")))
                    if len(own) == 1:
                        connected.wait(20)
                    if len(own) == 2:
                        break

    pages = [threading.Thread(target=listen, args=(own,), daemon=True) for own in heard]
    for page in pages:
        page.start()
    connected.wait(20)
    assert httpx2.get(f"{server.address}/api/resources", timeout=20).status_code == 200  # the pool is not used up
    platform.declare("model", "heard")
    for page in pages:
        page.join(20)
    assert heard == [[before, {"last": before + 1, "refs": ["model/heard"]}]] * 60


def test_metrics_are_prometheus_text_and_count_what_ends(api: httpx2.Client, platform: Platform) -> None:
    def read() -> dict[str, float]:
        text = api.get("/metrics").text
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    before = read()
    with platform.start_run("counted"):
        pass
    after = read()
    assert after["flyball_events_total"] == platform.last_event()
    finished = 'flyball_runs_finished_total{status="succeeded"}'
    assert after[finished] == before[finished] + 1
    assert after['flyball_runs{status="running"}'] == 0


def test_health_and_times_are_as_documented(api: httpx2.Client, platform: Platform) -> None:
    assert api.get("/api/health").json()["status"] == "ok"
    assert api.get("/health").text == "OK"
    assert api.head("/health").status_code == 200
    made = platform.resource("model/late").created_at
    assert made is not None
    assert api.get("/api/resources/model/late").json()["created_at"] == format_instant(made)
    assert "/api/runs/{id}" in api.get("/api").json()
