"""`/data/labels`: what people say of items, how far they agree, and which items need somebody."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from flyball.errors import FlyballError
from flyball.ledger.refs import Ref
from flyball.platform import Platform
from flyball.web.pages.seeing import Sight, cell, sight_of
from flyball.web.pages.site import Page, Site, integer

__all__ = ["mount"]

SIZE = 25
_ITEMS = 25
_MOST_ITEMS = 1000  # open items that can be paged through
_MOST_LABELS = 200_000  # of which agreement is measured for a page: its intervals are drawn again 2,000 times
_VERSIONS = 15


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(request: Request) -> Page:
        page = integer(request, "page", 1) or 1
        known = platform.resources("labels")
        rows = [
            {"set": one, "newest": next(iter(platform.versions("labels", one.name, limit=1)), None)}
            for one in known[(page - 1) * SIZE : page * SIZE]
        ]
        values = {"title": "Labels", "section": "data", "crumbs": [("Data", "/data"), ("Labels", None)], "rows": rows}
        return Page("label_sets.html", {**values, "page": page, "size": SIZE, "total": len(known)})

    def one(request: Request) -> Page:
        name = request.path_params["name"]
        resource = platform.resource(Ref("labels", name))
        versions = platform.versions("labels", name, limit=_VERSIONS)
        dataset = str(resource.spec.get("dataset") or "").rpartition("/")[2].partition("@")[0]
        sight = sight_of(platform, dataset or name, resource.spec["key"], request)
        page = min(integer(request, "page", 1) or 1, _MOST_ITEMS // _ITEMS)
        agreement, why = _agreement(platform, name, versions[0].metadata.get("rows") if versions else None)
        items, why_no_items = _open_items(platform, name, sight, page)
        values = {
            "title": name,
            "section": "data",
            "crumbs": [("Data", "/data"), ("Labels", "/data/labels"), (name, None)],
            "resource": resource,
            "dataset": Ref("dataset", dataset) if dataset else None,
            "newest": versions[0] if versions else None,
            "versions": versions,
            "agreement": agreement,
            "why": why,
            "sight": sight,
            "items": items[:_ITEMS],
            "why_no_items": why_no_items,
            "page": page,
            "size": _ITEMS,
            "total": None if len(items) > _ITEMS else (page - 1) * _ITEMS + len(items),
            "events": site.told(platform.events(ref=str(resource.ref), limit=12)),
        }
        return Page("label_set.html", values)

    site.page("/data/labels", listing)
    site.page("/data/labels/{name}", one)
    site.page("/data/labels/{name}/{version}", one)


def _agreement(platform: Platform, name: str, rows: int | None) -> tuple[dict[str, Any] | None, str]:
    """Return how far labellers agree, or why that is not said."""
    if rows is None:
        return None, "There are no labels yet."
    if rows > _MOST_LABELS:
        return None, f"With {rows:,} labels this is measured on the command line: flyball labels agreement {name}"
    try:
        return platform.label_sets.agreement(name).to_dict(), ""
    except FlyballError as error:
        return None, str(error)


def _open_items(platform: Platform, name: str, sight: Sight, page: int) -> tuple[list[dict[str, Any]], str]:
    """Return the items of a page that need somebody and one more, hidden parts of their keys hidden."""
    try:
        found = platform.label_sets.open_items(name, page * _ITEMS + 1)
    except FlyballError as error:
        return [], str(error)
    key = [c for c in found.columns if c not in ("why", "labellers", "share", "said")]
    return [
        {**row, "item": [(c, "hidden" if sight.hides(c) else cell(row[c])) for c in key]}
        for row in found.slice((page - 1) * _ITEMS).iter_rows(named=True)
    ], ""
