"""Which variant answers: a stable hash of the key over the traffic table. Pure; called once a row."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from flyball.errors import NotFound, did_you_mean, listed
from flyball.serving.snapshot import Variant

__all__ = ["SLOTS", "choose", "named", "slot"]

SLOTS = 10_000  # a slot is 0.01 % of the keys


def slot(key: str, salt: str) -> int:
    """Return the slot of a key, from 0 to 9999: the same in every process and release, uniform over keys.

    The salt differs between deployments, so that the same users are not the first ones everywhere.
    """
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest, "big") * SLOTS >> 64


def choose(key: str, salt: str, variants: Sequence[Variant]) -> Variant:
    """Return the variant that answers a key.

    The second variant takes the lowest slots, the third and later ones the highest, downwards; the first (the champion)
    keeps what lies between. So when a canary grows from 5 to 25 %, or canary and baseline grow together, keys move only
    from the champion to them: nobody who has met the canary goes back while it grows.
    """
    champion = variants[0]
    if len(variants) == 1:
        return champion
    place = slot(key, salt)
    if place < round(variants[1].weight * 100):
        return variants[1]
    top = SLOTS
    for variant in variants[2:]:
        top -= round(variant.weight * 100)
        if place >= top:
            return variant
    return champion


def named(name: str, variants: Sequence[Variant]) -> Variant:
    """Return the variant that a tester asks for by name.

    Raises:
        NotFound: there is none.
    """
    for variant in variants:
        if variant.name == name:
            return variant
    known = [v.name for v in variants]
    raise NotFound(f'there is no variant "{name}"{did_you_mean(name, known)} (known: {listed(known)})')
