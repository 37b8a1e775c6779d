"""Files that a run left: looked at (text, JSON, tables, images, Markdown) or downloaded; HTML stays text."""

from __future__ import annotations

import csv
import io
import json
from itertools import islice
from typing import Any

from starlette.requests import Request

from flyball.errors import FlyballError, InvalidInput, NotFound
from flyball.ledger.runs import Artifact, as_text
from flyball.platform import Platform
from flyball.platform.artifacts import Place
from flyball.web.formats import bytes_text
from flyball.web.markdown import html_of
from flyball.web.pages.runs import run_named
from flyball.web.pages.site import File, Page, Site, file_name
from flyball.web.render import pretty_json

__all__ = ["IMAGE_TYPES", "mount", "preview_of"]

IMAGE_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp",
}  # fmt: skip
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")
_IMAGE_BYTES = 16 * 1024 * 1024
_TABLE_BYTES = 64 * 1024 * 1024  # of a Parquet file that is opened to be looked at
_PREVIEW_BYTES = 64 * 1024
_JSON_BYTES = 1024 * 1024
_ROWS, _COLUMNS = 100, 60


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def artifact(request: Request) -> File:
        found = _artifact(platform, request)
        return File(platform.blobs.get(found.digest), file_name(found.path))

    def image(request: Request) -> File:
        """Send an image to be shown: only formats that run nothing, and only what begins as they do."""
        found = _artifact(platform, request)
        media_type = IMAGE_TYPES.get(_ending(found.path))
        if media_type is None or found.size_bytes > _IMAGE_BYTES:
            raise InvalidInput(f"{found.path[:200]} is no image that pages show; download it")
        data = platform.blobs.get(found.digest)
        if not data.startswith(_MAGIC):
            raise InvalidInput(f"{found.path[:200]} is called an image but does not begin as one; download it")
        return File(data, media_type=media_type)

    def preview(request: Request) -> Page:
        run = run_named(platform, request.path_params["id"])
        found = _artifact(platform, request)
        values = {
            "title": found.path,
            "section": "runs",
            "crumbs": [("Runs", "/runs"), (run.ref.short, f"/runs/{run.id}"), (found.path, None)],
            "run": run,
            "artifact": found,
            "shown": preview_of(platform, found),
        }
        return Page("artifact.html", values)

    site.page("/runs/{id}/artifact", artifact)
    site.page("/runs/{id}/image", image)
    site.page("/runs/{id}/preview", preview)


def preview_of(platform: Platform, file: Artifact) -> dict[str, Any]:
    """Return what a page shows of a file: {"kind": "image" | "table" | "markdown" | "text" | "none", …, "note"}."""
    ending = _ending(file.path)
    try:
        if ending in IMAGE_TYPES:
            return _image(platform, file)
        if ending == "parquet":
            return _parquet(platform, file)
        most = _JSON_BYTES if ending == "json" else _PREVIEW_BYTES
        with platform.blobs.open(file.digest) as stream:
            data = stream.read(most)
    except (FlyballError, OSError) as error:
        return {"kind": "none", "note": f"It cannot be shown: {error}"}
    if b"\x00" in data:
        return {"kind": "none", "note": "This file is not text; download it to look inside."}
    text = data.decode("utf-8-sig", errors="replace")
    is_cut = file.size_bytes > most
    note = f"Its first {bytes_text(most)}; download it for the rest." if is_cut else ""
    if ending in ("csv", "tsv"):
        return _csv(text, "\t" if ending == "tsv" else ",", is_cut)
    if ending == "json" and not is_cut:
        return _json(text)
    if ending in ("md", "markdown"):
        return {"kind": "markdown", "html": html_of(text), "note": note}
    return {"kind": "text", "text": text, "note": note}


def _image(platform: Platform, file: Artifact) -> dict[str, Any]:
    if file.size_bytes > _IMAGE_BYTES:
        return {"kind": "none", "note": f"{bytes_text(file.size_bytes)} are more than this page shows; download it."}
    with platform.blobs.open(file.digest) as stream:
        if not stream.read(16).startswith(_MAGIC):
            return {"kind": "none", "note": "It is called an image but does not begin as one; download it."}
    return {"kind": "image", "note": ""}


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"kind": "text", "text": text, "note": "It is called JSON but is not."}
    # A table as MLflow's clients log it: columns, and rows of cells.
    if isinstance(value, dict) and set(value) == {"columns", "data"} and isinstance(value["data"], list):
        rows = [row for row in value["data"] if isinstance(row, list)]
        if isinstance(value["columns"], list) and len(rows) == len(value["data"]):
            return _table([str(name) for name in value["columns"]], rows[:_ROWS], len(rows))
    try:
        return {"kind": "text", "text": pretty_json(value)[: 4 * _PREVIEW_BYTES], "note": ""}
    except (ValueError, RecursionError):  # NaN, or deeper than anyone reads
        return {"kind": "text", "text": text[:_PREVIEW_BYTES], "note": ""}


def _csv(text: str, comma: str, is_cut: bool) -> dict[str, Any]:
    lines = text if not is_cut else text[: text.rfind("\n") + 1]
    try:
        rows = list(islice(csv.reader(io.StringIO(lines), delimiter=comma), _ROWS + 1))
    except csv.Error as error:
        return {"kind": "text", "text": text, "note": f"It is no table: {error}."}
    if not rows:
        return {"kind": "text", "text": text, "note": ""}
    is_more = is_cut or lines.count("\n") > _ROWS + 1
    return _table(rows[0], rows[1:], None if is_more else len(rows) - 1)


def _parquet(platform: Platform, file: Artifact) -> dict[str, Any]:
    if file.size_bytes > _TABLE_BYTES:
        return {"kind": "none", "note": f"{bytes_text(file.size_bytes)} are more than this page opens; download it."}
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        opened = parquet.ParquetFile(io.BytesIO(platform.blobs.get(file.digest)))
        names = opened.schema_arrow.names[:_COLUMNS]
        batch = next(opened.iter_batches(batch_size=_ROWS, columns=names), None)
    except (ArrowException, OSError, ValueError) as error:
        return {"kind": "none", "note": f"It cannot be read as Parquet: {str(error)[:200]}"}
    rows = [] if batch is None else [[row.get(name) for name in names] for row in batch.to_pylist()]
    return _table(names, rows, opened.metadata.num_rows)


def _table(names: list[str], rows: list[list[Any]], count: int | None) -> dict[str, Any]:
    shown = [["" if cell is None else as_text(cell)[:200] for cell in row[:_COLUMNS]] for row in rows]
    parts = []
    if count is None or count > len(rows):
        parts.append(f"the first {len(rows)} rows" + (f" of {count:,}" if count else ""))
    if len(names) > _COLUMNS:
        parts.append(f"the first {_COLUMNS} of {len(names):,} columns")
    note = f"{' and '.join(parts).capitalize()}." if parts else ""
    return {"kind": "table", "columns": names[:_COLUMNS], "rows": shown, "note": note}


def _ending(path: str) -> str:
    name = file_name(path).lower()
    return name.rpartition(".")[2] if "." in name else ""


def _artifact(platform: Platform, request: Request) -> Artifact:
    path = request.query_params.get("path", "")
    run = run_named(platform, request.path_params["id"])
    try:
        return platform.file_at(Place(run.id, path), path[:200])
    except NotFound:
        raise NotFound(f"{run.ref.short} has left no file {path[:80]!r}") from None
