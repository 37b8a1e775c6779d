"""Uploads in parts: they arrive in any order, again after a failure, and become one blob when all are there.

    <folder>/<upload>/upload.json        what it is about
    <folder>/<upload>/00007-<sha256>     a part: its number, and the digest that its sender was told

A part is written beside and renamed, so what has its name is whole. Completing copies the parts into one blob and
leaves them where they are, until the caller has recorded the blob and calls `forget`: a crash between loses nothing,
and completing again comes to the same blob. What nobody touched for long is swept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flyball.errors import InvalidInput, NotFound
from flyball.storage.blobs import BlobStore
from flyball.storage.blobs.receiving import Received, Receiving, full_is_unavailable
from flyball.storage.disk import sync_folder

__all__ = ["MOST_PARTS", "Part", "Uploads"]

MOST_PARTS = 10_000  # as S3 has it; with the 100 MB parts of MLflow's clients that is a file of 1 TB
_ID = re.compile(r"[0-9a-f]{32}")
_PIECE = 1 << 20


class Uploads:
    """The uploads that are going on in one folder; several processes may use it."""

    def __init__(self, folder: Path, blobs: BlobStore) -> None:
        self._folder = folder
        self._blobs = blobs

    def begin(self, about: Mapping[str, Any]) -> str:
        """Begin an upload and return its id; `about` is kept with it as JSON. Raises Unavailable (disk full)."""
        upload = secrets.token_hex(16)
        place = self._folder / upload

        def make() -> None:
            place.mkdir(parents=True)
            with (place / "upload.json").open("x", encoding="utf-8") as stream:
                json.dump(dict(about), stream)
                stream.flush()
                os.fsync(stream.fileno())

        full_is_unavailable(make)
        return upload

    def about(self, upload: str) -> dict[str, Any]:
        """Return what an upload is about. Raises NotFound."""
        try:
            found: dict[str, Any] = json.loads((self._place(upload) / "upload.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            raise NotFound(f"there is no upload {upload!r}; it was completed, aborted, or never begun") from None
        return found

    def part(self, upload: str, number: int) -> Part:
        """Return what takes a part, from 1. Raises NotFound, InvalidInput (number)."""
        self.about(upload)
        if not 1 <= number <= MOST_PARTS:
            raise InvalidInput(f"an upload has the parts 1 to {MOST_PARTS:,}, not {number}")
        return Part(self._place(upload), number)

    def complete(self, upload: str, parts: Iterable[tuple[int, str]]) -> Received:
        """Make the parts one blob, by their numbers.

        Args:
            parts: number and digest (as `Part.finish` told it) of every part.

        Raises:
            NotFound: there is no such upload.
            InvalidInput: no part is named, one twice, or one did not arrive as it is named.
            Unavailable: the disk is full; the parts stay.
        """
        self.about(upload)
        place, paths = self._place(upload), []
        listed = sorted(parts)
        if not listed or len({number for number, _ in listed}) < len(listed):
            raise InvalidInput("an upload is completed by all its parts, each named once")
        for number, digest in listed:
            path = place / _name(number, digest) if re.fullmatch(r"[0-9a-f]{64}", digest) else None
            if path is None or not path.exists():
                raise InvalidInput(f"part {number} of the upload did not arrive as it is named; send it again")
            paths.append(path)
        receiving = Receiving(self._blobs)
        try:
            for path in paths:
                with path.open("rb") as stream:
                    while piece := stream.read(_PIECE):
                        receiving.write(piece)
        except BaseException:
            receiving.abandon()
            raise
        return receiving.finish()

    def forget(self, upload: str) -> None:
        """Remove an upload and its parts. Raises NotFound."""
        self.about(upload)
        shutil.rmtree(self._place(upload), ignore_errors=True)

    def sweep(self, since: float, *, dry_run: bool = False) -> list[tuple[str, int]]:
        """Remove the uploads that got nothing after `since` (seconds since 1970); return them with their bytes."""
        found = []
        for place in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # it was completed or swept meanwhile
                stats = [path.stat() for path in (place, *place.iterdir())]
                if max(stat.st_mtime for stat in stats) <= since:
                    found.append((place.name, sum(stat.st_size for stat in stats[1:])))
                    if not dry_run:
                        shutil.rmtree(place, ignore_errors=True)
        return found

    def _place(self, upload: str) -> Path:
        if not _ID.fullmatch(upload):
            raise NotFound(f"there is no upload {upload[:80]!r}; it was completed, aborted, or never begun")
        return self._folder / upload


class Part:
    """Takes the pieces of one part; `finish` keeps it, `abandon` forgets it."""

    def __init__(self, place: Path, number: int) -> None:
        self._place = place
        self._number = number
        self._path = place / f".{secrets.token_hex(8)}.part"
        self._sha = hashlib.sha256()
        self._stream = full_is_unavailable(lambda: self._path.open("xb"))

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next piece. Raises Unavailable when the disk is full."""
        self._sha.update(piece)
        full_is_unavailable(lambda: self._stream.write(piece))

    def finish(self) -> str:
        """Keep the part and return its digest; durable on return. Raises NotFound: the upload went meanwhile."""
        try:
            full_is_unavailable(self._sync)
            self._path.replace(self._place / _name(self._number, self._sha.hexdigest()))
            sync_folder(self._place)
        except FileNotFoundError:
            raise NotFound("the upload was completed or aborted while the part arrived") from None
        finally:
            self.abandon()
        return self._sha.hexdigest()

    def abandon(self) -> None:
        """Forget what was taken."""
        self._stream.close()
        self._path.unlink(missing_ok=True)

    def _sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _name(number: int, digest: str) -> str:
    return f"{number:05d}-{digest}"
