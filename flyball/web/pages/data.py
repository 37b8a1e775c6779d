"""`/data`: the catalogue of datasets, one dataset, one version, and what was quarantined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.errors import NotFound
from flyball.ledger.refs import Ref
from flyball.ledger.versions import Version
from flyball.platform import Platform
from flyball.web.pages import figures
from flyball.web.pages.lineage import states_of
from flyball.web.pages.site import Page, Site, integer

__all__ = ["mount"]

SIZE = 50
_PREVIEW_ROWS = 20
_LONG_CELL = 80  # characters of a cell that the preview shows


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def catalogue(request: Request) -> Page:
        page = integer(request, "page", 1) or 1
        datasets = platform.resources("dataset")
        shown = datasets[(page - 1) * SIZE : page * SIZE]
        rows = []
        for dataset in shown:
            good = _newest(platform, "dataset", dataset.name)
            aside = _newest(platform, "quarantine", dataset.name)
            rows.append({"dataset": dataset, "newest": good, "quarantine": aside, "state": _standing(good, aside)})
        values = {"title": "Data", "section": "data", "crumbs": [("Data", None)], "rows": rows, "page": page}
        return Page("datasets.html", {**values, "size": SIZE, "total": len(datasets)})

    def one(request: Request) -> Page:
        name = request.path_params["name"]
        dataset = platform.resource(Ref("dataset", name))
        page = integer(request, "page", 1) or 1
        versions = platform.versions("dataset", name, limit=page * SIZE + 1)
        aside = platform.versions("quarantine", name, limit=20)
        newest = versions[0] if versions else None
        report = newest.metadata.get("contract") if newest else None
        graph = platform.lineage(newest.ref if newest else dataset.ref, depth=4, limit=60)
        values = {
            "title": name,
            "section": "data",
            "crumbs": [("Data", "/data"), (name, None)],
            "dataset": dataset,
            "state": _standing(newest, aside[0] if aside else None),
            "newest": newest,
            "report": report,
            "schema": _schema(newest),
            "versions": versions[(page - 1) * SIZE : page * SIZE],
            "more": len(versions) > page * SIZE,
            "page": page,
            "size": SIZE,
            "quarantine": aside,
            "aliases": platform.aliases("dataset", name),
            "lineage": figures.graph(graph, states_of(platform, graph)),
            "events": site.told(platform.events(ref=str(dataset.ref), limit=12)),
        }
        return Page("dataset.html", values)

    def version(request: Request) -> Page:
        name, number = request.path_params["name"], request.path_params["version"]
        return _version_page(site, platform.version(Ref("dataset", name, number)))

    def quarantined(request: Request) -> Page:
        name, _, number = request.path_params["target"].partition("@")
        return _version_page(site, platform.version(Ref("quarantine", name, number or "latest")))

    site.page("/data", catalogue)
    site.page("/data/quarantine/{target}", quarantined)
    site.page("/data/{name}", one)
    site.page("/data/{name}/{version}", version)


def _version_page(site: Site, version: Version) -> Page:
    """Return the page of a version of a dataset or of a quarantine: its rules, its schema, its first rows."""
    platform = site.platform
    head = platform.frame(version.ref).head(_PREVIEW_ROWS).collect()
    rows = [[_cell(value) for value in row] for row in head.iter_rows()]
    is_aside = version.kind == "quarantine"
    graph = platform.lineage(version.ref, depth=6, limit=80)
    values = {
        "title": str(version.ref) if is_aside else version.ref.short,
        "section": "data",
        "crumbs": [("Data", "/data"), (version.name, f"/data/{version.name}"), (version.ref.short, None)],
        "made": version,
        "is_aside": is_aside,
        "report": version.metadata.get("contract"),
        "schema": _schema(version),
        "columns": head.columns,
        "rows": rows,
        "lineage": figures.graph(graph, states_of(platform, graph)),
        "events": site.told(platform.events(ref=str(version.ref), limit=12)),
    }
    return Page("dataset_version.html", values)


def _newest(platform: Platform, kind: str, name: str) -> Version | None:
    return next(iter(platform.versions(kind, name, limit=1)), None)


def _standing(good: Version | None, aside: Version | None) -> str:
    """Return the state of a dataset in a word: what became of its newest batch."""
    if aside is not None and (good is None or good.created_at < aside.created_at):
        return "quarantined"
    if good is None:
        return "declared"
    report: Mapping[str, Any] | None = good.metadata.get("contract")
    if report is None:
        return "not checked"
    return "passed" if report.get("passed") else "split"


def _schema(version: Version | None) -> dict[str, Any]:
    found = version.metadata.get("schema", {}) if version else {}
    if not isinstance(found, Mapping):
        raise NotFound(f"{version.ref if version else 'the dataset'} does not say what its columns are")
    return dict(found)


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _LONG_CELL else text[: _LONG_CELL - 1] + "…"
