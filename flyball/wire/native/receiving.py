"""What clients on other machines send: runs as they go on, blobs, bundles of models. See `platform.receiving`.

PUT  /api/v1/received/RUN           begin, or go on: the facts of `run.json` → {"taken": lines that are here}
POST /api/v1/received/RUN/lines     lines of its log from `?first=N` on → {"taken", "missing": digests of blobs to be
                                    sent before, "refused": lines that were left out, with the reason}
PUT  /api/v1/blobs/DIGEST           bytes of any length, streamed; kept when they have this SHA-256
POST /api/v1/models/NAME/versions   publish a bundle by its digest → the version, or {"missing": digests}

All may be sent again when an answer was lost: nothing is taken twice.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from flyball.errors import InvalidInput
from flyball.ledger.versions import Version
from flyball.platform import Platform
from flyball.storage.blobs import check_digest
from flyball.wire.native.values import encode, version_value

__all__ = ["BLOBS", "add_receiving"]

BLOBS = "/api/v1/blobs/"
"""Below this the length of a body is not limited: it goes to the disk piece by piece."""

_PIECE = 1 << 20


class _Bundle(BaseModel):
    """What is told of a model besides its bundle; see `platform.receiving.publish_bundle`."""

    model_config = ConfigDict(extra="forbid")

    digest: str
    request: str = Field(min_length=16, max_length=64)
    evaluation: dict[str, Any] | None = None
    windows: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    trained_on: str | None = None
    also_from: list[tuple[str, str]] = []
    run: str | None = None
    note: str = ""


def add_receiving(app: FastAPI, platform: Platform) -> None:
    """Add the routes."""

    @app.put("/api/v1/received/{id}")
    def begin(id: str, facts: Annotated[dict[str, Any], Body()], now_ms: int | None = None) -> Response:
        """Begin a run that another machine records, or go on with it."""
        if facts.get("id") != id:
            raise InvalidInput(f"the facts are of run {str(facts.get('id'))[:40]!r}, not of {id[:40]!r}")
        return _json({"taken": platform.begin_received(facts, now_ms)})

    @app.post("/api/v1/received/{id}/lines")
    async def lines(id: str, request: Request, first: Annotated[int, Query(ge=0)]) -> Response:
        """Take lines of a run's log."""
        body = await request.body()
        if not body.endswith(b"\n"):
            raise InvalidInput("the last line has no end; send whole lines")
        taken = await run_in_threadpool(platform.receive_lines, id, first, body[:-1].split(b"\n"))
        refused = [{"line": line, "reason": reason} for line, reason in taken.refused]
        return _json({"taken": taken.lines, "missing": taken.missing, "refused": refused})

    @app.put("/api/v1/blobs/{digest}")
    async def blob(digest: str, request: Request) -> Response:
        """Keep bytes under their SHA-256."""
        check_digest(digest)
        receiving = await run_in_threadpool(platform.receive_blob)
        try:
            pieces: list[bytes] = []
            size = 0
            async for piece in request.stream():
                pieces.append(piece)
                size += len(piece)
                if size >= _PIECE:
                    await run_in_threadpool(receiving.write, b"".join(pieces))
                    pieces, size = [], 0
            await run_in_threadpool(receiving.write, b"".join(pieces))
            found = await run_in_threadpool(receiving.finish)
        except ClientDisconnect:
            receiving.abandon()
            raise InvalidInput("the connection was closed before the body was whole") from None
        except BaseException:
            receiving.abandon()
            raise
        if found.digest != digest:  # what came is kept by its own name, and swept when nothing refers to it
            raise InvalidInput(f"the bytes have the digest {found.digest}, not {digest}; send them again")
        return _json({"digest": found.digest, "size_bytes": found.size_bytes})

    @app.post("/api/v1/models/{name}/versions")
    def publish(name: str, given: _Bundle) -> Response:
        """Publish a bundle whose blobs are here as the next version of a model."""
        found = platform.publish_bundle(name, given.digest, given.model_dump(exclude={"digest"}))
        if not isinstance(found, Version):
            return _json({"missing": found})
        return _json(version_value(found, platform.aliases("model", name)), 201)


def _json(value: Any, status: int = 200) -> Response:
    return Response(encode(value), status, media_type="application/json")
