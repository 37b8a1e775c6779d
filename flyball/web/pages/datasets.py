"""`/data/NAME` and `/data/NAME/VERSION`: what is in a table, whether it can be trusted, where it comes from.

A dataset whose name is a page of ours (`products`) stands at `/datasets/NAME`; every page here answers under both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.data.files import is_file_table
from flyball.data.kinds import DataProduct
from flyball.data.products.dependents import Dependent, outputs
from flyball.data.products.managing import Notice
from flyball.errors import FlyballError, NotFound
from flyball.governance.identity import Principal
from flyball.ledger.refs import Ref
from flyball.ledger.resources import Resource
from flyball.platform import Platform
from flyball.web.formats import ref_url
from flyball.web.pages import batches, figures, files
from flyball.web.pages.columns import columns_of, profile_of, schema_of
from flyball.web.pages.lineage import labels_of, states_of
from flyball.web.pages.seeing import head_of, sight_of, without
from flyball.web.pages.site import Page, Site, integer

__all__ = ["ADDRESSES", "dataset_of", "mount"]

ADDRESSES = ("/data", "/datasets")
SIZE = 20
_USES = 10
_COLUMNS = 60  # that the page of a dataset shows; the profile's page has them all
_HEAD = 8  # rows on the page of the dataset
_ROWS = 25  # rows on the page of a version
_VIEWER = Principal("user/anybody", "viewer")


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def one(request: Request) -> Page:
        name = request.path_params["name"]
        dataset = platform.resource(Ref("dataset", name))
        known = batches.batches_of(platform, name)
        shown, older = batches.page_of(platform, "dataset", name, integer(request, "before"), SIZE)
        newest = batches.newest(known) or next(iter(platform.versions("dataset", name, limit=1)), None)
        schema = schema_of(newest)
        sight = sight_of(platform, name, schema, request)
        profile, why_no_profile = profile_of(platform, newest, sight) if newest else (None, "")
        graph = platform.lineage(newest.ref if newest else dataset.ref, depth=4, limit=60)
        uses = platform.uses(dataset.ref)
        uses_page = integer(request, "uses", 1) or 1
        values = {
            "title": name,
            "section": "data",
            "crumbs": [("Data", "/data"), (name, None)],
            "base": ref_url(dataset.ref),
            "dataset": dataset,
            "state": batches.standing(known),
            "newest": newest,
            "batches": known,
            "history": batches.chart(known),
            "report": without(newest.metadata.get("contract"), sight) if newest else None,
            "rules": _rules(platform, name),
            "sight": sight,
            "columns": columns_of(platform, newest, dataset, sight, profile, _COLUMNS) if newest else [],
            "column_count": len(schema),
            "profile": profile,
            "why_no_profile": why_no_profile,
            "head": head_of(platform, newest.ref, sight, _HEAD) if newest else None,
            "files": files.thumbnails(platform, newest.ref, sight, 12, 0) if newest and is_file_table(schema) else None,
            "versions": [{"version": v, "word": batches.verdict(v)} for v in shown],
            "older": older,
            "is_first": "before" not in request.query_params,
            "uses": uses[(uses_page - 1) * _USES : uses_page * _USES],
            "uses_page": uses_page,
            "uses_size": _USES,
            "uses_total": len(uses),
            "quarantine": platform.held(name, limit=8),
            "products": _related(platform, dataset.ref, "data-product"),
            "labels": _related(platform, dataset.ref, "labels"),
            "policies": _policies(platform, name, schema),
            "notices": _notices(platform, dataset.ref),
            "probe": _probe(platform, name) if request.query_params.get("probe") else None,
            "aliases": platform.aliases("dataset", name),
            "lineage": figures.graph(graph, states_of(platform, graph), labels_of(platform, graph)),
            "events": site.told(platform.events(ref=str(dataset.ref), limit=12)),
        }
        return Page("dataset.html", values)

    def version(request: Request) -> Page:
        name, number = request.path_params["name"], request.path_params["version"]
        made = platform.version(Ref("dataset", name, number))
        dataset = dataset_of(platform, name)
        schema = schema_of(made)
        sight = sight_of(platform, name, schema, request)
        profile, why_no_profile = profile_of(platform, made, sight)
        graph = platform.lineage(made.ref, depth=6, limit=80)
        start = integer(request, "row", 0) or 0
        metadata = made.metadata
        values = {
            "title": made.ref.short,
            "section": "data",
            "crumbs": [("Data", "/data"), (name, ref_url(Ref("dataset", name))), (f"version {made.number}", None)],
            "base": ref_url(Ref("dataset", name)),
            "made": made,
            "word": batches.verdict(made),
            "aliases": platform.aliases("dataset", name),
            "report": without(metadata.get("contract"), sight),
            "sight": sight,
            "columns": columns_of(platform, made, dataset, sight, profile, _COLUMNS),
            "column_count": len(schema),
            "profile": profile,
            "why_no_profile": why_no_profile,
            "head": head_of(platform, made.ref, sight, _ROWS, start),
            "start": start,
            "size": _ROWS,
            "files": files.thumbnails(platform, made.ref, sight, _ROWS, start) if is_file_table(schema) else None,
            "sources": _sources(metadata.get("columns")),
            "lineage": figures.graph(graph, states_of(platform, graph), labels_of(platform, graph)),
            "events": site.told(platform.events(ref=str(made.ref), limit=12)),
        }
        return Page("dataset_version.html", values)

    for prefix in ADDRESSES:
        site.page(prefix + "/{name}", one)
        site.page(prefix + "/{name}/{version}", version)


def dataset_of(platform: Platform, name: str) -> Resource | None:
    """Return a dataset's declaration; None where it was deleted and its versions stayed."""
    try:
        return platform.resource(Ref("dataset", name))
    except NotFound:
        return None


