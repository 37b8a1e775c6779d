"""What is checked of every request before any route sees it, and the headers of every answer.

The control plane has no login on the loopback address, so a page of another site in the same browser is the attacker:
it must reach neither by a name that resolves to this machine (DNS rebinding: the Host header would be foreign) nor by
a form or a script that writes (the Origin header would be foreign). What it reads it cannot see, for there are no CORS
headers. A plain ASGI wrapper: Starlette's own middleware class would buffer the event stream.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from flyball.wire.native.values import encode

__all__ = ["BODY_BYTES", "Guard"]

BODY_BYTES = 16 * 1024 * 1024  # declarations and labels are small; model bytes do not come this way

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_HOSTS = 256
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}


class _TooLarge(HTTPException):
    """The body went over the limit while it was read; the framework lets its own exceptions through as they are."""


class Guard:
    """Wraps an ASGI application."""

    def __init__(
        self,
        app: _App,
        hosts: Iterable[str] = (),
        takes_addresses: bool = False,
        body_bytes: int = BODY_BYTES,
        host_status: int = 421,
        streamed: str | None = None,
    ) -> None:
        self._app = app
        self._takes_addresses = takes_addresses  # a rebound name is never an address, so this opens nothing to one
        self._hosts = frozenset(host.strip("[]").lower() for host in hosts)
        self._body_bytes = body_bytes
        self._streamed = streamed  # below this path bodies go to the disk piece by piece, however long they are
        self._known: set[str] = set()  # Host headers that were let through: most requests have the same
        self._host_status = host_status  # of the answer to a request for a foreign host; clients of MLflow know 403

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        most = float("inf") if self._streamed and scope["path"].startswith(self._streamed) else self._body_bytes
        refusal = self._refusal(scope["method"], headers, most)
        if refusal is not None:
            await _answer(_with_headers(send), *refusal)
            return
        length, has_started = 0, False

        async def counted() -> _Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > most:
                raise _TooLarge(413, self._too_large())
            return message

        guarded = _with_headers(send)

        async def watched(message: _Message) -> None:
            nonlocal has_started
            has_started = True
            await guarded(message)

        try:
            await self._app(scope, counted, watched)
        except _TooLarge:
            if not has_started:
                await _answer(guarded, 413, self._too_large())

    def _refusal(self, method: str, headers: dict[bytes, str], most: float) -> tuple[int, str] | None:
        host = headers.get(b"host", "")
        if host not in self._known:
            if self._is_known(_name(host)):
                if len(self._known) < _HOSTS:  # so that nobody fills the memory
                    self._known.add(host)
            else:
                return self._host_status, f"this server does not answer for the host {host[:80]!r}; use its own address"
        if method not in _READING:
            origin = headers.get(b"origin")
            is_foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
            if is_foreign or headers.get(b"sec-fetch-site") == "cross-site":
                return 403, "a page of another site may not change anything here"
        length = headers.get(b"content-length", "0")
        if length.isdecimal() and int(length) > most:
            return 413, self._too_large()
        return None

    def _is_known(self, name: str) -> bool:
        if name in self._hosts or name in _LOOPBACK_NAMES or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or self._takes_addresses
        except ValueError:
            return False

    def _too_large(self) -> str:
        return f"the body is larger than {self._body_bytes:,} bytes; send it in parts"


def _name(host: str) -> str:
    """Return the host without its port, lower case."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _with_headers(send: _Send) -> _Send:
    async def sending(message: _Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            message = {**message, "headers": given + _missing(tuple([name for name, _ in given]))}
        await send(message)

    return sending


@lru_cache(256)
def _missing(names: tuple[bytes, ...]) -> list[tuple[bytes, bytes]]:
    """Return the headers that an answer lacks which has those of these names."""
    there = {name.lower() for name in names}
    return [(name, value) for name, value in _HEADERS.items() if name not in there]


async def _answer(send: _Send, status: int, sentence: str) -> None:
    body = encode({"error": sentence})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
