"""Static files: the stylesheet, the custom elements, the vendored libraries and the icons, as bytes with their address.

The route `/static/{digest}/{path}` of the web application answers with `asset_file(path)`; templates write
addresses with `asset(path)`. The digest is of the whole folder, not of one file, so that a script's
`import "./fb-chart.js"` and a stylesheet's `url()` stay under the same digest: everything may be cached for ever,
and a release changes every address.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flyball.errors import NotFound, did_you_mean

__all__ = ["STATIC_CACHE_CONTROL", "AssetFile", "asset", "asset_file"]

# Right because the address changes with the content; a browser then asks for each file once in its life.
STATIC_CACHE_CONTROL = "public, max-age=31536000, immutable"

_FOLDER = Path(__file__).parent / "static"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class AssetFile:
    """One static file: its bytes and the value of its `Content-Type` header."""

    content: bytes
    media_type: str


def asset(path: str) -> str:
    """Return the address of a static file, with the folder's digest in it: `/static/3f9a12c4d0b7/flyball.css`.

    Raises:
        NotFound: there is no such file.
    """
    _file_of(path)
    return f"/static/{_digest()}/{path}"


def asset_file(path: str) -> AssetFile:
    """Return the static file at `path` (`fb-line.js`, `vendor/htmx.min.js`); whatever digest it was asked under.

    Raises:
        NotFound: there is no such file; a path that leaves the folder names none.
    """
    return _read(_file_of(path))


def _file_of(path: str) -> Path:
    files = _files()
    if path not in files:
        raise NotFound(f'there is no static file "{path}"{did_you_mean(path, files)}')
    return files[path]


@cache
def _files() -> dict[str, Path]:
    """Every file by its path; a look-up in this table is what keeps `..` from leaving the folder."""
    found = (file for file in sorted(_FOLDER.rglob("*")) if file.suffix in _MEDIA_TYPES)
    return {file.relative_to(_FOLDER).as_posix(): file for file in found}


@cache
def _digest() -> str:
    """Twelve hex digits of the SHA-256 over every path and its bytes."""
    whole = hashlib.sha256()
    for path, file in _files().items():
        whole.update(path.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:12]


@cache
def _read(file: Path) -> AssetFile:
    return AssetFile(file.read_bytes(), _MEDIA_TYPES[file.suffix])
