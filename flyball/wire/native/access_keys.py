"""Access keys over HTTP.

GET    /api/keys        who may ask from afar; of secrets nothing is kept
POST   /api/keys        make one: {"name", "role", "deployments", "expires"}; the answer has its secret, this once
DELETE /api/keys/NAME   revoke it
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict

from flyball.clock import parse_duration
from flyball.ledger.access_keys import AccessKey
from flyball.platform import Platform
from flyball.wire.native.values import encode, listing

__all__ = ["access_key_value", "add_access_keys"]


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    role: str
    deployments: list[str] = []
    expires: str | None = None


def add_access_keys(app: FastAPI, platform: Platform) -> None:
    """Add the routes."""

    @app.get("/api/keys")
    def keys() -> Response:
        return _json(listing(map(access_key_value, platform.access_keys())))

    @app.post("/api/keys")
    def create(wanted: _Wanted) -> Response:
        expires = None if wanted.expires is None else parse_duration(wanted.expires)
        made, secret = platform.create_key(wanted.name, wanted.role, deployments=wanted.deployments, expires=expires)
        return _json({**access_key_value(made), "secret": secret}, 201)

    @app.delete("/api/keys/{name}")
    def revoke(name: str) -> Response:
        return _json({"revoked": platform.revoke_key(name).name})


def access_key_value(key: AccessKey) -> dict[str, Any]:
    """Return a key as JSON; its digest is nobody's business."""
    return {
        "name": key.name,
        "role": key.role,
        "deployments": list(key.deployments),
        "made_by": key.made_by,
        "made_at": key.made_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, {"Cache-Control": "no-store"}, "application/json")
