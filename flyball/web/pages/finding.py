"""`/search` and `/card`: find anything by its words, and a card about whatever a reference names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from flyball.delivery.states import reason_of
from flyball.errors import FlyballError
from flyball.ledger import kinds
from flyball.ledger.refs import Ref, ref
from flyball.ledger.search import FILTERS, Found
from flyball.platform import Platform
from flyball.web.formats import link
from flyball.web.pages import batches
from flyball.web.pages.site import Page, Site

__all__ = ["mount"]

SIZE = 30
_TYPED = 12  # shown while one types


def mount(site: Site) -> None:
    """Add the pages."""
    platform = site.platform

    def search(request: Request) -> Page:
        words = request.query_params.get("q", "").strip()
        after = request.query_params.get("after") or None
        is_typing = request.headers.get("hx-request") == "true"
        found = Found(())
        exact: list[dict[str, Any]] = []
        if words:
            found = _typed(platform, words) if is_typing else _search(platform, words, after)
            exact = _exactly(platform, words[:200]) if after is None else []
        known = {str(one["target"]) for one in exact}
        values = {
            "title": "Search",
            "crumbs": [("Search", None)],
            "words": words[:1000],
            "exact": exact,
            "hits": [hit for hit in found.hits if str(hit.ref) not in known],
            "notes": found.notes,
            "after": after,
            "next": found.next,
            "filters": FILTERS,
            "kinds": [(kind, link("/search", q=f"{words} kind:{kind}")) for kind in _kinds(found)] if words else [],
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


def _search(platform: Platform, words: str, after: str | None) -> Found:
    """Return what has the words; where nothing has the whole words, what has words that begin so."""
    found = platform.search(words, SIZE, after)
    if found.hits or after is not None or not words[-1:].isalnum():
        return found
    begun = platform.search(f"{words}*", SIZE)
    notes = ("Nothing has the whole words; this has words that begin so.",) if begun.hits else ()
    return replace(begun, next=None, notes=(*found.notes, *notes))


def _typed(platform: Platform, words: str) -> Found:
    """Return the best few for what is being typed, whose last word may not be finished."""
    found = platform.search(words, _TYPED)
    if len(found.hits) == _TYPED or not words[-1:].isalnum():
        return found
    begun = platform.search(f"{words}*", _TYPED)
    hits = {str(hit.ref): hit for hit in (*found.hits, *begun.hits)}
    return replace(found, hits=tuple(hits.values())[:_TYPED])


def _kinds(found: Found) -> list[str]:
    """Return the kinds on the page, where there are several to choose from."""
    kinds = list(dict.fromkeys(hit.kind for hit in found.hits))
    return kinds if len(kinds) > 1 else []


def _exactly(platform: Platform, words: str) -> list[dict[str, Any]]:
    """Return what is named outright: a version such as late@2, a run by the beginning of its id."""
    found: list[dict[str, Any]] = []
    name, at, number = words.partition("@")
    if at:
        for kind in ("model", "dataset", "quarantine", "labels"):
            found += _version(platform, kind, name.rpartition("/")[2], number or "latest")
    identity = words.lower().removeprefix("run ").removeprefix("run/").strip()
    if len(identity) >= 4 and set(identity) <= set("0123456789abcdef"):
        try:
            run = platform.run(identity)
            found.append({"target": run.ref, "about": f"{run.kind} {run.name}, {run.status}"})
        except FlyballError:
            pass  # no run begins like this, or several do; then the rest of what was found stands alone
    return found


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
    if target.kind == "experiment":
        experiment = platform.experiment(target.name)
        told = {key: value for key, value in experiment.tags.items() if not key.startswith("mlflow.")}
        facts = {"name": experiment.name, **dict(list(told.items())[:3])}
        state = "deleted" if experiment.is_deleted else None
        return {"target": target, "state": state, "at": experiment.created_at, "facts": _few(facts), "sentence": None}
    if target.version is not None:
        version = platform.version(target)
        metadata = version.metadata
        facts = {k: metadata.get(k) for k in ("namespace", "name", "rows", "task", "flavor", "trained_on", "note")}
        metric = metadata.get("metric")
        interval = metadata.get("evaluation", {}).get("metrics", {}).get(metric) if metric else None
        if metric and interval:
            facts = {metric: f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]", **facts}
        aliases = [a for a, n in platform.aliases(version.kind, version.name).items() if n == version.number]
        state = aliases[0] if aliases else None
        if state is None and version.kind in ("dataset", "quarantine"):
            state = batches.verdict(version)
        return {"target": target, "state": state, "at": version.created_at, "facts": _few(facts), "sentence": None}
    if target.kind in {k.word for k in kinds.all_kinds()}:
        from flyball.delivery.states import state_of

        resource = platform.resource(target)
        facts = {k: resource.spec.get(k) for k in ("description", "model", "of", "start", "target", "function")}
        facts |= {k: resource.spec.get(k) for k in ("owner", "domain")} | {"stage": resource.status.get("stage")}
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
