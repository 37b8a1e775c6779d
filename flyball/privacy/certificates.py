"""Certificates: what an erasure looked at and took out, signed, with nothing in it that is personal.

A certificate is a JSON document. The subject stands in it as a keyed hash; the signature is an HMAC-SHA-256 (RFC 2104)
by the home's secret over the document without it, as canonical JSON (sorted keys, no spaces). `journal` names the last
event of the erasure with its hash, which chains all events before it, so neither can be changed afterwards unseen.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

from flyball.errors import Corrupt

__all__ = ["FORMAT", "signed", "verify"]

FORMAT = 1


def signed(document: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """Return the document with its signature."""
    plain = {name: value for name, value in document.items() if name != "signature"}
    return {**plain, "signature": {"algorithm": "HMAC-SHA-256", "value": _signature(plain, key)}}


def verify(document: Mapping[str, Any], key: bytes) -> None:
    """Raise Corrupt unless the document is what was signed with this home's secret."""
    plain = {name: value for name, value in document.items() if name != "signature"}
    value = document.get("signature", {}).get("value", "")
    if not hmac.compare_digest(str(value), _signature(plain, key)):
        raise Corrupt("the certificate's signature does not hold: it was changed, or signed by another home")


def _signature(document: Mapping[str, Any], key: bytes) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hmac.digest(key, text.encode(), "sha256").hex()
