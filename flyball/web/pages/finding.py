"""`/search` and `/card`: find anything by a part of its name, and a card about whatever a reference names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from flyball.delivery.states import reason_of
from flyball.errors import FlyballError
from flyball.ledger import kinds
from flyball.ledger.refs import Ref, ref
from flyball.platform import Platform
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]

_FOUND = 30


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def search(request: Request) -> Page:
        words = request.query_params.get("q", "").strip()[:200]
        values = {
            "title": "Search",
            "crumbs": [("Search", None)],
            "words": words,
            "found": _search(platform, words) if words else [],
        }
        return Page("search.html", values)

    def card(request: Request) -> Page:
        text = request.query_params.get("ref", "")
        try:
            values = _card(platform, ref(text))
        except FlyballError as error:
            values = {"target": None, "sentence": str(error)}
        return Page("card.html", values, fragment=True)

    site.page("/search", search)
    site.page("/card", card)


def _search(platform: Platform, words: str) -> list[dict[str, Any]]:
    """Return what matches, resources first: each with its reference and a line about it."""
    needle = words.lower()
    found: list[dict[str, Any]] = []
    for resource in platform.resources():
        hay = f"{resource.ref} {resource.spec.get('description', '')} {' '.join(resource.labels.values())}".lower()
        if all(part in hay for part in needle.split()):
            found.append({"target": resource.ref, "about": resource.spec.get("description") or resource.kind})
    name, at, number = words.partition("@")
    if at:
        for kind in ("model", "dataset", "quarantine"):
            found += _version(platform, kind, name.rpartition("/")[2], number or "latest")
    identity = needle.removeprefix("run ").removeprefix("run/").strip()
    if len(identity) >= 4 and set(identity) <= set("0123456789abcdef"):
        try:
            run = platform.run(identity)
            found.append({"target": run.ref, "about": f"{run.kind} {run.name}, {run.status}"})
        except FlyballError:
            pass  # no run begins like this, or several do; then the rest of what was found stands alone
    for run in platform.runs(name=words, limit=10):
        found.append({"target": run.ref, "about": f"{run.kind} {run.name}, {run.status}"})
    return found[:_FOUND]


def _version(platform: Platform, kind: str, name: str, number: str) -> list[dict[str, Any]]:
    try:
        version = platform.version(Ref(kind, name, number))
    except FlyballError:
        return []
    return [{"target": version.ref, "about": f"version of {kind}/{name}"}]


def _card(platform: Platform, target: Ref) -> dict[str, Any]:
    """Return what a card shows: a state and a few facts. Raises NotFound and InvalidInput as the platform does."""
    if target.kind == "run":
        run = platform.run(target.name)
        facts: Mapping[str, Any] = {
            "kind": run.kind,
            "name": run.name,
            "of": run.of,
            **dict(list(run.metrics.items())[:3]),
        }
        return {
            "target": target,
            "state": run.status,
            "at": run.started_at,
            "facts": _few(facts),
            "sentence": run.error,
        }
    if target.version is not None:
        version = platform.version(target)
        metadata = version.metadata
        facts = {k: metadata.get(k) for k in ("rows", "task", "flavor", "trained_on", "note")}
        metric = metadata.get("metric")
        interval = metadata.get("evaluation", {}).get("metrics", {}).get(metric) if metric else None
        if metric and interval:
            facts = {metric: f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]", **facts}
        aliases = [a for a, n in platform.aliases(version.kind, version.name).items() if n == version.number]
        state = aliases[0] if aliases else None
        return {"target": target, "state": state, "at": version.created_at, "facts": _few(facts), "sentence": None}
    if target.kind in {k.word for k in kinds.all_kinds()}:
        from flyball.delivery.states import state_of

        resource = platform.resource(target)
        facts = {k: resource.spec.get(k) for k in ("description", "model", "of", "start", "target", "function")}
        return {
            "target": target,
            "state": state_of(resource),
            "at": resource.updated_at,
            "facts": _few(facts),
            "sentence": reason_of(resource),
        }
    events = platform.events(actor=str(target), limit=1) if target.kind == "user" else []
    return {"target": target, "state": None, "at": events[0].at if events else None, "facts": {}, "sentence": None}


def _few(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in (None, "", [])}
