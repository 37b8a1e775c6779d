"""The paths of the data plane: what answers which, in one table that the OpenAPI document repeats.

A part in braces is a name; it may be percent-encoded, a slash within it too.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from flyball.errors import InvalidInput

__all__ = ["ROUTES", "Route", "find_routes"]

ROUTES: tuple[tuple[str, str, str], ...] = (  # method, path, what answers
    ("GET", "/v2", "server"),
    ("GET", "/v2/health/live", "live"),
    ("GET", "/v2/health/ready", "ready"),
    ("GET", "/v2/models", "models"),
    ("GET", "/v2/models/stats", "all_statistics"),
    ("GET", "/v2/models/{name}", "model"),
    ("GET", "/v2/models/{name}/ready", "model_ready"),
    ("GET", "/v2/models/{name}/config", "configuration"),
    ("GET", "/v2/models/{name}/stats", "statistics"),
    ("POST", "/v2/models/{name}/infer", "infer"),
    ("GET", "/v2/models/{name}/versions/{version}", "model"),
    ("GET", "/v2/models/{name}/versions/{version}/ready", "model_ready"),
    ("GET", "/v2/models/{name}/versions/{version}/config", "configuration"),
    ("GET", "/v2/models/{name}/versions/{version}/stats", "statistics"),
    ("POST", "/v2/models/{name}/versions/{version}/infer", "infer"),
    ("POST", "/v2/repository/index", "index"),
    ("POST", "/v2/repository/models/{name}/load", "load"),
    ("POST", "/v2/repository/models/{name}/unload", "unload"),
    ("POST", "/v1/models/{name}:predict", "predict"),
    ("POST", "/v1/models/{name}:label", "label"),
    ("GET", "/health", "health"),
    ("GET", "/metrics", "metrics"),
    ("GET", "/openapi.json", "openapi"),
    ("GET", "/features", "features"),
    ("GET", "/features/{name}", "features"),
    ("POST", "/features", "features_asked"),
)


class Route(NamedTuple):
    """What answers a path, by one of its methods, with the names in it."""

    action: str
    name: str = ""
    version: str | None = None


def find_routes(path: bytes) -> dict[str, Route]:
    """Return the routes of a path by method; none for a path that does not exist. A last slash means nothing.

    Raises:
        InvalidInput: the path is not UTF-8 when decoded.
    """
    try:
        parts = [unquote_to_bytes(part).decode() for part in path.strip(b"/").split(b"/")]
    except UnicodeDecodeError:
        raise InvalidInput("the path is not UTF-8") from None
    found: dict[str, Route] = {}
    for method, template, action in ROUTES:
        names = _match(template, parts)
        if names is not None:
            found.setdefault(method, Route(action, **names))
    return found


def _match(template: str, parts: list[str]) -> dict[str, str] | None:
    wanted = template.strip("/").split("/")
    if len(wanted) != len(parts):
        return None
    names: dict[str, str] = {}
    for pattern, part in zip(wanted, parts, strict=True):
        name, brace, ending = pattern.partition("}")
        if not brace:
            if pattern != part:
                return None
        elif not part.endswith(ending) or part == ending:
            return None
        else:
            names[name[1:]] = part[: len(part) - len(ending)]
    return names
