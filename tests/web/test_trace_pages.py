"""The pages of traces, over a real server: what they show, in what order, and what a hostile trace cannot do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from flyball.ledger.traces import Assessment
from flyball.llm.spans import Span
from flyball.platform import Platform
from flyball.web.pages import mount

_HOSTILE = "<script>document.title='taken'</script>"
_NS = 1_700_000_000_000_000_000


def _span(trace: int, number: int, parent: int | None, name: str, **more: object) -> Span:
    above = None if parent is None else f"{parent:016x}"
    begin = _NS + trace * 10**9 + number * 10**7
    return Span(f"{trace:032x}", f"{number:016x}", name, begin, begin + 10**8, above, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with closing(Platform.open(tmp_path_factory.mktemp("pages") / "home")) as platform:
        for number in range(1, 61):
            platform.add_spans("0", [_span(number, 1, None, f"question {number}")])
        usage = {"mlflow.chat.tokenUsage": {"total_tokens": 1234}, "mlflow.spanInputs": {"q": _HOSTILE}}
        platform.add_spans(
            "0",
            [
                _span(99, 1, None, _HOSTILE),
                _span(99, 3, 2, "deep", status="ERROR", message="it broke"),
                _span(99, 2, 1, "middle", attributes=usage),
                _span(99, 8, 9, "circle one"),
                _span(99, 9, 8, "circle two"),
            ],
        )
        said = Assessment(
            "a-1", f"tr-{99:032x}", "good", "feedback", _HOSTILE, "HUMAN", "ann", 1, 1, rationale=_HOSTILE
        )
        platform.assess(said)
        app = FastAPI()
        mount(app, platform)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        with httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            yield client
        server.should_exit = True
        thread.join(10)


def test_the_list_is_paged_and_filtered(client: httpx2.Client) -> None:
    first = client.get("/traces").text
    assert first.count('href="/traces/tr-') == 50
    assert client.get("/traces", params={"page": "2"}).text.count('href="/traces/tr-') == 11
    found = client.get("/traces", params={"filter": "name LIKE 'question 1%'"}).text
    assert found.count('href="/traces/tr-') == 11
    assert "No trace is like this" in client.get("/traces", params={"state": "ERROR"}).text


def test_a_wrong_filter_is_told_on_the_page(client: httpx2.Client) -> None:
    answer = client.get("/traces", params={"filter": "nonsense"})
    assert answer.status_code == 400
    assert "Invalid clause" in answer.text


def test_spans_stand_below_what_they_are_a_part_of(client: httpx2.Client) -> None:
    page = client.get(f"/traces/tr-{99:032x}").text
    places = [page.index(f'href="#span-{number:016x}"') for number in (1, 2, 3)]
    assert places == sorted(places)
    assert "1,234" in page
    assert "it broke" in page
    assert "circle one" in page and "circle two" in page


def test_what_a_trace_says_is_text(client: httpx2.Client) -> None:
    for path in ("/traces", f"/traces/tr-{99:032x}"):
        page = client.get(path).text
        assert _HOSTILE not in page
        assert "&lt;script&gt;" in page


def test_a_trace_that_is_not_there_is_a_plain_page(client: httpx2.Client) -> None:
    answer = client.get("/traces/tr-nobody")
    assert answer.status_code == 404
    assert "tr-nobody" in answer.text
