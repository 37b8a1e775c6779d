"""What all pages share: rendering in the frame, errors in the platform's own sentence, forms that only we may send.

A page is a function from a `Request` to a `Page` (a template with its values), a `Goto` or a `File`; `Site` puts it at
an address. Such a function asks the platform and returns a value; it runs in the thread pool, never on the event loop.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, quote, urlsplit

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from flyball.delivery.states import state_of
from flyball.errors import (
    Conflict,
    FlyballError,
    Forbidden,
    InvalidInput,
    MissingExtra,
    NotFound,
    StepFailed,
    Unavailable,
)
from flyball.ledger.journal import Event
from flyball.platform import Platform
from flyball.web.render import PAGE_HEADERS, environment, json_for_script, render

__all__ = ["CHANGES_URL", "File", "Goto", "Page", "Site", "Told", "file_name", "integer", "parameters"]

CHANGES_URL = "/api/changes"

_FORM_BYTES = 256 * 1024  # the forms here hold a reference and a few parameters
_STATUS_BY_ERROR: tuple[tuple[type[FlyballError], int], ...] = (
    (InvalidInput, 400),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (StepFailed, 422),
    (MissingExtra, 501),
    (Unavailable, 503),
)
_HEADINGS = {
    400: "This cannot be shown",
    403: "Not allowed",
    404: "Not here",
    409: "That does not go now",
    413: "Too large",
    503: "Not at the moment",
}
_LINKED_KINDS = "alert|data-product|dataset|deployment|feature-view|labels|model|monitor|pipeline|quarantine|trigger"
_REFERENCE = re.compile(
    rf"(?<![\w/.@-])(?:(?P<whole>(?:{_LINKED_KINDS})/[A-Za-z0-9_][\w.-]*(?:@\w+)?)"
    r"|run (?P<run>[0-9a-f]{8,32})\b|(?P<name>[A-Za-z0-9_][\w.-]*)@(?P<number>\d+))"
)
_log = logging.getLogger("flyball.web")


@dataclass(frozen=True)
class Page:
    """A template and its values; `fragment` says that it stands outside of the frame."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    fragment: bool = False


@dataclass(frozen=True)
class Goto:
    """Another address to go to after a form was taken; `headers` go with it, such as a cookie."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class File:
    """Bytes for the reader to keep (`name`), or (no name) to be shown: JSON for a chart, an image, a plain text."""

    content: bytes
    name: str | None = None
    media_type: str = "application/octet-stream"

    @classmethod
    def json(cls, value: Any) -> File:
        """Return a chart's data."""
        return cls(str(json_for_script(value)).encode(), media_type="application/json")


@dataclass(frozen=True)
class Told:
    """A journal event with its sentence in parts: text, and text that is a reference."""

    event: Event
    parts: tuple[tuple[str, str | None], ...]


Answer: TypeAlias = Page | Goto | File
Handler: TypeAlias = Callable[[Request], Answer]


