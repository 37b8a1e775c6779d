"""The bytes of a column of texts where they lie, without copying: hashes of a million texts in a few milliseconds.

Polars hands its arrays out by the Arrow C stream interface (arrow.apache.org/docs/format/CStreamInterface.html), and
keeps texts as views (Columnar.html, "Variable-size Binary View Layout"): 16 bytes a text, which hold its length and,
up to 12 bytes, the text itself padded with zeros; a longer one lies in a buffer that its view names. What is found here
are the hashes that `stats.hashing.text_hashes` defines.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flyball.stats.hashing import LONG_BYTES, MASKS, Hashes, TextHashes, long_text_hash

if TYPE_CHECKING:
    import polars as pl

__all__ = ["view_hashes"]

Words = npt.NDArray[np.uint64]
Sizes = npt.NDArray[np.uint32]

_INLINE_BYTES = 12
_WORD_BITS = np.uint64(64)
_TEXTS = 1 << 14  # hashed together, so that what is between stays in cache


class _Array(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


class _Schema(ctypes.Structure):
    _fields_ = (
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_char_p),
        ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


class _Stream(ctypes.Structure):
    _fields_ = (
        ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Schema))),
        ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Array))),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)
_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def view_hashes(texts: pl.Series) -> Hashes | None:
    """Return the hashes of texts without nulls, shape (n,); None where Polars does not keep them as views."""
    found: list[Hashes] = []
    capsule = texts.__arrow_c_stream__()
    stream = _Stream.from_address(_pointer_of(capsule, b"arrow_array_stream"))  # the capsule releases it
    address, schema = ctypes.addressof(stream), _Schema()
    if stream.get_schema(address, ctypes.byref(schema)):
        return None
    is_view = schema.format == b"vu"
    _Release(schema.release)(ctypes.addressof(schema))
    while is_view:
        array = _Array()
        if stream.get_next(address, ctypes.byref(array)):
            return None
        if not array.release:  # the end
            return np.concatenate(found) if found else np.empty(0, dtype=np.uint64)
        try:
            found.append(_hashes(array))
        finally:
            _Release(array.release)(ctypes.addressof(array))
    return None


def _hashes(array: _Array) -> Hashes:
    size = int(array.length)
    found = np.empty(size, dtype=np.uint64)
    if not size:
        return found
    views = _words_at(array.buffers[1] or 0, 2 * (array.offset + size))[2 * array.offset :]
    halves, hashing, texts = views.view(np.uint32).reshape(size, 4), TextHashes(_TEXTS), _LongTexts(array)
    first = np.ndarray(shape=(size,), dtype="<u8", buffer=views.view(np.uint8)[4:].data, strides=(16,))
    for start in range(0, size, _TEXTS):
        block = slice(start, start + _TEXTS)
        sizes, out = np.ascontiguousarray(halves[block, 0]), found[block]
        hashing.begin(sizes, out)
        least, most = int(sizes.min()), int(sizes.max())
        if most <= _INLINE_BYTES:
            hashing.take(out, first[block])
            if most > 8:
                hashing.take_some(out, np.flatnonzero(sizes > 8), halves[block, 3])
        elif least > _INLINE_BYTES:
            texts.take(hashing, out, sizes, halves[block])
        else:
            short, long = np.flatnonzero(sizes <= _INLINE_BYTES), np.flatnonzero(sizes > _INLINE_BYTES)
            hashing.take_some(out, short, first[block])
            hashing.take_some(out, short[sizes[short] > 8], halves[block, 3])
            some = out[long]
            texts.take(hashing, some, sizes[long], halves[block].take(long, axis=0))
            out[long] = some
        if least == 0:
            hashing.empty(out, np.flatnonzero(sizes == 0))
        hashing.finish(out)
    return found


class _LongTexts:
    """Reads texts that lie in buffers, in whole words of memory: a word that a text has a byte of can be read."""

    def __init__(self, array: _Array) -> None:
        buffers = [array.buffers[at] or 0 for at in range(2, array.n_buffers - 1)]
        lengths = _words_at(array.buffers[array.n_buffers - 1] or 0, len(buffers)).tolist()
        self._first = min((b for b, length in zip(buffers, lengths, strict=True) if length), default=0) & ~7
        end = max((b + length for b, length in zip(buffers, lengths, strict=True) if length), default=0)
        self._words = _words_at(self._first, (end - self._first + 7) // 8)
        self._bases = np.array(buffers, dtype=np.int64) - self._first

    def take(self, hashing: TextHashes, hashes: Hashes, sizes: Sizes, views: Sizes) -> None:
        """Take all words of texts of more than 12 bytes, shape (n,), n at least 1, with their views, shape (n, 4)."""
        at = self._bases.take(views[:, 2]) + views[:, 3]
        place = None  # of those that have words left; None: all
        mine = hashes
        if int(sizes.max()) > LONG_BYTES:
            for long in np.flatnonzero(sizes > LONG_BYTES).tolist():
                hashes[long] = long_text_hash(ctypes.string_at(self._first + int(at[long]), int(sizes[long])))
            place = np.flatnonzero(sizes <= LONG_BYTES)
            at, sizes, mine = at[place], sizes[place], hashes[place]
        word, last, left = at >> 3, (at + sizes - 1) >> 3, sizes.astype(np.int64)
        down = ((at & 7) << 3).astype(np.uint64)
        up = _WORD_BITS - down  # by 64 leaves nothing, as it should
        lower = self._words.take(word)
        while mine.size:
            word += 1
            upper = self._words.take(np.minimum(word, last))
            lower >>= down
            lower |= upper << up
            if int(left.min()) < 8:
                lower &= MASKS.take(left, mode="clip")
            hashing.take(mine, lower)
            lower = upper
            left -= 8
            if int(left.min()) > 0:
                continue
            if place is not None:
                hashes[place] = mine
            rest = np.flatnonzero(left > 0)
            place = rest if place is None else place[rest]
            word, last, left = word.take(rest), last.take(rest), left.take(rest)
            down, up, lower, mine = down.take(rest), up.take(rest), lower.take(rest), mine.take(rest)


def _words_at(address: int, size: int) -> Words:
    if not size:
        return np.empty(0, dtype=np.uint64)
    return np.ctypeslib.as_array((ctypes.c_uint64 * size).from_address(address))
