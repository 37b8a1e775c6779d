"""What clients on other machines read and set besides the rest of the API, in forms from which values are made again.

GET  /api/v1/server                     where predictions are answered
GET  /api/v1/experiments[?name=…]       POST {"name"}: make one
GET  /api/v1/runs?experiment=ID&filter=…&order_by=… · /api/v1/runs/RUN · /api/v1/runs/RUN/metrics/KEY
GET  /api/v1/aliases/KIND/NAME          PUT, DELETE /api/v1/models/NAME/aliases/ALIAS
GET  /api/v1/models/NAME@VERSION/bundle a zip archive, as `flyball model export` writes it
GET  /api/v1/data/NAME/rows             all rows of a version as Parquet, masked as the policies say

Numbers that JSON lacks stand as texts: "NaN", "Infinity", "-Infinity".
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict
from starlette.background import BackgroundTask

from flyball.clock import format_instant, parse_instant
from flyball.errors import NotFound
from flyball.ledger.experiments import Experiment
from flyball.ledger.points import Point
from flyball.ledger.runs import Run
from flyball.platform import Platform
from flyball.wire.native.values import encode, listing, run_value

__all__ = ["add_remote"]

Limit = Annotated[int, Query(ge=1, le=50_000)]
Offset = Annotated[int, Query(ge=0)]
View = Literal["active", "deleted", "all"]


class _Name(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str


class _Number(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int


def add_remote(app: FastAPI, platform: Platform) -> None:
    """Add the routes."""
    _add_runs(app, platform)
    _add_models(app, platform)

    @app.get("/api/v1/server")
    def server() -> Response:
        """Return where predictions are answered, None while nobody does."""
        try:
            told = json.loads((platform.home / "serving" / "status.json").read_bytes())
        except (OSError, ValueError):
            told = {}
        return _json({"flyball": 1, "predictions": told.get("address")})

    @app.get("/api/v1/data/{name}/rows")
    def rows(
        name: str,
        version: str = "latest",
        columns: Annotated[list[str] | None, Query()] = None,
        at: str | None = None,
        purpose: str | None = None,
    ) -> Response:
        """Return all rows of a version as a Parquet file."""
        instant = parse_instant(at) if at is not None else None
        frame = platform.frame(f"dataset/{name}@{version}", purpose=purpose, at=instant, columns=columns)
        return _made(f"{name}.parquet", frame.sink_parquet)


def _add_runs(app: FastAPI, platform: Platform) -> None:
    @app.get("/api/v1/experiments")
    def experiments(
        name: str | None = None, filter: str = "", view: View = "active", limit: Limit = 1000, offset: Offset = 0
    ) -> Response:
        """Return experiments; by its name also one that is deleted."""
        if name is not None:
            return _json(listing([_experiment(platform.experiment_by_name(name))]))
        found, is_more = platform.search_experiments(filter, view=view, limit=limit, offset=offset)
        return _json(listing(map(_experiment, found), offset + limit if is_more else None))

    @app.post("/api/v1/experiments")
    def create(given: _Name) -> Response:
        """Make an experiment."""
        return _json(_experiment(platform.create_experiment(given.name)), 201)

    @app.get("/api/v1/runs")
    def runs(
        experiment: Annotated[list[str], Query()] = [],  # noqa: B006 (a default of the framework's)
        filter: str = "",
        order_by: Annotated[list[str], Query()] = [],  # noqa: B006
        view: View = "active",
        limit: Limit = 1000,
        offset: Offset = 0,
    ) -> Response:
        """Find runs of experiments, in the grammar of `docs/tracking.md`."""
        found, is_more = platform.search_runs(experiment, filter, order_by, view, limit, offset)
        return _json(listing((_run(run) for run in found), offset + limit if is_more else None))

    @app.get("/api/v1/runs/{id}")
    def run(id: str) -> Response:
        """Return one run with all that it keeps."""
        found = platform.run(id)
        return _json({**_run(found), "artifacts": [list(artifact) for artifact in platform.artifacts(found.id)]})

    @app.get("/api/v1/runs/{id}/metrics/{key:path}")
    def metric(id: str, key: str) -> Response:
        """Return all points of a metric: [value, step, ms since 1970]."""
        return _json({"points": [_point(point) for point in platform.metric(id, key)]})


def _add_models(app: FastAPI, platform: Platform) -> None:
    @app.get("/api/v1/aliases/{kind}/{name}")
    def aliases(kind: str, name: str, at: str | None = None) -> Response:
        """Return where each alias points, or pointed at an instant."""
        return _json({"aliases": platform.aliases(kind, name, parse_instant(at) if at is not None else None)})

    @app.put("/api/v1/models/{name}/aliases/{alias}")
    def set_alias(name: str, alias: str, given: _Number) -> Response:
        """Point an alias at a version."""
        platform.set_alias(name, alias, given.number)
        return _json({"aliases": platform.aliases("model", name)})

    @app.delete("/api/v1/models/{name}/aliases/{alias}")
    def remove_alias(name: str, alias: str) -> Response:
        """Remove an alias."""
        platform.remove_alias(name, alias)
        return _json({"aliases": platform.aliases("model", name)})

    @app.get("/api/v1/models/{version}/bundle")
    def bundle(version: str) -> Response:
        """Return a version's bundle with its signature as a zip archive."""
        if "@" not in version:
            raise NotFound(f"{version[:80]} names no version; write it like late@3")
        return _made("bundle.zip", lambda path: platform.export_model(f"model/{version}", path))


def _experiment(found: Experiment) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "artifact_location": found.artifact_location,
        "created_at": format_instant(found.created_at),
        "updated_at": format_instant(found.updated_at),
        "deleted_at": format_instant(found.deleted_at) if found.deleted_at else None,
        "tags": dict(found.tags),
    }


def _run(run: Run) -> dict[str, Any]:
    more = {
        "experiment": run.experiment,
        "user": run.user,
        "deleted_at": format_instant(run.deleted_at) if run.deleted_at else None,
        "inputs": run.inputs,
        "outputs": run.outputs,
        "revision": run.revision,
        "latest": {key: _point(point) for key, point in run.latest.items()},
    }
    return {**run_value(run), **more}


def _point(point: Point) -> list[Any]:
    value: Any = point.value
    if not math.isfinite(value):
        value = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return [value, point.step, point.at_ms]


def _made(name: str, write: Callable[[Path], Any]) -> Response:
    """Return a file that is written now and removed once it is sent."""
    folder = Path(tempfile.mkdtemp(prefix="flyball-sent-"))
    try:
        write(folder / name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    gone = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    headers = {"Content-Disposition": "attachment"}
    return FileResponse(folder / name, 200, headers, "application/octet-stream", background=gone)


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")
