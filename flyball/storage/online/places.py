"""Where a key lies: the number by which an online store in a file keeps it, and in whose order it is written fastest.

Materialisation sorts what it writes by it (`features.encoding.places`), the tables of `sqlite` are kept by it.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyball.errors import InvalidInput

__all__ = ["MOST_DIGITS", "SHORT_BYTES", "Place", "hash_of", "hashes_of", "place_of", "places_of"]

Place = int | str  # the number of a key, or the key itself

SHORT_BYTES, MOST_DIGITS = 7, 18
_SHORT_BASE = tuple((1 << 62) + (length << 56) for length in range(SHORT_BYTES + 1))
_HASH_MODULUS = 2_850_178_704_918_689_857  # a prime of 62 bits that is near no power of two


def place_of(key: str) -> Place:
    """Return the number of texts of up to 7 bytes and of whole numbers, else the key itself.

    No two keys have the same place: a short text is its bytes and their count, above 2**62; a whole number of 8 to 18
    digits is itself, below 2**60.

    Raises:
        InvalidInput: the key is no valid Unicode.
    """
    length = len(key)
    if length <= SHORT_BYTES:
        raw = _bytes_of(key)
        if len(raw) <= SHORT_BYTES:
            return int.from_bytes(raw, "big") + _SHORT_BASE[len(raw)]
    if length <= MOST_DIGITS and key.isdecimal() and key.isascii() and key[0] != "0":
        return int(key)
    return key


def places_of(keys: Sequence[str]) -> Sequence[Place]:
    """Return `place_of` each key; in half the time where all are short and ASCII, or all long and no numbers."""
    if keys and len(min(keys, key=len)) > SHORT_BYTES and True not in map(str.isdecimal, keys):
        return keys
    if "".join(keys).isascii() and len(max(keys, key=len, default="")) <= SHORT_BYTES:
        to_number, bases = int.from_bytes, _SHORT_BASE
        return [to_number(key.encode(), "big") + bases[len(key)] for key in keys]
    return [place_of(key) for key in keys]


def hash_of(key: str) -> int:
    """Return a number of 62 bits for a key of any length; two keys may have the same.

    It is the key's bytes as one number, modulo a prime: keys that differ in their last bytes only, as those of a
    counter, lie side by side. Raises InvalidInput where the key is no valid Unicode.
    """
    return int.from_bytes(_bytes_of(key), "big") % _HASH_MODULUS


def hashes_of(keys: Sequence[str]) -> list[int]:
    """Return `hash_of` each key."""
    to_number, modulus = int.from_bytes, _HASH_MODULUS
    try:
        return [to_number(key.encode(), "big") % modulus for key in keys]
    except UnicodeEncodeError:
        return [hash_of(key) for key in keys]


def _bytes_of(key: str) -> bytes:
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise InvalidInput("a key of online values has half a surrogate pair in it; send valid Unicode") from None
