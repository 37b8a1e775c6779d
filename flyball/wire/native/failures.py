"""Errors as HTTP answers: `{"error": "one sentence"}` with the status that fits, the framework's own errors too."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from flyball.errors import (
    Conflict,
    FlyballError,
    Forbidden,
    Incompatible,
    InvalidInput,
    MissingExtra,
    NotFound,
    StepFailed,
    Unauthenticated,
    Unavailable,
)
from flyball.wire.native.values import encode

__all__ = ["STATUSES", "answer_errors", "failure", "refused", "status_of"]

log = logging.getLogger("flyball.wire")

STATUSES: tuple[tuple[type[FlyballError], int], ...] = (
    (InvalidInput, 400),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (StepFailed, 422),
    (MissingExtra, 501),
    (Unavailable, 503),
    (Incompatible, 500),
)


def status_of(error: FlyballError) -> int:
    """Return the HTTP status of one of our errors; 500 for what is our own fault, such as `Corrupt`."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def failure(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that says what was wrong."""
    return Response(encode({"error": sentence}), status, headers, "application/json")


def refused(error: FlyballError, headers: Mapping[str, str]) -> Response:
    """Return an error that was met before any route, with headers of its own."""
    return failure(status_of(error), str(error), dict(headers))


def answer_errors(app: FastAPI) -> None:
    """Make an application answer every error in our form."""

    def ours(_request: Request, error: Exception) -> Response:
        assert isinstance(error, FlyballError)
        status = status_of(error)
        return failure(status, str(error), {"Retry-After": "1"} if status == 503 else None)

    def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        return failure(error.status_code, _words(request, error), headers)

    def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return failure(422, "; ".join(_problem(problem) for problem in list(error.errors())[:3]))

    def unknown(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return failure(500, "an internal error; the control plane's log says more")

    app.add_exception_handler(FlyballError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unknown)


def _words(request: Request, error: HTTPException) -> str:
    path = request.url.path[:120]
    if error.status_code == 404:
        return f"there is nothing at {path}; /api lists what there is"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("allow") or (error.headers or {}).get("Allow", "another method")
        return f"{request.method} is not for {path}; use {allowed}"
    detail = str(error.detail)
    return detail if detail != HTTPStatus(error.status_code).phrase else f"the request was refused: {detail.lower()}"


def _problem(problem: dict[str, Any]) -> str:
    where = [str(part) for part in problem.get("loc", ())]
    message = str(problem.get("msg", "is wrong")).removeprefix("Value error, ")
    if problem.get("type") == "json_invalid":
        return f"the body is not JSON: {(problem.get('ctx') or {}).get('error', message)}"
    place = f'"{".".join(where[1:])}"' if len(where) > 1 and not where[-1].isdecimal() else "the body"
    return f"{place}: {message[:1].lower()}{message[1:]}"
