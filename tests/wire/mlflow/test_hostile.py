"""What no client would send, to every route there is: it is refused by 4xx, and the server goes on."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest

from flyball.platform import Platform
from flyball.wire.mlflow.app import make_routes
from flyball.wire.mlflow.routing import Route
from tests.wire.mlflow.serving import served

_ROUNDS = 6
_STRANGE: tuple[Any, ...] = (
    *(None, True, 0, -1, 3.5, 2**63, -(2**70), 1e308, "", "x", "0", "1", "-1", "a\x00b", "\ud800", "NaN", "Infinity"),
    *("../../etc/passwd", "%2e%2e/x", "' OR 1=1 --", "💥" * 300, "x" * 20_000, "file:///etc/passwd", "models:/../x"),
    *(
        "http://127.0.0.1:1/x",
        "runs:/x/../y",
        [],
        [None],
        [[]],
        ["x"],
        [{}],
        [{"key": "k", "value": "v"}],
        [{"key": 1}],
    ),
    *({}, {"a": 1}, {"key": "k"}, [1, 2]),
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with closing(Platform.open(tmp_path_factory.mktemp("hostile") / "home")) as platform, served(platform) as client:
        yield client


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[Route]:
    with closing(Platform.open(tmp_path_factory.mktemp("routes") / "home")) as platform:
        return make_routes(platform).all()


def _path(route: Route, chance: random.Random) -> str:
    parts = []
    for segment in route.path.split("/"):
        if segment.startswith("{"):
            segment = chance.choice(
                ("0", "1", "x", "tr-" + "0" * 32, "m-" + "0" * 32, "%00", "..%2f..", "a%20b", "%f0%9f%92%a5")
            )
        parts.append(segment)
    return "/".join(parts)


def _body(route: Route, chance: random.Random) -> Any:
    names = [field.name for field in route.fields] or ["x"]
    return {name: chance.choice(_STRANGE) for name in chance.sample(names, chance.randint(0, len(names)))}


def test_nothing_that_is_sent_to_any_route_is_answered_by_5xx(api: httpx2.Client, routes: list[Route]) -> None:
    chance, broken = random.Random(5), []
    assert len(routes) > 150
    for route in routes:
        for _ in range(_ROUNDS):
            path, body = _path(route, chance), _body(route, chance)
            if route.verb == "GET":
                query = {
                    k: v if isinstance(v, str) and v.isprintable() else json.dumps(v)[:2000] for k, v in body.items()
                }
                answer = api.request(route.verb, path, params=query)
            else:
                sent = json.dumps(body).encode()
                answer = api.request(route.verb, path, content=sent, headers={"Content-Type": "application/json"})
            if answer.status_code >= 500 and answer.status_code != 501:
                broken.append(
                    f"{route.verb} {path} {json.dumps(body)[:300]} -> {answer.status_code} {answer.text[:200]}"
                )
    assert broken == []
    assert api.get("/version").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b'"x"',
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b'{"name": "a", "name": "b"}',
        b"null",
    ],
)
def test_a_body_that_is_no_message_is_refused_or_read_as_an_empty_one(api: httpx2.Client, body: bytes) -> None:
    for path in ("runs/search", "runs/log-batch", "registered-models/create", "experiments/search"):
        answer = api.post(f"/api/2.0/mlflow/{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code < 500, (path, answer.text)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_a_request_that_could_hide_another_gets_one_refusal_and_the_end_of_its_connection(
    api: httpx2.Client, head: bytes
) -> None:
    with socket.create_connection((api.base_url.host, api.base_url.port), timeout=10) as raw:
        line = b"POST /api/2.0/mlflow/runs/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(line + head)
        raw.settimeout(10)
        said = b""
        while chunk := raw.recv(65536):
            said += chunk
    assert said.count(b"HTTP/1.1 ") <= 1
    assert not said or said.startswith(b"HTTP/1.1 4"), said[:300]


@pytest.mark.parametrize(
    ("verb", "path"), [("PUT", "runs/search"), ("DELETE", "experiments/create"), ("GET", "runs/create")]
)
def test_another_method_is_405_and_another_path_a_plain_404(api: httpx2.Client, verb: str, path: str) -> None:
    answer = api.request(verb, f"/api/2.0/mlflow/{path}", headers={"X-HTTP-Method-Override": "POST"})
    assert answer.status_code == 405
    assert "allow" in answer.headers
    unserved = api.get("/api/2.0/mlflow/gateway/x")
    assert unserved.status_code == 404
    assert not unserved.text.startswith("{")