def _rules(platform: Platform, name: str) -> dict[str, Any]:
    """Return the rules that hold for the next batch, or why they cannot be read."""
    try:
        contract = platform.datasets.agreements.of(name)
    except FlyballError as error:
        return {"error": str(error), "contract": None}
    return {"error": "", "contract": contract}


def _related(platform: Platform, target: Ref, kind: str) -> list[Resource]:
    return [platform.resource(found) for found in platform.referrers(target) if found.kind == kind]


def _notices(platform: Platform, target: Ref) -> list[Notice]:
    """Return what readers should know: a product that gives this dataset, or that it is made of, goes away."""
    stages = {str(p.status.get("stage")) for p in platform.resources("data-product")}
    if not stages & {"deprecated", "retired"}:
        return []
    found = {n.product: n for n in platform.products.notices(ref=target)}
    for product in _related(platform, target, "data-product"):
        stage = platform.products.stage(product.name)
        if stage in ("deprecated", "retired") and target in outputs(DataProduct.model_validate(product.spec)):
            status = product.status
            told = (status.get("since", ""), status.get("reason", ""))
            after = (status.get("replaced_by"), status.get("retires_on"))
            found[product.ref] = Notice(product.ref, stage, Dependent(target, "given by it", True), *told, *after)
    return list(found.values())


def _policies(platform: Platform, name: str, schema: Mapping[str, str]) -> dict[str, Any]:
    """Return what policies decide about a dataset: what a viewer is not shown, how long rows are kept, what for."""
    try:
        decision = platform.guard.decision(name, schema, _VIEWER)
        kept = {"retention": platform.guard.retention(name), "purposes": platform.guard.purposes(name)}
    except FlyballError as error:
        return {"error": str(error), "masks": [], "retention": None, "purposes": None, "refused": ""}
    masks = [(column, mask.how, mask.because) for column, mask in sorted(decision.masks.items())]
    return {"error": "", "masks": masks, **kept, "refused": decision.reason}


def _probe(platform: Platform, name: str) -> dict[str, Any]:
    try:
        return {"error": "", "found": platform.probe(name)}
    except FlyballError as error:
        return {"error": str(error), "found": None}


def _sources(columns: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return, by column of a version, the columns it was computed from and those that decided which rows there are."""
    found = []
    for name, origins in (columns or {}).items():
        by_way: dict[str, list[tuple[str, str]]] = {"direct": [], "indirect": []}
        for source, column, way in origins:
            by_way.setdefault(way, []).append((source, column))
        found.append({"name": name, **by_way})
    return found
