"""Who depends on a data product: what refers to it or to its outputs, and what was made of their versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flyball.data.kinds import DataProduct
from flyball.errors import NotFound
from flyball.ledger import Transaction
from flyball.ledger.refs import Ref
from flyball.ledger.refs import ref as parse_ref
from flyball.ledger.resources import Resource

__all__ = ["Dependent", "dependents", "outputs"]

_NEWEST_VERSIONS = 200  # of each output, whose lineage is walked
_MOST = 1000


@dataclass(frozen=True)
class Dependent:
    """One that would notice. `is_live`: it goes on needing the product; else it was made with it, and that is over."""

    ref: Ref
    how: str
    is_live: bool
    owner: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as pages and JSON take them."""
        return {"ref": str(self.ref), "how": self.how, "is_live": self.is_live, "owner": self.owner}


def outputs(spec: DataProduct) -> list[Ref]:
    """Return the datasets that are a product's outputs."""
    found = [parse_ref(port.dataset, "dataset").resource for port in spec.outputs if port.dataset]
    return list(dict.fromkeys(found))


def dependents(product: Resource, world: Transaction) -> list[Dependent]:
    """Return who depends on a product, live ones first; at most a thousand."""
    spec = DataProduct.model_validate(product.spec)
    given = outputs(spec)
    found: dict[Ref, Dependent] = {}
    for dependent in (*_referring(product.ref, given, world), *_made(given, world)):
        before = found.get(dependent.ref)
        if dependent.ref != product.ref and (before is None or (dependent.is_live and not before.is_live)):
            found[dependent.ref] = dependent
        if len(found) >= _MOST:
            break
    return sorted(found.values(), key=lambda d: (not d.is_live, d.ref))


def _referring(product: Ref, given: list[Ref], world: Transaction) -> Iterator[Dependent]:
    """Yield the resources whose spec leads to the product or its outputs, however far."""
    seen = {product, *given}
    queue = [product, *given]
    for target in queue:  # grows while it is walked
        for ref in world.resources.referrers(target):
            if ref in seen:
                continue
            resource = world.resources.get(ref.kind, ref.name)
            if ref.kind == "data-product" and not _takes(resource, target):
                continue
            seen.add(ref)
            queue.append(ref)
            yield Dependent(ref, f"refers to {target}", True, _owner(resource))


def _takes(product: Resource, target: Ref) -> bool:
    """Whether a product has the target as an input; that it gives the same dataset too makes nobody depend."""
    ports = DataProduct.model_validate(product.spec).inputs
    sources = [parse_ref(text, kind).resource for p in ports for text, kind in _sources(p.dataset, p.product)]
    return target in sources


def _sources(dataset: str | None, product: str | None) -> list[tuple[str, str]]:
    return [(text, kind) for text, kind in ((dataset, "dataset"), (product, "data-product")) if text]


def _made(given: list[Ref], world: Transaction) -> Iterator[Dependent]:
    """Yield the runs and models that were made of the outputs' versions, and the deployments that they serve in."""
    aliased: dict[tuple[str, str], set[str]] = {}
    for dataset in given:
        for version in world.versions.all(dataset.kind, dataset.name, _NEWEST_VERSIONS):
            graph = world.lineage.walk(version.ref, "downstream", limit=_MOST)
            for text, distance in graph.nodes.items():
                if distance == 0:
                    continue
                ref = parse_ref(text)
                how = f"made of {version.ref}"
                if ref.kind == "run":
                    yield from _run(ref, how, world)
                elif ref.kind == "deployment":
                    yield from _deployment(ref, graph.nodes, how, world)
                elif ref.version is not None and ref.resource not in given:
                    key = (ref.kind, ref.name)
                    if key not in aliased:
                        aliased[key] = {str(number) for number in world.versions.aliases(*key).values()}
                    try:
                        owner = world.versions.get(ref.kind, ref.name, ref.version).actor
                    except NotFound:
                        continue
                    yield Dependent(ref, how, ref.version in aliased[key], owner)


def _run(ref: Ref, how: str, world: Transaction) -> Iterator[Dependent]:
    try:
        run = world.runs.get(ref.name)
    except NotFound:  # deleted since
        return
    yield Dependent(ref, how.replace("made of", "uses"), not run.is_finished, run.actor)


def _deployment(ref: Ref, nodes: dict[str, int], how: str, world: Transaction) -> Iterator[Dependent]:
    resource = world.resources.find(ref.kind, ref.name)
    if resource is None:
        return
    variants = resource.status.get("serving", {}).get("variants", [])
    serves = any(f"model/{variant.get('version')}" in nodes for variant in variants)
    yield Dependent(ref, how.replace("made of", "serves a model of"), serves, _owner(resource))


def _owner(resource: Resource) -> str | None:
    owner = resource.spec.get("owner")
    return owner if isinstance(owner, str) else resource.owner
