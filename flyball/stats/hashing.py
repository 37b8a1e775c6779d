"""Hashes that stay the same for ever: of numbers, of texts, of rows.

Sketches that are merged must agree on the hash of a value, on every machine and in every release; a library's own hash
promises neither. Sketches (`distinct`, `frequencies`, `row_samples`) and the profiles built from them call this.

Numbers are mixed by the finaliser of MurmurHash3 (Appleby 2011, `fmix64`), texts word by word with the same steps.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["NULL_HASH", "Hashes", "chain", "float_hashes", "integer_hashes", "mixed", "text_hashes"]

Hashes = npt.NDArray[np.uint64]

NULL_HASH = np.uint64(0x8F3C_6E1B_A95D_7247)
_FIRST, _SECOND = np.uint64(0xFF51_AFD7_ED55_8CCD), np.uint64(0xC4CE_B9FE_1A85_EC53)
_STEP = np.uint64(0x9E37_79B9_7F4A_7C15)  # 2**64 over the golden ratio, odd
_HALF = np.uint64(33)
_CHUNK = 1 << 15  # 256 KiB of words: the passes below stay in the second-level cache
_LONG_BYTES = 512  # longer texts are hashed one by one, so that a single long one does not set the number of passes


def mixed(words: npt.NDArray[np.uint64], space: Hashes | None = None) -> Hashes:
    """Return one hash a word, shape (n,): a bijection whose every output bit depends on all input bits.

    They are written into the first n of `space` where it is given: fresh memory costs as much as the hashing.
    """
    out = np.empty(words.size, dtype=np.uint64) if space is None else space[: words.size]
    spare = np.empty(min(_CHUNK, words.size), dtype=np.uint64)
    for start in range(0, words.size, _CHUNK):
        part = out[start : start + _CHUNK]
        shifted = spare[: part.size]
        np.right_shift(words[start : start + _CHUNK], _HALF, out=shifted)
        np.bitwise_xor(words[start : start + _CHUNK], shifted, out=part)
        for factor in (_FIRST, _SECOND):
            np.multiply(part, factor, out=part)
            np.right_shift(part, _HALF, out=shifted)
            np.bitwise_xor(part, shifted, out=part)
    return out


def float_hashes(values: npt.NDArray[np.float64], space: Hashes | None = None) -> Hashes:
    """Return the hashes of floats, shape (n,); the caller has made -0.0 to 0.0."""
    return mixed(np.ascontiguousarray(values).view(np.uint64), space)


def integer_hashes(values: npt.NDArray[np.int64], space: Hashes | None = None) -> Hashes:
    """Return the hashes of 64-bit integers, shape (n,)."""
    return mixed(np.ascontiguousarray(values).view(np.uint64), space)


def chain(rows: Hashes, column: Hashes) -> None:
    """Take the hashes of one more column into those of the rows, in place; the order of the columns counts.

    Rows begin as zeros and are to be `mixed` once when all columns are in.
    """
    np.multiply(rows, _STEP, out=rows)
    np.add(rows, column, out=rows)


def text_hashes(data: bytes, lengths: npt.NDArray[np.integer]) -> Hashes:
    """Return the hash of each text of a run of UTF-8 texts.

    Args:
        data: the texts one after another.
        lengths: bytes of each, shape (n,); they sum to len(data).
    """
    sizes = lengths.astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    hashes = mixed(sizes.view(np.uint64) + _STEP)
    long = np.flatnonzero(sizes > _LONG_BYTES)
    short = np.flatnonzero((sizes > 0) & (sizes <= _LONG_BYTES)) if long.size else np.flatnonzero(sizes)
    for at in long.tolist():
        text = data[starts[at] : starts[at] + sizes[at]]
        hashes[at] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    words = np.ndarray(shape=(len(data) + 1,), dtype="<u8", buffer=data + bytes(8), strides=(1,))
    offset = 0
    while short.size:  # at most _LONG_BYTES / 8 times
        left = sizes[short] - offset
        word = words[starts[short] + offset] & _MASKS[np.minimum(left, 8)]
        mine = (hashes[short] ^ word) * _FIRST
        mine ^= mine >> _HALF
        hashes[short] = mine * _SECOND
        offset += 8
        short = short[left > 8]
    return mixed(hashes)


_MASKS = np.array([(1 << (8 * size)) - 1 for size in range(9)], dtype=np.uint64)
