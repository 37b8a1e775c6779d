"""The serving service over HTTP: Open Inference Protocol v2 and plain records. The paths stand in `routes`.

Every error is `{"error": "…"}` with its status, also 404 and 405. A model's name is its deployment's; a version is one
that this deployment serves now. Answers to predictions carry `x-flyball-prediction-id` (of the first row), `-variant`,
`-version`. Features are answered by `wire.features.server`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from flyball.clock import SYSTEM, Clock
from flyball.errors import FlyballError, InvalidInput, NotFound
from flyball.serving.access_log import AccessLog
from flyball.serving.connection import HttpLimits, Request, Response
from flyball.serving.keys import Callers
from flyball.serving.questions import Answer
from flyball.serving.service import Service
from flyball.wire.features.server import FeatureServer
from flyball.wire.oip import catalogue
from flyball.wire.oip.bodies import accepted_coding, compressed, decompressed, labels_of, question_of
from flyball.wire.oip.express import Express
from flyball.wire.oip.inference import head_of, question_of_tensors, take_headers, tensors_of, trace_of
from flyball.wire.oip.openapi import document
from flyball.wire.oip.refusals import TooLarge, retry_after, status_of
from flyball.wire.oip.routes import Route, find_routes
from flyball.wire.oip.tensors import InferRequest, parse_request, render_response

__all__ = ["RestHandler"]

Respond = Callable[[Response], None]

_MOST_ROUTES = 1024
_ASIDE_BYTES = 4096  # compressed: may be a thousand times as many, which would hold up everybody for milliseconds
_SMALL_BYTES = 8 * 1024  # less is not worth compressing; many libraries ask for it always
_LARGE_BYTES = 32 * 1024  # as much takes a millisecond to compress
_OPEN = frozenset({"live", "ready", "health"})  # asked without a key by whatever looks after the process
_log = logging.getLogger("flyball.serving")
_LONGEST_PATH = 512  # in the access log
_PREDICTION_ID = re.compile(rb"x-flyball-prediction-id: ([0-9a-f]+)")
_HEADERS = (b"x-flyball-variant", b"x-request-id", b"traceparent")


class RestHandler:
    """A `Handler` for `HttpServer`, in front of one service."""

    def __init__(
        self,
        service: Service,
        limits: HttpLimits | None = None,
        clock: Clock = SYSTEM,
        access_log: AccessLog | None = None,
    ) -> None:
        self._service = service
        self._access_log = access_log
        self._limits = limits or HttpLimits()
        self._clock = clock
        self._features_server = FeatureServer(service.engine, clock)
        self._routes: dict[bytes, dict[str, Route]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._tensors = Express(service, False, partial(self._again, self._infer_long))
        self._records = Express(service, True, partial(self._again, self._predict_long))

    def handle(self, request: Request, respond: Respond) -> None:
        """Answer one request; see `Handler`."""
        if self._access_log is not None or b"traceparent" in request.headers:
            respond = self._noted(request, respond)
        name = ""
        try:
            routes = self._routes.get(request.path) or self._find(request.path)
            method = request.method
            route = routes.get("GET" if method == "HEAD" else method)
            if route is None:
                respond(_without_route(method, routes))
                return
            callers = self._service.engine.lineup.callers
            if callers.is_required and not _is_open(route, callers):
                named = route.name if route.name and route.action != "features" else None
                key = callers.check(request.headers.get(b"authorization"), named)
                request.caller = None if key is None else key.name
            name = route.name
            getattr(self, f"_{route.action}")(route, request, respond)
        except FlyballError as error:
            respond(self._refusal(name, error))

    def error(self, status: int, message: str) -> Response:
        """Word an error that was found before any route."""
        self._service.counters.errors["", status] += 1
        return _error(status, message)

    def _fault(self) -> Response:
        """Log the exception that is being handled and word it; for where no caller would, and the client would wait."""
        _log.exception("a request failed")
        return self.error(500, "the server failed on this request; its log says why")

    def _noted(self, request: Request, respond: Respond) -> Respond:
        """Return what answers, says where in the trace this was (W3C Trace Context), and notes it in the access log."""
        began = time.perf_counter()
        parent = request.headers.get(b"traceparent", b"").strip()
        trace = trace_of(parent.decode("latin-1")) if parent else None
        span = secrets.token_hex(8) if trace is not None else None

        def answer(response: Response) -> None:
            if trace is not None:
                response.headers += f"traceparent: 00-{trace}-{span}-{parent[53:55].decode()}\r\n".encode()
            respond(response)
            if self._access_log is not None:
                named = _PREDICTION_ID.search(response.headers)
                self._access_log.note(
                    status=response.status,
                    protocol="http",
                    method=request.method,
                    path=request.path[:_LONGEST_PATH].decode("latin-1"),
                    ms=round((time.perf_counter() - began) * 1000, 3),
                    received_bytes=len(request.body),
                    sent_bytes=len(response.body),
                    caller=request.caller,
                    prediction_id=None if named is None else named[1].decode(),
                    trace_id=trace,
                    span_id=span,
                )

        return answer

    # what is there

    def _live(self, _route: Route, _request: Request, respond: Respond) -> None:
        respond(_json({"live": True}))

    def _ready(self, _route: Route, _request: Request, respond: Respond) -> None:
        if self._service.is_ready:
            respond(_json({"ready": True}))
        else:
            respond(_error(503, "the models are still being loaded", b"Retry-After: 1\r\n"))

    def _health(self, _route: Route, _request: Request, respond: Respond) -> None:
        lineup = self._service.engine.lineup
        refused = {name: refusal.message for name, refusal in lineup.errors.items()}
        state = {
            "status": "ok" if self._service.is_ready else "starting",
            "generation": lineup.generation,
            "deployments": sorted(lineup.served),
            "refused": refused,
            "error": self._service.error,
            "grpc": self._service.grpc_address or None,
        }
        respond(_json(state))

    def _metrics(self, _route: Route, _request: Request, respond: Respond) -> None:
        respond(Response(200, self._service.metrics().encode(), b"text/plain; version=0.0.4; charset=utf-8"))

    def _openapi(self, _route: Route, _request: Request, respond: Respond) -> None:
        respond(Response(200, document()))

    def _server(self, _route: Route, _request: Request, respond: Respond) -> None:
        respond(_json(catalogue.server_metadata()))

    def _models(self, _route: Route, _request: Request, respond: Respond) -> None:
        respond(_json({"models": sorted(self._service.engine.lineup.served)}))

    def _model(self, route: Route, _request: Request, respond: Respond) -> None:
        respond(_json(catalogue.metadata(self._service, route.name, route.version)))

    def _configuration(self, route: Route, _request: Request, respond: Respond) -> None:
        respond(_json(catalogue.configuration(self._service, route.name, route.version)))

    def _statistics(self, route: Route, _request: Request, respond: Respond) -> None:
        respond(_json({"model_stats": catalogue.statistics(self._service, route.name, route.version)}))

    def _all_statistics(self, _route: Route, _request: Request, respond: Respond) -> None:
        respond(_json({"model_stats": catalogue.statistics(self._service)}))

    def _model_ready(self, route: Route, _request: Request, respond: Respond) -> None:
        served, _ = catalogue.wanted(self._service, route.name, route.version)
        respond(_json({"name": served.name, "ready": True}))

    # the repository

    def _index(self, _route: Route, request: Request, respond: Respond) -> None:
        is_only_ready = _fields_of(request.body).get("ready") is True
        respond(_json(catalogue.index(self._service, is_only_ready)))

    def _load(self, route: Route, request: Request, respond: Respond) -> None:
        parameters = _fields_of(request.body).get("parameters")

        async def look() -> None:
            await self._service.look(is_forced=True)
            try:
                catalogue.check_load(self._service, route.name, parameters)
                respond(_json({}))
            except FlyballError as error:
                respond(self._refusal(route.name, error))

        self._start(look())

    def _unload(self, route: Route, _request: Request, _respond: Respond) -> None:
        raise catalogue.refuse_unload(self._service, route.name)

    # features

    def _features(self, route: Route, request: Request, respond: Respond) -> None:
        server = self._features_server
        respond(Response(200, server.get(route.name, request.query) if route.name else server.listing()))

    def _features_asked(self, route: Route, request: Request, respond: Respond) -> None:
        self._read(route, request, respond, lambda body: respond(Response(200, self._features_server.post(body))))

    # predictions and labels

    def _infer(self, route: Route, request: Request, respond: Respond) -> None:
        if not self._tensors.take(route, request, respond):
            self._infer_long(route, request, respond, time.perf_counter())

    def _infer_long(self, route: Route, request: Request, respond: Respond, received: float) -> None:
        def ask(body: bytes) -> None:
            infer = parse_request(body, _head_length(request))
            served = self._service.engine.lineup.find(route.name)
            question = question_of_tensors(served, infer, _headers(request), route.version, received)
            question.caller = request.caller
            self._service.ask(question, partial(self._inferred, route.name, infer, request, respond))

        self._read(route, request, respond, ask)

    def _inferred(
        self,
        name: str,
        infer: InferRequest,
        request: Request,
        respond: Respond,
        answer: Answer | None,
        error: FlyballError | None,
    ) -> None:
        if answer is None:
            respond(self._refusal(name, error))
            return
        try:
            body, head_length = render_response(head_of(answer, infer), *tensors_of(answer, infer))
        except FlyballError as refusal:
            respond(self._refusal(name, refusal))
            return
        except Exception:
            respond(self._fault())
            return
        headers = _tracks(answer)
        if head_length is None:
            self._send(request, respond, Response(200, body, headers=headers))
        else:
            headers += b"Inference-Header-Content-Length: %d\r\n" % head_length
            self._send(request, respond, Response(200, body, b"application/octet-stream", headers))

    def _predict(self, route: Route, request: Request, respond: Respond) -> None:
        if not self._records.take(route, request, respond):
            self._predict_long(route, request, respond, time.perf_counter())

    def _predict_long(self, route: Route, request: Request, respond: Respond, received: float) -> None:
        def ask(body: bytes) -> None:
            question = question_of(route.name, body)
            question.received = received
            question.caller = request.caller
            headers = _headers(request)
            if headers:
                take_headers(question, headers)
            self._service.ask(question, partial(self._predicted, route.name, request, respond))

        self._read(route, request, respond, ask)

    def _predicted(
        self, name: str, request: Request, respond: Respond, answer: Answer | None, error: FlyballError | None
    ) -> None:
        if answer is None:
            respond(self._refusal(name, error))
            return
        try:
            body = orjson.dumps({"predictions": answer.records()}, option=orjson.OPT_SERIALIZE_NUMPY)
        except Exception:
            respond(self._fault())
        else:
            self._send(request, respond, Response(200, body, headers=_tracks(answer)))

    def _again(
        self,
        ask: Callable[[Route, Request, Respond, float], None],
        route: Route,
        request: Request,
        respond: Respond,
        received: float,
    ) -> None:
        """Answer the long way what could not be answered the short one, from another turn of the loop."""
        try:
            ask(route, request, respond, received)
        except FlyballError as error:
            respond(self._refusal(route.name, error))
        except Exception:
            respond(self._fault())

    def _label(self, route: Route, request: Request, respond: Respond) -> None:
        def take(body: bytes) -> None:
            labels = labels_of(body, self._clock.now())

            def done(error: FlyballError | None) -> None:
                respond(_json({"labelled": len(labels)}) if error is None else self._refusal(route.name, error))

            self._service.label(labels, done)

        self._read(route, request, respond, take)

    # bodies

    def _read(self, route: Route, request: Request, respond: Respond, go: Callable[[bytes], None]) -> None:
        """Call `go` with the body as it was before it was compressed; what it raises is the answer."""
        coding = request.headers.get(b"content-encoding")
        most = self._service.body_bytes(route.name, self._limits.body_bytes)
        if len(request.body) > most:
            raise TooLarge(
                f"the body has {len(request.body)} bytes; {route.name} takes at most {most}, send it in parts"
            )
        if coding is None:
            go(request.body)
        elif len(request.body) <= _ASIDE_BYTES:
            go(decompressed(request.body, coding, most))
        else:

            async def read() -> None:
                loop = asyncio.get_running_loop()
                try:
                    go(await loop.run_in_executor(None, decompressed, request.body, coding, most))
                except FlyballError as error:
                    respond(self._refusal(route.name, error))
                except Exception:
                    respond(self._fault())

            self._start(read())

    def _send(self, request: Request, respond: Respond, response: Response) -> None:
        """Answer, compressed where the client asks for it and it is worth it."""
        accepted = request.headers.get(b"accept-encoding")
        coding = None if accepted is None or len(response.body) < _SMALL_BYTES else accepted_coding(accepted)
        if coding is None:
            respond(response)
        elif len(response.body) <= _LARGE_BYTES:
            respond(_compressed(response, coding))
        else:

            async def send() -> None:
                respond(await asyncio.get_running_loop().run_in_executor(None, _compressed, response, coding))

            self._start(send())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refusal(self, name: str, error: FlyballError | None) -> Response:
        status = status_of(error)
        served = name if name in self._service.engine.lineup.served else ""  # clients must not make up label values
        self._service.counters.errors[served, status] += 1
        headers = b"WWW-Authenticate: Bearer\r\n" if status == 401 else b""
        if status in (429, 503, 504):
            headers = b"Retry-After: %d\r\n" % retry_after(error)
        return _error(status, str(error), headers)

    def _find(self, path: bytes) -> dict[str, Route]:
        """Return the routes of a path and remember them. Raises NotFound."""
        routes = find_routes(path)
        if not routes and path != b"*":
            shown = path[:80].decode("latin-1")
            raise NotFound(f"there is nothing at {shown}; see /openapi.json for what there is")
        if len(self._routes) >= _MOST_ROUTES:  # of names that clients made up
            self._routes.clear()
        self._routes[path] = routes
        return routes


def _is_open(route: Route, callers: Callers) -> bool:
    return route.action in _OPEN or (route.action == "metrics" and callers.is_metrics_open)


def _without_route(method: str, routes: dict[str, Route]) -> Response:
    """Answer OPTIONS, and a method that a path has not (RFC 9110 §9.3.7, §15.5.6)."""
    known = [name for found in sorted(routes) for name in ((found, "HEAD") if found == "GET" else (found,))]
    allow = ", ".join([*known, "OPTIONS"])
    line = f"Allow: {allow}\r\n".encode()
    if method == "OPTIONS":
        return Response(200, b"", headers=line)
    return _error(405, f"{method} is not for this path; use {', '.join(known) or 'OPTIONS'}", line)


def _headers(request: Request) -> dict[str, str]:
    headers = request.headers
    return {name.decode(): headers[name].decode("latin-1") for name in _HEADERS if name in headers}


def _compressed(response: Response, coding: str) -> Response:
    line = b"Content-Encoding: %b\r\nVary: Accept-Encoding\r\n" % coding.encode()
    return replace(response, body=compressed(response.body, coding), headers=response.headers + line)


def _head_length(request: Request) -> int | None:
    text = request.headers.get(b"inference-header-content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise InvalidInput("Inference-Header-Content-Length is not a number of bytes")
    return int(text)


def _tracks(answer: Answer) -> bytes:
    part = answer.parts[0]
    first = answer.ids[0] if answer.ids else ""
    tracks = {"prediction-id": first, "variant": part.variant, "version": part.version}
    return "".join(f"x-flyball-{name}: {value}\r\n" for name, value in tracks.items()).encode("latin-1", "replace")


def _fields_of(body: bytes) -> dict[str, Any]:
    """Return a small JSON object; none for an empty body. Raises InvalidInput."""
    try:
        document = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInput("the request is not an object")
    return document


def _json(document: Any) -> Response:
    return Response(200, orjson.dumps(document))


def _error(status: int, message: str, headers: bytes = b"") -> Response:
    return Response(status, orjson.dumps({"error": message.encode("utf-8", "replace").decode()}), headers=headers)
