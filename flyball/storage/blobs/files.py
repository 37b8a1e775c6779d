"""Blobs as files: `<root>/ab/cdef…`, written beside and renamed into place, synced before the name exists.

The time of a file is when it was last put, also by a writer who found it there already: whoever deletes what nothing
refers to leaves what was put lately, because its row may still come. A lock makes the two exclude each other.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from flyball.errors import Corrupt, NotFound, Unavailable
from flyball.storage.blobs import Aged, check_digest, digest_of
from flyball.storage.disk import sync_folder

__all__ = ["FileBlobs"]

_CHUNK = 1 << 20
_WORKSHOPS = "workshops"
_LOCK = ".lock"
_ABANDONED_S = 24 * 3600.0  # a workshop nobody wrote to for a day belongs to a process that was killed


class FileBlobs:
    """A `BlobStore` in a folder; several processes may use the same one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes | os.PathLike[str]) -> str:
        if isinstance(data, bytes):
            digest = digest_of(data)
            if not self._touched(digest):
                self._write(digest, iter((data,)))
            return digest
        return self._put_file(Path(data))

    def get(self, digest: str) -> bytes:
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"no blob has the digest {digest}") from None
        if digest_of(data) != digest:
            raise Corrupt(
                f"the blob {digest} has changed on disk; restore it from a backup or delete what refers to it"
            )
        return data

    def open(self, digest: str) -> BinaryIO:
        try:
            return self._path(digest).open("rb")
        except FileNotFoundError:
            raise NotFound(f"no blob has the digest {digest}") from None

    def path(self, digest: str) -> Path | None:
        path = self._path(digest)
        if not path.exists():
            raise NotFound(f"no blob has the digest {digest}")
        return path

    def has(self, digest: str) -> bool:
        return self._path(digest).exists()

    def delete(self, digest: str) -> bool:
        try:
            self._path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def digests(self) -> Iterator[str]:
        for folder in sorted(self.root.iterdir()):
            if len(folder.name) == 2 and folder.is_dir():
                yield from sorted(folder.name + f.name for f in folder.iterdir() if len(f.name) == 62)

    def workshop(self) -> Path:
        folder = self.root / _WORKSHOPS
        folder.mkdir(exist_ok=True)
        for left in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(left, ignore_errors=True)
        own = folder / secrets.token_hex(8)
        own.mkdir()
        return own

    def adopt(self, path: Path, digest: str) -> None:
        target = self._path(digest)
        if self._touched(digest):
            path.unlink()
            return
        target.parent.mkdir(exist_ok=True)
        os.utime(path)  # it may have taken hours to write; its age as a blob begins now
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        path.replace(target)
        sync_folder(target.parent)

    def ages(self) -> Iterator[Aged]:
        for digest in self.digests():
            with contextlib.suppress(FileNotFoundError):
                found = self._path(digest).stat()
                yield Aged(digest, found.st_size, found.st_mtime)

    def delete_unless_put_since(self, digest: str, since: float) -> bool:
        path = self._path(digest)
        with self._locked(fcntl.LOCK_EX):
            try:
                if path.stat().st_mtime > since:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def delete_unfinished(self, since: float) -> int:
        count = 0
        for path in self.root.glob("??/.*.part"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime <= since:
                    path.unlink()
                    count += 1
        return count

    def _path(self, digest: str) -> Path:
        check_digest(digest)
        return self.root / digest[:2] / digest[2:]

    def _touched(self, digest: str) -> bool:
        """Whether the blob is there; if so it counts as put now."""
        path = self._path(digest)
        if not path.exists():
            return False
        with self._locked(fcntl.LOCK_SH):
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with (self.root / _LOCK).open("ab") as stream:
            fcntl.flock(stream, how)  # given up as the file is closed
            yield

    def _put_file(self, source: Path) -> str:
        sha = hashlib.sha256()
        with source.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                sha.update(chunk)
        digest = sha.hexdigest()
        if not self._touched(digest):
            with source.open("rb") as stream:
                self._write(digest, iter(lambda: stream.read(_CHUNK), b""))
        return digest

    def _write(self, digest: str, chunks: Iterator[bytes]) -> None:
        target = self._path(digest)
        target.parent.mkdir(exist_ok=True)
        partial = target.parent / f".{secrets.token_hex(8)}.part"
        sha = hashlib.sha256()
        try:
            with partial.open("xb") as stream:
                for chunk in chunks:
                    sha.update(chunk)
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            if sha.hexdigest() != digest:
                raise Corrupt("the file changed while it was being stored; nothing was kept, try again")
            partial.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable(f"the disk that holds {self.root} is full; nothing was stored") from error
            raise
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
