"""`POST /api/v1/lineage`: where OpenLineage's clients send to, unmodified."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, FastAPI, Response

from flyball.platform import Platform
from flyball.wire.native.values import encode
from flyball.wire.openlineage.receiving import receive

__all__ = ["add_lineage"]


def add_lineage(app: FastAPI, platform: Platform, namespace: str) -> None:
    """Add the route to the control plane's application; `namespace` is our own."""

    @app.post("/api/v1/lineage", status_code=201)
    def take(event: Annotated[Any, Body()]) -> Response:
        with platform.recording() as world:
            received = receive(event, world, namespace)
        return Response(encode(received.to_dict()), 201, media_type="application/json")
