"""The embedded stream: framed segments in a folder, group commit by one thread.

A segment is a file `<writer>.<start>-<n>.seg` that belongs to one `Log` object for ever: created with O_EXCL, only
appended to, never opened again by anyone who writes. So writers need no lock between them, and a restarted process
begins a segment of its own instead of mending the old one. `<start>` is the time the log was opened, in hexadecimal.

    segment = b"flyball1" frame*
    frame   = magic (4) · payload's length (u32) · payload's CRC-32 (u32) · CRC-32 of these 12 bytes (u32) · payload

A payload that had to go (`rewriting`) leaves a frame of the same length with another magic, which readers pass over.

All integers are little-endian. The header has a checksum of its own so that a damaged length is never mistaken for
the unfinished tail of a live segment, and so that reading can go on behind damage.

Group commit: everything that waits goes out in one gathered write and one `fdatasync`, then all its tickets are
settled. Framing and checksums are done by the thread that appends, and the writer's thread works in groups of at most
`_GROUP_APPENDS`, so that it never keeps the interpreter from an event loop for more than a millisecond. Where the disk
is quick and nothing waits, handing a few rows to that thread and back costs more than writing them: `append_now`.

A failed write (disk full, quota, file-size limit, I/O error) is cut off again and its segment is never used again: a
reader may already have seen the bytes that were cut, so other bytes must not take their place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from zlib import crc32

from flyball.errors import Corrupt, FlyballError, Incompatible, InvalidInput, Unavailable
from flyball.storage.streams import Cursor, OnDone, Ticket

__all__ = ["Damage", "Log", "Reader"]

_SEGMENT_HEADER = b"flyball1"
_MAGIC = b"\xf1\x7b\xa1\x01"
_GONE = b"\xf1\x7b\xa1\x00"
_HEAD = struct.Struct("<4sII")
_FRAME = struct.Struct("<4sIII")
_GROUP_APPENDS = 256  # gathering and settling so many takes 0.3 ms
_GROUP_BYTES = 8 << 20
_VECTORS = 512  # buffers in one writev; POSIX promises 16, Linux and macOS take 1024
_AT_ONCE_S = 0.0002  # what a write may take to be done by whoever appends; two hand-overs take 0.1 ms and more
_AT_ONCE_BYTES = 64 << 10
_FEW_BUFFERS = 64  # larger writes tell nothing of what a small one takes, unless they are quicker
_NEWEST = 0.2  # weight of the newest write in what one is expected to take
_CHUNK = 4 << 20
_LOOKS = 5  # at a frame that does not add up, before it is damage: it may be rewritten at this moment
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
_logger = logging.getLogger(__name__)


class Damage(NamedTuple):
    """A place that cannot be read back: the segment's file name, the first byte, how many bytes, and what is wrong."""

    segment: str
    offset: int
    size_bytes: int
    reason: str


