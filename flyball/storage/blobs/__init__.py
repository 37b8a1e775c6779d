"""Content-addressed bytes: the name of a blob is the SHA-256 of what is in it.

A blob is written once and never changes, so writers never conflict and a reader can always prove what it got.
Mutable pointers (aliases, latest) live in the ledger, which is written after the blob: blobs before rows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

from flyball.errors import InvalidInput

__all__ = ["Adopting", "Aged", "Ageing", "BlobStore", "check_digest", "digest_of"]


class BlobStore(Protocol):
    """Keeps blobs. Digests are 64 lower-case hexadecimal digits (SHA-256)."""

    def put(self, data: bytes | os.PathLike[str]) -> str:
        """Store bytes, or the contents of a file, and return the digest; durable on return; idempotent."""
        ...

    def get(self, digest: str) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: no such blob.
            Corrupt: what is stored does not have this digest.
        """
        ...

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading as a stream (not verified; `get` verifies). Raises NotFound."""
        ...

    def path(self, digest: str) -> Path | None:
        """Return a local path to map or scan the blob from, or None when the backend has none."""
        ...

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        ...

    def delete(self, digest: str) -> bool:
        """Remove a blob; False when it was not there."""
        ...

    def digests(self) -> Iterator[str]:
        """Yield the digests of all blobs, in no order."""
        ...


@runtime_checkable
class Adopting(Protocol):
    """What a blob store of files can do besides: take a finished file over, where `put` would copy it."""

    def workshop(self) -> Path:
        """Make a folder of one's own on the store's disk for files to be adopted; its maker removes it."""
        ...

    def adopt(self, path: Path, digest: str) -> None:
        """Make a file of a workshop the blob `digest`, which the caller computed from it; durable on return."""
        ...


class Aged(NamedTuple):
    """A blob and when it was last put, in seconds since 1970 by the clock of the disk it is on."""

    digest: str
    size_bytes: int
    put_at: float


@runtime_checkable
class Ageing(Protocol):
    """What a blob store does besides for whoever deletes what nothing refers to.

    A row is written after its blob. So a blob that was put lately must stay: its row may still come.
    """

    def ages(self) -> Iterator[Aged]:
        """Yield all blobs with their ages, in no order."""
        ...

    def delete_unless_put_since(self, digest: str, since: float) -> bool:
        """Remove a blob that nobody has put after `since` (seconds since 1970); whether it was removed."""
        ...

    def delete_unfinished(self, since: float) -> int:
        """Remove what writers who were killed left unfinished before `since`; return how many files."""
        ...


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def check_digest(digest: str) -> str:
    """Return `digest` if it is 64 hexadecimal digits (so it is safe in a path), else raise InvalidInput."""
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise InvalidInput(f"{digest[:80]!r} is not a digest; expected 64 hexadecimal digits of SHA-256")
    return digest
