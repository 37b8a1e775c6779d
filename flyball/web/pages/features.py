"""`/features`: is what models see fresh, the same in serving as in training, and who uses it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.delivery.states import reason_of, state_of
from flyball.errors import FlyballError
from flyball.features.agreement import Agreement
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource
from flyball.ledger.versions import Version
from flyball.platform import MAY, Platform
from flyball.web.pages import figures
from flyball.web.pages.columns import small_counts, typical_of
from flyball.web.pages.histograms import histogram
from flyball.web.pages.lineage import states_of
from flyball.web.pages.looking import instant
from flyball.web.pages.site import Goto, Page, Site, integer, parameters

__all__ = ["mount"]

SIZE = 50
_VERSIONS = 20
_RUNS = 15
_STATES = ("declared", "deprecated", "disagrees", "failed", "fresh", "retired", "stale")


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def listing(request: Request) -> Page:
        page = integer(request, "page", 1) or 1
        given = parameters(request, "q", "state", "owner", "tag")
        wanted = (lambda view: _is_asked_for(view, given)) if given else None
        words = [*given.get("q", "").split(), *(given[name] for name in ("owner", "tag") if name in given)]
        found = platform.view_page((max(page, 1) - 1) * SIZE, SIZE, wanted, words)
        values = {
            "title": "Features",
            "section": "features",
            "crumbs": [("Features", None)],
            "fields": [
                {"name": "q", "label": "Name, feature, entity", "value": given.get("q")},
                {"name": "state", "label": "State", "value": given.get("state"), "options": _STATES},
                {"name": "owner", "label": "Owner", "value": given.get("owner"), "options": found.owners},
                {"name": "tag", "label": "Tag", "value": given.get("tag"), "options": found.tags},
            ],
            "is_filtered": bool(given),
            "rows": [_row(platform, view) for view in found.views],
            "page": page,
            "size": SIZE,
            "total": found.total,
            "services": [_service(platform, one) for one in platform.resources("feature-service")[:SIZE]],
        }
        return Page("features.html", values)

    def one(request: Request) -> Page:
        return _view_page(site, platform.resource(Ref("feature-view", request.path_params["name"])), request)

    def service(request: Request) -> Page:
        found = platform.resource(Ref("feature-service", request.path_params["name"]))
        values = {
            "title": found.name,
            "section": "features",
            "crumbs": [("Features", "/features"), (found.name, None)],
            "events": site.told(platform.events(ref=str(found.ref), limit=12)),
            **_service(platform, found),
        }
        return Page("feature_service.html", values)

    def deprecate(request: Request, fields: Mapping[str, str]) -> Goto:
        name = request.path_params["name"]
        platform.deprecate_view(name, fields.get("reason", ""), fields.get("successor", "").strip() or None)
        return Goto(f"/features/{name}")

    def retire(request: Request, fields: Mapping[str, str]) -> Goto:
        name = request.path_params["name"]
        platform.retire_view(name, fields.get("reason", ""), fields.get("successor", "").strip() or None)
        return Goto(f"/features/{name}")

    site.page("/features", listing)
    site.page("/feature-services/{name}", service)
    site.form("/features/{name}/deprecate", deprecate)
    site.form("/features/{name}/retire", retire)
    site.page("/features/{name}", one)
    site.page("/features/{name}/{version}", one)


def _is_asked_for(view: Resource, given: Mapping[str, str]) -> bool:
    spec, definition = view.spec, view.spec["definition"]
    if given.get("state") not in (None, state_of(view)) or given.get("owner") not in (None, spec.get("owner")):
        return False
    if given.get("tag") and given["tag"] not in spec.get("tags", ()):
        return False
    names = [*definition.get("entity", ()), *definition.get("features", ()), *definition.get("outputs", ())]
    hay = " ".join([view.name, spec.get("description", ""), spec.get("dataset") or "", *names]).lower()
    return all(part in hay for part in given.get("q", "").lower().split())


def _row(platform: Platform, view: Resource) -> dict[str, Any]:
    """Return what the list says of a view."""
    last: Mapping[str, Any] = view.status.get("measured") or {}
    return {
        "view": view,
        "state": state_of(view),
        "definition": view.spec["definition"],
        "is_function": "on_request" in view.spec["definition"],
        "measured": last,
        "measured_at": instant(last.get("at")),
        "used_by": _users(platform, view.name),
    }


def _users(platform: Platform, name: str) -> list[Ref]:
    """Return the deployments and services that use a view, each once."""
    return list(dict.fromkeys(use.user for use in platform.feature_users(name)))


def _view_page(site: Site, view: Resource, request: Request) -> Page:
    platform, name = site.platform, view.name
    definition = view.spec["definition"]
    is_function = "on_request" in definition
    number = request.path_params.get("version")
    shown = platform.version(Ref("feature", name, number)) if number else _newest(platform, name)
    page = integer(request, "page", 1) or 1
    versions = platform.versions("feature", name, limit=page * _VERSIONS + 1)
    last: Mapping[str, Any] = view.status.get("measured") or {}
    masks, unseen = _masks(platform, name)
    features = _features(platform, view, shown, frozenset(masks))
    chosen = next((f for f in features if f["name"] == request.query_params.get("feature")), None)
    graph = platform.lineage(shown.ref if shown else view.ref, depth=4, limit=80)
    values = {
        "title": shown.ref.short if number and shown else name,
        "section": "features",
        "crumbs": [("Features", "/features"), *([(name, f"/features/{name}")] if number else []),
                   (f"version {number}" if number else name, None)],
        "view": view,
        "state": state_of(view),
        "reason": reason_of(view),
        "failure_at": instant((view.status.get("failure") or {}).get("at")),
        "retired": view.spec.get("retired"),
        "definition": definition,
        "is_function": is_function,
        "text": platform.view_text(name),
        "features": features,
        "chosen": chosen,
        "shown": shown,
        "measured": last,
        "measured_at": instant(last.get("at")),
        "conditions": [
            {"name": n, "since": instant(c.get("since")), "summary": c.get("summary", n)}
            for n, c in view.status.get("conditions", {}).items()
        ],
        "unseen": unseen,
        "compared": _compared(platform, name) if request.query_params.get("compare") else None,
        "covered": sorted(masks),
        "uses": platform.feature_users(name),
        "models": _models(platform, view),
        "services": [s for s in platform.resources("feature-service") if _pins(s, name)],
        "versions": versions[(page - 1) * _VERSIONS : page * _VERSIONS],
        "more": len(versions) > page * _VERSIONS,
        "page": page,
        "size": _VERSIONS,
        "runs": platform.runs(of=str(view.ref), kind="materialisation", limit=_RUNS),
        "may": platform.principal.has(MAY["apply"]),
        "lineage": figures.graph(graph, states_of(platform, graph)) if graph.edges else None,
        "events": site.told(platform.events(ref=str(view.ref), limit=12)),
    }  # fmt: skip
    return Page("feature.html", values)


def _newest(platform: Platform, name: str) -> Version | None:
    return next(iter(platform.versions("feature", name, limit=1)), None)


def _masks(platform: Platform, name: str) -> tuple[Mapping[str, Any], str]:
    """Return how columns are hidden from the reader, and why nothing may be shown at all, if so."""
    try:
        return platform.view_masks(name), ""
    except FlyballError as error:
        return {}, str(error)


def _features(
    platform: Platform, view: Resource, shown: Version | None, covered: frozenset[str]
) -> list[dict[str, Any]]:
    """Return each feature with its type, origin, null rates and how its stored values lie, where those may be seen."""
    definition = view.spec["definition"]
    measured = (view.status.get("measured") or {}).get("features", {})
    types = definition.get("features") or dict.fromkeys(definition.get("outputs", ()), "computed in the request")
    try:
        profile = platform.profile(shown.ref) if shown else None
        _, unseen = _masks(platform, view.name)
    except FlyballError:
        profile, unseen = None, ""
    found = []
    for name, dtype in types.items():
        column = profile.columns.get(name) if profile is not None and not unseen else None
        column = column.without_values() if column is not None and name in covered else column
        found.append(
            {
                "name": name,
                "type": dtype,
                "default": definition.get("defaults", {}).get(name),
                "measured": measured.get(name),
                "column": column,
                "counts": small_counts(column),
                "typical": typical_of(column),
                "made_of": view.status.get("columns", {}).get(name, []),
                "histogram": _histogram(column),
            }
        )
    return found


def _histogram(column: Any) -> dict[str, Any] | None:
    """Return a stored column's values as a chart; None where there is nothing to draw."""
    if column is None or column.hidden:
        return None
    if column.bars is not None:
        counts = [0.0, *column.bars.counts, 0.0, float(column.nulls)]
        return _alone(histogram({"edges": list(column.bars.edges), "counts": counts}, None))
    if not column.top:
        return None
    names, counts = [str(value) for value, _ in column.top], [float(count) for _, count in column.top]
    rest = max(column.rows - column.nulls - sum(counts), 0.0)
    return _alone(histogram({"names": names, "counts": [*counts, rest, float(column.nulls)]}, None))


