"""Access keys as text: making a secret, what is kept of it, and finding one in a request; pure functions.

Both servers use these: the control plane looks the digest up in the ledger, the data plane in its snapshot.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets

__all__ = ["PREFIX", "digest_of", "new_secret", "secret_in"]

PREFIX = "fb_"  # so that people, and scanners of repositories, know one when they see it
_BYTES = 32
_LONGEST = 1024  # of a header that is looked at


def new_secret() -> str:
    """Return a new secret: 256 random bits, URL-safe."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def digest_of(secret: str) -> str:
    """Return what is kept of a secret: its SHA-256 in hexadecimal digits.

    Neither salt nor a slow function such as scrypt: those protect words that people choose, which can be guessed or
    stand in a table. 256 random bits can be neither, and scrypt would cost each request some 50 ms.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def secret_in(authorization: bytes | str | None) -> str | None:
    """Return the secret in an `Authorization` header, None when there is none.

    `Bearer SECRET` (RFC 6750 §2.1), or `Basic` with any user name and the secret as password (RFC 7617 §2).
    """
    if not authorization or len(authorization) > _LONGEST:
        return None
    text = authorization.decode("latin-1") if isinstance(authorization, bytes) else authorization
    scheme, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest or None
    if scheme.lower() != "basic":
        return None
    try:
        _, colon, password = base64.b64decode(rest, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    return password if colon and password else None
