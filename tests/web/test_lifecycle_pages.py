"""The pages of approvals, history, cards and risk forms over HTTP, as several people see them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import closing

import httpx2
import pytest
from lifecycle_home import ANSWERS, HOSTILE, LifecycleHome
from pages_home import Server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LifecycleHome]:
    made = LifecycleHome(tmp_path_factory.mktemp("lifecycle") / "home")
    made.furnish()
    with closing(made):
        yield made


@pytest.fixture(scope="module")
def servers(home: LifecycleHome) -> Iterator[dict[str, httpx2.Client]]:
    people = {"bob": home.bob, "cem": home.cem, "vera": home.as_("vera", "viewer")}
    running = {name: Server(platform) for name, platform in people.items()}
    yield {name: httpx2.Client(base_url=server.url, timeout=30) for name, server in running.items()}
    for server in running.values():
        server.close()


PAGES = [
    "/", "/approvals", *(f"/approvals/{n}" for n in range(1, 9)), "/models/tumour", "/models/tumour/2",
    "/models/tumour/history", "/models/tumour/history?at=2026-05-03T14:00", "/models/tumour/2/card",
    "/models/tumour/2/card?edit=1", "/models/tumour/2/risk", "/models/tumour/2/risk?edit=1",
]  # fmt: skip


def words(client: httpx2.Client, path: str) -> str:
    """The text of a page's content, without markup."""
    content = client.get(path).text.partition("<main")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())


@pytest.mark.parametrize("who", ["bob", "vera"])
def test_every_page_answers_and_what_somebody_wrote_stays_text(servers: dict[str, httpx2.Client], who: str) -> None:
    for path in PAGES:
        answer = servers[who].get(path)
        assert answer.status_code == 200, path
        assert HOSTILE not in answer.text and "<img src=x" not in answer.text, path


def test_the_inbox_shows_what_waits_for_whom(servers: dict[str, httpx2.Client]) -> None:
    bob, cem = (words(servers[name], "/approvals") for name in ("bob", "cem"))
    mine, _, rest = cem.partition("Decided")
    assert "Waits for others" not in mine and mine.count("tumour@") == 2 and "withdrawn" in rest
    assert "Nothing waits for you" in bob and "Waits for others" in bob and "1 of editor or olga" in bob
    assert '<span class="badge tone-warn">2</span>' in servers["cem"].get("/models").text


def test_a_request_stands_beside_the_version_in_use(servers: dict[str, httpx2.Client]) -> None:
    text = words(servers["cem"], "/approvals/6")
    assert "auc at least 0.8" in text and "the slices hold" in text and "Worst slices of tumour@1" in text
    assert "tumour@1 in use" in text and "Who asked for it, or made the version, may not" in text
    page = servers["cem"].get("/approvals/6").text
    assert 'name="verdict" value="approved"' in page and "Withdraw" not in page
    assert 'method="post"' not in servers["vera"].get("/approvals/6").text.partition("<main")[2]
    assert "user/vera is viewer and may not decide about production" in words(servers["vera"], "/approvals/6")


def test_a_viewer_is_offered_no_form_and_refused_when_they_send_one(servers: dict[str, httpx2.Client]) -> None:
    vera = servers["vera"]
    for path in ("/models/tumour/2/card", "/models/tumour/2/risk"):
        assert 'method="post"' not in vera.get(path).text.partition("<main")[2], path
        assert vera.post(path, data={"limits": "x", "q.residual": "low"}).status_code == 403
    assert vera.post("/models/tumour/2/promote", data={"to": "archived"}).status_code == 403
    assert vera.post("/approvals/6/review", data={"verdict": "approved"}).status_code == 403


def test_the_history_at_an_instant_says_nothing_was_there_before(servers: dict[str, httpx2.Client]) -> None:
    assert "Nothing was in a stage then." in words(servers["bob"], "/models/tumour/history?at=2020-05-03T14:00")
    now = words(servers["bob"], "/models/tumour/history")
    assert "request 2 : nothing is in use yet" in now and "good enough to begin" in now
    assert servers["bob"].get("/models/tumour/history?at=noon").status_code == 400


def test_a_card_is_edited_and_a_stale_edit_is_told(home: LifecycleHome, servers: dict[str, httpx2.Client]) -> None:
    before = home.platform.card("tumour@3").revision
    fields = {"after": str(before), "limits": "new\r\nlimits", "title0": "Own", "text0": "part", "note": "why"}
    done = servers["bob"].post("/models/tumour/3/card", data=fields)
    assert (done.status_code, done.headers["location"]) == (303, "/models/tumour/3/card")
    card = home.platform.card("tumour@3")
    assert (card.revision, card.texts["limits"], card.sections[0].title) == (before + 1, "new\nlimits", "Own")
    stale = servers["cem"].post("/models/tumour/3/card", data=fields)
    assert stale.status_code == 409 and "has edit 2 by user/bob by now" in html.unescape(stale.text)
    assert servers["bob"].post("/models/tumour/3/card", data={"text0": "no title"}).status_code == 400
    sent = servers["vera"].get("/models/tumour/3/card/README.md")
    assert sent.text.startswith("---\nlicense: cc-by-4.0\n") and "attachment" in sent.headers["content-disposition"]


def test_a_risk_form_is_answered(home: LifecycleHome, servers: dict[str, httpx2.Client]) -> None:
    answers = {f"q.{name}": text for name, text in ANSWERS.items()} | {"q.residual": "high, not accepted"}
    assert servers["bob"].post("/models/tumour/3/risk", data=answers).status_code == 303
    assert "residual is 'high, not accepted'" in words(servers["bob"], "/models/tumour/3/risk")
    assert servers["bob"].post("/models/tumour/3/risk", data={"q.residual": "huge"}).status_code == 400
    home.bob.assess_risk("tumour@3", {"residual": "low"})


def test_a_form_approves_a_request_and_one_of_another_site_does_not(
    home: LifecycleHome, servers: dict[str, httpx2.Client]
) -> None:
    cem = servers["cem"]
    fields = {"verdict": "approved", "comment": "fine"}
    assert cem.post("/approvals/6/review", data=fields, headers={"Origin": "https://evil.example"}).status_code == 403
    assert cem.post("/approvals/6/review", data={"verdict": "maybe"}).status_code == 400
    assert home.platform.aliases("model", "tumour") == {"champion": 1}
    assert cem.post("/approvals/6/review", data=fields).status_code == 303
    assert home.platform.aliases("model", "tumour") == {"champion": 2}
    again = cem.post("/approvals/6/review", data=fields)
    assert again.status_code == 409 and "approved already, by user/cem" in html.unescape(again.text)
    assert cem.get("/approvals/none").status_code == 400 and cem.get("/approvals/99").status_code == 404


def test_a_card_is_shown_as_what_its_markdown_means(home: LifecycleHome, servers: dict[str, httpx2.Client]) -> None:
    before = home.platform.card("tumour@2").revision
    fields = {"after": str(before), "limits": "**not** for <b>children</b>\n\n- at night", "note": "why"}
    assert servers["bob"].post("/models/tumour/2/card", data=fields).status_code == 303
    page = servers["vera"].get("/models/tumour/2/card").text
    assert "<strong>not</strong> for &lt;b&gt;children&lt;/b&gt;" in page and "<li>at night</li>" in page
    assert "<table><thead><tr><th>" in page
