"""The protocol's datatypes as NumPy's, and tensors as raw bytes; what JSON and gRPC have in common.

Raw: little-endian, row-major, without padding; BOOL is a byte; each element of BYTES is its length as little-endian
u32 and then its bytes; BF16 is the upper half of a float32 (Triton's "Binary tensor data extension").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flyball.errors import InvalidInput, did_you_mean, listed

__all__ = ["DTYPES", "Array", "checked_datatype", "checked_shape", "datatype_of", "from_raw", "text_of", "to_raw"]

Array = np.ndarray[Any, Any]

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.int8,
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
    "BYTES": object,
}
_DATATYPES = {"b1": "BOOL", "f2": "FP16", "f4": "FP32", "f8": "FP64"} | {
    f"{kind}{size}": f"{word}{size * 8}" for kind, word in (("i", "INT"), ("u", "UINT")) for size in (1, 2, 4, 8)
}
_MOST_DIMENSIONS = 16
_MOST_ELEMENTS = 1 << 40


def checked_datatype(name: str, datatype: object) -> str:
    """Return a datatype that the protocol has. Raises InvalidInput."""
    if type(datatype) is not str or datatype not in DTYPES:
        raise InvalidInput(
            f'the input "{name}" has the datatype {str(datatype)[:40]!r}{did_you_mean(str(datatype), DTYPES)} '
            f"(known: {listed(DTYPES, 14)})"
        )
    return datatype


def checked_shape(name: str, shape: Any) -> tuple[list[int], int]:
    """Return a shape and its number of elements.

    Nothing is allocated for it before the values have been counted, so a product of 10^18 costs nothing.

    Raises:
        InvalidInput: it is not a list of up to 16 whole numbers from 0, or larger than any tensor.
    """
    if type(shape) is not list or len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise InvalidInput(f'the input "{name}" has the shape {str(shape)[:60]}; expected a list of sizes from 0')
    count = math.prod(shape)
    if count == 0 and math.prod(n or 1 for n in shape) > _MOST_ELEMENTS:  # NumPy refuses [0, 10^18, 10^18] too
        raise InvalidInput(f'the input "{name}" has the shape {str(shape)[:60]}; no tensor is so large')
    return shape, count


def from_raw(name: str, datatype: str, count: int, data: memoryview) -> Array:
    """Return `count` elements from their raw bytes. Raises InvalidInput, which names the input."""
    if datatype == "BYTES":
        return _texts(name, count, data)
    dtype = np.dtype(DTYPES[datatype])
    if len(data) != count * dtype.itemsize:
        raise InvalidInput(
            f'the input "{name}" has {len(data)} raw bytes; its shape and datatype {datatype} need '
            f"{count * dtype.itemsize}"
        )
    if datatype == "BOOL":
        flags = np.frombuffer(data, np.uint8)
        if flags.size and int(flags.max()) > 1:
            raise InvalidInput(f'the input "{name}" is BOOL and holds a byte other than 0 and 1')
        return flags.astype(np.bool_)
    array = np.frombuffer(data, dtype)
    if datatype == "BF16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _texts(name: str, count: int, data: memoryview) -> Array:
    """Each element: its length in bytes as little-endian u32, then UTF-8."""
    if len(data) < 4 * count:
        raise InvalidInput(f'the input "{name}" has {len(data)} raw bytes; {count} texts need at least {4 * count}')
    texts = np.empty(count, object)
    at = 0
    for index in range(count):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise InvalidInput(f'the text {index} of the input "{name}" is longer than the bytes that are left')
        try:
            texts[index] = str(data[at + 4 : end], "utf-8")
        except UnicodeDecodeError:
            raise InvalidInput(f'the text {index} of the input "{name}" is not UTF-8') from None
        at = end
    if at != len(data):
        raise InvalidInput(f'the input "{name}" has {len(data) - at} raw bytes after its last text')
    return texts


def to_raw(array: Array) -> bytes:
    """Return an array's raw bytes."""
    if array.dtype.kind in "OUS":
        encoded = [value if isinstance(value, bytes) else text_of(value).encode() for value in array.ravel().tolist()]
        return b"".join(part for text in encoded for part in (len(text).to_bytes(4, "little"), text))
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).tobytes()


def datatype_of(name: str, array: Array) -> str:
    """Return what an output's type is called. Raises InvalidInput for one that has no name."""
    if array.dtype.kind in "OUS":
        return "BYTES"
    if array.dtype.kind == "M":
        return "INT64"  # microseconds since 1970 UTC
    found = _DATATYPES.get(f"{array.dtype.kind}{array.dtype.itemsize}")
    if found is None:
        raise InvalidInput(f'the output "{name}" has the type {array.dtype}, which the protocol cannot carry')
    return found


def text_of(value: object) -> str:
    """Return an element of BYTES as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else "" if value is None else str(value)
