"""Promotion requests, history, cards and risk assessments over the API, as a client of it sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest

from flyball.governance.identity import Principal
from flyball.platform import Platform
from tests.wire.test_native import Server

STAGES = [{"name": "lab"}, {"name": "field", "alias": "champion", "approvers": {"at_least": 1}}]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, httpx2.Client]]:
    root = Principal("user/root", "admin")
    with closing(Platform.open(tmp_path_factory.mktemp("api") / "home", root)) as opened:
        opened.declare("Model", "late", promotion="by hand", stages=STAGES)
        with opened.ledger.write("user/zoe") as world:
            for number in range(1, 4):
                world.versions.publish("model", "late", f"{number:064}", metadata={})
        running = {n: Server(opened.as_(Principal(f"user/{n}", r))) for n, r in (("ann", "editor"), ("bob", "editor"))}
        yield {name: httpx2.Client(base_url=server.address, timeout=30) for name, server in running.items()}
        for server in running.values():
            server.stop()


def test_a_request_is_asked_reviewed_and_found_in_the_history(people: dict[str, httpx2.Client]) -> None:
    ann, bob = people["ann"], people["bob"]
    made = ann.post("/api/promotions", json={"version": "late@1", "to": "field", "reason": "first"})
    assert (made.status_code, made.json()["state"]) == (201, "open")
    id = made.json()["id"]
    assert ann.get(f"/api/promotions/{id}").json()["why_not"].startswith("user/ann asked for it")
    assert bob.get(f"/api/promotions/{id}").json()["waits_for"] == "you"
    assert ann.post(f"/api/promotions/{id}/reviews", json={"verdict": "approved"}).status_code == 403
    assert bob.post(f"/api/promotions/{id}/reviews", json={"verdict": "maybe"}).status_code in (400, 422)
    done = bob.post(f"/api/promotions/{id}/reviews", json={"verdict": "approved", "comment": "ok"}).json()
    assert (done["state"], done["reviews"][0]["by"]) == ("approved", "user/bob")
    [standing] = ann.get("/api/history/model/late").json()["items"]
    assert (standing["stage"], standing["version"], standing["until"]) == ("field", "model/late@1", None)
    assert standing["request"]["id"] == id
    assert ann.get("/api/history/model/late", params={"at": standing["since"]}).json()["items"] == [standing]
    assert ann.get("/api/history/model/late", params={"at": "2020-01-01T00:00:00Z"}).json()["items"] == []
    assert ann.get("/api/history/model/late", params={"at": "2020-01-01T00:00:00"}).status_code == 400
    stages = ann.get("/api/stages/late").json()["items"]
    assert [(s["stage"]["name"], s["versions"]) for s in stages] == [
        ("lab", ["model/late@3", "model/late@2"]), ("field", ["model/late@1"])
    ]  # fmt: skip


def test_requests_are_listed_page_by_page(people: dict[str, httpx2.Client]) -> None:
    ann = people["ann"]
    for number in (2, 3):
        ann.post("/api/promotions", json={"version": f"late@{number}", "to": "field"})
    seen: list[Any] = []
    before = None
    while True:
        page = ann.get("/api/promotions", params={"limit": 1, **({"before": before} if before else {})}).json()
        seen += [item["version"] for item in page["items"]]
        before = page["next"]
        if before is None:
            break
    assert seen == ["model/late@3", "model/late@2", "model/late@1"]
    assert len(ann.get("/api/promotions", params={"state": "open", "model": "late"}).json()["items"]) == 2
    assert ann.get("/api/promotions", params={"state": "opne"}).status_code == 400
    newest = ann.get("/api/promotions").json()["items"][0]["id"]
    assert ann.post(f"/api/promotions/{newest}/withdraw", json={"comment": "no"}).json()["state"] == "withdrawn"
    assert ann.post("/api/promotions", json={"version": "late@2", "to": "field"}).status_code == 409


def test_cards_and_assessments_are_written_and_read(people: dict[str, httpx2.Client]) -> None:
    ann, bob = people["ann"], people["bob"]
    kept = ann.put("/api/cards/late@1", json={"texts": {"limits": "winter"}, "sections": [{"title": "A", "text": "b"}]})
    assert kept.json()["edit"] == 1
    text = ann.get("/api/cards/late@1", params={"form": "markdown"})
    assert text.headers["content-type"].startswith("text/markdown") and "## Limits\n\nwinter\n" in text.text
    changed = text.text.replace("winter", "summer")
    assert bob.put("/api/cards/late@1", json={"markdown": changed, "after": 1}).json()["texts"] == {"limits": "summer"}
    assert bob.put("/api/cards/late@1", json={"markdown": changed, "after": 1}).status_code == 409
    assert ann.get("/api/cards/late@1", params={"edit": 1}).json()["texts"] == {"limits": "winter"}
    assert ann.get("/api/cards/late@1", params={"form": "hugging-face"}).text.startswith("---\nlicense: unknown\n")
    assert ann.put("/api/cards/late@1", json={"texts": {"limit": "x"}}).status_code == 400
    form = ann.put("/api/risk/late@1", json={"answers": {"residual": "low", "risk_class": "minimal"}}).json()
    assert (form["edit"], form["risk_class"], len(form["missing"])) == (1, "minimal", 8)
    assert ann.get("/api/risk/late@9").status_code == 404
