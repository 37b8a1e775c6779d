"""What reading from databases has in common: which SELECT is meant, and how a newest value becomes an instant."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from flyball.errors import InvalidInput

if TYPE_CHECKING:
    from flyball.data.kinds import Source

__all__ = ["newest_of", "selected"]

_READS = re.compile(r"\s*(\(|select\b|with\b|values\b|table\b)", re.IGNORECASE)
_COMMENTS = re.compile(r"--[^\n]*(\n|$)|/\*.*?\*/", re.DOTALL)


def selected(spec: Source, quoted: Callable[[str], str]) -> str:
    """Return the SELECT of the source; a table may be written with its schema, as `public.flights`.

    Raises:
        InvalidInput: the query does something else than reading.
    """
    if spec.table is not None:
        return "SELECT * FROM " + ".".join(quoted(part) for part in spec.table.split("."))
    query = str(spec.query).strip().rstrip(";").strip()
    if not _READS.match(_COMMENTS.sub(" ", query)):
        raise InvalidInput(f'the query begins with "{query[:20]}"; expected one SELECT that only reads')
    return query + "\n"  # a comment at its end must not swallow what comes behind


def newest_of(value: Any) -> datetime | None:
    """Return the instant that a value of a time column names, taken as UTC when it has no zone; None for others."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return None
