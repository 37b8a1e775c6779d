"""Files over HTTP: bodies that are received piece by piece, and blobs sent with ranges, both in constant memory."""

from __future__ import annotations

import mimetypes
import re
import unicodedata
from collections.abc import AsyncIterator, Callable
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Protocol, TypeVar
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from flyball.ledger.runs import Artifact
from flyball.platform import Platform
from flyball.wire.mlflow.refusals import Refused

__all__ = ["media_type", "receive", "send"]

T = TypeVar("T", covariant=True)

_PIECE = 1 << 20  # bytes between two looks at the disk: fewer cost more than the disk itself
_TEXTS = frozenset(
    {
        "txt",
        "log",
        "err",
        "cfg",
        "conf",
        "cnf",
        "cf",
        "ini",
        "properties",
        "prop",
        "hocon",
        "toml",
        "yaml",
        "yml",
        "xml",
    }
    | {"json", "js", "py", "py3", "csv", "tsv", "md", "rst", "ipynb", "MLmodel", "MLproject"}
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


class _Taking(Protocol[T]):
    def write(self, piece: bytes) -> None: ...
    def finish(self) -> T: ...
    def abandon(self) -> None: ...


async def receive(request: Request, begin: Callable[[], _Taking[T]], end: Callable[[T], Any]) -> Any:
    """Take a request's body, in threads, and return what `end` makes of what was taken.

    Nothing is kept of a body that breaks off.
    """
    taking = await run_in_threadpool(begin)
    try:
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in request.stream():
                pieces.append(piece)
                size += len(piece)
                if size >= _PIECE:
                    await run_in_threadpool(taking.write, b"".join(pieces))
                    pieces, size = [], 0
        except ClientDisconnect:
            raise Refused("BAD_REQUEST", "The connection was closed before the body was whole.") from None

        def finish() -> Any:
            taking.write(b"".join(pieces))
            return end(taking.finish())

        return await run_in_threadpool(finish)
    except BaseException:
        taking.abandon()
        raise


async def send(request: Request, platform: Platform, file: Callable[[], Artifact]) -> Response:
    """Return a file as a download: whole or one range of it, or that the asker has it already (`ETag`).

    Always as an attachment with the type guessed from its name: what a run left must not become a page of this server.
    """

    def begin() -> tuple[Artifact, BinaryIO]:
        found = file()
        return found, platform.blobs.open(found.digest)

    found, stream = await run_in_threadpool(begin)
    size, tag = found.size_bytes, f'"{found.digest}"'
    headers = {
        "content-disposition": _disposition(found.path.rpartition("/")[2]),
        "content-type": media_type(found.path),
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
        "accept-ranges": "bytes",
        "etag": tag,
    }
    if _is_known(request.headers.get("if-none-match"), tag):
        stream.close()
        return Response(None, 304, {name: headers[name] for name in ("etag", "cache-control")})
    first, last, status = 0, size - 1, 200
    asked = request.headers.get("range")
    if asked is not None and request.headers.get("if-range", tag) == tag:
        span = _span(asked, size)
        if span is not None:
            if span[0] > span[1]:
                stream.close()
                return Response(None, 416, {"content-range": f"bytes */{size}"})
            (first, last), status = span, 206
            headers["content-range"] = f"bytes {first}-{last}/{size}"
    headers["content-length"] = str(last - first + 1)
    if request.method == "HEAD":
        stream.close()
        return Response(None, status, headers)
    return StreamingResponse(_pieces(stream, first, last - first + 1), status, headers)


def media_type(path: str) -> str:
    """Return the type of a file by its name; what a browser would run or show as a page is text.

    >>> media_type("model/MLmodel"), media_type("roc.svgz"), media_type("weights")
    ('text/plain', 'image/svg+xml', 'application/octet-stream')
    """
    name = path.rpartition("/")[2]
    extension = PurePosixPath(name).suffix.removeprefix(".") or name
    if extension in _TEXTS:
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


async def _pieces(stream: BinaryIO, first: int, length: int) -> AsyncIterator[bytes]:
    try:
        await run_in_threadpool(stream.seek, first)
        while length > 0:
            piece = await run_in_threadpool(stream.read, min(length, _PIECE))
            if not piece:
                return
            length -= len(piece)
            yield piece
    finally:
        stream.close()


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """Return the first and last byte of a range, first behind last when it lies outside; None: all is to be sent.

    Several ranges at once are answered by the whole, as RFC 9110 (14.2) allows.
    """
    match = _RANGE.fullmatch(asked.replace(" ", ""))
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        length = int(match[2])
        return (max(size - length, 0), size - 1) if length else (1, 0)
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return None
    return (first, last) if first < size else (1, 0)


def _is_known(header: str | None, tag: str) -> bool:
    return header is not None and any(
        one.strip() == "*" or one.strip().removeprefix("W/") == tag for one in header.split(",")
    )


def _disposition(name: str) -> str:
    """Return how a download is named: RFC 6266, with RFC 5987 for what is not ASCII."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode() or "download"
    quoted = plain if _TOKEN.fullmatch(plain) else '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
    extended = "" if name.isascii() else f"; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}"
    return f"attachment; filename={quoted}{extended}"
