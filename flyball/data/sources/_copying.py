"""The answer to `COPY … TO STDOUT` as blocks of whole rows, taken from the connection's socket itself.

The server wraps every row in a message of its own (PostgreSQL documentation, "Frontend/Backend Protocol", COPY
operations: `d`, the length in four bytes, the row). Asking the client library for each costs more than all the rest of
a reading, so here the messages of a block are found and their heads cut out by arithmetic over its bytes. A connection
with TLS cannot be read so; `postgresql` then goes through the library.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CopyFailed", "rows_of_copy"]

_HEAD = 5  # bytes of a message before its content: the kind, the length
_CHUNK_BYTES = 1024 * 1024


class CopyFailed(Exception):
    """The server ended the copy with an error, or went away. `sqlstate` is "" when it said none."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


def rows_of_copy(descriptor: int, statement: bytes, block_bytes: int) -> Iterator[bytes]:
    """Send a COPY statement over a connected, idle socket and yield the rows in blocks of about `block_bytes`.

    The connection is good for nothing but closing afterwards, since the library does not know what was read.

    Raises:
        CopyFailed: the server says that the statement failed, or closes the connection before the end.
    """
    with socket.socket(fileno=os.dup(descriptor)) as stream:
        stream.setblocking(True)
        content = statement + b"\0"
        stream.sendall(b"Q" + struct.pack("!i", len(content) + 4) + content)
        rest, is_done = b"", False
        while not is_done:
            parts, size = [rest], 0
            while size < block_bytes:
                try:
                    part = stream.recv(_CHUNK_BYTES)
                except OSError as error:
                    raise CopyFailed(f"the connection was lost ({error.strerror})") from error
                if not part:
                    is_done = True
                    break
                parts.append(part)
                size += len(part)
                if part[-6:-1] == b"Z\0\0\0\5":  # perhaps the end; whether it is, the messages tell
                    break
            rows, rest, is_complete = _unwrapped(b"".join(parts))
            if rows:
                yield rows
            if is_complete:
                return
    raise CopyFailed("the server closed the connection")


def _unwrapped(data: bytes) -> tuple[bytes, bytes, bool]:
    """Return the rows in whole messages, the bytes of a message that has more to come, and whether all is complete."""
    import numpy as np

    found: list[bytes] = []
    at, end = 0, len(data)
    while at + _HEAD <= end:
        if data[at] == ord("d"):
            rows, after = _rows_from(np.frombuffer(data, np.uint8), data, at)
            if after == at:
                break
            found.append(rows)
            at = after
            continue
        length = int.from_bytes(data[at + 1 : at + _HEAD], "big")
        if at + 1 + length > end:
            break
        kind, content = data[at : at + 1], data[at + _HEAD : at + 1 + length]
        if kind == b"E":
            fields = {field[:1]: field[1:].decode(errors="replace") for field in content.split(b"\0") if field}
            raise CopyFailed(fields.get(b"M", "the server says no more"), fields.get(b"C", ""))
        at += 1 + length
        if kind == b"Z":
            return b"".join(found), data[at:], True
    return b"".join(found), data[at:], False


def _rows_from(bytes_: np.ndarray[Any, np.dtype[np.uint8]], data: bytes, at: int) -> tuple[bytes, int]:
    """Return the content of the row messages from `at` on without their heads, and where what follows them begins."""
    import numpy as np

    # A row ends with a line end and the next message's `d` follows, in all but the rare text that looks the same.
    view = bytes_[at:]
    ends = np.flatnonzero((view[:-1] == 10) & (view[1:] == ord("d")))
    starts = np.concatenate(([0], ends + 1))
    starts = starts[starts + _HEAD <= len(view)]
    heads = view[starts[:, None] + np.arange(1, _HEAD)].astype(np.int64)
    following = starts + 1 + (heads << np.array([24, 16, 8, 0])).sum(axis=1)
    if not np.array_equal(following[:-1], starts[1:]):
        starts, following = _chained(data, at)
    whole = following <= len(view)
    starts, following = starts[whole], following[whole]
    if not len(starts):
        return b"", at
    stop = int(following[-1])
    keep = np.ones(stop, bool)
    keep[starts[:, None] + np.arange(_HEAD)] = False
    return view[:stop][keep].tobytes(), at + stop


def _chained(data: bytes, at: int) -> tuple[Any, Any]:
    """Return where the row messages begin and end, found one after the other, relative to `at`."""
    import numpy as np

    starts, following, here = [], [], at
    while here + _HEAD <= len(data) and data[here] == ord("d"):
        starts.append(here - at)
        here += 1 + int.from_bytes(data[here + 1 : here + _HEAD], "big")
        following.append(here - at)
    return np.array(starts, np.int64), np.array(following, np.int64)
