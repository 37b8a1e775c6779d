"""`/lineage/REF`: what something was made of and what was made of it, as a picture and as a list."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request

from flyball.errors import FlyballError
from flyball.ledger.lineage import Graph
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import Version
from flyball.platform import Platform
from flyball.web.formats import state_tone
from flyball.web.pages import batches, figures
from flyball.web.pages.column_lineage import column_graph, has_columns
from flyball.web.pages.site import Page, Site, parameters

__all__ = ["labels_of", "mount", "states_of"]

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
        given = parameters(request, "way", "columns", "column", "indirect")
        way = _WAYS.get(given.get("way", "both"), "both")
        by_column = "columns" in given or "column" in given
        found = platform.lineage(target, way, limit=_NODES)
        external = _version(platform, target) if target.kind == "external" else None
        values = {
            "title": f"Lineage of {target.short}",
            "section": None,
            "crumbs": [(target.kind.capitalize(), None), (target.short, None)],
            "target": target,
            "is_newest": target != asked and target.version is not None and asked.version is None,
            "way": way,
            "found": found,
            "graph": figures.graph(found, states_of(platform, found), labels_of(platform, found)),
            "by_column": by_column,
            "columns": (
                column_graph(platform, target, given.get("column"), indirect="indirect" in given) if by_column else None
            ),
            "column": given.get("column"),
            "indirect": "indirect" in given,
            "has_columns": target.version is not None and has_columns(platform, target),
            "external": external.metadata if external else None,
            "upstream": _side(platform, target, "upstream"),
            "downstream": _side(platform, target, "downstream"),
            "has_page": target.kind in _WITH_PAGES,
        }
        return Page("lineage.html", values)

    site.page("/lineage/{kind}/{name}", lineage)


_WITH_PAGES = frozenset(
    {"alert", "data-product", "dataset", "deployment", "feature-view", "labels", "model", "monitor", "pipeline"}
    | {"quarantine", "run", "trigger"}
)
_VERSIONED = ("dataset", "external", "feature", "labels", "model", "quarantine")


def states_of(platform: Platform, found: Graph) -> dict[str, tuple[str, str]]:
    """Return (word, tone) of the nodes that have a state: how runs ended, models' aliases, what contracts said."""
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
            elif node.kind in ("dataset", "quarantine") and node.version:
                word = batches.verdict(platform.version(node))
        except FlyballError:
            word = "deleted"
        if word:
            states[name] = (word, state_tone(word))
    return states


def labels_of(platform: Platform, found: Graph) -> dict[str, str]:
    """Return what others call the tables and jobs of theirs that are in a graph; ours are called by their reference."""
    labels: dict[str, str] = {}
    for name in list(found.nodes)[:_ASKED]:
        node = ref(name)
        try:
            if node.kind == "external":
                labels[name] = str(platform.version(node).metadata.get("name", ""))[:60]
            elif node.kind == "run" and (run := platform.run(node.name)).kind == "external":
                labels[name] = run.name[:60]
        except FlyballError:
            continue  # deleted; states_of says so
    return labels


def _version(platform: Platform, target: Ref) -> Version | None:
    try:
        return platform.version(target)
    except FlyballError:
        return None


def _resolved(platform: Platform, asked: Ref) -> Ref:
    """Return the reference as edges hold it: runs by their whole id, versions by their number."""
    try:
        if asked.kind == "run":
            return platform.run(asked.name).ref
        if asked.kind in _VERSIONED:
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
