"""Hashes that stay the same for ever: of numbers, of texts, of rows.

Sketches that are merged must agree on the hash of a value, on every machine and in every release; a library's own hash
promises neither. Sketches (`distinct`, `frequencies`, `row_samples`) and the profiles built from them call this.

Numbers are hashed in two steps, as most callers need only the first for most values. The first (`spread`) folds the 64
bits of a value and multiplies them by an odd constant: a bijection of even upper bits. The second (`hashes_of`) mixes
that by the finaliser of MurmurHash3 (Appleby 2011, `fmix64`), and puts the first's upper bits below, so that whoever
looks for hashes that end in zeros (`distinct`) mixes a few only. Texts are mixed word by word with the same steps.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = [
    "LONG_BYTES",
    "LOW_BITS",
    "MASKS",
    "NULL_HASH",
    "Hashes",
    "TextHashes",
    "chain",
    "chain_words",
    "float_hashes",
    "hashes_of",
    "integer_hashes",
    "long_text_hash",
    "mixed",
    "spread",
    "text_hashes",
]

Hashes = npt.NDArray[np.uint64]

NULL_HASH = np.uint64(0x8F3C_6E1B_A95D_7247)
_FIRST, _SECOND = np.uint64(0xFF51_AFD7_ED55_8CCD), np.uint64(0xC4CE_B9FE_1A85_EC53)
_STEP = np.uint64(0x9E37_79B9_7F4A_7C15)  # 2**64 over the golden ratio, odd
_HALF = np.uint64(33)
_FOLD = np.uint64(32)  # numbers of few digits have zeros below: the upper half goes into the lower
LOW_BITS = 4  # of a number's hash, that `spread` tells already
_UPPER = np.uint64((1 << 64) - (1 << LOW_BITS))
_CHUNK = 1 << 15  # 256 KiB of words: the passes below stay in the second-level cache
LONG_BYTES = 512  # longer texts are hashed one by one, so that a single long one does not set the number of passes


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


def spread(words: npt.NDArray[np.uint64], space: Hashes | None = None, rows: Hashes | None = None) -> Hashes:
    """Return the first step of the hash of each word, shape (n,), written into `space` where it is given.

    Args:
        words: the 64 bits of each value, shape (n,).
        space: of n words or more, to write into.
        rows: hashes of rows, shape (n,), into which the words are chained on the way.
    """
    out = np.empty(words.size, dtype=np.uint64) if space is None else space[: words.size]
    for start in range(0, words.size, _CHUNK):
        block = slice(start, start + _CHUNK)
        part = out[block]
        np.right_shift(words[block], _FOLD, out=part)
        np.bitwise_xor(words[block], part, out=part)
        if rows is not None:
            chain(rows[block], part)
        np.multiply(part, _STEP, out=part)
    return out


def hashes_of(products: Hashes) -> Hashes:
    """Return the hashes, shape (n,), of values that `spread` has seen: they end in the upper `LOW_BITS` bits of it."""
    found = mixed(products)
    np.bitwise_and(found, _UPPER, out=found)
    np.bitwise_or(found, products >> np.uint64(64 - LOW_BITS), out=found)
    return found


def float_hashes(values: npt.NDArray[np.float64]) -> Hashes:
    """Return the hashes of floats, shape (n,); the caller has made -0.0 to 0.0."""
    return hashes_of(spread(np.ascontiguousarray(values).view(np.uint64)))


def integer_hashes(values: npt.NDArray[np.int64]) -> Hashes:
    """Return the hashes of 64-bit integers, shape (n,)."""
    return hashes_of(spread(np.ascontiguousarray(values).view(np.uint64)))


def chain(rows: Hashes, column: Hashes) -> None:
    """Take one more column into the hashes of the rows, in place; the order of the columns counts.

    Rows begin as zeros and are to be `mixed` once when all columns are in. A column is hashes of its values, or their
    words folded: neither loses what tells two values apart.
    """
    np.multiply(rows, _STEP, out=rows)
    np.add(rows, column, out=rows)


def chain_words(rows: Hashes, words: npt.NDArray[np.uint64]) -> None:
    """Take the words of one more column, shape (n,), into the hashes of the rows in place, folded as `spread` does."""
    spare = np.empty(min(_CHUNK, words.size), dtype=np.uint64)
    for start in range(0, words.size, _CHUNK):
        block = slice(start, start + _CHUNK)
        part = spare[: rows[block].size]
        np.right_shift(words[block], _FOLD, out=part)
        np.bitwise_xor(words[block], part, out=part)
        chain(rows[block], part)


def text_hashes(data: bytes, lengths: npt.NDArray[np.integer]) -> Hashes:
    """Return the hash of each text of a run of UTF-8 texts.

    Args:
        data: the texts one after another.
        lengths: bytes of each, shape (n,); they sum to len(data).
    """
    sizes = lengths.astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    hashes = mixed(sizes.view(np.uint64) + _STEP)
    long = np.flatnonzero(sizes > LONG_BYTES)
    for place_of_long in long.tolist():
        text = data[starts[place_of_long] : starts[place_of_long] + sizes[place_of_long]]
        hashes[place_of_long] = long_text_hash(text)
    words = np.ndarray(shape=(len(data) + 1,), dtype="<u8", buffer=data + bytes(8), strides=(1,))
    is_left = sizes > 0
    is_left[long] = False
    place = None if bool(is_left.all()) else np.flatnonzero(is_left)  # of what is left; None: all texts are
    at, left, mine = (v if place is None else v[place] for v in (starts, sizes, hashes))
    while mine.size:  # at most LONG_BYTES / 8 times
        word = words[at]
        if int(left.min()) < 8:
            word &= MASKS.take(np.minimum(left, 8))
        mine = np.bitwise_xor(mine, word, out=word)
        mine *= _FIRST
        mine ^= mine >> _HALF
        mine *= _SECOND
        is_left = left > 8
        if not bool(is_left.all()):
            if place is None:
                hashes, place = mine.copy(), np.arange(mine.size)
            else:
                hashes[place] = mine
            place, at, left, mine = (v.compress(is_left) for v in (place, at, left, mine))
        at, left = at + 8, left - 8
    return mixed(hashes)


def long_text_hash(text: bytes) -> int:
    """Return what a text of more than `LONG_BYTES` bytes has before the last mixing."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class TextHashes:
    """Makes the hashes of `text_hashes` step by step, for a caller that finds the words of texts itself.

    A block of up to `most` texts begins, takes the words of each text that has more bytes, in order, the last one
    padded with zeros, and finishes. A text that is empty takes no word.
    """

    def __init__(self, most: int) -> None:
        self._spare = np.empty((2, most), dtype=np.uint64)

    def begin(self, sizes: npt.NDArray[np.unsignedinteger], out: Hashes) -> Hashes:
        """Write what texts of so many bytes begin with, shape (n,), into `out` and return it."""
        return _BEGINNINGS.take(sizes, out=out, mode="clip")

    def take(self, hashes: Hashes, words: npt.NDArray[np.unsignedinteger]) -> None:
        """Take a word of each text, shape (n,)."""
        spare = self._spare[0, : hashes.size]
        np.copyto(spare, words)
        np.bitwise_xor(hashes, spare, out=hashes)
        np.multiply(hashes, _FIRST, out=hashes)
        np.right_shift(hashes, _HALF, out=spare)
        np.bitwise_xor(hashes, spare, out=hashes)
        np.multiply(hashes, _SECOND, out=hashes)

    def take_some(self, hashes: Hashes, places: npt.NDArray[np.intp], words: npt.NDArray[np.unsignedinteger]) -> None:
        """Take a word, of `words` of shape (n,), of the texts at some places only."""
        if places.size:
            some = hashes.take(places, out=self._spare[1, : places.size], mode="clip")
            self.take(some, words[places])
            hashes[places] = some

    def empty(self, hashes: Hashes, places: npt.NDArray[np.intp]) -> None:
        """Forget the words that were taken of empty texts."""
        hashes[places] = _BEGINNINGS[0]

    def finish(self, hashes: Hashes) -> None:
        """Make hashes of what texts have, in place."""
        mixed(hashes, hashes)


_BEGINNINGS = mixed(np.arange(LONG_BYTES + 1, dtype=np.uint64) + _STEP)
MASKS = np.array([(1 << (8 * size)) - 1 for size in range(9)], dtype=np.uint64)  # of a word's first bytes
