"""Rollouts over HTTP: how a deployment's rollout or experiment stands, and how large an A/B must be.

GET  /api/rollouts/NAME · /api/rollouts/NAME/plan?effect=…&alpha=…&power=…&share=…
"""

from __future__ import annotations

from fastapi import FastAPI, Response

from flyball.platform import Platform
from flyball.wire.native.values import encode

__all__ = ["add_rollouts"]


def add_rollouts(app: FastAPI, platform: Platform) -> None:
    """Add the routes."""

    @app.get("/api/rollouts/{name}")
    def experiment(name: str) -> Response:
        return Response(encode(platform.experiment_status(name)), media_type="application/json")

    @app.get("/api/rollouts/{name}/plan")
    def plan(
        name: str,
        effect: float | None = None,
        alpha: float | None = None,
        power: float | None = None,
        share: float | None = None,
    ) -> Response:
        found = platform.experiment_plan(name, effect, alpha, power, share)
        return Response(encode(found), media_type="application/json")
