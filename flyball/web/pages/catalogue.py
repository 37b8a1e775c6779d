"""`/data`: what data there is, found by its words, and whether it can be trusted."""

from __future__ import annotations

from collections import Counter
from typing import Any

from starlette.requests import Request

from flyball.delivery.states import state_of
from flyball.errors import FlyballError
from flyball.ledger.resources import Resource
from flyball.ledger.search import FILTERS, Hit
from flyball.platform import Platform
from flyball.web.formats import link
from flyball.web.pages import batches
from flyball.web.pages.site import Page, Site, parameters

__all__ = ["KINDS", "mount", "query_of"]

SIZE = 25
KINDS = ("dataset", "data-product", "labels")
_FACETS = ("kind", "domain", "owner", "tag")
_FACET_HITS = 1000  # of which facets count; more are told as "at least"
_FACET_VALUES = 12
_HELD = 10  # batches in quarantine that are counted
_MARKS = 10  # newest batches whose verdicts are shown beside a dataset


def mount(site: Site) -> None:
    """Add the page."""
    platform = site.platform

    def catalogue(request: Request) -> Page:
        given = parameters(request, "q", *FILTERS, "after")
        query = query_of(given)
        found = platform.search(query, SIZE, given.get("after"))
        counted = platform.search(query, _FACET_HITS)
        values = {
            "title": "Data",
            "section": "data",
            "crumbs": [("Data", None)],
            "given": given,
            "rows": [_row(platform, hit) for hit in found.hits],
            "notes": found.notes,
            "next": found.next,
            "total": len(counted.hits),
            "is_more": counted.next is not None,
            "facets": _facets(counted.hits, given, str(request.url.path) + "?" + request.url.query),
            "is_asked": bool(set(given) - {"after"}),
            "held": platform.held(state="held", limit=_HELD),
        }
        return Page("catalogue.html", values)

    site.page("/data", catalogue)


def query_of(given: dict[str, str]) -> str:
    """Return what the address asks for as a query of the search; without a kind, all that holds or describes data."""
    parts = [given.get("q", "")]
    if "kind" not in given:
        parts += [f"kind:{kind}" for kind in KINDS]
    parts += [
        f'{name}:"{value}"' for name in FILTERS if name != "is" and (value := given.get(name, "").replace('"', ""))
    ]
    return " ".join(["is:resource", *parts]).strip()


def _row(platform: Platform, hit: Hit) -> dict[str, Any]:
    """Return what the catalogue says of one entry; what was deleted since the index was asked has only its hit."""
    row: dict[str, Any] = {
        "hit": hit,
        "description": "",
        "state": "deleted",
        "newest": None,
        "batches": [],
        "count": None,
    }
    try:
        resource = platform.resource(hit.ref)
    except FlyballError:
        return row
    row["description"] = str(resource.spec.get("description") or resource.spec.get("label") or "")
    if hit.kind == "dataset":
        known = batches.batches_of(platform, hit.name, _MARKS)
        made = batches.newest(known)
        if made is None:  # everything newer than the last good version was kept aside
            made = next(iter(platform.versions("dataset", hit.name, limit=1)), None)
        return {**row, "state": batches.standing(known), "newest": made, "batches": known}
    if hit.kind == "labels":
        made = next(iter(platform.versions("labels", hit.name, limit=1)), None)
        return {**row, "state": "not checked" if made else "declared", "newest": made}
    return {**row, "state": _stage(resource)}


def _stage(resource: Resource) -> str:
    return str(resource.status.get("stage") or ("proposed" if resource.kind == "data-product" else state_of(resource)))


def _facets(hits: tuple[Hit, ...], given: dict[str, str], address: str) -> list[dict[str, Any]]:
    """Return the values by which what was found can be narrowed, with how many each leaves and where that leads."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in _FACETS}
    for hit in hits:
        counts["kind"][hit.kind] += 1
        counts["tag"].update(hit.tags)
        for name, value in (("domain", hit.domain), ("owner", hit.owner)):
            if value:
                counts[name][value] += 1
    found = []
    for name in _FACETS:
        values = [
            {"name": value, "count": count, "is_chosen": given.get(name) == value,
             "href": link(address, after=None, **{name: None if given.get(name) == value else value})}
            for value, count in sorted(counts[name].items(), key=lambda pair: (-pair[1], pair[0]))[:_FACET_VALUES]
        ]  # fmt: skip
        if len(values) > 1 or name in given:
            found.append({"name": name, "values": values})
    return found