class Site:
    """The pages of one platform, mounted on a web application."""

    def __init__(self, app: FastAPI, platform: Platform) -> None:
        self.platform = platform
        self._app = app
        self._templates = environment(platform.clock)
        self._templates.globals.update(state_of=state_of, encoded=lambda text: quote(str(text), safe=""))

    def page(self, path: str, handler: Handler) -> None:
        """Answer GET and HEAD at `path`."""

        def answer(request: Request) -> Response:
            return self.respond(request, handler)

        self._app.add_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)

    def form(self, path: str, handler: Callable[[Request, Mapping[str, str]], Answer]) -> None:
        """Answer POST at `path` with the form's fields, when one of our own pages has sent it."""

        async def answer(request: Request) -> Response:
            def take(_request: Request) -> Answer:
                _check_own_page(request)
                return handler(request, fields)

            fields = {name: values[-1] for name, values in (await _fields(request)).items()}
            return await run_in_threadpool(self.respond, request, take)

        self._app.add_route(path, answer, methods=["POST"], include_in_schema=False)

    def choice(self, path: str, handler: Callable[[Request, Mapping[str, str], list[str]], Answer]) -> None:
        """Answer POST at `path` as `form` does, with the rows that were chosen besides: all values of `ref`."""

        async def answer(request: Request) -> Response:
            def take(_request: Request) -> Answer:
                _check_own_page(request)
                return handler(request, fields, list(dict.fromkeys(given.get("ref", ()))))

            given = await _fields(request)
            fields = {name: values[-1] for name, values in given.items()}
            return await run_in_threadpool(self.respond, request, take)

        self._app.add_route(path, answer, methods=["POST"], include_in_schema=False)

    def respond(self, request: Request, handler: Handler) -> Response:
        """Return what a handler answers, or its error as a page."""
        try:
            return self._response(request, handler(request))
        except HTTPException:
            raise
        except FlyballError as error:
            status = next((s for kind, s in _STATUS_BY_ERROR if isinstance(error, kind)), 500)
            return self.failure(request, status, str(error))
        except Exception:
            _log.exception("%s %s failed", request.method, request.url.path)
            return self.failure(request, 500, "This page could not be made; the control plane's log says why.")

    def failure(self, request: Request, status: int, sentence: str) -> Response:
        """Return an error in the frame."""
        heading = _HEADINGS.get(status, "Something is wrong here")
        values = {
            "title": heading,
            "heading": heading,
            "sentence": sentence,
            "status": status,
            "crumbs": [(heading, None)],
        }
        return self._response(request, Page("error.html", values, status))

    def told(self, events: Iterable[Event]) -> list[Told]:
        """Return events with their sentences, in which references can be linked."""
        found = list(events)
        kinds = {r.name: kind for kind in ("dataset", "model") for r in self.platform.resources(kind)} if found else {}
        sentences = self.platform.sentences(found)
        return [Told(e, tuple(_parts(text, kinds))) for e, text in zip(found, sentences, strict=True)]

    def said(self, text: str) -> tuple[tuple[str, str | None], ...]:
        """Return any sentence in parts, as `told` does."""
        kinds = {r.name: kind for kind in ("dataset", "model") for r in self.platform.resources(kind)}
        return tuple(_parts(text, kinds))

    def _response(self, request: Request, answer: Answer) -> Response:
        if isinstance(answer, Goto):
            return RedirectResponse(answer.url, 303, {**answer.headers, "Cache-Control": "no-store"})
        if isinstance(answer, File):
            headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
            headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
            if answer.name is not None:
                headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(answer.name, safe='')}"
            return Response(answer.content, 200, headers, answer.media_type)
        values = dict(answer.values)
        values.setdefault("address", _address(request))
        if not answer.fragment:
            values = {**self._frame(), **values}
        return Response(render(self._templates, answer.template, **values), answer.status, dict(PAGE_HEADERS))

    def _frame(self) -> dict[str, Any]:
        """Return what the frame shows on every page."""
        from flyball import __version__

        firing = [r for r in self.platform.resources("alert") if r.status.get("state") == "firing"]
        attention = {"monitors": (len(firing), "bad"), "approvals": (len(self.platform.waits_for_me()), "warn")}
        return {
            "section": None,
            "crumbs": [],
            "user": self.platform.actor.removeprefix("user/"),
            "home": self.platform.home.name,
            "home_path": str(self.platform.home),
            "version": __version__,
            "attention": {place: found for place, found in attention.items() if found[0]},
            "changes_url": CHANGES_URL,
            "seen": self.platform.last_event(),
        }


def parameters(request: Request, *names: str) -> dict[str, str]:
    """Return those of the named query parameters that are given and not empty."""
    return {name: value for name in names if (value := request.query_params.get(name, "").strip())}


def integer(request: Request, name: str, default: int | None = None) -> int | None:
    """Return a query parameter that is a whole number, 0 or more. Raises InvalidInput."""
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 12:
        raise InvalidInput(f'"{name}" in the address is {text[:40]!r}; expected a whole number')
    return int(text)


def file_name(path: str) -> str:
    """Return the last part of an artifact's path, to save it under."""
    return Path(path).name or "artifact"


def _parts(text: str, kinds: Mapping[str, str]) -> Iterable[tuple[str, str | None]]:
    at = 0
    for match in _REFERENCE.finditer(text):
        whole = match["whole"]
        target = whole.rstrip(".-") if whole else f"run/{match['run']}" if match["run"] else None
        if match["name"] in kinds:
            target = f"{kinds[match['name']]}/{match[0]}"
        if target is None:
            continue
        end = match.start() + (len(target) if whole else len(match[0]))
        yield text[at : match.start()], None
        yield text[match.start() : end], target
        at = end
    yield text[at:], None


def _address(request: Request) -> str:
    """Return the path and query of a request: the address that a page sorts, pages and refreshes itself by."""
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


async def _fields(request: Request) -> dict[str, list[str]]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _FORM_BYTES:
            return {}
    return parse_qs(body.decode("utf-8", errors="replace"), keep_blank_values=True)


def _check_own_page(request: Request) -> None:
    """Refuse a form that another site's page has sent: there is no session yet that would tell them apart.

    Browsers send `Sec-Fetch-Site` and, with every POST, `Origin`; a request with neither comes from no browser page.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    is_foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")
    if is_foreign or site not in (None, "same-origin", "none"):
        raise Forbidden("the form was sent by a page of another site; open the page here and send it again")
