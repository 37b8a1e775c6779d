"""Lineage edges in SQL, walked breadth first with one query a level."""

from __future__ import annotations

from itertools import starmap
from typing import Literal

from sqlalchemy import or_, select

from flyball.ledger.lineage import Edge, Graph
from flyball.ledger.refs import Ref
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import edges

__all__ = ["SqlLineage"]


class SqlLineage:
    """`Lineage` within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def link(self, source: Ref, target: Ref, role: str) -> bool:
        insert = self._session.insert(edges).values(source=str(source), target=str(target), role=role)
        added = insert.on_conflict_do_nothing().returning(edges.c.source)
        return self._session.connection.execute(added).one_or_none() is not None

    def walk(
        self,
        start: Ref,
        direction: Literal["upstream", "downstream", "both"] = "both",
        depth: int = 12,
        limit: int = 500,
    ) -> Graph:
        root = str(start)
        nodes: dict[str, int] = {root: 0}
        found: set[Edge] = set()
        is_cut = False
        # "both" walks each way on its own: a sibling made of the same source is neither cause nor effect of `start`.
        for way in ("upstream", "downstream") if direction == "both" else (direction,):
            level = [root]
            for distance in range(1, depth + 1):
                here, there = ("target", "source") if way == "upstream" else ("source", "target")
                new: list[str] = []
                for start_at in range(0, len(level), 400):
                    part = level[start_at : start_at + 400]
                    marks = ", ".join("?" for _ in part)
                    query = f"SELECT source, target, role FROM edges WHERE {here} IN ({marks}) ORDER BY {there}"
                    for edge in starmap(Edge, self._session.raw(query, part).fetchall()):
                        other = edge.source if way == "upstream" else edge.target
                        if other not in nodes:
                            if len(nodes) >= limit:
                                is_cut = True
                                continue
                            nodes[other] = distance
                            new.append(other)
                        found.add(edge)
                level = new
                if not level:
                    break
        return Graph(root, nodes, tuple(sorted(e for e in found if e.source in nodes and e.target in nodes)), is_cut)

    def around(self, node: Ref) -> list[Edge]:
        """Return the edges that touch a node."""
        text = str(node)
        query = select(edges).where(or_(edges.c.source == text, edges.c.target == text))
        return [Edge(r.source, r.target, r.role) for r in self._session.connection.execute(query)]