class Log:
    """A `StreamWriter` into `folder`.

    Arguments:
        writer: who writes: letters, digits, `_`; need not be unique.
        durability: `"disk"`: acknowledged means that it survives a power cut; `"os"`: that it survives `kill -9`.
        segment_bytes: a new segment is begun when the present one has reached this size.
        ring_bytes: how much may wait to be written before `append` refuses.
        deliver: how `on_done` callbacks are called: by default directly, on the writer's thread. An event loop gives
            its `call_soon_threadsafe` and is then woken once for a whole group.
    """

    def __init__(
        self,
        folder: Path,
        writer: str,
        durability: Literal["disk", "os"] = "disk",
        segment_bytes: int = 64 << 20,
        ring_bytes: int = 64 << 20,
        deliver: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", writer):
            raise InvalidInput(f"{writer[:80]!r} cannot name a writer; expected 1 to 64 letters, digits or _")
        if durability not in ("disk", "os"):
            raise InvalidInput(f'{durability!r} is not a durability; expected "disk" or "os"')
        self.folder = folder
        self.ring_bytes = ring_bytes
        _make_folder(folder)
        self._segments = _Segments(folder, f"{writer}.{time.time_ns():016x}", segment_bytes, durability == "disk")
        self._deliver = deliver
        self._waiting: deque[tuple[list[bytes], int, Ticket]] = deque()
        self._waiting_bytes = 0
        self._is_writing = False  # whoever it is: one thread at a time
        self._write_s = float("inf")  # what a small write is expected to take
        self._is_closing = False
        self._wake = threading.Condition(threading.Lock())
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name=f"log-{folder.name}", daemon=True)
        self._thread.start()

    def append(self, payloads: Sequence[bytes], on_done: OnDone | None = None) -> Ticket:
        frames, size = _framed(payloads, self.ring_bytes)
        ticket = Ticket(on_done)
        if self._process != os.getpid():  # asked before the lock, which a fork may have copied while it was held
            raise Unavailable(f"the log {self.folder} was opened before this process was forked; open it again here")
        with self._wake:
            if self._is_closing:
                raise Unavailable(f"the log {self.folder} is closed; open it again")
            if self._waiting and self._waiting_bytes + size > self.ring_bytes:
                raise Unavailable(
                    f"the log is full: {self._waiting_bytes} bytes wait to be written to {self.folder} and at most "
                    f"{self.ring_bytes} may; nothing was queued, try again in a moment"
                )
            self._waiting.append((frames, size, ticket))
            self._waiting_bytes += size
            self._wake.notify()
        return ticket

    def append_wait(self, payloads: Sequence[bytes], timeout_s: float = 30.0) -> None:
        self.append(payloads).wait(timeout_s)

    def append_now(self, payloads: Sequence[bytes]) -> bool:
        """Write payloads on the caller's thread, if nothing waits and it is expected to take 0.2 ms at most.

        Returns:
            Whether they are durable; if not, nothing was done, and `append` takes them.

        Raises:
            Unavailable: the disk took none of them.
            InvalidInput: as `append`.
        """
        if self._write_s > _AT_ONCE_S or self._process != os.getpid() or sum(map(len, payloads)) > _AT_ONCE_BYTES:
            return False
        frames, _ = _framed(payloads, self.ring_bytes)
        with self._wake:
            if self._is_writing or self._waiting or self._is_closing:
                return False
            self._is_writing = True
        try:
            self._write(frames)
        except (OSError, MemoryError) as failure:
            raise _refusal(self.folder, failure) from failure
        finally:
            with self._wake:
                self._is_writing = False
                if self._waiting or self._is_closing:
                    self._wake.notify()
        return True

    def close(self) -> None:
        if self._process != os.getpid():
            return
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            error: FlyballError | None = None
            try:
                self._write([buffer for frames, _, _ in group for buffer in frames])
            except (OSError, MemoryError) as failure:
                error = _refusal(self.folder, failure)
            size = sum(size for _, size, _ in group)
            with self._wake:
                self._waiting_bytes -= size
                self._is_writing = False
            self._settle([ticket for _, _, ticket in group], error)
        self._segments.close()

    def _write(self, buffers: list[bytes]) -> None:
        began = time.perf_counter()
        self._segments.write(buffers)
        taken = time.perf_counter() - began
        if self._write_s == float("inf"):
            self._write_s = taken
        elif taken < self._write_s or len(buffers) <= _FEW_BUFFERS:
            self._write_s += _NEWEST * (taken - self._write_s)

    def _next_group(self) -> list[tuple[list[bytes], int, Ticket]]:
        """Wait, then return what waits, up to a group's size; empty when the log is closed and all is written."""
        group: list[tuple[list[bytes], int, Ticket]] = []
        size = 0
        with self._wake:
            while self._is_writing or not (self._waiting or self._is_closing):
                self._wake.wait()
            while self._waiting and len(group) < _GROUP_APPENDS and size < _GROUP_BYTES:
                group.append(self._waiting.popleft())
                size += group[-1][1]
            self._is_writing = bool(group)
        return group

    def _settle(self, tickets: list[Ticket], error: FlyballError | None) -> None:
        callbacks: list[OnDone] = []
        for ticket in tickets:
            ticket.settle(error)
            if ticket.on_done is not None:
                callbacks.append(ticket.on_done)
        if not callbacks:
            return

        def announce() -> None:
            for callback in callbacks:
                try:
                    callback(error)
                except Exception:
                    _logger.exception("a callback of the log %s failed; the rows themselves are settled", self.folder)

        try:
            announce() if self._deliver is None else self._deliver(announce)
        except RuntimeError:  # the event loop is closed: nobody is left to tell
            _logger.warning("%d acknowledgements of the log %s found no listener", len(callbacks), self.folder)


