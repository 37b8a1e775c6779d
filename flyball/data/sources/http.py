"""A file or a JSON API at a URL: `url: https://host/flights.csv`, `url: https://host/api/flights` with `records`.

A file is copied to the work folder, in blocks, and opened as files of this machine are; its format comes from `format`,
the name or the content type. What the server says of its version (ETag, Last-Modified) is the watermark, so an
unchanged file is not sent again. An API answers JSON with a list of records, and is read page after page.

Options: `headers`; `timeout_s`; `limit_mb` of one answer; `records`: where in the answer the list is (`data.items`;
"" for the answer itself); then how pages go on: `next`, where in the answer the next page's address is, or "link" for
the header of that name; or `page`, the name of a parameter that counts up from 1 until a page is empty; `pages`: how
many at most.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import httpx2

from flyball.data.sources._addresses import allowed_address
from flyball.data.sources._api import pages_of
from flyball.data.sources._layout import FORMATS, Layout
from flyball.data.sources._locations import shown
from flyball.data.sources._protocol import Glimpse, Reading, Request
from flyball.data.sources._tables import Part, glimpse, open_parts
from flyball.errors import InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Web", "look", "read"]

_CONTENT_TYPES = {
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/x-ndjson": ".ndjson",
    "application/jsonl": ".ndjson",
    "application/vnd.apache.parquet": ".parquet",
    "application/vnd.apache.arrow.file": ".arrow",
    "application/vnd.apache.arrow.stream": ".arrow",
}
_UNSIZED = "the server did not say how long the file is, so it could not be seen whether it came whole"
_REDIRECTS = 5
_GLIMPSE_BYTES = 4 * 1024 * 1024
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def read(request: Request) -> Reading:
    """Read the file unless it is as it was, or all pages of the API."""
    url: str = request.environment.filled(str(request.spec.url))
    origin = shown(url)
    web = Web(request)
    if "records" in request.spec.options:
        frame, _ = pages_of(request, web.json, url, origin)
        return Reading(frame, {}, "whole", origin)
    headers = {}
    since = request.since or {}
    if "etag" in since:
        headers["If-None-Match"] = str(since["etag"])
    if "modified" in since:
        headers["If-Modified-Since"] = str(since["modified"])
    with web.answer(url, headers) as (answer, last):
        if answer.status_code == 304:
            return Reading(None, dict(since), "whole", origin)
        part = Part(request.folder / ("file" + _suffix(request, last, answer)), origin)
        web.save(answer, part.path, origin)
        sized = any(name in answer.headers for name in ("content-length", "transfer-encoding"))
        known = {"etag": answer.headers.get("etag"), "modified": answer.headers.get("last-modified")}
    after = {name: value for name, value in known.items() if value}
    try:
        return Reading(open_parts([part], _layout(request, part)), after, "whole", origin, () if sized else (_UNSIZED,))
    except InvalidInput as error:
        raise InvalidInput(str(error).replace(str(part.path), origin)) from error


def look(request: Request) -> Glimpse:
    """Return the columns as the beginning shows them (of Parquet and Arrow nothing), and when the file was changed."""
    url: str = request.environment.filled(str(request.spec.url))
    origin = shown(url)
    web = Web(request)
    if "records" in request.spec.options:
        frame, _ = pages_of(request, web.json, url, origin, limit=1)
        return Glimpse(origin, frame.collect_schema())
    with web.answer(url, {}) as (answer, last):
        modified = answer.headers.get("last-modified")
        newest = _instant(modified) if modified else None
        part = Part(request.folder / ("file" + _suffix(request, last, answer)), origin)
        schema: pl.Schema | None = None
        layout = _layout(request, part)
        if layout.format in ("csv", "ndjson"):
            head = b""
            for block in web.blocks(answer, origin):
                head += block
                if len(head) >= _GLIMPSE_BYTES:
                    head = head[: head.rfind(b"\n") + 1]
                    break
            part.path.write_bytes(head)
            schema = glimpse(part, layout)
    return Glimpse(origin, schema, newest)


@dataclass(frozen=True)
class Web:
    """A client that follows only ways that may be followed, tries again a bounded number of times, and sees a cut."""

    request: Request

    @contextmanager
    def answer(
        self, url: str, headers: Mapping[str, str], *, start: str | None = None
    ) -> Iterator[tuple[httpx2.Response, str]]:
        """Yield the answer (200 or 304) and the URL that gave it, redirects having been followed.

        `start` is the source's own URL, where another page's `next` led here: the user's headers are for its host only,
        and from a public one no way leads to others.
        """
        given = self.request.option("headers", {})
        wait_s = self.request.number("timeout_s", self.request.settings.timeout_s)
        if not isinstance(given, Mapping) or not all(isinstance(v, str) for v in given.values()):
            raise InvalidInput("the option headers is no table of texts; expected {name: value}")
        sent = {"Accept-Encoding": "identity", "User-Agent": "flyball", **given, **headers}
        home = urlsplit(start or url).netloc
        from_public = start is not None and self._address(start)[1]
        # An environment's proxy would connect to names that were never judged here.
        with httpx2.Client(timeout=wait_s, trust_env=False, follow_redirects=False) as client:
            for _ in range(_REDIRECTS + 1):
                address, is_public = self._address(url, from_public=from_public)
                if urlsplit(url).netloc != home:
                    sent = {name: value for name, value in sent.items() if name not in given}
                response = self._sent(client, url, address, sent)
                try:
                    if response.status_code in (301, 302, 303, 307, 308) and "location" in response.headers:
                        url = urljoin(url, response.headers["location"])
                        from_public = from_public or is_public
                        continue
                    self._refuse_status(response, url)
                    yield response, url
                    return
                finally:
                    response.close()
        raise InvalidInput(f"{shown(url)} leads on more than {_REDIRECTS} times; give the address where it ends")

    def blocks(self, answer: httpx2.Response, origin: str) -> Iterator[bytes]:
        """Yield the body; a body that is shorter than was said, or larger than allowed, is an error."""
        settings = self.request.settings
        limit = int(self.request.number("limit_mb", settings.download_limit_mb) * 1024 * 1024)
        said = answer.headers.get("content-length")
        if said is not None and said.isdigit() and int(said) > limit:
            raise InvalidInput(f"{origin} has {int(said)} bytes; the limit is {limit // 2**20} MB (limit_mb)")
        size = 0
        try:
            for block in answer.iter_raw(1024 * 1024):
                size += len(block)
                if size > limit:
                    raise InvalidInput(f"{origin} is larger than the limit of {limit // 2**20} MB (limit_mb)")
                yield block
        except httpx2.HTTPError as error:
            why = self.request.environment.reason(error) or type(error).__name__
            raise Unavailable(f"{origin} broke off after {size} bytes ({why}); nothing of it was kept") from error
        if said is not None and said.isdigit() and size != int(said):
            raise Unavailable(f"{origin} broke off after {size} of {said} bytes; nothing of it was kept")

    def save(self, answer: httpx2.Response, path: Path, origin: str) -> None:
        """Write the body to a file."""
        with path.open("wb") as file:
            for block in self.blocks(answer, origin):
                try:
                    file.write(block)
                except OSError as error:
                    raise Unavailable(f"{origin} cannot be kept in {path.parent}: {error.strerror}") from error

    def json(self, url: str, start: str) -> tuple[bytes, httpx2.Headers]:
        """Return one page of the API at `start`, and its headers."""
        with self.answer(url, {"Accept": "application/json"}, start=start) as (answer, last):
            return b"".join(self.blocks(answer, shown(last))), answer.headers

    def _address(self, url: str, *, from_public: bool = False) -> tuple[str, bool]:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"the way leads to {shown(url)}; only http:// and https:// are followed")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return allowed_address(parts.hostname, port, self.request.settings, from_public=from_public)

    def _sent(self, client: httpx2.Client, url: str, address: str, headers: Mapping[str, str]) -> httpx2.Response:
        """Send to the address that was judged, naming the host; try again where that may help."""
        parsed = httpx2.URL(url)
        host = f"[{address}]" if ":" in address else address
        direct = parsed.copy_with(host=host)
        netloc = parsed.netloc.decode()
        attempts = max(self.request.settings.attempts, 1)
        for attempt in range(attempts):
            last = attempt == attempts - 1
            try:
                message = client.build_request("GET", direct, headers={**headers, "Host": netloc})
                message.extensions["sni_hostname"] = parsed.host
                response = client.send(message, stream=True)
            except httpx2.HTTPError as error:
                if last:
                    why = self.request.environment.reason(error) or type(error).__name__
                    raise Unavailable(f"{shown(url)} does not answer: {why} (tried {attempts} times)") from error
            else:
                if response.status_code not in _BUSY or last:
                    return response
                response.close()
            time.sleep(min(0.2 * 2**attempt, 5.0))
        raise AssertionError("the last attempt returns or raises")

    def _refuse_status(self, answer: httpx2.Response, url: str) -> None:
        code, where = answer.status_code, shown(url)
        if code in (200, 304):
            return
        if code in (404, 410):
            raise NotFound(f"there is nothing at {where} ({code})")
        if code in (401, 403):
            raise InvalidInput(f"{where} refuses to let us in ({code}); give what it wants in the option headers")
        if code in _BUSY or code >= 500:
            raise Unavailable(f"{where} cannot answer now ({code})")
        raise InvalidInput(f"{where} answers {code}; expected 200 and a table")


def _layout(request: Request, part: Part) -> Layout:
    return replace(request.layout, format=request.layout.format_of(part.path.name))


def _suffix(request: Request, url: str, answer: httpx2.Response) -> str:
    """Return the extension that tells the format: of the name, else by the content type."""
    path = urlsplit(url).path
    name = re.search(r"(\.[A-Za-z]+)(\.gz|\.zst)?$", path)
    if name and name[1].lower() in FORMATS:
        return name[0].lower()
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.layout.format is not None:
        return ""
    if kind not in _CONTENT_TYPES:
        raise InvalidInput(
            f"neither the name {path.rpartition('/')[2] or '/'} nor the content type {kind or '(none)'} of {shown(url)}"
            " tells a format; say format, such as csv"
        )
    return _CONTENT_TYPES[kind]


def _instant(text: str) -> datetime | None:
    try:
        return email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
