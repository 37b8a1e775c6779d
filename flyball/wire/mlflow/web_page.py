"""MLflow's own web page, served from the `mlflow` package that is installed, over our routes: `/mlflow/`.

The package is found, never imported: its code does not run here, only the built files of its page are read. It asks for
everything relative to its own address, so it stands below `/mlflow/`, where `app` takes that part off each path.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from flyball import settings
from flyball.platform import Platform
from flyball.wire.mlflow.routing import Asked, Routes

__all__ = ["MlflowSettings", "add_web_page"]

_BUILD = Path("server") / "js" / "build"
_YEAR_S = 28 * 24 * 3600

# It makes its styles and workers at run time, so it is allowed more than our own pages are, but nothing foreign.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self' blob: data:; "
    "frame-src 'self' blob: data:; media-src 'self' blob: data:; object-src 'none'; frame-ancestors 'self'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Frame-Options": "SAMEORIGIN"}


@dataclass(frozen=True)
class MlflowSettings:
    """`[mlflow]` in flyball.toml, `FLYBALL_MLFLOW_…` in the environment."""

    package: str = ""  # folder of the package `mlflow` whose web page is shown; empty: the one that is installed


def add_web_page(routes: Routes, platform: Platform) -> None:
    """Add the page and its files."""
    build = _build(settings.load(MlflowSettings, "mlflow", platform.home))

    @routes.add("GET", "/", is_raw=True)
    async def index(request: Request) -> Response:
        if not request.url.path.endswith("/"):
            return RedirectResponse(f"{request.url.path}/")
        if build is None:
            return Response(_HOW, 404, media_type="text/plain; charset=utf-8")
        return FileResponse(build / "index.html", headers={**_HEADERS, "Cache-Control": "no-cache"})

    @routes.add("GET", "/static-files/{path:path}", is_raw=True)
    async def file(_request: Request, path: str) -> Response:
        found = None if build is None else _within(build, path)
        if found is None:
            return Response("Not Found", 404, media_type="text/plain; charset=utf-8")
        return FileResponse(found, headers={**_HEADERS, "Cache-Control": f"public, max-age={_YEAR_S}"})

    @routes.add("GET POST", "3.0/mlflow/ui-telemetry", ajax_only=True)
    def telemetry(_asked: Asked) -> dict[str, bool]:
        return {"disable_telemetry": True, "ui_telemetry_enabled": False}


_HOW = (
    "MLflow's web page is not here: it is part of the package `mlflow`, which is not installed beside Flyball.\n"
    "Install it with `pip install mlflow`, or name the folder of its package in flyball.toml: [mlflow] package = …\n"
    "Flyball's own pages show the same runs and models: /runs, /models\n"
)


def _build(found: MlflowSettings) -> Path | None:
    if found.package:
        folder: Path | None = Path(found.package)
    else:
        spec = importlib.util.find_spec("mlflow")
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        folder = Path(places[0]) if places else None
    if folder is None or not (folder / _BUILD / "index.html").is_file():
        return None
    return (folder / _BUILD).resolve()


def _within(build: Path, path: str) -> Path | None:
    """Return a file of the page; None for what is not there or would lead out."""
    if "\x00" in path or "\\" in path or Path(path).is_absolute():
        return None
    found = (build / path).resolve()
    return found if found.is_relative_to(build) and found.is_file() else None