class _Segments:
    """One writer's files: each write is there as a whole and synced, or cut off again."""

    def __init__(self, folder: Path, writer: str, segment_bytes: int, is_synced: bool) -> None:
        self._folder = folder
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._is_synced = is_synced
        self._number = 0
        self._descriptor = -1
        self._path = folder
        self._size = 0  # up to here everything is acknowledged

    def write(self, buffers: list[bytes]) -> None:
        """Append all buffers; durable on return. On OSError nothing of them is left."""
        try:
            if self._descriptor < 0 or self._size >= self._segment_bytes:
                self._begin()
            for start in range(0, len(buffers), _VECTORS):
                _write_all(self._descriptor, buffers[start : start + _VECTORS])
            if self._is_synced:
                _sync_data(self._descriptor)
        except BaseException:
            self._abandon()
            raise
        self._size += sum(map(len, buffers))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self) -> None:
        self.close()
        path = self._folder / f"{self._writer}-{self._number:06d}.seg"
        self._number += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except FileExistsError:  # two logs opened by the same writer in the same nanosecond
            return self._begin()
        except FileNotFoundError:  # someone removed the folder
            _make_folder(self._folder)
            self._descriptor = os.open(path, flags, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)  # as long as it may grow: whoever removes old segments asks
        self._path = path
        self._size = len(_SEGMENT_HEADER)
        _write_all(self._descriptor, [_SEGMENT_HEADER])
        if self._is_synced:
            _sync_folder(self._folder)
        return None

    def _abandon(self) -> None:
        """Cut off what a failed write left and never write to this segment again."""
        if self._descriptor < 0:
            return
        # Should the disk refuse even this, what stays are frames that nobody was promised, or an unfinished tail.
        with contextlib.suppress(OSError):
            if self._size == len(_SEGMENT_HEADER):
                self._path.unlink(missing_ok=True)
            else:
                os.ftruncate(self._descriptor, self._size)
        self.close()


class Reader:
    """A `StreamReader` of `folder`, which need not exist yet.

    Payloads come in the order of each writer; segments in the order of their names. The cursor is
    `{segment: next byte}`. An unfinished tail is simply not there yet, and neither are zeros up to the end of a file
    (a power cut left a length without its bytes; nothing there was acknowledged).

    Arguments:
        on_damage: called with each place that cannot be read back; reading goes on behind it. Without it `read`
            returns what stands before the damage, and raises Corrupt when that is where the cursor is.
    """

    def __init__(self, folder: Path, on_damage: Callable[[Damage], None] | None = None) -> None:
        self.folder = folder
        self._on_damage = on_damage

    def read(self, cursor: Cursor | None = None, limit_bytes: int = 16 << 20) -> tuple[list[bytes], Cursor]:
        before = cursor or {}
        while True:  # nothing to hand over means that nothing is new, however much has gone
            payloads, after = self._read_on(before, limit_bytes)
            if payloads or after == before:
                return payloads, after
            before = after

    def end_of(self, name: str, offset: int = 0) -> int:
        """Return where the last whole frame of a segment ends that is read up to `offset`.

        What stands behind it in a segment that nobody writes to any more was never acknowledged.
        """
        while True:
            after = self._read_segment(name, offset, 16 << 20, [])
            if after == offset:
                return offset
            offset = after

    def _read_on(self, cursor: Cursor, limit_bytes: int) -> tuple[list[bytes], Cursor]:
        payloads: list[bytes] = []
        after: Cursor = {}
        left = limit_bytes
        for name in self._segment_names():
            offset = cursor.get(name, 0)
            if left > 0:
                start = offset
                offset = self._read_segment(name, offset, left, payloads)
                left -= offset - start
            if offset:
                after[name] = offset
        return payloads, after

    def _segment_names(self) -> list[str]:
        try:
            return sorted(path.name for path in self.folder.iterdir() if path.suffix == ".seg")
        except FileNotFoundError:
            return []

    def _read_segment(self, name: str, offset: int, limit: int, payloads: list[bytes]) -> int:
        """Add the payloads that follow `offset` and return where to go on."""
        try:
            if (self.folder / name).stat().st_size <= max(offset, len(_SEGMENT_HEADER)):
                return offset
            descriptor = os.open(self.folder / name, os.O_RDONLY)
        except FileNotFoundError:  # expired between listing and opening
            return offset
        try:
            return self._scan(descriptor, name, offset or self._check_start(descriptor, name), limit, payloads)
        finally:
            os.close(descriptor)

    def _check_start(self, descriptor: int, name: str) -> int:
        found = os.pread(descriptor, len(_SEGMENT_HEADER), 0)
        if found != _SEGMENT_HEADER:
            if found.startswith(_SEGMENT_HEADER[:-1]):
                raise Incompatible(
                    f"{self.folder / name} was written by another version of Flyball ({found!r}, "
                    f"expected {_SEGMENT_HEADER!r}); read it with that version"
                )
            self._report(Damage(name, 0, len(found), "the segment's header is not Flyball's"))
        return len(_SEGMENT_HEADER)

    def _scan(self, descriptor: int, name: str, offset: int, limit: int, payloads: list[bytes]) -> int:
        stop = offset + limit
        frame_bytes = 0  # of the frame at `offset`, as far as it is known
        looked, looks = -1, 0
        while True:
            size = os.fstat(descriptor).st_size  # each time: a writer may add, or cut off what failed
            if offset >= min(stop, size) or frame_bytes > size - offset:
                return offset
            chunk = os.pread(descriptor, min(max(frame_bytes, _CHUNK), size - offset), offset)
            at = 0
            frame_bytes = _FRAME.size
            while len(chunk) - at >= _FRAME.size and offset + at < stop:
                magic, length, checksum, head_checksum = _FRAME.unpack_from(chunk, at)
                if magic != _MAGIC or crc32(chunk[at : at + _HEAD.size]) != head_checksum:
                    if magic == _GONE and crc32(chunk[at : at + _HEAD.size]) == head_checksum:
                        at += _FRAME.size + length
                        continue
                    looked, looks = offset + at, looks + 1 if looked == offset + at else 1
                    if looks < _LOOKS:
                        break
                    following = _next_frame(descriptor, offset + at, size)
                    if following == size and _is_zero(descriptor, offset + at, size):
                        return offset + at
                    damage = Damage(name, offset + at, following - offset - at, "the frame's header does not add up")
                    if not self._pass(damage, payloads):
                        return offset + at
                    at = following - offset
                    break
                begin = at + _FRAME.size
                end = begin + length
                if end > len(chunk):
                    frame_bytes = end - at
                    break
                payload = chunk[begin:end]
                if crc32(payload) == checksum:
                    payloads.append(payload)
                elif (looks := looks + 1 if looked == offset + at else 1) < _LOOKS:
                    looked = offset + at
                    break
                elif not self._pass(Damage(name, offset + at, end - at, "the payload's checksum differs"), payloads):
                    return offset + at
                at = end
            offset += at

    def _pass(self, damage: Damage, payloads: list[bytes]) -> bool:
        """Report damage; False when what was read before it must be handed over first."""
        if self._on_damage is None and payloads:
            return False
        self._report(damage)
        return True

    def _report(self, damage: Damage) -> None:
        if self._on_damage is None:
            raise Corrupt(
                f"{damage.size_bytes} bytes at byte {damage.offset} of {self.folder / damage.segment} cannot be read "
                f"back: {damage.reason}; restore the file from a backup, or read on behind them with on_damage"
            )
        self._on_damage(damage)


