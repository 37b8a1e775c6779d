"""The control plane's web application: routes, each of which parses, asks the platform and translates the answer.

    GET  /api[/health] · /health · /metrics · /api/changes (server-sent events)
    GET  /api/resources[/KIND/NAME] · /api/runs[/ID[/metrics/KEY | /artifacts[/PATH] | /log]]
    GET  /api/versions/KIND[/NAME] · /api/events · /api/why/KIND/NAME · /api/lineage/REF
    POST /api/plan · /api/apply · /api/runs · /api/labels · /api/rollback/NAME · /api/approve
    DELETE /api/resources/KIND/NAME · /api/runs/ID
    what is done with data: `data.py`; with the life of versions: `lifecycle.py`; with access keys: `access_keys.py`
    how rollouts stand: `rollouts.py`
    what clients on other machines send and read, below /api/v1: `receiving.py`, `remote.py`

Handlers are plain functions, which run in a pool of threads: the ledger is synchronous. Predictions are not asked
here but of the data plane, which answers also when this process is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from flyball.control.loop import Loop
from flyball.delivery.documents import Document, document
from flyball.errors import InvalidInput, NotFound
from flyball.governance.admission import Admission
from flyball.platform import Platform
from flyball.wire.native import listings
from flyball.wire.native.access_keys import add_access_keys
from flyball.wire.native.changes import Changes
from flyball.wire.native.data import add_data
from flyball.wire.native.failures import answer_errors, refused
from flyball.wire.native.gate import Gate
from flyball.wire.native.guard import BODY_BYTES, Guard
from flyball.wire.native.lifecycle import add_lifecycle
from flyball.wire.native.metrics import ControlMetrics
from flyball.wire.native.receiving import BLOBS, add_receiving
from flyball.wire.native.remote import add_remote
from flyball.wire.native.rollouts import add_rollouts
from flyball.wire.native.values import (
    artifact_value,
    encode,
    event_value,
    graph_value,
    listing,
    point_value,
    resource_value,
    run_value,
    version_value,
)

__all__ = ["make_app"]

Limit = Annotated[int, Query(ge=1, le=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Label(_Body):
    id: str
    label: bool | int | float | str


class _Labels(_Body):
    labels: list[_Label] = Field(min_length=1)
    source: str = ""


class _PipelineRun(_Body):
    pipeline: str
    params: dict[str, Any] = {}


class _Target(_Body):
    ref: str


def make_app(
    platform: Platform,
    *,
    loop: Loop | None = None,
    hosts: Iterable[str] = (),
    takes_addresses: bool = False,
    body_bytes: int = BODY_BYTES,
    admission: Admission | None = None,
) -> FastAPI:
    """Return the application over one platform.

    Args:
        platform: what every route asks.
        loop: the control loop of this process, for `/metrics`.
        hosts: host names that requests may name besides those of the loopback address.
        takes_addresses: whether they may name any IP address, for a server that listens beyond the loopback address.
        body_bytes: largest body that is taken.
        admission: checks the key of each request, where keys are asked for; `platform` is then one `for_callers`.

    `app.state.changes.close()` ends the event streams; call it when the server is told to stop.
    """
    app = FastAPI(title="Flyball", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.changes = Changes(platform.last_event, platform.events_since)
    if admission is not None:
        app.add_middleware(Gate, admission=admission, refuse=refused)
    app.add_middleware(Guard, hosts=list(hosts), takes_addresses=takes_addresses, body_bytes=body_bytes, streamed=BLOBS)
    answer_errors(app)
    _add_health(app, platform, loop)
    _add_resources(app, platform)
    _add_runs(app, platform)
    _add_versions(app, platform)
    _add_explanations(app, platform)
    _add_acts(app, platform)
    add_data(app, platform)
    add_lifecycle(app, platform)
    add_rollouts(app, platform)
    add_receiving(app, platform)
    add_remote(app, platform)
    add_access_keys(app, platform)
    return app


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")


def _add_health(app: FastAPI, platform: Platform, loop: Loop | None) -> None:
    metrics = ControlMetrics(platform, loop)

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    def health() -> Response:
        return Response("OK", media_type="text/plain; charset=utf-8")  # the very word that clients of MLflow ask for

    @app.get("/api/health")
    def state_of_health() -> Response:
        state = {"status": "ok", "pid": os.getpid(), "home": str(platform.home), "last_event": platform.last_event()}
        return _json(state if loop is None else {**state, "is_acting": loop.is_acting})

    @app.get("/metrics")
    def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/api")
    def index() -> Response:
        paths: dict[str, Any] = app.openapi()["paths"]
        return _json({path: [verb.upper() for verb in verbs] for path, verbs in paths.items()})

    @app.get("/api/changes")
    async def changes() -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(app.state.changes.stream(), 200, headers, "text/event-stream")


def _add_resources(app: FastAPI, platform: Platform) -> None:
    @app.get("/api/resources")
    def resources(kind: str | None = None, limit: Limit = 200, before: str | None = None) -> Response:
        page, next = listings.resources(platform, kind, limit, before)
        return _json(listing(map(resource_value, page), next))

    @app.get("/api/resources/{kind}/{name}")
    def resource(kind: str, name: str) -> Response:
        return _json(resource_value(platform.resource(f"{kind}/{name}")))

    @app.delete("/api/resources/{kind}/{name}")
    def delete(kind: str, name: str) -> Response:
        return _json({"deleted": [str(gone) for gone in platform.delete(f"{kind}/{name}")]})

    @app.post("/api/plan")
    def plan(declared: Annotated[Any, Body()]) -> Response:
        return _json({"changes": platform.plan(_documents(declared)).to_dict()})

    @app.post("/api/apply")
    def apply(declared: Annotated[Any, Body()]) -> Response:
        return _json({"changes": platform.apply(_documents(declared)).to_dict()})


def _add_runs(app: FastAPI, platform: Platform) -> None:
    @app.get("/api/runs")
    def runs(
        kind: str | None = None,
        name: str | None = None,
        of: str | None = None,
        parent: str | None = None,
        status: Annotated[list[str] | None, Query()] = None,
        limit: Limit = 50,
        before: str | None = None,
    ) -> Response:
        filters = {"kind": kind, "name": name, "of": of, "parent": parent}
        page, next = listings.runs(platform, limit, before, status, **filters)
        return _json(listing((run_value(run, whole=False) for run in page), next))

    @app.post("/api/runs")
    def start(wanted: _PipelineRun) -> Response:
        return _json(run_value(platform.start_pipeline(wanted.pipeline, wanted.params)), 201)

    @app.get("/api/runs/{id}")
    def run(id: str) -> Response:
        return _json(run_value(platform.run(id)))

    @app.delete("/api/runs/{id}")
    def delete_run(id: str) -> Response:
        return _json({"deleted": [str(gone) for gone in platform.delete(platform.run(id).ref)]})

    @app.get("/api/runs/{id}/metrics/{key:path}")
    def metric(id: str, key: str) -> Response:
        return _json(listing(map(point_value, platform.metric(id, key))))

    @app.get("/api/runs/{id}/log")
    def log(id: str) -> Response:
        return Response(platform.run_log(id), media_type="text/plain; charset=utf-8")

    @app.get("/api/runs/{id}/artifacts")
    def artifacts(id: str) -> Response:
        return _json(listing(map(artifact_value, platform.artifacts(platform.run(id).id))))

    @app.get("/api/runs/{id}/artifacts/{path:path}")
    def artifact(id: str, path: str) -> Response:
        kept = next((a for a in platform.artifacts(platform.run(id).id) if a.path == path), None)
        if kept is None:
            raise NotFound(f"run {id[:8]} has no artifact {path!r}; /api/runs/{id[:8]}/artifacts lists them")
        # Whatever a run wrote is only ever saved by a browser, never shown as a page of ours.
        headers = {"Content-Disposition": "attachment"}
        local = platform.blobs.path(kept.digest)
        if local is not None:
            return FileResponse(local, headers=headers, media_type="application/octet-stream")
        return Response(platform.blobs.get(kept.digest), 200, headers, "application/octet-stream")


def _add_versions(app: FastAPI, platform: Platform) -> None:
    @app.get("/api/versions/{kind}")
    def newest(kind: str, limit: Limit = 50) -> Response:
        page, _ = listings.versions(platform, kind, None, limit)
        return _json(listing(version_value(v, platform.aliases(kind, v.name)) for v in page))

    @app.get("/api/versions/{kind}/{name}")
    def versions(kind: str, name: str, limit: Limit = 50, before: int | None = None) -> Response:
        name, at, wanted = name.partition("@")
        aliases = platform.aliases(kind, name)
        if at:
            return _json(version_value(platform.version(f"{kind}/{name}@{wanted}"), aliases))
        page, next = listings.versions(platform, kind, name, limit, before)
        return _json(listing((version_value(v, aliases) for v in page), next))


def _add_explanations(app: FastAPI, platform: Platform) -> None:
    @app.get("/api/events")
    def events(
        ref: str | None = None,
        kind: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        limit: Limit = 100,
        before: int | None = None,
    ) -> Response:
        filters = {"ref": ref, "kind": kind, "actor": actor, "action": action}
        page, next = listings.events(platform, limit, before, **filters)
        return _json(listing(map(event_value, page, platform.sentences(page)), next))

    @app.get("/api/why/{kind}/{name}")
    def why(kind: str, name: str) -> Response:
        chain = platform.why(f"{kind}/{name}")
        found = {"items": list(map(event_value, chain, platform.sentences(chain))), "story": platform.story(chain)}
        return _json(found)

    @app.get("/api/lineage/{ref:path}")
    def lineage(
        ref: str,
        direction: Literal["upstream", "downstream", "both"] = "both",
        depth: Annotated[int, Query(ge=1, le=50)] = 12,
        limit: Limit = 500,
    ) -> Response:
        return _json(graph_value(platform.lineage(ref, direction, depth, limit)))


def _add_acts(app: FastAPI, platform: Platform) -> None:
    @app.post("/api/labels")
    def label(given: _Labels) -> Response:
        return _json({"labelled": platform.label([(row.id, row.label) for row in given.labels], given.source)})

    @app.post("/api/rollback/{name}")
    def rollback(name: str) -> Response:
        return _json({"serves": platform.rollback(f"deployment/{name}")})

    @app.post("/api/approve")
    def approve(target: _Target) -> Response:
        return _json(version_value(platform.approve(target.ref)))


def _documents(declared: Any) -> list[Document]:
    """Return declarations from a body: a list of documents, one document, or `{"documents": […]}`."""
    given = declared.get("documents", declared) if isinstance(declared, dict) else declared
    given = [given] if isinstance(given, dict) else given
    if not isinstance(given, list) or not given:
        raise InvalidInput('the body has no documents; send [{"kind": …, "name": …}]')
    return [document(raw, f"document {number}") for number, raw in enumerate(given, start=1)]
