"""What a compressed file holds, unpacked within a bound; what cannot be unpacked here is told to be so."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Unpacked", "unpack"]


@dataclass(frozen=True)
class Unpacked:
    """`form` is the compressor's name; `problem` says why the data is not all, or not there."""

    form: str
    data: bytes = b""
    problem: str | None = None


_OPENED: tuple[tuple[bytes, str, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", "gzip", lambda: zlib.decompressobj(31)),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", "xz", lambda: lzma.LZMADecompressor(memlimit=1 << 28)),
    (b"\x5d\0\0", "lzma", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=1 << 28)),
    (b"\x78\x01", "zlib", zlib.decompressobj),
    (b"\x78\x5e", "zlib", zlib.decompressobj),
    (b"\x78\x9c", "zlib", zlib.decompressobj),
    (b"\x78\xda", "zlib", zlib.decompressobj),
)
_CLOSED: tuple[tuple[bytes, str], ...] = (
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
    (b"\x1f\x9d", "compress"),
    (b"MSCF", "cab"),
    (b"ZF0x", "old joblib"),
    (b"LZIP", "lzip"),
)


def unpack(data: bytes, limit_bytes: int) -> Unpacked | None:
    """Return what is in compressed data, at most `limit_bytes` of it; None where it is not compressed."""
    for magic, form in _CLOSED:
        if data.startswith(magic):
            return Unpacked(form, problem="it cannot be looked into")
    for magic, form, make in _OPENED:
        if data.startswith(magic):
            return _opened(form, make(), data, limit_bytes)
    return None


def _opened(form: str, machine: Any, data: bytes, limit_bytes: int) -> Unpacked | None:
    parts: list[bytes] = []
    room, given = limit_bytes + 1, data
    try:
        while room > 0 and not machine.eof:
            part = machine.decompress(given, min(room, 1 << 24))
            parts.append(part)
            room -= len(part)
            given = machine.unconsumed_tail if hasattr(machine, "unconsumed_tail") else b""
            if not part and not given and getattr(machine, "needs_input", True):
                break
    except (OSError, EOFError, zlib.error, lzma.LZMAError, MemoryError) as error:
        if not any(parts) and form in ("zlib", "lzma"):
            return None  # their magic is two or three bytes, which other files begin with too
        return Unpacked(form, b"".join(parts), f"it is damaged ({type(error).__name__})")
    whole = b"".join(parts)
    if room <= 0:
        return Unpacked(form, problem="it unpacks to more than the scan's limit")
    if not machine.eof:
        return Unpacked(form, whole, "it breaks off")
    if machine.unused_data.strip(b"\0"):
        return Unpacked(form, whole, "more stands behind its end")
    return Unpacked(form, whole)
