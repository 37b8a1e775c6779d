"""The bytes of a text file as UTF-8, in blocks, whatever they are encoded or compressed in.

`utf8_blocks` reads, decompresses (gzip, Zstandard; told by the first bytes, not by the name), decodes (byte-order
marks, or the encoding that the user names) and says where a byte does not belong. Nothing of the file is held but one
block, so files may be larger than memory and a compressed one needs no room on disk. Called by `_csv` and `_json`.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from flyball.errors import InvalidInput, MissingExtra

__all__ = ["BLOCK_BYTES", "encoding_of", "utf8_blocks"]

BLOCK_BYTES = 4 * 1024 * 1024  # large enough for Polars to be busy, small enough for many of them
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    codecs.BOM_UTF8: "utf-8",
}


def encoding_of(name: str) -> str:
    """Return the normal name of an encoding. Raises InvalidInput: Python knows none of this name, or it is no text."""
    try:
        found = codecs.lookup(name)
    except LookupError:
        raise InvalidInput(
            f'unknown encoding "{name}"; expected one such as utf-8, cp1252, latin-1 or utf-16'
        ) from None
    if not found._is_text_encoding:
        raise InvalidInput(f'"{name}" is no encoding of text; expected one such as utf-8, cp1252 or latin-1')
    return found.name


def utf8_blocks(path: Path, encoding: str | None = None) -> Iterator[bytes]:
    """Yield the file's text as UTF-8 with line ends `\\n` or `\\r\\n`, without a byte-order mark.

    Args:
        path: the file.
        encoding: what it is in, where no byte-order mark says; default UTF-8.

    Raises:
        InvalidInput: a byte that the encoding does not have (with its place and line), a cut-off or damaged archive.
        MissingExtra: Zstandard is needed and neither Python nor an installed library has it.
    """
    with ExitStack() as stack:
        stream = _decompressed(stack, path)
        block = _read(stream, path)
        found, block = _by_mark(block)
        name = found or encoding_of(encoding or "utf-8")
        decoder = codecs.getincrementaldecoder(name)()
        only_returns = b"\r" in block and b"\n" not in block and name == "utf-8"
        offset = lines = 0
        while block:
            text = _decoded(decoder, block, path, name, offset, lines, given=encoding is not None or found is not None)
            offset += len(block)
            done = text if name == "utf-8" else text.encode()
            lines += done.count(b"\n")
            if only_returns:  # the line ends of old Macintoshes
                done = done.replace(b"\r", b"\n")
            if done:
                yield done
            block = _read(stream, path)
        if decoder.getstate()[0]:
            what = "a UTF-8 character" if name == "utf-8" else f"a character of {name}"
            raise InvalidInput(f"{path} ends in the middle of {what} (line {lines + 1}); it may be cut off")


def _decoded(decoder: Any, block: bytes, path: Path, name: str, offset: int, lines: int, *, given: bool) -> Any:
    """Return the block as text; of UTF-8, which needs no decoding, the whole characters' bytes."""
    pending = decoder.getstate()[0]
    try:
        text = decoder.decode(block)
    except UnicodeDecodeError as error:
        at = max(error.start - len(pending), 0)
        line = lines + 1 + block.count(b"\n", 0, at)
        byte, value = offset + error.start - len(pending), error.object[error.start]
        shown = "UTF-8" if name == "utf-8" else name
        advice = "" if given else ', or say its encoding (options: {encoding: "cp1252"})'
        raise InvalidInput(
            f"{path} is not {shown}: byte {byte} (line {line}) is 0x{value:02x}; save it as UTF-8{advice}"
        ) from None
    if name != "utf-8":
        return text
    whole = pending + block
    left = len(decoder.getstate()[0])
    return whole[: len(whole) - left] if left else whole


def _by_mark(block: bytes) -> tuple[str | None, bytes]:
    for mark, name in _MARKS.items():
        if block.startswith(mark):
            return name, block[len(mark) :]
    return None, block


def _read(stream: Any, path: Path) -> bytes:
    try:
        return bytes(stream.read(BLOCK_BYTES))
    except EOFError:
        raise InvalidInput(f"{path} is cut off: its compressed data ends too early") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInput(f"{path} is damaged: its compressed data cannot be unpacked") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or 'its compressed data is damaged'}") from error


def _decompressed(stack: ExitStack, path: Path) -> Any:
    raw = stack.enter_context(path.open("rb"))
    head = raw.read(4)
    raw.seek(0)
    if head.startswith(_GZIP):
        return stack.enter_context(gzip.GzipFile(fileobj=raw))
    if head == _ZSTD:
        return stack.enter_context(_zstandard(raw))
    return raw


def _zstandard(raw: BinaryIO) -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14

        return zstd.ZstdFile(raw)
    except ImportError:
        pass
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtra("pyarrow", "lake", "reading Zstandard before Python 3.14") from None
    return io.BufferedReader(_Whole(pa.CompressedInputStream(raw, "zstd")))


class _Whole(io.RawIOBase):
    """A stream of Arrow's as one of Python's: Arrow's own `read` may return less than was asked for."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
