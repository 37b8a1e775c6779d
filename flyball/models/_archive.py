"""A bundle outside of a home: as a zip file or as a folder, `manifest.json` beside `files/`, and perhaps `model.sig`.

What is read is hostile until it is proved: an entry counts only under a path that the manifest lists, never beyond the
size it states, and its digest is verified, before anything is stored. Files are copied in pieces into a folder of the
reader's own, so a hostile archive can neither write elsewhere, nor fill memory, nor leave something half stored.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from flyball.errors import Conflict, Corrupt, FlyballError, InvalidInput, NotFound, Unavailable
from flyball.models import _manifest
from flyball.models._manifest import FILES, MANIFEST
from flyball.models.signing import SIGNATURE, SIGNATURE_BYTES
from flyball.storage.blobs import BlobStore

__all__ = ["Archived", "opened", "write", "write_folder"]

_MANIFEST_BYTES = 16 << 20
_CHUNK = 1 << 20
# A fixed time stamp, so that the same bundle is always the same archive.
_STAMP = (2020, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Archived:
    """What was found and proved: the manifest as bytes and value, each file's copy by path, and a signature."""

    text: bytes
    manifest: dict[str, Any]
    files: Mapping[str, Path]
    signature: bytes | None


def write(
    path: Path, text: bytes, files: Mapping[str, Mapping[str, Any]], blobs: BlobStore, signature: bytes | None
) -> None:
    """Write a zip file beside `path`, then rename, so that a half-written archive never bears the name."""
    partial = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_entry(MANIFEST), text)
            for name, listed in sorted(files.items()):
                entry = _entry(FILES + name)
                entry.file_size = listed["size"]  # beyond 4 GiB the entry has another form, which must be known first
                with archive.open(entry, "w") as target:
                    _copy_blob(blobs, name, listed, target)
            if signature is not None:
                archive.writestr(_entry(SIGNATURE), signature)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_folder(
    path: Path, text: bytes, files: Mapping[str, Mapping[str, Any]], blobs: BlobStore, signature: bytes | None
) -> None:
    """Write a folder beside `path`, then rename. Raises Conflict: there is something already, and it is not empty."""
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise Conflict(f"{path} is there already; name another folder, or remove it")
    partial = path.with_name(path.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        (partial / MANIFEST).write_bytes(text)
        for name, listed in files.items():
            target = partial / FILES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as stream:
                _copy_blob(blobs, name, listed, stream)
        if signature is not None:
            (partial / SIGNATURE).write_bytes(signature)
        if path.is_dir():
            path.rmdir()
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def opened(path: Path, limit_bytes: int) -> Iterator[Archived]:
    """Read and prove the bundle in a zip file or a folder, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="flyball-import-") as scratch:
        if path.is_dir():
            yield _proved(_Folder(path), Path(scratch), limit_bytes)
            return
        try:
            with zipfile.ZipFile(path) as archive:
                found = _proved(_Zip(archive), Path(scratch), limit_bytes)
        except FileNotFoundError:
            raise NotFound(f"there is no archive at {path}") from None
        except FlyballError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable("the disk for temporary files is full; nothing was imported") from error
            # RuntimeError is zipfile's: an encrypted entry, an unknown compression; ValueError and OSError are what a
            # crafted offset makes a file say.
            raise InvalidInput(f"{path.name} is no archive of a bundle: {error}") from None
        yield found


class _Zip:
    """The entries of a zip file."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        for entry in archive.infolist():
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise InvalidInput(f"the archive holds a link, {entry.filename[:80]!r}; export the bundle again")

    def names(self) -> list[str]:
        return self._archive.namelist()

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(name)


class _Folder:
    """The files below a folder; nothing is followed that leads out of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: list[str] = []
        todo = [""]
        while todo:
            below = todo.pop()
            with os.scandir(root / below) as entries:
                for entry in entries:
                    name = f"{below}{entry.name}"
                    if entry.is_symlink():
                        raise InvalidInput(f"the folder holds a link, {name[:80]!r}; a bundle holds files only")
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(f"{name}/")
                    elif entry.is_file(follow_symlinks=False):
                        self._names.append(name)
                    else:
                        raise InvalidInput(f"the folder holds {name[:80]!r}, which is no file")

    def names(self) -> list[str]:
        return self._names

    def open(self, name: str) -> IO[bytes]:
        # Not the link or pipe that somebody may have put there since the folder was listed.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            descriptor = os.open(self._root / name, flags)
        except OSError as error:
            raise InvalidInput(f"the folder's {name} cannot be read: {error.strerror}") from None
        return os.fdopen(descriptor, "rb")


def _proved(source: _Zip | _Folder, scratch: Path, limit_bytes: int) -> Archived:
    names = source.names()
    if MANIFEST not in names:
        raise InvalidInput(f"there is no {MANIFEST}; it is not an exported bundle")
    text = _bounded(source, MANIFEST, _MANIFEST_BYTES)
    manifest = _manifest.read(text)
    files: dict[str, Any] = manifest["files"]
    wanted = {MANIFEST, *(FILES + name for name in files)}
    extra = sorted(set(names) - wanted - {SIGNATURE})
    if extra or len(names) != len(set(names)):
        what = f"{extra[0][:80]!r}, which its manifest does not list" if extra else "two entries of one name"
        raise InvalidInput(f"the archive holds {what}; export the bundle again")
    missing = sorted(wanted - set(names))
    if missing:
        raise Corrupt(f"the archive lacks {missing[0]}, which its manifest lists; nothing was imported")
    total = sum(entry["size"] for entry in files.values())
    if total > limit_bytes:
        raise InvalidInput(f"the archive unpacks to {total} bytes; the limit is {limit_bytes}; raise limit_bytes")
    signature = _bounded(source, SIGNATURE, SIGNATURE_BYTES) if SIGNATURE in names else None
    copies: dict[str, Path] = {}
    for number, (name, entry) in enumerate(files.items()):
        copies[name] = scratch / str(number)  # never by a name that came with the archive
        with source.open(FILES + name) as stream, copies[name].open("xb") as target:
            _copy(stream, target, entry, f"the archive's file {name}")
    return Archived(text, manifest, copies, signature)


def _bounded(source: _Zip | _Folder, name: str, limit: int) -> bytes:
    with source.open(name) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise InvalidInput(f"the archive's {name} is larger than it may be ({limit >> 20} MiB)")
    return data


def _copy(stream: IO[bytes], target: IO[bytes], listed: Mapping[str, Any], what: str) -> None:
    """Copy at most the stated size. Raises InvalidInput, Corrupt where it is not what the manifest says."""
    sha, left = hashlib.sha256(), listed["size"]
    while chunk := stream.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise InvalidInput(f"{what} is larger than it may be (its manifest says {listed['size']} bytes)")
        sha.update(chunk)
        target.write(chunk)
    if left or sha.hexdigest() != listed["digest"]:
        raise Corrupt(f"{what} is not what its manifest says; nothing was imported")


def _copy_blob(blobs: BlobStore, name: str, listed: Mapping[str, Any], target: IO[bytes]) -> None:
    try:
        stream = blobs.open(listed["digest"])
    except NotFound:
        raise Corrupt(f"the bundle lacks its file {name}; nothing was exported") from None
    with stream:
        try:
            _copy(stream, target, listed, name)
        except (Corrupt, InvalidInput):
            raise Corrupt(f"{name} of the bundle was tampered with; nothing was exported") from None


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _STAMP)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
