"""`/monitors/alerts/NAME`: what was alarmed, since when, and on what evidence."""

from __future__ import annotations

from starlette.requests import Request

from flyball.ledger.refs import Ref, ref
from flyball.web.formats import ref_url
from flyball.web.pages.looking import instant
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]


def mount(site: Site) -> None:
    """Add the page."""
    platform = site.platform

    def one(request: Request) -> Page:
        alert = platform.resource(Ref("alert", request.path_params["name"]))
        owner = ref(alert.owner) if alert.owner else alert.ref
        values = {
            "title": alert.name,
            "section": "monitors",
            "crumbs": [("Monitors", "/monitors"), (owner.name, ref_url(owner)), (alert.name, None)],
            "alert": alert,
            "owner": owner,
            "since": instant(alert.status.get("since")),
            "until": instant(alert.status.get("at")),
            "events": site.told(platform.events(ref=str(alert.ref), limit=20)),
        }
        return Page("alert.html", values)

    site.page("/monitors/alerts/{name}", one)
