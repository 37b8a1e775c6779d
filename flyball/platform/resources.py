"""What is declared: resources, planning, applying, deleting, lineage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from flyball.ledger import kinds
from flyball.ledger.lineage import Graph
from flyball.ledger.refs import Ref, ref
from flyball.ledger.resources import Resource

if TYPE_CHECKING:
    from flyball.data.kinds import Dataset
    from flyball.delivery.documents import Document
    from flyball.delivery.plan import Plan

from flyball.platform.home import Home

__all__ = ["ResourceActs"]


class ResourceActs(Home):
    """What is declared: resources, planning, applying, deleting, lineage."""

    def resources(self, kind: str | None = None, labels: Mapping[str, str] | None = None) -> list[Resource]:
        """Return resources, of one kind or of all."""
        with self._reading() as world:
            return world.resources.all(kinds.kind_of(kind).word if kind else None, labels)

    def resource(self, target: str | Ref) -> Resource:
        """Return one resource. Raises NotFound."""
        found = self._ref(target)
        with self._reading() as world:
            return world.resources.get(found.kind, found.name)

    def referrers(self, target: str | Ref) -> list[Ref]:
        """Return the resources whose spec refers to a resource."""
        with self._reading() as world:
            return world.resources.referrers(self._ref(target))

    def plan(self, documents: Iterable[Document]) -> Plan:
        """Return what applying the documents would change. Raises InvalidInput."""
        from flyball.delivery.plan import make_plan

        with self._reading() as world:
            return make_plan(documents, world)

    def apply(self, documents: Iterable[Document]) -> Plan:
        """Make the documents so, all or nothing, and return what was changed. Raises InvalidInput, Conflict."""
        from flyball.delivery.plan import carry_out, make_plan

        given = list(documents)
        self._may("apply")
        for one in given:
            if one.kind == "dataset" and one.spec.get("contract") is not None:
                spec = kinds.validate(one.kind, one.name, one.spec)
                self.datasets.agreements.check_change(one.name, cast("Dataset", spec))
        with self._writing("apply") as world:
            plan = make_plan(given, world)
            carry_out(plan, world)
        return plan

    def declare(self, kind: str, name: str, **spec: Any) -> Resource:
        """Apply one resource given as fields."""
        from flyball.delivery.documents import Document

        word = kinds.kind_of(kind).word
        self.apply([Document(word, name, spec, source="declared in code")])
        return self.resource(Ref(word, name))

    def delete(self, target: str | Ref) -> list[Ref]:
        """Delete a resource and what it owns, or a finished run. Raises NotFound, Conflict."""
        found = self._ref(target)
        with self._writing("delete") as world:
            if found.kind == "run":
                run = world.runs.get(found.name)
                world.runs.delete(run.id)
                return [run.ref]
            return world.resources.delete(found.kind, found.name)

    def lineage(
        self,
        target: str | Ref,
        direction: Literal["upstream", "downstream", "both"] = "both",
        depth: int = 12,
        limit: int = 500,
    ) -> Graph:
        """Return the lineage graph around a reference."""
        with self._reading() as world:
            return world.lineage.walk(ref(str(target)), direction, depth, limit)
