"""MLflow's routes as an ASGI application, and the fork before the pages that sends MLflow's paths here.

Hot routes are coroutines on the loop that wait for the recorder; all others are plain functions and run in a pool of
threads, since the ledger is synchronous. What nobody serves is a plain 404: clients take it as "an older server" and
fall back, while a JSON error would be final.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from flyball.errors import FlyballError
from flyball.governance.admission import Admission
from flyball.platform import Platform
from flyball.wire.mlflow import fields as field_kinds
from flyball.wire.mlflow.refusals import Refused, invalid, refusal_of
from flyball.wire.mlflow.routing import Asked, Found, Routes
from flyball.wire.native.gate import Gate
from flyball.wire.native.guard import Guard

__all__ = ["PREFIX", "VERSION", "Fork", "MlflowApp", "make_routes"]

log = logging.getLogger("flyball.wire")

VERSION = "3.17.2"  # whose protocol this is; clients ask, and send spans only to 3.4 and later
PREFIX = "/mlflow"  # where MLflow's own web page stands; it asks for everything below its own address
BODY_BYTES = 32 * 1024 * 1024  # of a JSON body; artifacts stream past this
_ARTIFACT_BYTES = 1 << 50
_THREADS = 16

_FRONTS = (
    "/api/2.0",
    "/api/3.0",
    "/api/4.0",
    "/ajax-api/",
    "/v1/traces",
    "/version",
    "/get-artifact",
    "/model-versions/get-artifact",
    "/graphql",
    PREFIX,
)

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def make_routes(platform: Platform) -> Routes:
    """Return the table of all routes over a platform."""
    routes = Routes()

    @routes.add("GET", "/version")
    def version(_asked: Asked) -> Response:
        return Response(VERSION, media_type="text/plain; charset=utf-8")

    @routes.add("GET", "3.0/mlflow/server-info")
    def server_info(_asked: Asked) -> dict[str, Any]:
        return {
            "store_type": "SqlStore",
            "workspaces_enabled": False,
            "trace_archival_enabled": False,
            "multipart_uploads_enabled": True,
            "multipart_downloads_enabled": False,
            "presigned_upload_run_id_supported": True,
            "presigned_upload_model_id_supported": True,
            "features_enabled": {"gateway": False},
        }

    for add in _nouns():
        add(routes, platform)
    return routes


def _nouns() -> list[Callable[[Routes, Platform], None]]:
    """Return the functions that add each noun's routes."""
    from flyball.wire.mlflow.artifacts import add_artifacts
    from flyball.wire.mlflow.assessments import add_assessments
    from flyball.wire.mlflow.evaluation_datasets import add_evaluation_datasets
    from flyball.wire.mlflow.experiments import add_experiments
    from flyball.wire.mlflow.graphql import add_graphql
    from flyball.wire.mlflow.inputs import add_inputs
    from flyball.wire.mlflow.logged_models import add_logged_models
    from flyball.wire.mlflow.metrics import add_metrics
    from flyball.wire.mlflow.model_versions import add_model_versions
    from flyball.wire.mlflow.otlp import add_otlp
    from flyball.wire.mlflow.promptlab import add_promptlab
    from flyball.wire.mlflow.registered_models import add_registered_models
    from flyball.wire.mlflow.run_logging import add_run_logging
    from flyball.wire.mlflow.runs import add_runs
    from flyball.wire.mlflow.scorers import add_scorers
    from flyball.wire.mlflow.trace_searching import add_trace_searching
    from flyball.wire.mlflow.traces import add_traces
    from flyball.wire.mlflow.web_page import add_web_page
    from flyball.wire.mlflow.webhooks import add_webhooks

    return [
        add_artifacts,
        add_assessments,
        add_evaluation_datasets,
        add_experiments,
        add_graphql,
        add_inputs,
        add_logged_models,
        add_metrics,
        add_model_versions,
        add_otlp,
        add_promptlab,
        add_registered_models,
        add_run_logging,
        add_runs,
        add_scorers,
        add_trace_searching,
        add_traces,
        add_web_page,
        add_webhooks,
    ]


class Fork:
    """The whole server: MLflow's paths go to its routes, all others to the pages and our own API."""

    def __init__(
        self,
        web: _App,
        platform: Platform,
        hosts: Iterable[str] = (),
        takes_addresses: bool = False,
        admission: Admission | None = None,
    ) -> None:
        self._web = web
        served: _App = MlflowApp(make_routes(platform))
        if admission is not None:
            served = Gate(served, admission, _refused)
        self._mlflow: _App = Guard(served, hosts, takes_addresses, _ARTIFACT_BYTES, host_status=403)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        is_ours = scope["type"] == "http" and scope["path"].startswith(_FRONTS)
        await (self._mlflow if is_ours else self._web)(scope, receive, send)