def _alone(chart: dict[str, Any]) -> dict[str, Any]:
    """Return a histogram that has nothing beside it, and so needs no names."""
    return {key: value for key, value in chart.items() if key != "live"}


def _compared(platform: Platform, name: str) -> dict[str, Any]:
    """Return a comparison made now, or the sentence that says why there is none."""
    try:
        found: Agreement = platform.agreement(name)
    except FlyballError as error:
        return {"reason": str(error)}
    examples = [{"feature": n, **e} for n, feature in found.features.items() for e in feature.examples]
    return {"found": found, "examples": examples, "reason": ""}


def _models(platform: Platform, view: Resource) -> list[Ref]:
    """Return the versions of models that were made with the view, by lineage."""
    graph = platform.lineage(view.ref, "downstream", depth=4, limit=300)
    return [ref(node) for node in graph.nodes if node.startswith("model/")][:_VERSIONS]


def _pins(service: Resource, view: str) -> bool:
    return any(ref(str(pinned["view"]), "feature-view").name == view for pinned in service.spec["views"])


def _service(platform: Platform, service: Resource) -> dict[str, Any]:
    """Return a service with its views: whether each is still what was pinned."""
    views = []
    for pinned in service.spec["views"]:
        name = ref(str(pinned["view"]), "feature-view").name
        try:
            now = platform.resource(Ref("feature-view", name)).spec
            same = now.get("version", now["definition"].get("version", 1)) == pinned["version"]
            is_same = same and now.get("digest") in (None, pinned["digest"])
        except FlyballError:
            is_same = False
        views.append({**pinned, "name": name, "state": "same" if is_same else "moved on"})
    users = [user for user in platform.referrers(service.ref) if user.kind == "deployment"]
    return {"service": service, "views": views, "users": users}
