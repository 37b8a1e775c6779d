"""`/features`: the feature views, what each takes and gives, and who uses it."""

from __future__ import annotations

from starlette.requests import Request

from flyball.ledger.refs import Ref
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(_request: Request) -> Page:
        rows = [{"view": v, "used_by": platform.referrers(v.ref)} for v in platform.resources("feature-view")]
        values = {"title": "Features", "section": "features", "crumbs": [("Features", None)], "rows": rows}
        return Page("features.html", values)

    def one(request: Request) -> Page:
        view = platform.resource(Ref("feature-view", request.path_params["name"]))
        values = {
            "title": view.name,
            "section": "features",
            "crumbs": [("Features", "/features"), (view.name, None)],
            "view": view,
            "definition": view.spec.get("definition", {}),
            "used_by": platform.referrers(view.ref),
            "events": site.told(platform.events(ref=str(view.ref), limit=12)),
        }
        return Page("feature.html", values)

    site.page("/features", listing)
    site.page("/features/{name}", one)
