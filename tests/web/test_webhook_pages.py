"""The pages of webhooks over HTTP: making, testing, pausing one and sending again, and who may not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from pages_home import Server

from flyball.governance.identity import Principal
from flyball.platform import Platform
from tests.delivery.receiving import Receiver, receiving, wait_for

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    monkeypatch.setenv("FLYBALL_WEBHOOKS_SCHEMES", "http")
    monkeypatch.setenv("FLYBALL_WEBHOOKS_ALLOW_PRIVATE", "true")
    with closing(Platform.open(tmp_path / "home")) as found:
        yield found


@pytest.fixture
def client(platform: Platform) -> Iterator[httpx2.Client]:
    server = Server(platform)
    with httpx2.Client(base_url=server.url, timeout=30, headers={"Origin": server.url}) as found:
        yield found
    server.close()


def test_a_webhook_is_made_tested_paused_and_deleted_on_its_pages(
    client: httpx2.Client, platform: Platform, receiver: Receiver
) -> None:
    assert "Nobody is told of anything yet" in client.get("/settings/webhooks").text
    fields = {"url": f"{receiver.url}/", "name": "ci", "events": "model.created, run.*", "secret": "s3cret"}
    made = client.post("/settings/webhooks", data={**fields, "description": HOSTILE})
    assert (made.status_code, made.headers["location"]) == (303, "/settings/webhooks/ci")
    assert platform.webhook("ci").events == ("model.created", "run.*")
    assert "Taken" in client.post("/settings/webhooks/ci/test").text
    receiver.behaviours["/"] = [500, 200]
    assert "the receiver answered 500" in client.post("/settings/webhooks/ci/test").text
    for path in ("/settings", "/settings/webhooks", "/settings/webhooks/ci"):
        page = client.get(path)
        assert page.status_code == 200
        assert "s3cret" not in page.text
        assert HOSTILE not in page.text
    for active in (False, True):
        client.post("/settings/webhooks/ci/change", data={"active": "yes" if active else "no"})
        assert platform.webhook("ci").is_active is active
    assert client.post("/settings/webhooks/ci/delete").headers["location"] == "/settings/webhooks"
    assert platform.webhooks() == []
    assert client.get("/settings/webhooks/ci").status_code == 404


def test_what_failed_is_sent_again_from_its_page(client: httpx2.Client, platform: Platform, receiver: Receiver) -> None:
    receiver.behaviours["/"] = [400, 200]
    platform.create_webhook(f"{receiver.url}/", ["model.created"], name="ci")
    platform.create_model("a")
    deliverer = platform.deliverer()
    deliverer.start()
    (failed,) = wait_for(lambda: platform.deliveries("ci", "failed"))
    assert "the receiver answered 400" in client.get("/settings/webhooks/ci").text
    assert client.post("/settings/webhooks/ci/again", data={"event": str(failed.event)}).status_code == 303
    wait_for(lambda: platform.webhook("ci").counts == {"delivered": 1})
    deliverer.stop(5)
    assert client.post("/settings/webhooks/ci/again", data={"event": "x"}).status_code == 400
    assert client.post("/settings/webhooks/ci/again", data={"event": "99"}).status_code == 404


def test_wrong_input_is_refused_in_a_sentence_and_nothing_is_made(client: httpx2.Client, platform: Platform) -> None:
    for url, events in (("ftp://a", "*"), ("", "*"), ("http://127.0.0.1/", "no pattern!"), ("http://127.0.0.1/", "")):
        answer = client.post("/settings/webhooks", data={"url": url, "events": events, "name": "ci"})
        assert answer.status_code == 400, (url, events)
    assert platform.webhooks() == []


def test_who_only_views_finds_no_form_and_may_not_send_one(platform: Platform, receiver: Receiver) -> None:
    platform.create_webhook(f"{receiver.url}/", ["*"], name="ci")
    server = Server(platform.as_(Principal("user/vera", "viewer")))
    with httpx2.Client(base_url=server.url, timeout=30, headers={"Origin": server.url}) as viewer:
        for path in ("/settings/webhooks", "/settings/webhooks/ci"):
            assert 'method="post"' not in viewer.get(path).text.partition("<main")[2]
        assert viewer.post("/settings/webhooks/ci/test").status_code == 403
        assert viewer.post("/settings/webhooks/ci/delete").status_code == 403
    server.close()
    assert receiver.got == []