def _framed(payloads: Sequence[bytes], most_bytes: int) -> tuple[list[bytes], int]:
    """Return payloads with the headers of their frames, and how many bytes they are. Raises InvalidInput."""
    frames: list[bytes] = []
    size = 0
    pack, checksum = _HEAD.pack, crc32
    for payload in payloads:
        length = len(payload)
        if length > most_bytes:
            raise InvalidInput(f"a payload of {length} bytes is too large for the log; at most {most_bytes} fit")
        head = pack(_MAGIC, length, checksum(payload))
        frames.append(head + checksum(head).to_bytes(4, "little"))
        frames.append(payload)
        size += length + _FRAME.size
    return frames, size


def _write_all(descriptor: int, buffers: list[bytes]) -> None:
    """Write all buffers; a short write (the disk has just become full) is finished, or raises OSError."""
    total = sum(map(len, buffers))
    written = os.writev(descriptor, buffers)
    if written < total:
        rest = memoryview(b"".join(buffers))[written:]
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _refusal(folder: Path, failure: OSError | MemoryError) -> Unavailable:
    reason = getattr(failure, "strerror", None) or "no memory"
    if getattr(failure, "errno", None) in _FULL:
        refusal = Unavailable(
            f"the log is full: the disk that holds {folder} takes no more ({reason}); none of these rows was "
            "kept; free some space, and it goes on by itself"
        )
    else:
        refusal = Unavailable(
            f"the log {folder} could not be written ({reason}); none of these rows was kept; check the disk, "
            "the next write tries again"
        )
    refusal.__cause__ = failure
    return refusal


def _next_frame(descriptor: int, offset: int, size: int) -> int:
    """Return where the first sound header behind `offset` is, or `size`."""
    start = offset + 1
    while start < size:
        chunk = os.pread(descriptor, _CHUNK, start)
        at = chunk.find(_MAGIC)
        while at >= 0:
            head = os.pread(descriptor, _FRAME.size, start + at)
            if len(head) == _FRAME.size and crc32(head[: _HEAD.size]) == int.from_bytes(head[_HEAD.size :], "little"):
                return start + at
            at = chunk.find(_MAGIC, at + 1)
        start += max(len(chunk) - len(_MAGIC) + 1, 1)
    return size


def _is_zero(descriptor: int, offset: int, size: int) -> bool:
    while offset < size:
        chunk = os.pread(descriptor, min(_CHUNK, size - offset), offset)
        if chunk.count(0) != len(chunk):
            return False
        offset += len(chunk) or size
    return True


def _make_folder(folder: Path) -> None:
    """Create the folder and make its name durable."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
