"""`/lineage/REF`: what something was made of and what was made of it, as a picture and as a list."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request

from flyball.errors import FlyballError
from flyball.ledger.lineage import Graph
from flyball.ledger.refs import Ref, ref
from flyball.platform import Platform
from flyball.web.formats import state_tone
from flyball.web.pages import figures
from flyball.web.pages.site import Page, Site

__all__ = ["mount", "states_of"]

_WAYS: dict[str, Literal["upstream", "downstream", "both"]] = {
    "both": "both",
    "upstream": "upstream",
    "downstream": "downstream",
}
_NODES = 200
_ASKED = 80  # nodes whose state is asked for; the rest stand without


def mount(site: Site) -> None:
    """Add the page."""
    platform = site.platform

    def lineage(request: Request) -> Page:
        asked = ref(f"{request.path_params['kind']}/{request.path_params['name']}")
        target = _resolved(platform, asked)
        way = _WAYS.get(request.query_params.get("way", "both"), "both")
        found = platform.lineage(target, way, limit=_NODES)
        values = {
            "title": f"Lineage of {target.short}",
            "section": None,
            "crumbs": [(target.kind.capitalize(), None), (target.short, None)],
            "target": target,
            "is_newest": target != asked and target.version is not None and asked.version is None,
            "way": way,
            "found": found,
            "graph": figures.graph(found, states_of(platform, found)),
            "upstream": _side(platform, target, "upstream"),
            "downstream": _side(platform, target, "downstream"),
            "has_page": target.kind in _WITH_PAGES,
        }
        return Page("lineage.html", values)

    site.page("/lineage/{kind}/{name}", lineage)


_WITH_PAGES = frozenset(
    {"alert", "dataset", "deployment", "feature-view", "model", "monitor", "pipeline", "quarantine", "run", "trigger"}
)


def states_of(platform: Platform, found: Graph) -> dict[str, tuple[str, str]]:
    """Return (word, tone) of the nodes that have a state: how runs ended, what models' aliases say."""
    states: dict[str, tuple[str, str]] = {}
    aliases: dict[str, dict[str, int]] = {}
    for name in list(found.nodes)[:_ASKED]:
        node = ref(name)
        word = ""
        try:
            if node.kind == "run":
                word = platform.run(node.name).status
            elif node.kind == "model" and node.version:
                if node.name not in aliases:
                    aliases[node.name] = platform.aliases("model", node.name)
                word = next((a for a, n in aliases[node.name].items() if str(n) == node.version), "")
        except FlyballError:
            word = "deleted"
        if word:
            states[name] = (word, state_tone(word))
    return states


def _resolved(platform: Platform, asked: Ref) -> Ref:
    """Return the reference as edges hold it: runs by their whole id, versions by their number."""
    try:
        if asked.kind == "run":
            return platform.run(asked.name).ref
        if asked.kind in ("model", "dataset", "quarantine"):
            return platform.version(asked).ref
    except FlyballError:
        return asked
    return asked


def _side(platform: Platform, target: Ref, way: Literal["upstream", "downstream"]) -> list[tuple[Ref, str, int]]:
    """Return what lies on one side, nearest first: the thing, how it is connected, how far it is."""
    found = platform.lineage(target, way, limit=_NODES)
    roles: dict[str, str] = {}
    for edge in found.edges:
        roles.setdefault(edge.source if way == "upstream" else edge.target, edge.role)
    return [(ref(name), roles.get(name, ""), far) for name, far in found.nodes.items() if far]
