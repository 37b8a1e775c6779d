"""`/monitors/alerts/NAME`: what was alarmed, since when, and on what evidence."""

from __future__ import annotations

from starlette.requests import Request

from flyball.ledger.refs import Ref
from flyball.web.pages.looking import instant
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]


def mount(site: Site) -> None:
    """Add the page."""
    platform = site.platform

    def one(request: Request) -> Page:
        alert = platform.resource(Ref("alert", request.path_params["name"]))
        monitor = Ref("monitor", str(alert.spec["monitor"]).removeprefix("monitor/"))
        values = {
            "title": alert.name,
            "section": "monitors",
            "crumbs": [("Monitors", "/monitors"), (monitor.name, f"/monitors/{monitor.name}"), (alert.name, None)],
            "alert": alert,
            "monitor": monitor,
            "since": instant(alert.status.get("since")),
            "until": instant(alert.status.get("at")),
            "events": site.told(platform.events(ref=str(alert.ref), limit=20)),
        }
        return Page("alert.html", values)

    site.page("/monitors/alerts/{name}", one)
