"""Pages of a JSON API as rows: where the records are, how one page leads to the next, and when to stop."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from flyball.data.sources._json import read_lines
from flyball.data.sources._landing import landed
from flyball.data.sources._locations import shown
from flyball.data.sources._protocol import Request
from flyball.errors import InvalidInput, did_you_mean, listed

if TYPE_CHECKING:
    import polars as pl

__all__ = ["pages_of"]

_LINK = re.compile(r'<([^>]+)>\s*;[^,]*\brel="?next"?')  # RFC 8288


def pages_of(
    request: Request, get: Callable[..., tuple[bytes, Any]], url: str, origin: str, limit: int | None = None
) -> tuple[pl.LazyFrame, int]:
    """Return the records of all pages (or of the first `limit`), and how many there are.

    Raises:
        InvalidInput: the records are not where they should be, a page leads back, or there are more than allowed.
    """
    frame, rows = landed(_pages(request, get, url, origin, limit), request.folder, origin)
    if frame is None:
        raise InvalidInput(f"{origin} has no records; expected at least one")
    return frame, rows


def _pages(
    request: Request, get: Callable[..., tuple[bytes, Any]], url: str, origin: str, limit: int | None
) -> Iterator[pl.DataFrame]:
    most = int(request.number("pages", request.settings.pages_limit))
    counter = request.option("page")
    seen: set[str] = set()
    here: str | None = _counted(url, counter, 1) if counter else url
    for number in range(1, most + 1):
        assert here is not None
        if here in seen:
            raise InvalidInput(f"{origin} leads from page {number - 1} back to one that was read; check next")
        seen.add(here)
        body, headers = get(here, url)
        try:
            answer = json.loads(body)
        except ValueError:
            raise InvalidInput(f"page {number} of {origin} is not JSON") from None
        records = _records(answer, str(request.option("records")), origin)
        if records:
            lines = b"\n".join(json.dumps(record).encode() for record in records)
            yield read_lines(lines, f"page {number} of {origin}", 1)
        if limit is not None and number >= limit:
            return
        if counter:
            if not records:
                return
            here = _counted(url, counter, number + 1)
        else:
            here = _next(request, answer, headers, here)
            if here is None:
                return
    raise InvalidInput(f"{origin} has more than {most} pages; raise the option pages if that is right")


def _records(answer: Any, path: str, origin: str) -> list[Any]:
    found = _at(answer, path)
    if found is None and path:
        first = path.partition(".")[0]
        known = list(answer) if isinstance(answer, dict) else []
        raise InvalidInput(f'{origin} has nothing at "{path}"{did_you_mean(first, known)} (it has: {listed(known)})')
    if not isinstance(found, list):
        raise InvalidInput(f'{origin} has no list at "{path}"; say where the records are (option records)')
    for position, record in enumerate(found):
        if not isinstance(record, dict):
            raise InvalidInput(f'record {position} at "{path}" of {origin} is no object; expected {{column: value}}')
    return found


def _next(request: Request, answer: Any, headers: Any, here: str) -> str | None:
    where = request.option("next")
    if where is None:
        return None
    if where == "link":
        match = _LINK.search(headers.get("link", ""))
        found: Any = match[1] if match else None
    else:
        found = _at(answer, str(where))
    if not found:
        return None
    if not isinstance(found, str):
        raise InvalidInput(f'"{where}" of {shown(here)} is no text; expected the address of the next page')
    return urljoin(here, found)


def _at(value: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _counted(url: str, name: str, number: int) -> str:
    parts = urlsplit(url)
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k != name]
    return urlunsplit(parts._replace(query=urlencode([*query, (name, str(number))])))
