"""The wire format of Protocol Buffers (proto3), read and written by hand.

Specification: protobuf.dev, "Encoding". A prediction over gRPC is a message of a few fields; reading it here costs less
than generated classes do, and the data plane need not load their runtime. Repeated numbers are arrays: packed
varints are decoded by NumPy, because a loop in Python would take a second for a million of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from flyball.errors import InvalidInput

__all__ = [
    *("FIXED32", "FIXED64", "LENGTH", "VARINT", "Wire"),
    *("boolean", "double", "fields", "integer", "message", "packed", "signed", "text", "varints"),
]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

Wire = tuple[int, int, Any]
"""A field as it comes: its number, its wire type, and an int or (for `LENGTH`, and both fixed ones) bytes."""

_FIXED = {FIXED64: 8, FIXED32: 4}


def fields(data: bytes) -> Iterator[Wire]:
    """Yield the fields of a message in their order; unknown ones are for the caller to pass over.

    Raises:
        InvalidInput: these bytes are no message.
    """
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _varint(data, at - 1)
        kind = tag & 7
        if tag < 8:
            raise InvalidInput("the message is not protobuf: a field has the number 0")
        if kind == LENGTH:
            if at >= end:
                raise _cut()
            size = data[at]
            at += 1
            if size > 127:
                size, at = _varint(data, at - 1)
            if at + size > end:
                raise _cut()
            yield tag >> 3, kind, data[at : at + size]
            at += size
        elif kind == VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, kind, value
        elif kind in _FIXED:
            size = _FIXED[kind]
            if at + size > end:
                raise _cut()
            yield tag >> 3, kind, data[at : at + size]
            at += size
        else:
            raise InvalidInput(f"the message is not protobuf: a field has the wire type {kind}")


def signed(value: int) -> int:
    """Return a varint as the int64 that it stands for."""
    return value - (1 << 64) if value >> 63 else value


def varints(data: bytes) -> np.ndarray[Any, Any]:
    """Return packed varints as uint64. Raises InvalidInput."""
    raw = np.frombuffer(data, np.uint8)
    if not raw.size:
        return np.empty(0, np.uint64)
    ends = np.flatnonzero(raw < 128)
    if raw[-1] > 127:
        raise _cut()
    starts = np.empty_like(ends)
    starts[0] = 0
    starts[1:] = ends[:-1] + 1
    sizes = ends - starts
    if int(sizes.max()) > 9:
        raise InvalidInput("the message is not protobuf: a varint has more than 10 bytes")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(sizes.max()) + 1):
        has = np.flatnonzero(sizes >= place)
        values[has] |= (raw[starts[has] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values


def packed(number: int, values: np.ndarray[Any, Any]) -> bytes:
    """Return numbers as one packed field: integers and booleans as varints, floats as they are; b"" for none."""
    if not values.size:
        return b""
    if values.dtype.kind == "f":
        return message(number, values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    whole = values.astype(np.int64).view(np.uint64) if values.dtype.kind != "u" else values.astype(np.uint64)
    sizes = np.ones(len(whole), np.int64)
    for place in range(1, 10):
        sizes += whole >> np.uint64(7 * place) != 0
    ends = np.cumsum(sizes)
    starts = ends - sizes
    raw = np.empty(int(ends[-1]), np.uint8)
    for place in range(int(sizes.max())):
        has = np.flatnonzero(sizes > place)
        part = (whole[has] >> np.uint64(7 * place)) & np.uint64(0x7F)
        raw[starts[has] + place] = part | np.where(sizes[has] > place + 1, 0x80, 0).astype(np.uint64)
    return message(number, raw.tobytes())


def message(number: int, data: bytes) -> bytes:
    """Return a field of bytes, or of a message that is written already; an empty one too."""
    return _tag(number, LENGTH) + _written(len(data)) + data


def text(number: int, value: str) -> bytes:
    """Return a text; b"" for the empty one, as proto3 leaves it out."""
    return message(number, value.encode("utf-8", "replace")) if value else b""


def integer(number: int, value: int) -> bytes:
    """Return a whole number, negative ones as int64; b"" for 0."""
    return _tag(number, VARINT) + _written(value & (1 << 64) - 1) if value else b""


def double(number: int, value: float) -> bytes:
    """Return a float64, 0 too."""
    return _tag(number, FIXED64) + struct.pack("<d", value)


def boolean(number: int, value: bool) -> bytes:
    """Return a truth value; b"" for false."""
    return _tag(number, VARINT) + b"\x01" if value else b""


def _tag(number: int, kind: int) -> bytes:
    return _written(number << 3 | kind)


def _written(value: int) -> bytes:
    if value < 128:
        return _SMALL[value]
    found = bytearray()
    while value > 127:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + 10]:
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 128:
            return value & (1 << 64) - 1, at
        shift += 7
    raise _cut()


def _cut() -> InvalidInput:
    return InvalidInput("the message is not a whole protobuf message; it ends within a field")


_SMALL = [bytes((value,)) for value in range(128)]
