"""How a request is refused: MLflow's error codes with their HTTP status, as its clients read them.

A client retries 5xx and 429 for minutes, so what the caller got wrong is always 4xx here, also where MLflow's own
server answers 500 (`INVALID_STATE`, `INTERNAL_ERROR` for bad input): the code in the body stays the same.
"""

from __future__ import annotations

from flyball.errors import (
    Conflict,
    FlyballError,
    Forbidden,
    InvalidInput,
    MissingExtra,
    NotFound,
    Unauthenticated,
    Unavailable,
)

__all__ = ["Refused", "already_exists", "invalid", "missing", "not_found", "refusal_of", "required", "wrong_state"]

_STATUSES = {
    "BAD_REQUEST": 400,
    "INVALID_PARAMETER_VALUE": 400,
    "INVALID_STATE": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "ENDPOINT_NOT_FOUND": 404,
    "NOT_FOUND": 404,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
}

_CLASSES = {  # error_class and sqlstate, which newer clients show
    "BAD_REQUEST": ("INVALID_PARAMETER_VALUE", "KAM00"),
    "INVALID_PARAMETER_VALUE": ("INVALID_PARAMETER_VALUE", "KAM00"),
    "RESOURCE_ALREADY_EXISTS": ("RESOURCE_ALREADY_EXISTS", "KAM00"),
    "RESOURCE_DOES_NOT_EXIST": ("RESOURCE_NOT_FOUND", "KAM00"),
    "ENDPOINT_NOT_FOUND": ("RESOURCE_NOT_FOUND", "KAM00"),
    "NOT_FOUND": ("RESOURCE_NOT_FOUND", "KAM00"),
    "PERMISSION_DENIED": ("PERMISSION_DENIED", "KAM00"),
    "INTERNAL_ERROR": ("CLIENT_INTERNAL_ERROR", "XXM00"),
    "INVALID_STATE": ("CLIENT_INTERNAL_ERROR", "XXM00"),
    "TEMPORARILY_UNAVAILABLE": ("CLIENT_INTERNAL_ERROR", "XXM00"),
}

_OF_ERRORS: tuple[tuple[type[FlyballError], str], ...] = (
    (InvalidInput, "INVALID_PARAMETER_VALUE"),
    (NotFound, "RESOURCE_DOES_NOT_EXIST"),
    (Conflict, "RESOURCE_ALREADY_EXISTS"),
    (Unauthenticated, "UNAUTHENTICATED"),
    (Forbidden, "PERMISSION_DENIED"),
    (Unavailable, "TEMPORARILY_UNAVAILABLE"),
    (MissingExtra, "NOT_IMPLEMENTED"),
)


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        code: MLflow's error code.
        status: HTTP status; by the code unless given.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = _STATUSES[code] if status is None else status

    def document(self) -> dict[str, str]:
        """Return the body of the answer."""
        body = {"error_code": self.code, "message": self.message}
        if self.code in _CLASSES:
            body["error_class"], body["sqlstate"] = _CLASSES[self.code]
        return body


def refusal_of(error: FlyballError) -> Refused:
    """Return one of our errors as clients of MLflow know it."""
    code = next((code for kind, code in _OF_ERRORS if isinstance(error, kind)), "INTERNAL_ERROR")
    return Refused(code, str(error))


def invalid(message: str) -> Refused:
    """Return the refusal of a wrong value."""
    return Refused("INVALID_PARAMETER_VALUE", message)


def required(name: str) -> Refused:
    """Return the refusal of a request without a field that it needs."""
    return invalid(
        f"Missing value for required parameter '{name}'. "
        "See the API docs for more information about request parameters."
    )


def missing(name: str) -> Refused:
    """Return the refusal of a part of a list without a field that it needs: `metrics[0].key`."""
    return invalid(f"Missing value for required parameter '{name}'")


def not_found(message: str) -> Refused:
    """Return the refusal of a request for what is not there."""
    return Refused("RESOURCE_DOES_NOT_EXIST", message)


def already_exists(message: str) -> Refused:
    """Return the refusal to make what is there already."""
    return Refused("RESOURCE_ALREADY_EXISTS", message)


def wrong_state(message: str) -> Refused:
    """Return the refusal of what cannot be done to a thing as it stands; MLflow's own server answers 500 to it."""
    return Refused("INVALID_STATE", message)
