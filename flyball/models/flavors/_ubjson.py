"""Read UBJSON, as XGBoost writes it, so that a model can be looked through before XGBoost sees a byte of it.

Source: ubjson.org, draft 12, with arrays of one type (`$`, `#`) as NumPy arrays; big-endian throughout.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

__all__ = ["decode"]

_NUMBERS: dict[bytes, np.dtype[Any]] = {
    b"i": np.dtype(">i1"),
    b"U": np.dtype(">u1"),
    b"I": np.dtype(">i2"),
    b"l": np.dtype(">i4"),
    b"L": np.dtype(">i8"),
    b"d": np.dtype(">f4"),
    b"D": np.dtype(">f8"),
}
_PLAIN = {b"Z": None, b"T": True, b"F": False}
_DEPTH = 64


def decode(data: bytes) -> Any:
    """Return the value that the bytes are. Raises ValueError: they are none, or more stands behind it."""
    reader = _Reader(data)
    try:
        found = reader.value(reader.take(1), 0)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"it breaks off at byte {reader.at}") from error
    if reader.at != len(data):
        raise ValueError(f"more stands behind its end at byte {reader.at}")
    return found


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        found = self.data[self.at : self.at + count]
        if count < 0 or len(found) != count:
            raise ValueError(f"it breaks off at byte {self.at}")
        self.at += count
        return found

    def value(self, mark: bytes, depth: int) -> Any:
        if depth > _DEPTH:
            raise ValueError(f"it is nested deeper than {_DEPTH}")
        if mark in _NUMBERS:
            kind = _NUMBERS[mark]
            return np.frombuffer(self.take(kind.itemsize), kind)[0].item()
        if mark in _PLAIN:
            return _PLAIN[mark]
        if mark == b"S":
            return self.text()
        if mark == b"C":
            return self.take(1).decode("latin-1")
        if mark == b"{":
            return self.object(depth)
        if mark == b"[":
            return self.array(depth)
        raise ValueError(f"{mark!r} at byte {self.at - 1} begins no value")

    def length(self) -> int:
        mark = self.take(1)
        if mark not in (b"i", b"U", b"I", b"l", b"L"):
            raise ValueError(f"{mark!r} at byte {self.at - 1} begins no length")
        found = int(self.value(mark, 0))
        if found < 0:
            raise ValueError(f"a length before byte {self.at} is negative")
        return found

    def text(self) -> str:
        return self.take(self.length()).decode()

    def object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.data[self.at : self.at + 1] in (b"$", b"#"):
            raise ValueError(f"an object at byte {self.at} states its size, which XGBoost does not write")
        while self.data[self.at : self.at + 1] != b"}":
            key = self.text()
            if key in found:
                raise ValueError(f"{key[:40]!r} stands twice")
            found[key] = self.value(self.take(1), depth + 1)
        self.at += 1
        return found

    def array(self, depth: int) -> Any:
        kind = None
        if self.data[self.at : self.at + 1] == b"$":
            self.at += 1
            kind = _NUMBERS.get(self.take(1))
            if kind is None or self.data[self.at : self.at + 1] != b"#":
                raise ValueError(f"an array at byte {self.at} is of no type of numbers")
        if self.data[self.at : self.at + 1] == b"#":
            self.at += 1
            count = self.length()
            if kind is not None:
                return np.frombuffer(self.take(count * kind.itemsize), kind)
            if count > len(self.data):
                raise ValueError(f"an array at byte {self.at} is longer than the file")
            return [self.value(self.take(1), depth + 1) for _ in range(count)]
        values = []
        while self.data[self.at : self.at + 1] != b"]":
            values.append(self.value(self.take(1), depth + 1))
        self.at += 1
        return values
