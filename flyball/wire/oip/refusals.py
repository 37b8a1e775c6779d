"""Errors as the data plane answers them: HTTP statuses, and what gRPC calls the same."""

from __future__ import annotations

import math

from flyball.errors import Conflict, FlyballError, Forbidden, InvalidInput, NotFound, Unauthenticated, Unavailable
from flyball.serving.limits import TooLate, TooMany

__all__ = ["CODES", "TooLarge", "UnknownCoding", "retry_after", "status_of"]


class TooLarge(InvalidInput):
    """A body that is larger than the limit once decompressed."""


class UnknownCoding(InvalidInput):
    """A Content-Encoding other than gzip, deflate and identity."""


_STATUSES: tuple[tuple[type[FlyballError], int], ...] = (
    (TooLarge, 413),
    (UnknownCoding, 415),
    (InvalidInput, 400),
    (NotFound, 404),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (Conflict, 409),
    (TooLate, 504),
    (TooMany, 429),
    (Unavailable, 503),
)

CODES = {  # of gRPC; UNAVAILABLE is what clients send again, so no fault of theirs may be called so
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""HTTP status → name of a gRPC status; any other is INTERNAL."""


def status_of(error: FlyballError | None) -> int:
    """Return the HTTP status of an error; 500 for one that is nobody's but ours or the model's."""
    return next((code for kind, code in _STATUSES if isinstance(error, kind)), 500)


def retry_after(error: FlyballError | None) -> int:
    """Return the whole seconds after which a refused client may ask again."""
    return math.ceil(error.retry_after_s) if isinstance(error, TooMany) else 1
