"""Files as data: thumbnails and beginnings of texts on a page, and one file's bytes for the browser to show.

Only what browsers show without running it is sent: four formats of images, and texts as plain text; never more than a
few megabytes, never to somebody from whom a column of the table is hidden, and in a sandbox in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.data.files import is_file_table, read_file
from flyball.errors import FlyballError, Forbidden, InvalidInput, NotFound
from flyball.ledger.refs import Ref
from flyball.platform import Platform
from flyball.web.formats import bytes_text, ref_url
from flyball.web.pages.columns import schema_of
from flyball.web.pages.seeing import Sight, sight_of
from flyball.web.pages.site import File, Site

__all__ = ["IMAGES", "mount", "thumbnails"]

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
TEXT = "text/plain"
_MOST_BYTES = 4 * 1024 * 1024  # of a file that is sent to be looked at
_MOST_PIXELS = 40_000_000  # of an image that a page makes a browser unpack
_TEXT_BYTES = 64 * 1024  # of a text, from its beginning
_EXCERPT = 240  # characters of a text that a page of many shows
_NEEDED = ("path", "digest", "size_bytes", "media_type", "blob", "offset", "location")


def mount(site: Site) -> None:
    """Add the address of one file."""
    platform = site.platform

    def one(request: Request) -> File:
        name, number, row = (request.path_params[key] for key in ("name", "version", "row"))
        if not row.isdecimal() or len(row) > 12:
            raise InvalidInput(f'"{row[:40]}" is not the number of a row; expected 0 or more')
        version = platform.version(Ref("dataset", name, number))
        schema = schema_of(version)
        if not is_file_table(schema):
            raise NotFound(f"{version.ref} is not a table of files")
        sight = sight_of(platform, name, schema, request)
        _check(sight, version.ref)
        found = platform.frame(version.ref, purpose=sight.purpose).select(_NEEDED).slice(int(row), 1).collect()
        if not found.height:
            raise NotFound(
                f"{version.ref} has no row {row}; it has {version.metadata.get('rows', 0):,}, counted from 0"
            )
        file = found.row(0, named=True)
        why = _not_shown(file)
        if why:
            raise InvalidInput(f"{file['path'][:200]} is not shown here: {why}")
        data = read_file(file, platform.blobs)
        if file["media_type"] == TEXT:
            return File(_text(data).encode(), media_type="text/plain; charset=utf-8")
        return File(data, media_type=file["media_type"])

    for prefix in ("/data", "/datasets"):
        site.page(prefix + "/{name}/{version}/files/{row}", one)


def thumbnails(platform: Platform, target: Ref, sight: Sight, count: int, start: int) -> dict[str, Any]:
    """Return some rows of a table of files as a page shows them, or why it does not."""
    try:
        _check(sight, target)
        frame = platform.frame(target, purpose=sight.purpose).slice(start, count).collect()
    except FlyballError as error:
        return {"reason": str(error), "items": []}
    base = f"{ref_url(target)}/files"
    purpose = f"?purpose={sight.purpose}" if sight.purpose else ""
    items = []
    for at, row in enumerate(frame.iter_rows(named=True)):
        why = _not_shown(row)
        is_image = row["media_type"] in IMAGES
        item = {
            "path": row["path"],
            "label": row.get("label"),
            "media_type": row["media_type"],
            "size_bytes": row["size_bytes"],
            "facts": _facts(row),
            "href": None if why else f"{base}/{start + at}{purpose}",
            "is_image": is_image and not why,
            "why": why,
            "text": "",
        }
        if row["media_type"] == TEXT and not why:
            item["text"], item["why"] = _excerpt(platform, row)
        items.append(item)
    return {"reason": "", "items": items}


def _check(sight: Sight, target: Ref) -> None:
    if not sight.allowed:
        raise Forbidden(sight.reason)
    hidden = [name for name in (*_NEEDED, *sight.masks) if sight.hides(name)]
    if hidden:
        raise Forbidden(
            f"the files of {target} are not shown: {hidden[0]} is hidden ({sight.masks.get(hidden[0], 'policy')})"
        )


def _not_shown(row: Mapping[str, Any]) -> str:
    """Return why a file is not sent to be looked at, an empty text when it is."""
    if row["media_type"] not in IMAGES and row["media_type"] != TEXT:
        return f"{row['media_type']} is not a format that pages show"
    if row["media_type"] in IMAGES and (row["size_bytes"] or 0) > _MOST_BYTES:
        return f"{bytes_text(row['size_bytes'])} is more than the {bytes_text(_MOST_BYTES)} that pages show"
    if (row.get("width") or 0) * (row.get("height") or 0) > _MOST_PIXELS:
        return f"{row['width']:,} × {row['height']:,} pixels are more than pages show"
    if row["media_type"] == TEXT and (row["size_bytes"] or 0) > 16 * _MOST_BYTES:
        return f"{bytes_text(row['size_bytes'])} of text are more than pages show"
    return ""


def _facts(row: Mapping[str, Any]) -> str:
    found = []
    if row.get("width") and row.get("height"):
        found.append(f"{row['width']} × {row['height']}")
    if row.get("words"):
        found.append(f"{row['words']:,} words")
    if row.get("language"):
        found.append(row["language"])
    if row.get("duration_s"):
        found.append(f"{row['duration_s']:.3g} s")
    if row.get("problem"):
        found.append(row["problem"])
    return " · ".join([*found, bytes_text(row["size_bytes"])])


def _excerpt(platform: Platform, row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the beginning of a text, and why there is none."""
    try:
        return _text(read_file(row, platform.blobs))[:_EXCERPT], ""
    except FlyballError as error:
        return "", str(error)


def _text(data: bytes) -> str:
    """Return the beginning of a text in UTF-8, or UTF-16 where it begins with that mark; no half character."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data[:_TEXT_BYTES].decode(encoding, errors="replace").removesuffix("\ufffd")
