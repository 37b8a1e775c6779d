"""Parts on their way into the blob store: written, hashed and synced first, kept all together at the end.

Where the blob store is a folder the files are made on its disk and renamed into place, so nothing is copied, and a
write that fails leaves nothing behind. Elsewhere each part is put as soon as it is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from flyball.storage.blobs import Adopting, BlobStore

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Staging"]

GROUP_ROWS = 131_072  # of a row group: a scan with a predicate reads or skips so many rows at a time
_FEW_ROWS = 1 << 14  # parts of fewer are packed in a hurry: somebody waits for an append, and merging packs them anew
_SMALL_BYTES = 4 << 20  # in memory; a first part up to here needs neither file nor thread on its way


class Staging:
    """Collects the parts of one write; use as a context and ask for `kept` at its end."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._adopting = blobs if isinstance(blobs, Adopting) else None
        self._folder: Path | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._small: list[tuple[bytes, int]] = []
        self._files: list[tuple[Path, Future[str], int, int]] = []

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, frame: pl.DataFrame) -> None:
        """Write one part."""
        if not self._files and not self._small and frame.estimated_size() < _SMALL_BYTES:
            buffer = BytesIO()
            _encode(frame, buffer)
            self._small.append((buffer.getvalue(), frame.height))
            return
        if self._folder is None or self._pool is None:
            self._folder = self._adopting.workshop() if self._adopting else Path(tempfile.mkdtemp(prefix="flyball-"))
            self._pool = ThreadPoolExecutor(1)  # hashes and syncs one part while the next is encoded
        path = self._folder / f"{len(self._files)}.parquet"
        _encode(frame, path)
        finish: Callable[[Path], str] = _hashed if self._adopting else self._blobs.put
        self._files.append((path, self._pool.submit(finish, path), frame.height, path.stat().st_size))
        if len(self._files) > 1:
            self._files[-2][1].result()  # a disk that is full is noticed now, and only one part waits

    def kept(self) -> list[tuple[str, int, int]]:
        """Keep all parts; return digest, rows and size in bytes of each."""
        done = [(path, future.result(), rows, size) for path, future, rows, size in self._files]
        parts = [(self._blobs.put(data), rows, len(data)) for data, rows in self._small]
        for path, digest, rows, size in done:
            if self._adopting:
                self._adopting.adopt(path, digest)
            parts.append((digest, rows, size))
        return parts


def _encode(frame: pl.DataFrame, target: Path | BytesIO) -> None:
    level = 1 if frame.height < _FEW_ROWS else 3
    frame.write_parquet(target, compression="zstd", compression_level=level, statistics=True, row_group_size=GROUP_ROWS)


def _hashed(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return digest
