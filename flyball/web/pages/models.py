"""`/models`: which version is best and may serve, why, and what each version is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.delivery.states import reason_of
from flyball.errors import FlyballError
from flyball.ledger.refs import Ref, ref, shown_name
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.models.bundle import read_manifest
from flyball.platform import MAY, Platform
from flyball.web.formats import ref_url
from flyball.web.pages import figures
from flyball.web.pages.lineage import states_of
from flyball.web.pages.looking import serving_versions
from flyball.web.pages.model_notes import about_model, about_version, mount_forms, name_in
from flyball.web.pages.site import Goto, Page, Site, integer

__all__ = ["mount"]

SIZE = 50
_METRIC_COLUMNS = 4


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def registry(request: Request) -> Page:
        page = integer(request, "page", 1) or 1
        models = platform.resources("model")
        serving = _serving(platform)
        rows = []
        for model in models[(page - 1) * SIZE : page * SIZE]:
            aliases = platform.aliases("model", model.name)
            registered = platform.model(shown_name(model.name))
            decided: Mapping[str, Any] = model.status.get("decided", {})
            newest = max(decided, key=int) if decided else None
            rows.append(
                {
                    "model": model,
                    "registered": registered,
                    "newest": max((v.number for v in registered.latest), default=None),
                    "aliases": {a: Ref("model", model.name, str(n)) for a, n in aliases.items()},
                    "decision": _outcome(decided[newest]) if newest else None,
                    "decided": Ref("model", model.name, newest) if newest else None,
                    "serves": [d for d, versions in serving.items() if any(v.name == model.name for v in versions)],
                    "quality": _deciding(platform, model.name, aliases.get("champion")),
                }
            )
        values = {"title": "Models", "section": "models", "crumbs": [("Models", None)], "rows": rows}
        return Page("models.html", {**values, "page": page, "size": SIZE, "total": len(models)})

    def one(request: Request) -> Page:
        name = name_in(request)
        model = platform.resource(Ref("model", name))
        page = integer(request, "page", 1) or 1
        versions = platform.versions("model", name, limit=page * SIZE + 1)
        shown = versions[(page - 1) * SIZE : page * SIZE]
        decided: Mapping[str, Any] = model.status.get("decided", {})
        blocked = str(model.status.get("blocked", ""))
        values = {
            "title": shown_name(name),
            "section": "models",
            "crumbs": [("Models", "/models"), (shown_name(name), None)],
            "model": model,
            "about": about_model(platform, name),
            "reason": reason_of(model),
            "waiting": _waiting(model, versions) if "waits for a person" in blocked else None,
            "request": next((case.request for case in platform.requests(name, ["open"], 1)), None),
            "stages": platform.stages(name),
            "versions": [
                {"version": v, "decision": (d := decided.get(str(v.number))), "state": _outcome(d)} for v in shown
            ],
            "metrics": _metrics(shown),
            "more": len(versions) > page * SIZE,
            "page": page,
            "size": SIZE,
            "aliases": {shown_name(a): n for a, n in platform.aliases("model", name).items()},
            "history": [c._replace(alias=shown_name(c.alias)) for c in reversed(platform.alias_changes("model", name))][
                :40
            ],
            "serving": {d: v for d, v in _serving(platform).items() if any(one.name == name for one in v)},
            "notices": platform.products.notices(ref=model.ref),
            "events": site.told(platform.events(ref=str(model.ref), limit=15)),
        }
        return Page("model.html", values)

    def version(request: Request) -> Page:
        name, number = name_in(request), request.path_params["version"]
        found = platform.version(Ref("model", name, number))
        model = platform.resource(Ref("model", name))
        metadata = found.metadata
        graph = platform.lineage(found.ref, depth=8, limit=120)
        blocked = str(model.status.get("blocked", ""))
        aliases = {shown_name(alias): n for alias, n in platform.aliases("model", name).items()}
        decision = model.status.get("decided", {}).get(str(found.number))
        values = {
            "title": found.ref.short,
            "section": "models",
            "crumbs": [
                ("Models", "/models"),
                (shown_name(name), ref_url(model.ref)),
                (f"version {found.number}", None),
            ],
            "made": found,
            "about": about_version(platform, name, found.number),
            "aliases": aliases,
            "decision": decision,
            "state": next((a for a, n in aliases.items() if n == found.number), _outcome(decision)),
            "is_waiting": "waits for a person" in blocked and f"{found.ref.short} " in blocked,
            "metrics": metadata.get("evaluation", {}).get("metrics", {}),
            "evaluation": metadata.get("evaluation"),
            "comparison": metadata.get("comparison"),
            "signature": metadata.get("signature", {}),
            "bundle": _bundle(platform, found) if "source" not in metadata else None,
            "supply": platform.supply_of(found.ref) if "source" not in metadata else None,
            **_life(platform, found),
            "trained_on": metadata.get("trained_on"),
            "serving": [d for d, versions in _serving(platform).items() if found.ref in versions],
            "lineage": figures.graph(graph, states_of(platform, graph)),
            "events": site.told(platform.events(ref=str(found.ref), limit=15)),
        }
        return Page("model_version.html", values)

    def approve(request: Request, fields: Mapping[str, str]) -> Goto:
        name = name_in(request)
        platform.approve(Ref("model", name, fields.get("version") or "latest"))
        return Goto(f"/models/{name}")

    site.page("/models", registry)
    site.page("/models/{name}", one)
    site.page("/models/{name}/{version}", version)
    site.form("/models/{name}/approve", approve)
    mount_forms(site)


def _life(platform: Platform, version: Version) -> dict[str, Any]:
    """Return where a version stands in its life, and what is asked of it."""
    asked = [case for case in platform.requests(version.name, limit=100) if case.request.ref == version.ref]
    return {
        "stages": [one.stage for one in platform.stages(version.name)],
        "stage": platform.stage_of(version.ref),
        "risk": platform.risk(version.ref),
        "asked": asked[:5],
        "may_promote": platform.principal.has(MAY["promote"]),
    }


def _serving(platform: Platform) -> dict[Ref, list[Ref]]:
    """Return, for each deployment, the versions that its traffic table names."""
    return {
        d.ref: list(dict.fromkeys(ref(v, "model") for v in serving_versions(d).values()))
        for d in platform.resources("deployment")
    }


def _outcome(decision: Mapping[str, Any] | None) -> str:
    """Return what was decided about a version in a word; which alias it got then is history."""
    if decision is None:
        return "not decided"
    return "refused" if decision["outcome"] == "refused" else "passed"


def _deciding(platform: Platform, name: str, champion: int | None) -> dict[str, Any] | None:
    """Return the deciding metric of the champion's evaluation with its name."""
    if champion is None:
        return None
    metadata = platform.version(Ref("model", name, str(champion))).metadata
    metric = metadata.get("metric")
    found = metadata.get("evaluation", {}).get("metrics", {}).get(metric)
    return {"metric": metric, **found} if found else None


def _metrics(versions: list[Version]) -> list[str]:
    """Return the metrics to show: the deciding one first."""
    names: list[str] = []
    for version in versions:
        decides = version.metadata.get("metric")
        names += [decides] if decides else []
    for version in versions:
        names += list(version.metadata.get("evaluation", {}).get("metrics", {}))
    return list(dict.fromkeys(names))[:_METRIC_COLUMNS]


def _waiting(model: Resource, versions: list[Version]) -> Version | None:
    """Return the version that the model's sentence says is waiting."""
    blocked = str(model.status.get("blocked", ""))
    return next((v for v in versions if blocked.startswith(f"{v.ref.short} ")), versions[0] if versions else None)


def _bundle(platform: Platform, version: Version) -> dict[str, Any]:
    """Return the bundle's files, or the sentence that says why it cannot be read."""
    try:
        manifest = read_manifest(platform.blobs, version.digest).manifest
    except FlyballError as error:
        return {"error": str(error), "files": {}, "packages": {}, "python": None}
    environment = manifest["environment"]
    return {
        "error": None,
        "files": manifest["files"],
        "packages": environment.get("packages", {}),
        "python": environment.get("python"),
    }
