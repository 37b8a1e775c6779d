"""The pages: a module a section, each with `mount(site)` that puts its pages at their addresses."""

from __future__ import annotations

import importlib

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from flyball.errors import NotFound
from flyball.platform import Platform
from flyball.web.assets import STATIC_CACHE_CONTROL, asset_file
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]

# More particular addresses come before those with a name in the same place.
SECTIONS = (
    "overview",
    "compare",
    "runs",
    "run",
    "run_files",
    "experiments",
    "traces",
    "catalogue",
    "products",
    "labels",
    "quarantine",
    "files",
    "diffs",
    "profiles",
    "datasets",
    "features",
    "triggers",
    "pipelines",
    "approvals",
    "papers",
    "models",
    "predictions",
    "deployments",
    "alerts",
    "monitors",
    "journal",
    "lineage",
    "webhooks",
    "keys",
    "login",
    "settings",
    "finding",
)


def mount(app: FastAPI, platform: Platform) -> None:
    """Put all pages on an application that already has its other routes: what is left over is answered here."""
    site = Site(app, platform)
    app.add_route("/static/{digest}/{path:path}", _static, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_route("/favicon.ico", _icon, methods=["GET", "HEAD"], include_in_schema=False)
    for section in SECTIONS:
        importlib.import_module(f"flyball.web.pages.{section}").mount(site)
    site.page("/{path:path}", _nowhere)


def _static(request: Request) -> Response:
    try:
        file = asset_file(request.path_params["path"])
    except NotFound as error:
        return Response(str(error), 404, media_type="text/plain")
    headers = {"Cache-Control": STATIC_CACHE_CONTROL, "X-Content-Type-Options": "nosniff"}
    return Response(file.content, 200, headers, file.media_type)


def _icon(_request: Request) -> Response:
    return Response(asset_file("favicon.svg").content, 200, {}, "image/svg+xml")


def _nowhere(request: Request) -> Page:
    path = request.url.path
    if path == "/api" or path.startswith("/api/"):
        raise HTTPException(404)
    raise NotFound(f"there is no page at {path[:200]}; the navigation on the left lists what there is")
