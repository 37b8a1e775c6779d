"""Lineage: edges from what was used to what was made of it, walked both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from flyball.ledger.refs import Ref

__all__ = ["Edge", "Graph", "Lineage"]


class Edge(NamedTuple):
    """`source` went into `target`; the role says how: `trained on`, `published by`, `serves`."""

    source: str
    target: str
    role: str


@dataclass(frozen=True)
class Graph:
    """The part of the graph around a reference: its nodes by distance, and the edges between them."""

    root: str
    nodes: dict[str, int]
    edges: tuple[Edge, ...]
    is_cut: bool = False


class Lineage(Protocol):
    """Keeps the edges."""

    def link(self, source: Ref, target: Ref, role: str) -> bool:
        """Add an edge; False when it was there."""
        ...

    def walk(
        self,
        start: Ref,
        direction: Literal["upstream", "downstream", "both"] = "both",
        depth: int = 12,
        limit: int = 500,
    ) -> Graph:
        """Return what `start` was made of and what was made of it, at most `limit` nodes."""
        ...
