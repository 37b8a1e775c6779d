"""HTTP paths to the serving service, and its answers to HTTP: Open Inference Protocol v2 and plain records.

    GET  v2 · v2/health/live · v2/health/ready · v2/models · v2/models/N[/versions/V][/ready]
    POST v2/models/N[/versions/V]/infer · v2/repository/index
    POST v1/models/N:predict · v1/models/N:label
    GET  health · metrics
    GET  features[/N]
    POST features

Features are answered by `wire.features.server`. Every error is `{"error": "…"}` with its status, also 404 and 405. A
model's name is its deployment's; a version is one that this deployment serves now. Answers to predictions carry
`x-flyball-prediction-id` (of the first row), `-variant`, `-version`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from flyball.clock import SYSTEM, Clock, parse_instant
from flyball.errors import Conflict, FlyballError, Forbidden, InvalidInput, NotFound, Unavailable
from flyball.models.fields import Field
from flyball.serving.connection import HttpLimits, Request, Response
from flyball.serving.lineup import Served, ServedVariant
from flyball.serving.questions import Answer, Question
from flyball.serving.service import Service
from flyball.wire.features.server import FeatureServer
from flyball.wire.oip.bodies import TooLarge, UnknownCoding, decompressed, labels_of, question_of
from flyball.wire.oip.tensors import InferRequest, parse_request, render_response

__all__ = ["RestHandler"]

Respond = Callable[[Response], None]

_STATUSES: tuple[tuple[type[FlyballError], int], ...] = (
    (TooLarge, 413),
    (UnknownCoding, 415),
    (InvalidInput, 400),
    (NotFound, 404),
    (Forbidden, 403),
    (Conflict, 409),
    (Unavailable, 503),
)
_MOST_ROUTES = 1024
_NOT_SERVED = ("stats", "config", "load", "unload", "trace", "generate", "generate_stream")


class _Route(NamedTuple):
    action: str  # the name of the handler's method
    method: str
    name: str = ""
    version: str | None = None


_POST_FEATURES = _Route("_features_asked", "POST")


class RestHandler:
    """A `Handler` for `HttpServer`, in front of one service."""

    def __init__(self, service: Service, limits: HttpLimits | None = None, clock: Clock = SYSTEM) -> None:
        self._service = service
        self._limits = limits or HttpLimits()
        self._clock = clock
        self._features = FeatureServer(service.engine, clock)
        self._routes: dict[bytes, _Route] = {}

    def handle(self, request: Request, respond: Respond) -> None:
        """Answer one request; see `Handler`."""
        try:
            route = self._routes.get(request.path) or self._find(request.path)
            method = "GET" if request.method == "HEAD" else request.method
            if route.action == "_features_of" and method == "POST" and not route.name:
                route = _POST_FEATURES
            if method != route.method:
                allow = "GET, HEAD" if route.method == "GET" else route.method
                respond(
                    _error(405, f"{request.method} is not for this path; use {allow}", f"Allow: {allow}\r\n".encode())
                )
                return
            getattr(self, route.action)(route, request, respond)
        except FlyballError as error:
            respond(self._refusal("", error))

    def error(self, status: int, message: str) -> Response:
        """Word an error that was found before any route."""
        self._service.counters.errors["", status] += 1
        return _error(status, message)

    # what is there

    def _live(self, _route: _Route, _request: Request, respond: Respond) -> None:
        respond(_json({"live": True}))

    def _ready(self, _route: _Route, _request: Request, respond: Respond) -> None:
        if self._service.is_ready:
            respond(_json({"ready": True}))
        else:
            respond(_error(503, "the models are still being loaded", b"Retry-After: 1\r\n"))

    def _health(self, _route: _Route, _request: Request, respond: Respond) -> None:
        lineup = self._service.engine.lineup
        refused = {name: refusal.message for name, refusal in lineup.errors.items()}
        state = {
            "status": "ok" if self._service.is_ready else "starting",
            "generation": lineup.generation,
            "deployments": sorted(lineup.served),
            "refused": refused,
            "error": self._service.error,
        }
        respond(_json(state))

    def _metrics(self, _route: _Route, _request: Request, respond: Respond) -> None:
        respond(Response(200, self._service.metrics().encode(), b"text/plain; version=0.0.4; charset=utf-8"))

    def _server(self, _route: _Route, _request: Request, respond: Respond) -> None:
        respond(_json({"name": "flyball", "version": _release(), "extensions": ["binary_tensor_data"]}))

    def _models(self, _route: _Route, _request: Request, respond: Respond) -> None:
        respond(_json({"models": sorted(self._service.engine.lineup.served)}))

    def _index(self, _route: _Route, request: Request, respond: Respond) -> None:
        lineup = self._service.engine.lineup
        only_ready = bool(request.body.strip()) and _ready_only(request.body)
        rows = [
            {"name": name, "version": v.variant.version, "state": "READY", "reason": ""}
            for name, served in sorted(lineup.served.items())
            for v in served.variants
        ]
        if not only_ready:
            rows += [
                {"name": name, "version": "", "state": "UNAVAILABLE", "reason": refusal.message}
                for name, refusal in sorted(lineup.errors.items())
                if name not in lineup.served
            ]
        respond(_json(rows))

    def _model(self, route: _Route, _request: Request, respond: Respond) -> None:
        served, by = self._wanted(route)
        given = list(by.request.inputs) if by.request else []
        given += [Field(key, "string", nullable=True) for key in by.keys if key in by.extra]
        respond(
            _json(
                {
                    "name": served.name,
                    "versions": list(dict.fromkeys(v.variant.version for v in served.variants)),
                    "platform": f"flyball_{by.model.bundle.manifest['flavor']}",
                    "inputs": [_described(f) for f in given],
                    "outputs": [_described(f) for f in by.model.signature.outputs],
                }
            )
        )

    def _model_ready(self, route: _Route, _request: Request, respond: Respond) -> None:
        served, _ = self._wanted(route)
        respond(_json({"name": served.name, "ready": True}))

    def _not_served(self, _route: _Route, request: Request, respond: Respond) -> None:
        respond(
            _error(
                501,
                f"{request.path[-40:].decode('latin-1')} is not offered: deployments say what is loaded; see v2/models",
            )
        )

    # features

    def _features_of(self, route: _Route, request: Request, respond: Respond) -> None:
        respond(
            Response(200, self._features.get(route.name, request.query) if route.name else self._features.listing())
        )

    def _features_asked(self, _route: _Route, request: Request, respond: Respond) -> None:
        respond(Response(200, self._features.post(self._body(request))))

    # predictions and labels

    def _infer(self, route: _Route, request: Request, respond: Respond) -> None:
        received = time.perf_counter()
        try:
            served = self._service.engine.lineup.find(route.name)
            infer = parse_request(self._body(request), _head_length(request))
            question = _question(served, infer, request, received)
            question.version = route.version
        except FlyballError as error:
            respond(self._refusal(route.name, error))
            return
        self._service.ask(question, partial(self._inferred, route.name, infer, respond))

    def _inferred(
        self, name: str, infer: InferRequest, respond: Respond, answer: Answer | None, error: FlyballError | None
    ) -> None:
        if answer is None:
            respond(self._refusal(name, error))
            return
        part = answer.parts[0]
        head: dict[str, Any] = {"model_name": name, "model_version": part.version}
        if infer.id is not None:
            head["id"] = infer.id
        head["parameters"] = {"variant": part.variant, "prediction_ids": ",".join(answer.ids)}
        try:
            body, head_length = render_response(head, part.outputs, infer)
        except FlyballError as refusal:
            respond(self._refusal(name, refusal))
            return
        headers = _tracks(answer)
        if head_length is None:
            respond(Response(200, body, headers=headers))
        else:
            headers += b"Inference-Header-Content-Length: %d\r\n" % head_length
            respond(Response(200, body, b"application/octet-stream", headers))

    def _predict(self, route: _Route, request: Request, respond: Respond) -> None:
        received = time.perf_counter()
        try:
            question = question_of(route.name, self._body(request))
            _add_headers(question, request, received)
        except FlyballError as error:
            respond(self._refusal(route.name, error))
            return
        self._service.ask(question, partial(self._predicted, route.name, respond))

    def _predicted(self, name: str, respond: Respond, answer: Answer | None, error: FlyballError | None) -> None:
        if answer is None:
            respond(self._refusal(name, error))
        else:
            body = orjson.dumps({"predictions": answer.records()}, option=orjson.OPT_SERIALIZE_NUMPY)
            respond(Response(200, body, headers=_tracks(answer)))

    def _label(self, route: _Route, request: Request, respond: Respond) -> None:
        try:
            labels = labels_of(self._body(request), self._clock.now())
        except FlyballError as error:
            respond(self._refusal(route.name, error))
            return

        def done(error: FlyballError | None) -> None:
            respond(_json({"labelled": len(labels)}) if error is None else self._refusal(route.name, error))

        self._service.label(labels, done)

    def _body(self, request: Request) -> bytes:
        coding = request.headers.get(b"content-encoding")
        return request.body if coding is None else decompressed(request.body, coding, self._limits.body_bytes)

    def _wanted(self, route: _Route) -> tuple[Served, ServedVariant]:
        served = self._service.engine.lineup.find(route.name)
        return served, served.variants[0] if route.version is None else served.of_version(route.version)

    def _refusal(self, name: str, error: FlyballError | None) -> Response:
        status = next((code for kind, code in _STATUSES if isinstance(error, kind)), 500)
        served = name if name in self._service.engine.lineup.served else ""  # clients must not make up label values
        self._service.counters.errors[served, status] += 1
        return _error(status, str(error), b"Retry-After: 1\r\n" if status == 503 else b"")

    def _find(self, path: bytes) -> _Route:
        """Return the route of a path and remember it. Raises NotFound."""
        try:
            parts = [unquote_to_bytes(part).decode("utf-8") for part in path.strip(b"/").split(b"/")]
        except UnicodeDecodeError:
            raise InvalidInput("the path is not UTF-8") from None
        route = _route_of(parts)
        if route is None:
            shown = path[:80].decode("latin-1")
            raise NotFound(f"there is nothing at {shown}; see v2/models for what is served")
        if len(self._routes) < _MOST_ROUTES:
            self._routes[path] = route
        return route


def _route_of(parts: list[str]) -> _Route | None:
    match parts:
        case ["v2"]:
            return _Route("_server", "GET")
        case ["v2", "health", "live"]:
            return _Route("_live", "GET")
        case ["v2", "health", "ready"]:
            return _Route("_ready", "GET")
        case ["health"]:
            return _Route("_health", "GET")
        case ["metrics"]:
            return _Route("_metrics", "GET")
        case ["features"]:
            return _Route("_features_of", "GET")
        case ["features", name]:
            return _Route("_features_of", "GET", name)
        case ["v2", "models"]:
            return _Route("_models", "GET")
        case ["v2", "repository", "index"]:
            return _Route("_index", "POST")
        case ["v2", "models", name]:
            return _Route("_model", "GET", name)
        case ["v2", "models", name, "versions", version]:
            return _Route("_model", "GET", name, version)
        case ["v2", "models", name, "ready"]:
            return _Route("_model_ready", "GET", name)
        case ["v2", "models", name, "versions", version, "ready"]:
            return _Route("_model_ready", "GET", name, version)
        case ["v2", "models", name, "infer"]:
            return _Route("_infer", "POST", name)
        case ["v2", "models", name, "versions", version, "infer"]:
            return _Route("_infer", "POST", name, version)
        case ["v1", "models", call] if call.endswith((":predict", ":label")):
            name, _, verb = call.rpartition(":")
            return _Route(f"_{verb}", "POST", name)
        case ["v2", "models", *_, action] if action in _NOT_SERVED:
            return _Route("_not_served", "GET" if action in ("stats", "config") else "POST")
        case ["v2", "repository", "models", _, "load" | "unload"]:
            return _Route("_not_served", "POST")
    return None


def _question(served: Served, infer: InferRequest, request: Request, received: float) -> Question:
    """Return an inference request as a question; a column may come as [n] or [n, 1]."""
    tensors = {f.name for v in served.variants for f in v.model.signature.inputs if f.shape is not None}
    columns = {
        name: array[:, 0] if array.ndim == 2 and array.shape[1] == 1 and name not in tensors else array
        for name, array in infer.inputs.items()
    }
    key, at = infer.parameters.get("key"), infer.parameters.get("at")
    question = Question(served.name, columns=columns, request_id=infer.id, is_whole=True)
    question.key = None if key is None else str(key)
    question.at = None if at is None else parse_instant(str(at))
    _add_headers(question, request, received)
    return question


def _add_headers(question: Question, request: Request, received: float) -> None:
    headers = request.headers
    question.received = received
    if b"x-flyball-variant" in headers:
        question.variant = headers[b"x-flyball-variant"].decode("latin-1")
    if question.request_id is None and b"x-request-id" in headers:
        question.request_id = headers[b"x-request-id"].decode("latin-1")
    parent = headers.get(b"traceparent")
    if parent is not None and len(parent) >= 55 and parent[2:3] == b"-":  # W3C Trace Context §3.2
        question.trace = parent[3:35].decode("latin-1")


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


def _described(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": field.oip_datatype, "shape": list(field.oip_shape)}


def _ready_only(body: bytes) -> bool:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not JSON: {error}") from None
    return isinstance(document, dict) and document.get("ready") is True


def _json(document: Any) -> Response:
    return Response(200, orjson.dumps(document))


def _error(status: int, message: str, headers: bytes = b"") -> Response:
    return Response(status, orjson.dumps({"error": message.encode("utf-8", "replace").decode()}), headers=headers)


def _release() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flyball")
    except PackageNotFoundError:
        return "0"