class MlflowApp:
    """Answers MLflow's routes."""

    def __init__(self, routes: Routes, body_bytes: int = BODY_BYTES) -> None:
        self._routes = routes
        self._body_bytes = body_bytes
        self._threads = ThreadPoolExecutor(_THREADS, "mlflow")

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        verb, path = scope["method"], scope["path"].removeprefix(PREFIX) or "/"
        found = self._routes.find("GET" if verb == "HEAD" else verb, path)
        if found is None:
            await self._nothing(path)(scope, receive, send)
            return
        try:
            if found.route.is_raw:
                response = await found.route.handler(Request(scope, receive), **found.parts)
                await response(scope, receive, send)
                return
            answer = await self._answer(found, scope, receive)
        except Refused as refusal:
            answer = _refusal(refusal)
        except FlyballError as error:
            answer = _refusal(refusal_of(error))
        except HTTPException:
            raise  # of the guard that counts the body
        except Exception:
            log.exception("%s %s failed", verb, path)
            answer = _refusal(Refused("INTERNAL_ERROR", "the server failed on this request; its log says why"))
        if isinstance(answer, Response):
            await answer(scope, receive, send)
            return
        status, body = answer if isinstance(answer, tuple) else (200, encode(answer))
        await _send_json(send, status, body, verb)

    async def _answer(self, found: Found, scope: _Scope, receive: _Receive) -> Any:
        headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
        body = await self._body(receive)
        asked = _asked(found, scope, headers, body)
        if found.is_async:
            return await found.route.handler(asked)
        loop = asyncio.get_running_loop()
        run = contextvars.copy_context().run  # who asks, see `governance.identity`
        return await loop.run_in_executor(self._threads, run, found.route.handler, asked)

    async def _body(self, receive: _Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return body
        chunks, length = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused("BAD_REQUEST", "The connection was closed before the body was whole.")
            chunks.append(message.get("body", b""))
            length += len(chunks[-1])
            if length > self._body_bytes:
                raise Refused("BAD_REQUEST", f"The body is larger than {self._body_bytes:,} bytes.", 413)
        return b"".join(chunks)

    def _nothing(self, path: str) -> Response:
        verbs = self._routes.verbs(path)
        if verbs:
            return Response("Method Not Allowed", 405, {"Allow": ", ".join(verbs)}, "text/plain; charset=utf-8")
        return Response("Not Found", 404, media_type="text/plain; charset=utf-8")


def encode(document: Any) -> bytes:
    """Return a document as JSON; NaN and the infinities must have become text already (`double`)."""
    return orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)


def _refused(error: FlyballError, headers: Mapping[str, str]) -> Response:
    status, body = _refusal(refusal_of(error))
    return Response(body, status, dict(headers), "application/json")


def _refusal(refusal: Refused) -> tuple[int, bytes]:
    return refusal.status, encode(refusal.document())


def _asked(found: Found, scope: _Scope, headers: dict[str, str], body: bytes) -> Asked:
    route, verb = found.route, scope["method"]
    query = scope["query_string"]
    if verb in ("POST", "PUT") and route.fields:
        kind = headers.get("content-type")
        if kind is None:
            raise invalid("Bad Request. Content-Type header is missing.")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise invalid("Bad Request. Content-Type must be one of ['application/json'].")
    if verb in ("GET", "HEAD") and (query or not body):
        try:
            given = parse_qs(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20_000)
        except ValueError:
            raise invalid("The query of the address cannot be read: it is no percent-encoded UTF-8.") from None
        values = field_kinds.read_query(route.fields, given)
    else:
        values = field_kinds.read(_in_body(route.fields, found.parts), _parse(body))
    return Asked(values, found.parts, headers, verb, len(body))


def _in_body(fields: tuple[field_kinds.Field, ...], parts: Any) -> list[field_kinds.Field]:
    """Return the fields without those that the path gives."""
    return [field for field in fields if field.name not in parts] if parts else list(fields)


def _parse(body: bytes) -> Any:
    """Return what a body holds; NaN may stand bare in it, and the whole may be JSON within a text of JSON."""
    if not body.strip():
        return None
    for _ in range(2):
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            try:
                found = json.loads(body)
            except (ValueError, RecursionError):
                raise Refused("BAD_REQUEST", "The request body is not valid JSON.") from None
        if not isinstance(found, str):
            return found
        body = found.encode("utf-8", "surrogatepass")
    return found


async def _send_json(send: _Send, status: int, body: bytes, verb: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if verb == "HEAD" else body})
