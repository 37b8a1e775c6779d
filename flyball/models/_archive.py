"""A bundle as a zip file, for moving it between homes.

Nothing is unpacked to a folder: an entry is read only under a path that the manifest lists, never beyond the
size it states, and its digest is verified before it is stored. So a hostile archive can neither write elsewhere
nor fill memory.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flyball.errors import Corrupt, InvalidInput, NotFound
from flyball.models import _manifest
from flyball.storage.blobs import BlobStore, digest_of

__all__ = ["read", "write"]

_MANIFEST = "manifest.json"
_MANIFEST_BYTES = 16 << 20
# A fixed time stamp, so that the same bundle is always the same archive.
_STAMP = (2020, 1, 1, 0, 0, 0)


def write(
    path: str | os.PathLike[str],
    manifest: bytes,
    files: Mapping[str, Mapping[str, Any]],
    get: Callable[[str, str], bytes],
) -> None:
    """Write manifest and files beside `path`, then rename, so that a half-written archive never bears the name."""
    target = Path(path)
    partial = target.with_name(target.name + ".part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_entry(_MANIFEST), manifest)
            for name, listed in sorted(files.items()):
                try:
                    archive.writestr(_entry("files/" + name), get(listed["digest"], name))
                except NotFound:
                    raise Corrupt(f"the bundle lacks its file {name}; nothing was exported") from None
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def read(path: str | os.PathLike[str], blobs: BlobStore, limit_bytes: int) -> tuple[bytes, dict[str, Any]]:
    """Verify an archive, store its files as blobs, and return the manifest, not stored yet, as bytes and value."""
    try:
        with zipfile.ZipFile(path) as archive:
            text = _bounded(archive, _MANIFEST, _MANIFEST_BYTES, "manifest.json may have 16 MiB")
            manifest = _manifest.read(text)
            files = manifest["files"]
            wanted = {_MANIFEST, *("files/" + name for name in files)}
            _check_names(archive, wanted)
            total = sum(entry["size"] for entry in files.values())
            if total > limit_bytes:
                raise InvalidInput(
                    f"the archive unpacks to {total} bytes; the limit is {limit_bytes}; raise limit_bytes"
                )
            # Twice through: all is proved before anything is stored, and one file at a time is in memory.
            for name, entry in files.items():
                _file(archive, name, entry)
            for name, entry in files.items():
                blobs.put(_file(archive, name, entry))
            return text, manifest
    except FileNotFoundError:
        raise NotFound(f"there is no archive at {path}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        # RuntimeError and NotImplementedError are zipfile's: an encrypted entry, an unknown compression.
        raise InvalidInput(f"{Path(path).name} is no archive of a bundle: {error}") from None


def _check_names(archive: zipfile.ZipFile, wanted: set[str]) -> None:
    names = archive.namelist()
    extra = sorted(set(names) - wanted)
    if extra or len(names) != len(set(names)):
        what = f"{extra[0][:80]!r}, which its manifest does not list" if extra else "two entries of one name"
        raise InvalidInput(f"the archive holds {what}; export the bundle again")
    missing = sorted(wanted - set(names))
    if missing:
        raise Corrupt(f"the archive lacks {missing[0]}, which its manifest lists; nothing was imported")


def _file(archive: zipfile.ZipFile, name: str, entry: Mapping[str, Any]) -> bytes:
    data = _bounded(archive, "files/" + name, entry["size"], f"its manifest says {entry['size']} bytes")
    if len(data) != entry["size"] or digest_of(data) != entry["digest"]:
        raise Corrupt(f"the archive's file {name} is not what its manifest says; nothing was imported")
    return data


def _bounded(archive: zipfile.ZipFile, name: str, limit: int, why: str) -> bytes:
    try:
        with archive.open(name) as stream:
            data = stream.read(limit + 1)
    except KeyError:
        raise InvalidInput(f"the archive has no {name}; it is not an exported bundle") from None
    if len(data) > limit:
        raise InvalidInput(f"the archive's {name} is larger than it may be ({why})")
    return data


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _STAMP)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
