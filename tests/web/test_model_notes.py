"""The pages of models that a client of MLflow registered: what is said of them, and the forms that change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from flyball.errors import NotFound
from flyball.platform import Platform
from flyball.web.pages import models
from flyball.web.pages.site import Site

NAME = "late ✈ 10% (<b>EU<b>)"
ADDRESSES = [
    "/models/late%2520%25E2%259C%2588%252010%2525%2520%2528%253Cb%253EEU%253Cb%253E%2529",  # as our pages link it
    "/models/late%20%E2%9C%88%2010%25%20(%3Cb%3EEU%3Cb%3E)",  # as people write it
]
OURS = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with closing(Platform.open(tmp_path / "home")) as opened:
        opened.create_model(NAME, {"team": "ops"}, "first line\nsecond <i>line</i>")
        for _ in range(2):
            opened.create_version(NAME, "s3://bucket/model", run="somebody's run", tags={"k": "v"})
        opened.set_alias(NAME, "é", 1)
        yield opened


@pytest.fixture
def client(platform: Platform) -> TestClient:
    app = FastAPI()
    models.mount(Site(app, platform))
    return TestClient(app, headers=OURS, follow_redirects=False)


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_model_of_any_name_is_shown_as_people_write_it(client: TestClient, address: str) -> None:
    page = client.get(address)
    assert page.status_code == 200
    for shown in ("late ✈ 10% (&lt;b&gt;EU&lt;b&gt;)", "first line", "second &lt;i&gt;line", "ops", "by hand", ">é<"):
        assert shown in page.text
    assert "<b>EU" not in page.text
    version = client.get(f"{address}/1")
    assert version.status_code == 200
    assert "s3://bucket/model" in version.text
    assert "somebody&#39;s run" in version.text


def test_the_list_shows_names_and_descriptions(client: TestClient) -> None:
    page = client.get("/models").text
    assert "late ✈ 10% (&lt;b&gt;EU&lt;b&gt;)" in page
    assert "first line" in page


def test_forms_change_what_is_said(client: TestClient, platform: Platform) -> None:
    at = ADDRESSES[0]
    for path, fields in (
        ("/describe", {"description": "a\r\nb "}),
        ("/tag", {"key": "stage gate", "value": "EASA"}),
        ("/untag", {"key": "team"}),
        ("/alias", {"alias": "champion", "version": "2"}),
        ("/unalias", {"alias": "é"}),
        ("/2/describe", {"description": "the second"}),
        ("/2/tag", {"key": "n", "value": "2"}),
        ("/2/untag", {"key": "k"}),
    ):
        answer = client.post(at + path, data=fields)
        assert answer.status_code == 303, (path, answer.text)
        assert client.get(answer.headers["location"]).status_code == 200
    model, version = platform.model(NAME), platform.model_version(NAME, 2)
    assert (model.description, dict(model.note.tags), dict(model.aliases)) == (
        "a\nb", {"stage gate": "EASA"}, {"champion": 2},
    )  # fmt: skip
    assert (version.note.description, dict(version.note.tags)) == ("the second", {"n": "2"})


def test_forms_refuse_what_cannot_be(client: TestClient, platform: Platform) -> None:
    before = platform.last_event()
    at = ADDRESSES[0]
    for path, fields, status in (
        ("/tag", {"key": "", "value": "x"}, 400),
        ("/tag", {"key": "k" * 251, "value": "x"}, 400),
        ("/alias", {"alias": "", "version": "1"}, 400),
        ("/alias", {"alias": "a", "version": "x"}, 400),
        ("/alias", {"alias": "latest", "version": "1"}, 400),
        ("/alias", {"alias": "a", "version": "9"}, 404),
        ("/9/describe", {"description": "x"}, 404),
        ("/x/describe", {"description": "x"}, 400),
    ):
        assert client.post(at + path, data=fields).status_code == status, (path, fields)
    assert client.post("/models/nobody/describe", data={"description": "x"}).status_code == 404
    foreign = {"origin": "http://elsewhere", "sec-fetch-site": "cross-site"}
    assert client.post(at + "/describe", data={"description": "x"}, headers=foreign).status_code == 403
    assert platform.last_event() == before


def test_a_forgotten_version_has_no_page(client: TestClient, platform: Platform) -> None:
    platform.delete_version(NAME, 2)
    assert client.get(f"{ADDRESSES[0]}/2").status_code == 404
    with pytest.raises(NotFound):
        platform.model_version(NAME, 2)
