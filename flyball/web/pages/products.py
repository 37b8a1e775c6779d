"""`/data/products`: data that a team answers for: its ports, its promises measured, who needs it, where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.data.products.lifecycle import NEXT, STAGES, check_stage
from flyball.errors import FlyballError
from flyball.ledger.refs import Ref
from flyball.ledger.resources import Resource
from flyball.platform import MAY, Platform
from flyball.web.formats import ref_url
from flyball.web.pages.looking import instant
from flyball.web.pages.site import Goto, Page, Site, integer

__all__ = ["mount"]

SIZE = 25
_DEPENDENTS = 50


def mount(site: Site) -> None:
    """Add the pages and the act."""
    platform = site.platform

    def listing(request: Request) -> Page:
        page = integer(request, "page", 1) or 1
        known = platform.resources("data-product")
        values = {
            "title": "Data products",
            "section": "data",
            "crumbs": [("Data", "/data"), ("Products", None)],
            "rows": [_row(platform, product) for product in known[(page - 1) * SIZE : page * SIZE]],
            "page": page,
            "size": SIZE,
            "total": len(known),
        }
        return Page("products.html", values)

    def one(request: Request) -> Page:
        name = request.path_params["name"]
        resource = platform.resource(Ref("data-product", name))
        found = platform.products.to_dict(name)
        stage = check_stage(found["stage"])
        page = integer(request, "page", 1) or 1
        values = {
            "title": found.get("label") or name,
            "section": "data",
            "crumbs": [("Data", "/data"), ("Products", "/data/products"), (name, None)],
            "resource": resource,
            "product": found,
            "since": instant(found.get("since")),
            "stages": STAGES,
            "next": NEXT[stage],
            "may": platform.principal.has(MAY["apply"]),
            "dependents": found["dependents"][(page - 1) * _DEPENDENTS : page * _DEPENDENTS],
            "live": sum(d["is_live"] for d in found["dependents"]),
            "page": page,
            "size": _DEPENDENTS,
            "total": len(found["dependents"]),
            "events": site.told(platform.events(ref=str(resource.ref), limit=15)),
        }
        return Page("product.html", values)

    def advance(request: Request, fields: Mapping[str, str]) -> Goto:
        name = request.path_params["name"]
        given = {
            key: value for key in ("reason", "replaced_by", "retires_on") if (value := fields.get(key, "").strip())
        }
        platform.advance_product(name, fields.get("stage", ""), force=fields.get("force") == "yes", **given)
        return Goto(ref_url(Ref("data-product", name)))

    site.page("/data/products", listing)
    site.page("/data/products/{name}", one)
    site.form("/data/products/{name}/advance", advance)


def _row(platform: Platform, product: Resource) -> dict[str, Any]:
    """Return a product with how it keeps its promises; one that cannot be measured says why."""
    try:
        return {"resource": product, **platform.products.to_dict(product.name), "error": ""}
    except FlyballError as error:
        stage = product.status.get("stage", "proposed")
        return {"resource": product, "stage": stage, "error": str(error), "levels": [], "dependents": [], "outputs": []}
