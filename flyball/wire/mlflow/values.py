"""Values as MLflow's JSON writes them."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from flyball.wire.mlflow.refusals import invalid

__all__ = ["double", "instant", "milliseconds", "offset_of", "pairs", "token_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def double(number: float) -> float | str:
    """Return a double as JSON holds it: NaN and the infinities as text."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def milliseconds(at: datetime) -> int:
    """Return an instant as milliseconds since 1970."""
    return (at - _EPOCH) // _MILLISECOND


def instant(at_ms: int, name: str) -> datetime:
    """Return the instant of milliseconds since 1970; raises Refused beyond the year 9999."""
    try:
        return _EPOCH + at_ms * _MILLISECOND
    except OverflowError:
        raise invalid(f"Invalid value {at_ms} for parameter '{name}' supplied: it is beyond the year 9999.") from None


def pairs(values: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Return tags or parameters as a list of messages."""
    return [{"key": k, "value": v} for k, v in (values.items() if isinstance(values, Mapping) else values)]


def token_of(offset: int) -> str:
    """Return the token of the page that begins at an offset."""
    return base64.b64encode(json.dumps({"offset": offset}).encode()).decode()


def offset_of(token: str | None) -> int:
    """Return where a page begins; no token: at 0. Raises Refused for a token that is none of ours."""
    if not token:
        return 0
    try:
        decoded = base64.b64decode(token)
    except (ValueError, binascii.Error):
        raise invalid("Invalid page token, could not base64-decode") from None
    try:
        parsed: Any = json.loads(decoded)
    except (ValueError, RecursionError):
        raise invalid(f"Invalid page token, decoded value={decoded[:100]!r}") from None
    offset = parsed.get("offset") if isinstance(parsed, dict) else None
    if not isinstance(offset, int) or isinstance(offset, bool) or not 0 < offset < 1 << 62:
        raise invalid(f"Invalid page token, parsed value={str(parsed)[:100]}")
    return offset
