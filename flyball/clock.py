"""What time it is: every module asks here, so that tests can advance time instead of sleeping.

Instants are timezone-aware UTC `datetime`s; on disk and on the wire they are RFC 3339 with microseconds.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from flyball.errors import InvalidInput

__all__ = [
    "SYSTEM",
    "Clock",
    "SystemClock",
    "format_instant",
    "parse_duration",
    "parse_instant",
    "parse_since",
]


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the present instant, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


SYSTEM: Clock = SystemClock()

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "ms": 0.001}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")


def parse_since(text: str, now: datetime) -> datetime:
    """Return an instant that is written as one, or as an age such as `2h` before `now`.

    Raises:
        InvalidInput: the text is neither.
    """
    return parse_instant(text) if "-" in text or ":" in text else now - parse_duration(text)


def parse_duration(value: str | int | float | timedelta) -> timedelta:
    """Return a `timedelta` for `"90s"`, `"2h"`, `"1d"`, `"1h 30m"`, or a number of seconds.

    Raises:
        InvalidInput: the value is negative or not a duration.

    >>> parse_duration("1h 30m").total_seconds()
    5400.0
    """
    if isinstance(value, timedelta):
        span = value
    elif isinstance(value, bool):
        raise InvalidInput(f"{value!r} is not a duration; write it like 90s, 2h or 1d")
    elif isinstance(value, int | float):
        span = timedelta(seconds=value)
    else:
        rest, total = value, 0.0
        while rest:
            part = _DURATION.match(rest)
            if part is None:
                raise InvalidInput(f"{value!r} is not a duration; write it like 90s, 2h, 1d or 1h 30m")
            total += float(part[1]) * _UNITS[part[2]]
            rest = rest[part.end() :]
        if not value.strip():
            raise InvalidInput("an empty text is not a duration; write it like 90s, 2h or 1d")
        span = timedelta(seconds=total)
    if span < timedelta(0):
        raise InvalidInput(f"{value!r} is a negative duration")
    return span


def format_instant(instant: datetime) -> str:
    """Return RFC 3339 in UTC with microseconds, which sorts as text: `2013-05-03T14:00:00.000000Z`."""
    if instant.tzinfo is None:
        raise InvalidInput(f"the time {instant.isoformat()} has no zone; give it one")
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_instant(text: str) -> datetime:
    """Return the UTC instant that RFC 3339 `text` names.

    Raises:
        InvalidInput: not a date and time, or without a zone.
    """
    try:
        instant = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise InvalidInput(f"{text!r} is not a time; write it like 2013-05-03T14:00:00Z") from None
    if instant.tzinfo is None:
        raise InvalidInput(f"the time {text!r} has no zone; end it with Z or an offset like -05:00")
    return instant.astimezone(UTC)
