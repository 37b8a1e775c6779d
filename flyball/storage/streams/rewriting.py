"""Take payloads out of a log, or parts of them, while its writers and readers are alive.

A frame keeps its place and its length, so writers that append and readers that hold cursors never notice: what
is shorter is filled up with spaces, and what goes altogether becomes a frame of zeros with another magic (`log`). Bytes
are overwritten where they stand, so they are gone from the file, not only from its index. What the medium underneath
keeps (snapshots of a copy-on-write file system, worn cells of an SSD) is not within reach of a program.

Crash safety: the new frames of a segment are first written to a `.redo` file beside it and synced, then put in their
places, then the redo file is removed. Whoever rewrites next first does again what a redo file says. One process
rewrites a folder at a time, held by a file lock that the kernel gives back when the process dies.

A writer whose disk is full cuts its segment back; should that very frame be rewritten at the same instant, the frame's
bytes come to stand behind a gap of zeros, which readers report as damage. Nothing that was acknowledged is in it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from flyball.errors import InvalidInput, Unavailable
from flyball.storage.streams import Cursor
from flyball.storage.streams.log import _CHUNK, _FRAME, _GONE, _HEAD, _MAGIC, _SEGMENT_HEADER, _next_frame

__all__ = ["Rewritten", "rewrite"]

Change = Callable[[bytes], bytes | None]
"""Takes a payload and returns it, or what shall stand for it (not longer), or None when it must go."""

_PATCH = struct.Struct("<QI")
_REDO_BYTES = 16 << 20  # new frames that are made durable at a time


class Rewritten(NamedTuple):
    """What `rewrite` did: payloads changed, payloads taken out, places that could not be read, and where it ended."""

    changed: int
    gone: int
    damaged: int
    cursor: Cursor


def rewrite(folder: Path, change: Change, cursor: Cursor | None = None, *, dry_run: bool = False) -> Rewritten:
    """Offer each payload behind `cursor` to `change` and put what it returns in the payload's place.

    Args:
        folder: of a `log.Log`; one that is not there has no payloads.
        cursor: what the last call returned, for what was appended since; None: everything.
        dry_run: only count.

    Raises:
        InvalidInput: `change` returned more than was there.
        Unavailable: another process is rewriting this folder.
    """
    if not folder.is_dir():
        return Rewritten(0, 0, 0, {})
    if dry_run:
        return _pass(folder, change, cursor, None)
    with _alone(folder):
        for redo in sorted(folder.glob("*.redo")):
            _put(redo.with_suffix(".seg"), _read_redo(redo))
            redo.unlink()
        return _pass(folder, change, cursor, _apply)


def _pass(
    folder: Path, change: Change, cursor: Cursor | None, put: Callable[[Path, list[tuple[int, bytes]]], None] | None
) -> Rewritten:
    changed = gone = damaged = 0
    after: Cursor = dict(cursor or {})
    for segment in sorted(folder.glob("*.seg")):
        patches: list[tuple[int, bytes]] = []
        size = 0
        try:
            frames = _frames(segment, after.get(segment.name, 0))
            for offset, payload, end in frames:
                after[segment.name] = end
                if payload is None:
                    damaged += 1
                    continue
                kept = change(payload)
                if kept is not None and kept.ljust(len(payload)) == payload:
                    continue
                changed, gone = changed + (kept is not None), gone + (kept is None)
                if put is not None:
                    patches.append((offset, _frame(segment, payload, kept)))
                    size += len(patches[-1][1])
                    if size >= _REDO_BYTES:
                        put(segment, patches)
                        patches, size = [], 0
        except FileNotFoundError:  # expired meanwhile
            continue
        if patches and put is not None:
            put(segment, patches)
    return Rewritten(changed, gone, damaged, after)


def _frames(segment: Path, start: int) -> Iterator[tuple[int, bytes | None, int]]:
    """Yield (offset, payload, next offset) of each whole frame; None for the payload of a damaged place."""
    descriptor = os.open(segment, os.O_RDONLY)
    try:
        offset = start or len(_SEGMENT_HEADER)
        size = os.fstat(descriptor).st_size
        while size - offset >= _FRAME.size:
            chunk = os.pread(descriptor, min(_CHUNK, size - offset), offset)
            at = 0
            while len(chunk) - at >= _FRAME.size:
                magic, length, checksum, head_checksum = _FRAME.unpack_from(chunk, at)
                is_sound = crc32(chunk[at : at + _HEAD.size]) == head_checksum and magic in (_MAGIC, _GONE)
                end = at + _FRAME.size + length
                if not is_sound:
                    end = _next_frame(descriptor, offset + at, size) - offset
                    if end + offset < size or any(chunk[at:]):
                        yield offset + at, None, offset + end
                    if end + offset >= size:
                        return
                elif end > size - offset:
                    return  # the unfinished tail of a live segment
                elif magic == _MAGIC:
                    payload = chunk[at + _FRAME.size : end]
                    if end > len(chunk):
                        payload = os.pread(descriptor, length, offset + at + _FRAME.size)
                    yield offset + at, payload if crc32(payload) == checksum else None, offset + end
                at = end
            offset += at
    finally:
        os.close(descriptor)


def _frame(segment: Path, payload: bytes, kept: bytes | None) -> bytes:
    length = len(payload)
    if kept is not None and len(kept) > length:
        raise InvalidInput(
            f"a payload of {length} bytes in {segment.name} cannot become one of {len(kept)}; it may only shrink"
        )
    body = b"\0" * length if kept is None else kept.ljust(length)
    head = _HEAD.pack(_GONE if kept is None else _MAGIC, length, crc32(body))
    return head + crc32(head).to_bytes(4, "little") + body


def _apply(segment: Path, patches: list[tuple[int, bytes]]) -> None:
    """Put frames in their places, so that a crash at any instant loses neither them nor their neighbours."""
    redo, draft = segment.with_suffix(".redo"), segment.with_suffix(".draft")
    body = b"".join(_PATCH.pack(offset, len(frame)) + frame for offset, frame in patches)
    draft.touch(0o600)
    with draft.open("wb") as stream:
        stream.write(crc32(body).to_bytes(4, "little") + body)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(redo)
    _sync_folder(segment.parent)
    _put(segment, patches)
    redo.unlink()


def _read_redo(path: Path) -> list[tuple[int, bytes]]:
    data = path.read_bytes()
    body, patches, at = data[4:], [], 0
    if crc32(body) != int.from_bytes(data[:4], "little"):
        return []  # renamed but not synced before a power cut: then nothing was put in place either
    while at < len(body):
        offset, length = _PATCH.unpack_from(body, at)
        at += _PATCH.size
        patches.append((offset, body[at : at + length]))
        at += length
    return patches


def _put(segment: Path, patches: list[tuple[int, bytes]]) -> None:
    try:
        descriptor = os.open(segment, os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(descriptor).st_size
        for offset, frame in patches:
            if offset + len(frame) <= size:
                os.pwrite(descriptor, frame, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "rewriting.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another process is rewriting {folder}; try again when it is done") from None
        yield


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
