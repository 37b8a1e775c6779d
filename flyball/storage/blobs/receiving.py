"""A blob that arrives piece by piece, such as the body of a request: in constant memory, durable once it is finished.

What is small stays in memory; the rest goes to a file on the store's own disk, which becomes the blob without another
copy. A writer who is killed leaves a workshop, which the store clears away.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from flyball.errors import Unavailable
from flyball.storage.blobs import Adopting, BlobStore

__all__ = ["Received", "Receiving", "full_is_unavailable"]

T = TypeVar("T")

_IN_MEMORY_BYTES = 1 << 20


class Received(NamedTuple):
    """A blob, and how large it is."""

    digest: str
    size_bytes: int


class Receiving:
    """Takes pieces in their order, then `finish` makes them a blob; `abandon` forgets them.

    One thread at a time. Of a store that adopts no files, a large body is copied once more at the end.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._sha = hashlib.sha256()
        self._small = bytearray()
        self._workshop: Path | None = None
        self._stream: BinaryIO | None = None
        self.size_bytes = 0

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next piece. Raises Unavailable when the disk is full."""
        self.size_bytes += len(piece)
        if self._stream is None and self.size_bytes <= _IN_MEMORY_BYTES:
            self._small += piece
            return
        full_is_unavailable(lambda: self._to_file(piece))

    def finish(self) -> Received:
        """Make what was taken a blob; durable on return. Raises Unavailable when the disk is full."""
        try:
            if self._stream is None:
                return Received(self._blobs.put(bytes(self._small)), self.size_bytes)
            return full_is_unavailable(self._adopted)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Forget what was taken."""
        if self._stream is not None:
            self._stream.close()
        if self._workshop is not None:
            shutil.rmtree(self._workshop, ignore_errors=True)
        self._small.clear()

    def _to_file(self, piece: bytes | bytearray | memoryview) -> None:
        if self._stream is None:
            blobs: object = self._blobs
            self._workshop = blobs.workshop() if isinstance(blobs, Adopting) else Path(tempfile.mkdtemp())
            self._stream = (self._workshop / "body").open("w+b")
            self._sha.update(self._small)
            self._stream.write(self._small)
            self._small.clear()
        self._sha.update(piece)
        self._stream.write(piece)

    def _adopted(self) -> Received:
        assert self._stream is not None and self._workshop is not None
        self._stream.flush()
        digest, path = self._sha.hexdigest(), self._workshop / "body"
        if isinstance(self._blobs, Adopting):
            self._blobs.adopt(path, digest)
        else:
            digest = self._blobs.put(path)
        return Received(digest, self.size_bytes)


def full_is_unavailable(act: Callable[[], T]) -> T:
    """Do something that writes; a full disk is `Unavailable`."""
    try:
        return act()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Unavailable("the disk is full; nothing was stored") from error
        raise
