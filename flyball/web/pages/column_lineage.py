"""Lineage of columns as a graph to draw: which columns of which versions one was computed from, and what came of it.

Versions that a query made keep, for each column, the columns that it was computed from (`direct`) and those that
decided which rows there are (`indirect`); here these are put together along the lineage of the versions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from flyball.errors import FlyballError
from flyball.ledger.refs import Ref, ref
from flyball.platform import Platform
from flyball.web.formats import link

__all__ = ["column_graph", "has_columns"]

_VERSIONS = 80  # around the one in question, whose columns are looked at
_NODES = 150

Node = tuple[str, str]  # a version's reference and a column
Edge = tuple[Node, Node, str]


def has_columns(platform: Platform, target: Ref) -> bool:
    """Return whether anything is known of where columns around a version come from."""
    return bool(_edges(platform, target))


def column_graph(platform: Platform, target: Ref, column: str | None, *, indirect: bool) -> dict[str, Any]:
    """Return `<fb-graph>`'s data of the columns that are connected with those of a version, or with one of them.

    Args:
        indirect: also the columns that only decided which rows there are.
    """
    edges = [edge for edge in _edges(platform, target) if indirect or edge[2] == "direct"]
    starts = sorted(
        {node for edge in edges for node in edge[:2] if node[0] == str(target) and column in (None, node[1])}
    )
    reached = _reached(starts, [(a, b) for a, b, _ in edges]) | _reached(starts, [(b, a) for a, b, _ in edges])
    nodes = sorted(reached)[:_NODES]
    kept = set(nodes)
    return {
        "focus": _id(starts[0]) if column is not None and starts else "",
        "nodes": [
            {"id": _id(node), "label": node[1], "kind": ref(node[0]).short, "tone": "", "state": "",
             "href": link(f"/lineage/{node[0]}", columns="1", column=node[1], indirect="1" if indirect else None)}
            for node in nodes
        ],
        "edges": [
            {"from": _id(a), "to": _id(b), "label": "" if way == "direct" else way}
            for a, b, way in edges
            if a in kept and b in kept
        ],
        "is_cut": len(reached) > _NODES,
        "empty": "No column of this version was computed by a query from others, and none was computed from them.",
    }  # fmt: skip


def _edges(platform: Platform, target: Ref) -> list[Edge]:
    found: list[Edge] = []
    for name in list(platform.lineage(target, limit=_VERSIONS).nodes):
        node = ref(name)
        if node.version is None or node.kind not in ("dataset", "feature"):
            continue
        try:
            columns: Mapping[str, Any] = platform.version(node).metadata.get("columns") or {}
        except FlyballError:
            continue  # deleted since: what it was made of went with it
        for column, origins in columns.items():
            found += [((str(source), str(of)), (name, column), str(way)) for source, of, way in origins]
    return found


def _reached(starts: Iterable[Node], pairs: Iterable[tuple[Node, Node]]) -> set[Node]:
    """Return the nodes that can be reached along the pairs, the starts among them."""
    onwards: dict[Node, list[Node]] = {}
    for source, target in pairs:
        onwards.setdefault(source, []).append(target)
    seen = set(starts)
    waiting = deque(seen)
    while waiting:
        for node in onwards.get(waiting.popleft(), ()):
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen


def _id(node: Node) -> str:
    return f"{node[0]}#{node[1]}"
