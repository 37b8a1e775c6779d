"""Requests to a running `flyball up`: retried where that helps, bounded, and refused in our own words.

Nothing that a server answers is believed: an answer that is too long, compressed, redirected or not JSON is an error
that says so. The token goes to the configured address only, and stands in no message.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import orjson

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

__all__ = ["TOKEN_VARIABLE", "URL_VARIABLE", "Connection", "RemoteSettings"]

T = TypeVar("T")

URL_VARIABLE = "FLYBALL_URL"
"""The environment variable with the address of a running `flyball up`: `http://host:7070`."""
TOKEN_VARIABLE = "FLYBALL_TOKEN"
"""The environment variable with the access key that is sent along."""

_MOST_ANSWER = 64 << 20  # bytes of a JSON answer
_MOST_DOWNLOAD = 64 << 30
_PIECE = 1 << 20
_TRIES = 4
_FIRST_PAUSE_S = 0.2
_BY_STATUS: Mapping[int, type[FlyballError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
}


@dataclass(frozen=True)
class RemoteSettings:
    """`[remote]` in flyball.toml, `FLYBALL_REMOTE_…` in the environment."""

    timeout_s: float = 30.0  # that one answer, or the next piece of it, may take
    patience_s: float = 15.0  # that flush and the end of a run wait for a server that takes nothing
    folder: Path | None = None  # where runs wait to be sent; default: $XDG_STATE_HOME/flyball, ~/.local/state/flyball
    cache: Path | None = None  # where loaded models are kept; default: $XDG_CACHE_HOME/flyball, ~/.cache/flyball
    predictions: str | None = None  # the data plane's address, where it is not what the control plane says

    def __post_init__(self) -> None:
        if not (self.timeout_s > 0 and self.patience_s >= 0):
            raise InvalidInput(
                f"[remote] timeout_s is {self.timeout_s} and patience_s {self.patience_s}; expected seconds above 0"
            )


class Connection:
    """A server by its address; safe to share between threads, and in a forked process made anew."""

    def __init__(self, url: str, token: str | None = None, chosen: RemoteSettings | None = None) -> None:
        self.url = _checked(url)
        self.chosen = chosen or RemoteSettings()
        self._token = (token or "").strip()
        if not self._token.isascii() or not self._token.isprintable():
            raise InvalidInput(f"{TOKEN_VARIABLE} holds characters that no access key has; copy the key again")
        self._made: tuple[int, httpx2.Client] | None = None
        self._lock = threading.Lock()

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        body: bytes | None = None,
        is_repeatable: bool = True,
        tries: int = _TRIES,
    ) -> dict[str, Any]:
        """Return a server's JSON answer.

        Args:
            params: those that are None are left out.
            json: the body as plain values; or `body`, as bytes.
            is_repeatable: whether the same request may be done twice; else it is retried only if it never arrived.
            tries: how often it is sent, with growing pauses, when there is no answer or a 5xx.

        Raises:
            InvalidInput, Unauthenticated, Forbidden, NotFound, Conflict: what the server said.
            Unavailable: there is no answer, or a 5xx.
            Incompatible: what answers is no Flyball.
        """
        content = _plain(json) if json is not None else body
        headers = {"content-type": "application/json"} if json is not None else {}

        def once() -> dict[str, Any]:
            with self._sent(method, path, params, content, headers) as answer:
                return self._object(answer)

        return self._tried(once, is_repeatable, tries)

    def upload(self, path: str, file: Path, told: Callable[[], None], tries: int = _TRIES) -> None:
        """Send a file's bytes in constant memory; `told` is called for each piece. Raises as `ask`."""
        size = str(file.stat().st_size)

        def pieces() -> Iterator[bytes]:
            with file.open("rb") as stream:
                while piece := stream.read(_PIECE):
                    yield piece
                    told()

        def once() -> None:
            with self._sent("PUT", path, None, pieces(), {"content-length": size}) as answer:
                self._object(answer)

        self._tried(once, True, tries)

    def download(self, path: str, to: Path, params: Mapping[str, Any] | None = None) -> None:
        """Write what a server answers into a file, in constant memory. Raises as `ask`."""

        def once() -> None:
            with self._sent("GET", path, params, None, {}) as answer:
                if answer.status_code != 200:
                    self._object(answer)
                with to.open("wb") as stream:
                    for piece in self._pieces(answer, _MOST_DOWNLOAD):
                        stream.write(piece)
                wanted = answer.headers.get("content-length", "")
                if wanted.isdecimal() and int(wanted) != to.stat().st_size:
                    raise Unavailable(f"{self.url} broke off within its answer; ask again")

        self._tried(once, True, _TRIES)

    # -- one request

    def _tried(self, once: Callable[[], T], is_repeatable: bool, tries: int) -> T:
        for number in range(tries):
            try:
                return once()
            except Unavailable as error:
                if number == tries - 1 or not (is_repeatable or isinstance(error.__cause__, httpx2.ConnectError)):
                    raise
                time.sleep(_FIRST_PAUSE_S * 2**number * (0.5 + random.random()))
        raise AssertionError

    @contextmanager
    def _sent(
        self, method: str, path: str, params: Mapping[str, Any] | None, content: Any, headers: Mapping[str, str]
    ) -> Iterator[httpx2.Response]:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        try:
            with self._client().stream(
                method, self.url + path, params=given, content=content, headers=dict(headers)
            ) as answer:
                yield answer
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(
                f"{self.url} does not answer ({reason[:200]}); see whether flyball up runs there"
            ) from error

    def _object(self, answer: httpx2.Response) -> dict[str, Any]:
        """Return the answer's JSON object, or raise what it says."""
        status = answer.status_code
        if 300 <= status < 400:
            target = answer.headers.get("location", "")[:200]
            raise InvalidInput(f"{self.url} leads on to {target!r}; set {URL_VARIABLE} to where flyball up itself is")
        data = b"".join(self._pieces(answer, _MOST_ANSWER))
        try:
            found = orjson.loads(data)
        except orjson.JSONDecodeError:
            found = None
        if status >= 400:
            said = found.get("error") if isinstance(found, dict) else None
            sentence = _line(said) if isinstance(said, str) else f"{self.url} answered {status}"
            if status >= 500:
                raise Unavailable(sentence)
            raise _BY_STATUS.get(status, InvalidInput)(sentence)
        if not isinstance(found, dict):
            kind = answer.headers.get("content-type", "nothing")[:60]
            raise Incompatible(
                f"{self.url} does not answer as Flyball does ({kind}, {len(data):,} bytes, no JSON object); set "
                f"{URL_VARIABLE} to the address that flyball up prints"
            )
        return found

    def _pieces(self, answer: httpx2.Response, most: int) -> Iterator[bytes]:
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise Incompatible(f"{self.url} compresses its answer, which nobody asked for; is a proxy between?")
        size = 0
        for piece in answer.iter_raw():
            size += len(piece)
            if size > most:
                raise Incompatible(f"{self.url} answers with more than {most:,} bytes; that is no answer of Flyball's")
            yield piece

    def _client(self) -> httpx2.Client:
        process = os.getpid()
        with self._lock:
            if self._made is None or self._made[0] != process:
                headers = {"accept-encoding": "identity", "user-agent": "flyball"}
                if self._token:
                    headers["authorization"] = f"Bearer {self._token}"
                host = urlsplit(self.url).hostname or ""
                client = httpx2.Client(
                    headers=headers,
                    timeout=httpx2.Timeout(self.chosen.timeout_s, connect=min(self.chosen.timeout_s, 5.0)),
                    follow_redirects=False,
                    trust_env=not (host == "localhost" or host.startswith("127.") or host == "::1"),
                )
                self._made = (process, client)
            return self._made[1]

    def close(self) -> None:
        """Close what is open; another request opens it anew."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            made[1].close()

    @property
    def name(self) -> str:
        """What tells this server from others in a name of a folder."""
        host = "".join(c if c.isalnum() or c in ".-" else "-" for c in urlsplit(self.url).netloc)
        return f"{host[:80]}-{hashlib.sha256(self.url.encode()).hexdigest()[:8]}"


def _checked(url: str) -> str:
    """Return an address without what is behind its path. Raises InvalidInput; a secret in it is not repeated."""
    try:
        parts = urlsplit(url.strip())
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good or any(ord(c) <= 32 for c in url.strip()):
        shown = repr(url[:80]) if "@" not in url else "what stands before the @ is not shown"
        raise InvalidInput(f"this is no address of a server ({shown}); expected http://host:7070")
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidInput(
            f"the address of {parts.hostname} holds more than a place; give an access key by {TOKEN_VARIABLE}"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _plain(value: Any) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)


def _line(text: str) -> str:
    """Return what a server said, as one printable line."""
    return "".join(c if c.isprintable() else " " for c in text[:2000])
