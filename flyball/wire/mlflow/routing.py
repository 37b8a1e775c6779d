"""The table of routes: which function answers which method and path, and what fields it takes.

A module of nouns adds its routes to one `Routes`; `app` looks requests up in it: fixed paths by a dictionary, paths
with parts that vary by their number of segments. Paths are written without the front that they all share: the route
`2.0/mlflow/runs/get` answers at `/api/2.0/mlflow/runs/get` and at `/ajax-api/…`, where MLflow's web page asks; a path
that begins with `/` stands for itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flyball.wire.mlflow.fields import Field

__all__ = ["Asked", "Found", "Route", "Routes"]

_FRONTS = ("/api/", "/ajax-api/")


@dataclass(frozen=True)
class Asked:
    """A request that was read: `asked["run_id"]` is a field that was given, `asked.get("x")` one that may be absent."""

    fields: Mapping[str, Any]
    parts: Mapping[str, str] = field(default_factory=dict)  # the parts of the path that vary, percent-decoded
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    verb: str = "GET"
    size_bytes: int = 0  # of the body

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field's value, or the default when it was not given."""
        return self.fields.get(name, default)


@dataclass(frozen=True)
class Route:
    """One route.

    Attributes:
        handler: takes an `Asked` and returns what is sent as JSON, or a response; a plain function runs in a thread,
            a coroutine function on the loop. A raw one is a coroutine function from a request and the path's parts to a
            response.
        is_raw: whether the handler reads the request itself, for bodies that are no JSON or no small ones.
    """

    verb: str
    path: str
    handler: Callable[..., Any]
    fields: tuple[Field, ...] = ()
    is_raw: bool = False

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.handler)


@dataclass(frozen=True)
class Found:
    """A route that fits a request, with the parts of its path that vary."""

    route: Route
    parts: Mapping[str, str]
    is_async: bool


class Routes:
    """All routes."""

    def __init__(self) -> None:
        self._fixed: dict[tuple[str, str], Found] = {}
        self._varying: dict[str, list[tuple[list[str], Route, bool]]] = {}  # by verb
        self._verbs: dict[str, set[str]] = {}  # by fixed path

    def add(
        self, verb: str, path: str, *fields: Field, ajax_only: bool = False, is_raw: bool = False
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function.

        Args:
            verb: the method, or several: `GET`, `GET POST`.
            path: as the module says; `{name}` stands for one segment, `{name:path}` at the end for all that follow.
            ajax_only: whether only MLflow's web page asks it.
            is_raw: see `Route`.
        """

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            fronts = ("",) if path.startswith("/") else _FRONTS[1:] if ajax_only else _FRONTS
            for front in fronts:
                for one in verb.split():
                    self._keep(Route(one, front + path, handler, fields, is_raw))
            return handler

        return register

    def find(self, verb: str, path: str) -> Found | None:
        """Return the route of a request, None when there is none."""
        found = self._fixed.get((verb, path))
        if found is not None:
            return found
        segments = path.split("/")
        for template, route, is_async in self._varying.get(verb, ()):
            parts = _match(template, segments)
            if parts is not None:
                return Found(route, parts, is_async)
        return None

    def all(self) -> list[Route]:
        """Return every route, at each of its fronts."""
        return [found.route for found in self._fixed.values()] + [r for rs in self._varying.values() for _, r, _ in rs]

    def verbs(self, path: str) -> list[str]:
        """Return the methods that a path takes; none: nothing is there."""
        segments = path.split("/")
        varying = {
            verb
            for verb, routes in self._varying.items()
            if any(_match(template, segments) is not None for template, _, _ in routes)
        }
        return sorted(self._verbs.get(path, set()) | varying)

    def _keep(self, route: Route) -> None:
        if "{" not in route.path:
            self._fixed[route.verb, route.path] = Found(route, {}, route.is_async)
            self._verbs.setdefault(route.path, set()).add(route.verb)
            return
        self._varying.setdefault(route.verb, []).append((route.path.split("/"), route, route.is_async))


def _match(template: list[str], segments: list[str]) -> dict[str, str] | None:
    parts: dict[str, str] = {}
    for number, wanted in enumerate(template):
        if wanted.endswith(":path}"):
            rest = "/".join(segments[number:])
            return {**parts, wanted[1:-6]: rest} if rest else None
        if number >= len(segments):
            return None
        given = segments[number]
        if wanted.startswith("{"):
            if not given:
                return None
            parts[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return parts if len(template) == len(segments) else None
