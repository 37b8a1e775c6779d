"""Who asks: the access key or the session of every request, checked before any route sees it.

Stands behind `Guard`, in front of the pages and our own API, and in front of MLflow's routes; each says its refusals in
its own form. Whoever is let in acts as `key/NAME` for the length of the request (`governance.identity.asking`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from flyball.errors import FlyballError, Forbidden, Unauthenticated
from flyball.governance.admission import SESSION_COOKIE, Admission, Waiting
from flyball.governance.identity import NOBODY, Principal, asking
from flyball.governance.keys import secret_in
from flyball.ledger.access_keys import AccessKey

__all__ = ["OPEN_PATHS", "Gate", "session_in"]

OPEN_PATHS = frozenset({"/health", "/version", "/favicon.ico", "/login"})
_OPEN_FOLDERS = ("/static/",)  # stylesheets and scripts, the same for everybody

_HOW = (
    "send an access key as Authorization: Bearer fb_… (MLFLOW_TRACKING_TOKEN, FLYBALL_TOKEN) or as the password of "
    "Basic; flyball key create makes one"
)

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]
_Refuse = Callable[[FlyballError, Mapping[str, str]], Response]


class Gate:
    """Wraps an ASGI application.

    Args:
        app: what is behind.
        admission: checks keys and sessions.
        refuse: says an error (`Unauthenticated`, `Forbidden`, `Unavailable`) as a response with these headers.
        open_paths: those that anybody may ask for.
    """

    def __init__(
        self, app: _App, admission: Admission, refuse: _Refuse, open_paths: Collection[str] = OPEN_PATHS
    ) -> None:
        self._app = app
        self._admission = admission
        self._refuse = refuse
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        kind, path = scope["type"], scope.get("path", "")
        is_open = path in self._open_paths or path.startswith(_OPEN_FOLDERS)
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        if kind == "http" and is_open:
            # A task inherits the context of whatever started it, which may be the end of another request.
            with asking(NOBODY):
                await self._app(scope, receive, send)
            return
        if kind != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(scope["headers"])
        try:
            key = await self._key(headers, _address(scope))
        except FlyballError as error:
            await self._refusal(error, scope, headers)(scope, receive, send)
            return
        if key.deployments:
            told = Forbidden(f"the access key {key.name} is for predictions of {', '.join(key.deployments)} alone")
            await self._refuse(told, {})(scope, receive, send)
            return
        with asking(Principal(f"key/{key.name}", key.role)):
            await self._app(scope, receive, send)

    async def _key(self, headers: Mapping[bytes, bytes], address: str) -> AccessKey:
        """Return the key of a request; of a header before that of a session. Raises Unauthenticated, Unavailable."""
        authorization = headers.get(b"authorization")
        if authorization is not None:
            secret = secret_in(authorization)
            if secret is None:
                raise Unauthenticated(f"the Authorization header holds no access key; {_HOW}")
            known = self._admission.known(secret)
            return await asyncio.to_thread(self._admission.by_secret, secret, address) if known is None else known
        cookie = session_in(headers.get(b"cookie", b"").decode("latin-1"))
        if cookie:
            key = self._admission.known_session(cookie) or await asyncio.to_thread(self._admission.by_session, cookie)
            if key is not None:
                return key
        raise Unauthenticated(f"this server asks for an access key; {_HOW}")

    def _refusal(self, error: FlyballError, scope: _Scope, headers: Mapping[bytes, bytes]) -> Response:
        if not isinstance(error, Unauthenticated):
            return self._refuse(error, {})
        is_page = scope["method"] in ("GET", "HEAD") and b"text/html" in headers.get(b"accept", b"")
        if is_page and b"authorization" not in headers:
            query = scope.get("query_string", b"").decode("latin-1")
            wanted = scope["path"] + (f"?{query}" if query else "")
            return RedirectResponse(f"/login?next={quote(wanted, safe='/')}", 303, {"Cache-Control": "no-store"})
        # A browser asks its user in a window of its own when a script is answered `Basic`; scripts of ours need none.
        challenge = 'Bearer realm="flyball"'
        if b"sec-fetch-mode" not in headers:
            challenge += ', Basic realm="flyball", charset="UTF-8"'
        told = {"WWW-Authenticate": challenge, "Cache-Control": "no-store"}
        if isinstance(error, Waiting):
            told["Retry-After"] = str(error.seconds)
        return self._refuse(error, told)


def session_in(header: str) -> str | None:
    """Return the session that a `Cookie` header holds, None when it holds none."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == SESSION_COOKIE and 0 < len(value) <= 200:
            return value
    return None


def _address(scope: _Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
