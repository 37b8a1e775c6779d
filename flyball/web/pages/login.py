"""`/login`, `/logout`: a browser shows its access key once, and from then on a session that ends with the key.

The page stands outside the frame, which shows what only those may see who have come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

from starlette.requests import Request

from flyball.errors import Unauthenticated
from flyball.governance.admission import SESSION_COOKIE
from flyball.web.pages.site import Goto, Page, Site

__all__ = ["mount"]


def mount(site: Site) -> None:
    """Add the pages."""
    admission = site.platform.admission

    def show(request: Request) -> Page:
        return _page(request.query_params.get("next", ""), None, 200)

    def enter(request: Request, fields: Mapping[str, str]) -> Page | Goto:
        wanted = fields.get("next", "")
        address = request.client.host if request.client else ""
        try:
            session, lasts = admission.log_in(fields.get("key", "").strip(), address)
        except Unauthenticated as error:
            return _page(wanted, str(error), 401)
        is_secure = request.url.scheme == "https"
        return Goto(_local(wanted), {"Set-Cookie": _cookie(session, int(lasts.total_seconds()), is_secure)})

    def leave(request: Request, _fields: Mapping[str, str]) -> Goto:
        session = request.cookies.get(SESSION_COOKIE)
        if session:
            admission.log_out(session)
        return Goto("/login", {"Set-Cookie": _cookie("", 0, request.url.scheme == "https")})

    site.page("/login", show)
    site.form("/login", enter)
    site.form("/logout", leave)


def _page(wanted: str, wrong: str | None, status: int) -> Page:
    return Page("login.html", {"title": "Log in", "next": _local(wanted), "wrong": wrong}, status, fragment=True)


def _local(address: str) -> str:
    """Return an address of this server; the overview instead of one that leads elsewhere."""
    # Browsers read a backslash as a slash and leave out tabs and line ends, so neither may stand in it.
    if not address.startswith("/") or address.startswith("//") or "\\" in address or not address.isprintable():
        return "/"
    return "/" if urlsplit(address).path in ("/login", "/logout") else address


def _cookie(value: str, lasts_s: int, is_secure: bool) -> str:
    """Return a `Set-Cookie` header: no script reads it, no other site sends it along."""
    made: SimpleCookie = SimpleCookie({SESSION_COOKIE: value})
    made[SESSION_COOKIE].update({"path": "/", "max-age": str(lasts_s), "samesite": "Strict"})
    made[SESSION_COOKIE]["httponly"] = True
    if is_secure:
        made[SESSION_COOKIE]["secure"] = True
    return made[SESSION_COOKIE].OutputString()
