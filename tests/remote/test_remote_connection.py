"""What a client does with servers that are away, wrong or hostile: real sockets that answer what a test says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flyball as fb
from flyball.errors import (
    Conflict,
    FlyballError,
    Forbidden,
    Incompatible,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from flyball.remote.connection import Connection, RemoteSettings
from flyball.remote.sending import Sender


class Answering:
    """A server that answers each request with the next of given answers, the last one for ever."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                head = b""
                while b"\r\n\r\n" not in head and (part := connection.recv(1 << 16)):
                    head += part
                self.requests.append(head)
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def answer(status: int, body: bytes, kind: str = "application/json", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", f"Content-Type: {kind}", "Connection: close"]
    return "\r\n".join([*lines, *more, "", ""]).encode() + body


@pytest.fixture
def said() -> Iterator[Any]:
    made: list[Answering] = []

    def begin(*answers: bytes) -> Answering:
        made.append(Answering(*answers))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidInput),
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, InvalidInput),
        (422, InvalidInput),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
def test_a_refusal_is_an_error_of_ours_in_the_servers_words(said: Any, status: int, error: type[FlyballError]) -> None:
    server = said(answer(status, b'{"error": "that\\u0007 is wrong"}'))
    with pytest.raises(error, match=r"^that  is wrong$"):
        Connection(server.url).ask("GET", "/api/v1/server", tries=1)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (answer(200, b"<html>login</html>", "text/html"), Incompatible, "does not answer as Flyball does"),
        (answer(200, b"[1, 2]"), Incompatible, "no JSON object"),
        (answer(200, b"[" * 200_000), Incompatible, "no JSON object"),
        (answer(200, b""), Incompatible, "0 bytes"),
        (answer(302, b"", "text/html", "Location: http://elsewhere.example/x"), InvalidInput, "leads on to"),
        (answer(200, b"{}", "application/json", "Content-Encoding: gzip"), Incompatible, "compresses"),
        (answer(404, b"<html>no</html>", "text/html"), NotFound, "answered 404"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Unavailable, "does not answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", Unavailable, "does not answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000 + b"\r\n\r\n{}", Unavailable, "does not answer"),
    ],
)
def test_what_is_no_flyball_is_a_clear_error(said: Any, reply: bytes, error: type[FlyballError], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        Connection(said(reply).url).ask("GET", "/api/v1/server", tries=1)
    assert "\n" not in str(raised.value)


def test_an_answer_without_end_is_broken_off(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.remote.connection._MOST_ANSWER", 1 << 20)
    body = b'{"x": "' + b"y" * (2 << 20) + b'"}'
    with pytest.raises(Incompatible, match="more than 1,048,576 bytes"):
        Connection(said(answer(200, body)).url).ask("GET", "/api/v1/server", tries=1)


def test_only_a_5xx_or_no_answer_is_tried_again(said: Any) -> None:
    good = answer(200, b'{"flyball": 1}')
    away = said(answer(503, b'{"error": "busy"}'), answer(500, b"oops"), good)
    assert Connection(away.url).ask("GET", "/api/v1/server") == {"flyball": 1}
    assert len(away.requests) == 3
    wrong = said(answer(409, b'{"error": "no"}'), good)
    with pytest.raises(Conflict):
        Connection(wrong.url).ask("GET", "/api/v1/server")
    assert len(wrong.requests) == 1
    once = said(answer(503, b'{"error": "busy"}'), good)
    with pytest.raises(Unavailable):
        Connection(once.url).ask("POST", "/api/labels", json={}, is_repeatable=False)
    assert len(once.requests) == 1


@pytest.mark.usefixtures("away")
def test_the_token_is_sent_as_bearer_and_stands_in_no_message(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYBALL_TOKEN", " fb_secret\n")
    server = said(answer(200, b'{"flyball": 1}'), answer(401, b"{}"))
    remote = fb.connect(server.url)
    assert b"\r\nauthorization: bearer fb_secret\r\n" in server.requests[0].lower()
    with pytest.raises(Unauthenticated) as raised:
        remote.run("x")
    assert "fb_secret" not in str(raised.value) + repr(remote)


@pytest.mark.usefixtures("away")
def test_the_token_goes_to_no_host_that_the_server_names(said: Any) -> None:
    other = said(answer(200, b"{}"))
    port = int(other.url.rsplit(":", 1)[1])
    server = said(answer(200, b'{"flyball": 1, "predictions": "http://192.0.2.7:%d"}' % port))
    remote = fb.connect(server.url, token="fb_secret")
    assert remote._data_plane().url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "url",
    ["", "flyball", "ftp://host", "http://", "http://h:99999", "http://u:secret@h", "http://h?x=1", "http://h/\nx"],
)
def test_what_is_no_address_is_refused_without_repeating_a_secret(url: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Connection(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "reply",
    [
        b'{"taken": -1}',
        b'{"taken": "all"}',
        b'{"taken": 99}',
        b'{"taken": 0}',
        b'{"taken": 0, "missing": ["../../etc/passwd"]}',
        b'{"taken": 0, "missing": [7]}',
        b'{"taken": 1, "refused": "x"}',
        b"[]",
        b"not JSON",
    ],
)
def test_a_server_that_talks_nonsense_loses_no_line(said: Any, tmp_path: Path, reply: bytes) -> None:
    server = said(answer(200, b'{"taken": 0}'), answer(200, reply))
    sender = Sender(Connection(server.url, None, RemoteSettings(timeout_s=2)), tmp_path, 0.3)
    run = sender.start("nonsense", None)
    run.log(loss=1.0)
    with pytest.raises(FlyballError):
        run.flush()
    assert (run.folder / "log.jsonl").read_bytes().count(b'"loss"') == 1
    run.drop()


def test_a_server_that_never_answers_is_given_up_after_the_patience(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        sender = Sender(Connection(url, None, RemoteSettings(timeout_s=0.2)), tmp_path, 0.3)
        run = sender.start("silence", None)
        run.log(loss=1.0)
        began = time.monotonic()
        run.finish()
        assert time.monotonic() - began < 5
        assert run.folder.exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(said: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sender = Sender(Connection(said(answer(200, b"{}")).url), tmp_path / "file", 1)
    with pytest.raises(InvalidInput, match="no run can be written"):
        sender.start("nowhere", None)
