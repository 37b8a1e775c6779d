"""What is done with data over HTTP: a real server over a real home."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest

from flyball.governance.identity import Principal
from flyball.platform import Platform
from tests.wire.test_native import Server

CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0", "kind": "DataContract", "id": "flights", "version": "1.0.0", "status": "active",
    "schema": [{"name": "flights", "properties": [
        {"name": "id", "logicalType": "integer", "primaryKey": True},
        {"name": "delay", "logicalType": "number", "logicalTypeOptions": {"minimum": 0}},
        {"name": "tailnum", "logicalType": "string"}]}],
}  # fmt: skip


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with closing(Platform.open(tmp_path_factory.mktemp("data") / "home")) as opened:
        columns = {"tailnum": {"classification": "personal"}}
        opened.declare("dataset", "flights", key=["id"], columns=columns, contract=CONTRACT, description="Departures")
        opened.declare("dataset", "late")
        opened.declare("data-product", "flights", outputs=[{"name": "rows", "dataset": "flights"}])
        opened.publish("flights", {"id": [1, 2], "delay": [5.0, 0.0], "tailnum": ["N1", "N2"]})
        yield opened


@pytest.fixture
def api(platform: Platform) -> Iterator[httpx2.Client]:
    running = Server(platform)
    with httpx2.Client(base_url=running.address, timeout=20) as client:
        yield client
    running.stop()


def records(*rows: tuple[int, float, str]) -> list[dict[str, Any]]:
    return [dict(zip(("id", "delay", "tailnum"), row, strict=True)) for row in rows]


def test_rows_are_published_read_and_compared(api: httpx2.Client) -> None:
    more = records((2, 9.5, "N2"), (3, 1.5, "N3"))
    made = api.post("/api/data/flights", json={"records": more, "mode": "upsert", "note": "day two"})
    assert made.status_code == 201, made.text
    assert made.json()["changes"] == {"inserted": 1, "updated": 1, "unchanged": 0, "repeats": 0}
    assert made.json()["version"]["number"] == 2 and made.json()["contract"]["passed"]
    page = api.get("/api/data/flights/rows", params={"limit": 2, "columns": ["id", "delay"]}).json()
    assert page == {"items": [{"id": 1, "delay": 5.0}, {"id": 2, "delay": 9.5}], "next": 2}
    assert api.get("/api/data/flights/rows", params={"offset": 2, "version": "2"}).json()["items"][0]["id"] == 3
    assert api.get("/api/data/flights/rows", params={"at": "2999-01-01T00:00:00Z"}).json()["next"] is None
    told = api.get("/api/data/flights/diff", params={"before": 1}).json()
    assert (told["added"], told["changed"], told["key"]) == (1, 1, ["id"])
    assert api.get("/api/data/flights/diff?before=1&key=").json()["removed"] == 1
    profile = api.get("/api/data/flights/profile?version=1").json()
    assert profile["rows"] == 2 and profile["columns"]["delay"]["mean"] == 2.5
    assert [c["name"] for c in api.get("/api/data/flights/compare?before=1").json()["items"]][:1] == ["id"]
    for method in ("profile", "exact"):
        drift = api.get("/api/data/flights/drift", params={"before": 1, "columns": "delay", "method": method}).json()
        assert [c["column"] for c in drift["items"]] == ["delay"] and drift["items"][0]["w1"] > 0
    assert "user/" in str(api.get("/api/data/flights/uses").json()["items"])
    sql = api.post("/api/data/late", json={"sql": "select id from flights where delay > 6"})
    assert ["dataset/flights@2", "id", "direct"] in sql.json()["version"]["metadata"]["columns"]["id"]


def test_a_batch_is_kept_aside_and_then_fixed_released_or_dropped(api: httpx2.Client) -> None:
    def break_it(number: int) -> None:
        refused = api.post("/api/data/flights", json={"records": records((number, -1.0, "N9")), "mode": "append"})
        assert refused.status_code == 400
        assert f"it was kept whole as quarantine/flights@{number - 3}" in refused.json()["error"]

    for number in (4, 5, 6):
        break_it(number)
    assert [b["number"] for b in api.get("/api/quarantine").json()["items"]] == [3, 2, 1]
    assert api.get("/api/quarantine/flights/1").json()["contract"]["rows_failed"] == 1
    (row,) = api.get("/api/quarantine/flights/1/rows").json()["items"]
    assert row["_failed"] == ["delay.range"]
    fixed = api.post("/api/quarantine/flights/1/fix", json={"set": {"delay": "abs(delay)"}, "reason": "a sign"})
    assert fixed.json()["ref"] == "dataset/flights@2"
    fixed = api.post("/api/quarantine/flights/2/fix", json={"records": records((5, 0.5, "N9"))})
    assert fixed.json()["metadata"]["rows"] == 4
    dropped = api.post("/api/quarantine/flights/3/drop", json={"reason": "a test row"})
    assert (dropped.json()["state"], dropped.json()["rows"]) == ("dropped", 0)
    assert api.post("/api/quarantine/flights/3/release", json={"reason": "after all"}).status_code == 409
    break_it(7)
    released = api.post("/api/quarantine/flights/4/release", json={"reason": "early birds"})
    assert "early birds" in released.json()["metadata"]["note"]
    assert [b["state"] for b in api.get("/api/quarantine/flights?state=dropped").json()["items"]] == ["dropped"]


def test_the_catalogue_is_searched_and_products_are_listed(api: httpx2.Client, platform: Platform) -> None:
    assert "dataset/flights" in [h["ref"] for h in api.get("/api/search", params={"q": "departures"}).json()["items"]]
    first = api.get("/api/search?limit=1").json()
    assert api.get("/api/search", params={"limit": 1, "after": first["next"]}).json()["items"] != first["items"]
    assert [p["name"] for p in api.get("/api/products").json()["items"]] == ["flights"]
    assert api.get("/api/products/flights").json()["stage"] == "proposed"
    platform.declare("dataset", "own", source={"files": "none.csv"})
    found = api.get("/api/data/own/probe").json()
    assert not found["good"] and not found["reachable"] and "none.csv" in found["problems"][0]


def test_every_route_stands_in_the_openapi_document_with_what_it_does(api: httpx2.Client) -> None:
    paths = api.get("/api/openapi.json").json()["paths"]
    begins = ("/api/data", "/api/quarantine", "/api/search", "/api/products")
    ours = {path: verbs for path, verbs in paths.items() if path.startswith(begins)}
    assert len(ours) >= 15
    assert all(verb.get("description") for verbs in ours.values() for verb in verbs.values())
    assert "/api/quarantine/{name}/{number}/fix" in api.get("/api").json()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/api/data/none/rows", None, 404, "dataset/none"),
        ("GET", "/api/data/flights/rows?version=9", None, 404, "there is no version 9"),
        ("GET", "/api/data/flights/rows?columns=dealy", None, 400, 'did you mean "delay"'),
        ("GET", "/api/data/flights/rows?at=monday", None, 400, "monday"),
        ("GET", "/api/data/flights/rows?limit=100000", None, 422, '"limit"'),
        ("GET", "/api/data/flights/diff", None, 422, '"before": field required'),
        ("GET", "/api/data/flights/drift?before=1&method=guess", None, 422, '"method"'),
        ("GET", "/api/quarantine/flights/9", None, 404, "quarantine/flights"),
        ("GET", "/api/quarantine?state=hold", None, 422, '"state"'),
        ("POST", "/api/data/late", {"sql": "/etc/passwd"}, 400, "is not a SELECT"),
        ("POST", "/api/data/late", {"sql": "select * from read_csv('/etc/passwd')"}, 400, "reads a file"),
        ("POST", "/api/data/late", {"sql": "select 1", "records": [{"a": 1}]}, 400, "not both"),
        ("POST", "/api/data/late", {"records": []}, 422, '"records"'),
        ("POST", "/api/data/late", {"source": "/etc/passwd"}, 422, '"source"'),
        ("POST", "/api/data/late", {}, 400, "has no source of its own"),
        ("POST", "/api/quarantine/flights/1/fix", {}, 400, "say what to change"),
        ("POST", "/api/quarantine/flights/1/drop", {"reason": "gone"}, 404, "quarantine/flights"),
        ("GET", "/api/products/none", None, 404, "none"),
    ],
)
def test_an_error_is_a_sentence_with_its_status(
    api: httpx2.Client, method: str, path: str, body: Any, status: int, says: str
) -> None:
    answer = api.request(method, path, json=body) if body is not None else api.request(method, path)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"] and says in answer.json()["error"]


def test_a_viewer_reads_masked_rows_and_publishes_nothing(platform: Platform) -> None:
    running = Server(platform.as_(Principal("user/vic", "viewer")))
    try:
        with httpx2.Client(base_url=running.address, timeout=20) as client:
            for path in ("rows", "profile", "diff?before=1", "compare?before=1"):
                answer = client.get(f"/api/data/flights/{path}")
                assert answer.status_code == 200 and "N1" not in answer.text
            assert client.post("/api/data/flights", json={"records": records((9, 1.0, "N"))}).status_code == 403
            assert client.post("/api/quarantine/flights/1/drop", json={"reason": "no reason"}).status_code == 403
    finally:
        running.stop()
